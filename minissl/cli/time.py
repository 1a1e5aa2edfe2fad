"""``minissl time``: how long each layer takes, in every conv_mode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minissl.cli import options

if TYPE_CHECKING:
    from minissl.net import Net
    from minissl.timing import NetTime

#: Those of :data:`minissl.conv_modes.MODES`, written down so that --help need not load them.
MODES = (
    "LOWERED_GEMM", "LOWERED_CSRMM", "LOWERED_CCNMM", "DIRECT_SCONV", "DIRECT_DCONV", "WINOGRAD",
)  # fmt: skip

EPILOG = """
\b
Examples:
  minissl time --model lenet.prototxt --weights lenet.caffemodel --conv-mode all
  minissl time --model lenet.prototxt --batch-size 1,64 --threads 1,2 --plot times.svg
  minissl time --model lenet.prototxt --matrices matrixmarket/lenet --conv-mode auto --json
  minissl time --matrices matrixmarket/alexnet/0.54214_1.0e-3 --conv-mode all --threads 1

\b
Columns, in milliseconds for one batch (medians of interleaved rounds):
  lowering, product, rest   the stages of a convolution; total is the whole layer, with what is
                            fused to it ("in conv1"); --no-fuse times each layer by itself
  quartiles                 half of the rounds took a time between these two
  share %                   of the network, forward and backward
  GFLOP/s eff.              operations of the dense layer / time
  GFLOP/s real              operations that the mode executes / time
  % of peak                 of the dense products that are timed for comparison in the same run:
                            512 x 512 times 512 x 256 in every thread, the fastest of many
  predicted                 what the performance model says, with --conv-mode all or auto; its
                            constants are measured by 'minissl doctor --calibrate'
  speed-up                  LOWERED_GEMM's time / this time, of the product alone and of the
                            whole layer; published figures often give the product alone

A convolution of several conv groups is timed as a whole, and each group by itself in the rows
below it. Without --model, the layers of AlexNet and LeNet are recognised by the shapes of their
matrices. Several batch sizes or numbers of threads give one table for each, and with --json a list
'runs'.
"""


@click.command(epilog=EPILOG)
@click.option(
    "--model",
    type=options.MODEL,
    metavar="NET",
    help="The net, a prototxt; may be left out with --matrices.",
)
@options.weights_option(False, "Weights; without any, random dense ones are timed.")
@click.option(
    "--matrices",
    type=options.FILE,
    metavar="DIR",
    help="Folder of Matrix Market files LAYER.mtx or coo_LAYER.weight to take weights from.",
)
@click.option(
    "--conv-mode",
    type=click.Choice([*MODES, "all", "auto"]),
    metavar="MODE",
    help=f"{', '.join(MODES)} (of an inner product gemm_mode GEMM, SPMDM, CCNMM); all times each "
    "of them and compares with the performance model, auto times what the model picks for every "
    "layer.  [default: what the net says]",
)
@click.option(
    "--iterations", type=options.POSITIVE, default=50, show_default=True, help="Rounds to time."
)
@click.option("--backward", is_flag=True, help="Time the backward pass too (phase TRAIN).")
@click.option(
    "--plot", type=options.FILE, metavar="FILE", help="Draw the times: a .png, .svg or .pdf."
)
@options.data_option
@click.option(
    "--batch-size",
    "batch_sizes",
    type=options.Numbers("batch sizes", lowest=1),
    metavar="N[,N...]",
    help="Images in a batch, in place of the net's own number.",
)
@options.backend_option
@options.dtype_option
@click.option(
    "--threads",
    "thread_counts",
    type=options.Numbers("numbers of threads", lowest=1),
    metavar="N[,N...]",
    help="Number of threads.  [default: all cores]",
)
@options.fuse_option
@options.json_option
def command(
    model: Path | None,
    weights: Path | None,
    matrices: Path | None,
    conv_mode: str | None,
    iterations: int,
    backward: bool,
    plot: Path | None,
    data: str | None,
    batch_sizes: tuple[int, ...] | None,
    backend: str,
    dtype: str,
    thread_counts: tuple[int, ...] | None,
    fuse: bool,
    as_json: bool,
) -> None:
    """Time a network layer by layer, fed with random numbers.

    Data layers are listed but not timed, so no data set is needed. Times of sparse modes depend
    on which weights are zero: give --weights or --matrices.
    """
    if weights is not None and matrices is not None:
        raise click.UsageError("Give --weights or --matrices, not both.")
    if model is None and matrices is None:
        raise click.UsageError("Give --model, or --matrices of layers that are known.")
    _check_picture(plot)
    counts = thread_counts or (None,)
    for count in counts:  # all are possible, before the first is timed
        options.use_threads(count, backend)
    times, results = [], []
    phase = "TRAIN" if backward else "TEST"
    lowers = backward and conv_mode == "LOWERED_GEMM"
    nets = _Nets(model, weights, matrices, phase, backend, dtype, data, fuse, lowers)
    for size in batch_sizes or (None,):
        net = nets.open(size)
        for count in counts:
            timed, result = _time(net, nets, conv_mode, iterations, backward, count, as_json)
            times.append(timed)
            results.append(result)
    if as_json:
        options.show_json(results[0] if len(results) == 1 else {"runs": results})
    else:
        from minissl.cli import time_display

        time_display.show(results, times)
    if plot is not None:
        from minissl.report import pictures, time_pictures

        pictures.save(time_pictures.mode_times(results), plot)
        if not as_json:
            click.echo(f"picture: {plot}")


def _check_picture(plot: Path | None) -> None:
    """Refuse a picture that cannot be written, before anything is timed."""
    if plot is None:
        return
    if plot.suffix not in (".png", ".svg", ".pdf"):
        raise click.UsageError(f"--plot {plot}: end its name in .png, .svg or .pdf.")
    if not plot.parent.is_dir():
        raise click.UsageError(f"--plot {plot}: the folder {plot.parent} does not exist.")


class _Nets:
    """The network that is timed, built once for each batch size."""

    def __init__(
        self,
        model: Path | None,
        weights: Path | None,
        matrices: Path | None,
        phase: str,
        backend: str,
        dtype: str,
        data: str | None,
        fuse: bool,
        lowers: bool,
    ):
        from minissl import backend as backends
        from minissl import timing
        from minissl.formats.prototxt import read_net

        self.model, self.matrices, self.weights = model, matrices, weights
        self.phase, self.dtype, self.data, self.backend = phase, dtype, data, backend
        self.fuse = fuse
        self.backend_name = backends.name_of(backends.get(backend))
        self.values: Mapping[str, Any] | None = None
        self.used = "random"
        if model is not None:
            param: Any = read_net(model)
        else:
            assert matrices is not None
            recognised = timing.recognise_matrices(matrices)
            for sentence in recognised.skipped:
                options.note(sentence)
            param = recognised.net
        self.own = timing.own_modes(param)
        self.param = timing.without_modes(param)
        if lowers:
            timing.lower(self.param)

    def open(self, batch_size: int | None) -> Net:
        """Build the network for a batch size; its weights are read the first time."""
        from minissl import net_weights
        from minissl.net import Net

        net = Net(
            self.param,
            self.phase,
            self.backend,
            self.dtype,
            data=options.data_options(self.data, batch_size),
            fuse=self.fuse,
            lean=self.phase == "TRAIN",
        )
        if self.weights is None:
            net_weights.make_dense(net.layers, net.kernels)
        if self.values is not None:
            net.load(self.values)
        elif self.weights is not None or self.matrices is not None:
            self._take(net)
            self.values = {name: [*blobs] for name, blobs in net.weights().items()}
        return net

    def _take(self, net: Net) -> None:
        """Load the weights; say in words what is timed."""
        from minissl import timing

        if self.weights is not None:
            net.load(self.weights)
            self.used = str(self.weights)
        elif self.matrices is not None:
            found = timing.load_matrices(net, self.matrices)
            elsewhere = "; random elsewhere" if self.model else ""
            self.used = f"{self.matrices} ({', '.join(found)}{elsewhere})"


def _time(
    net: Net,
    nets: _Nets,
    conv_mode: str | None,
    iterations: int,
    backward: bool,
    threads: int | None,
    quiet: bool,
) -> tuple[NetTime, dict[str, Any]]:
    """Time the network once; return the measurements, and what is reported of them."""
    from minissl import timing

    threads = options.use_threads(threads, nets.backend)
    own = timing.modes_in(net, nets.own)
    asking = [
        name
        for name, mode in own.items()
        if timing.wants_choice(conv_mode, mode, timing.modes_of(net.layer(name)))
    ]
    choices = timing.predict_layers(net, asking)
    modes = timing.modes_to_time(conv_mode, own, net, choices)
    _check_backward(backward, modes, own)
    with options.progress("timing", iterations + 1, quiet=quiet) as tick:
        measured = timing.time_net(net, modes, iterations, backward, tick, groups=True, peak=True)
    if nets.model is None:  # the inputs of known layers are of no interest
        measured = [one for one in measured if one.timed]
    times = timing.choose(measured, conv_mode, own, choices)
    return times, {
        "threads": threads,
        "batch_size": _batch_of(net),
        "backend": nets.backend_name,
        "dtype": nets.dtype,
        "phase": net.phase,
        "iterations": iterations,
        "weights": nets.used,
        "fuse": bool(net.fused),
        "layers": [
            {
                **one.to_json(),
                "share_percent": times.share_percent(one),
                "predicted_ms": times.predicted_ms(one),
            }
            for one in times.layers
        ],
        "auto": [pick.to_json() for pick in times.picks],
        "calibrated": all(choice.calibrated for choice in choices.values()) if choices else None,
        "total_ms": times.total_ms,
        "totals": times.totals,
        "peak_gflops": measured[0].peak_gflops,
    }


def _check_backward(backward: bool, modes: dict[str, tuple[str, ...]], own: dict[str, str]) -> None:
    trains = {name: ("LOWERED_GEMM", mode) for name, mode in own.items()}
    if backward and any(mode not in trains[name] for name in modes for mode in modes[name]):
        raise click.UsageError(
            "--backward times training, which runs dense weights; leave --conv-mode out, or add "
            "--conv-mode LOWERED_GEMM to lower in every pass."
        )


def _batch_of(net: Net) -> int:
    """Return N, from the first blob of the network."""
    return next(iter(net.blobs.values())).shape[0]
