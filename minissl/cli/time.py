"""``minissl time``: how long each layer takes, in every conv_mode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minissl.cli import options

if TYPE_CHECKING:
    from minissl.net import Net
    from minissl.timing import LayerTime, NetTime

#: Those of :data:`minissl.conv_modes.MODES`, written down so that --help need not load them.
MODES = ("LOWERED_GEMM", "LOWERED_CSRMM", "LOWERED_CCNMM", "DIRECT_SCONV", "DIRECT_DCONV")

EPILOG = """
\b
Examples:
  minissl time --model lenet.prototxt --weights lenet.caffemodel --conv-mode all
  minissl time --model lenet.prototxt --batch-size 1 --threads 1
  minissl time --model lenet.prototxt --matrices matrixmarket/lenet --conv-mode auto --json

\b
Columns, in milliseconds for one batch (medians of interleaved rounds):
  lowering, product, rest   the stages of a convolution; total is the whole layer, with what is
                            fused to it ("in conv1"); --no-fuse times each layer by itself
  GFLOP/s eff.              operations of the dense layer / time
  GFLOP/s real              operations that the mode executes / time
  speed-up                  LOWERED_GEMM's time / this time, of the product alone and of the
                            whole layer; published figures often give the product alone
"""


@click.command(epilog=EPILOG)
@options.model_option
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
    "of them, auto times each and keeps the fastest for every layer.  [default: what the net says]",
)
@click.option(
    "--iterations", type=options.POSITIVE, default=50, show_default=True, help="Rounds to time."
)
@click.option("--backward", is_flag=True, help="Time the backward pass too (phase TRAIN).")
@options.data_option
@options.batch_size_option
@options.backend_option
@options.dtype_option
@options.threads_option
@options.fuse_option
@options.json_option
def command(
    model: Path,
    weights: Path | None,
    matrices: Path | None,
    conv_mode: str | None,
    iterations: int,
    backward: bool,
    data: str | None,
    batch_size: int | None,
    backend: str,
    dtype: str,
    threads: int | None,
    fuse: bool,
    as_json: bool,
) -> None:
    """Time a network layer by layer, fed with random numbers.

    Data layers are listed but not timed, so no data set is needed. Times of sparse modes depend
    on which weights are zero: give --weights or --matrices.
    """
    from minissl import backend as backends
    from minissl import timing
    from minissl.formats.prototxt import read_net
    from minissl.net import Net

    if weights is not None and matrices is not None:
        raise click.UsageError("Give --weights or --matrices, not both.")
    threads = options.use_threads(threads, backend)
    param = read_net(model)
    own = timing.own_modes(param)
    net = Net(
        timing.without_modes(param),
        "TRAIN" if backward else "TEST",
        backend,
        dtype,
        data=options.data_options(data, batch_size),
        fuse=fuse,
    )
    own = {layer.name: own[layer.name] for layer in net.layers if layer.name in own}
    modes = timing.modes_to_time(conv_mode, own, net)
    _check_backward(backward, modes)
    weights_used = _take_weights(net, weights, matrices)
    with options.progress("timing", iterations + 1, quiet=as_json) as tick:
        measured = timing.time_net(net, modes, iterations, backward, tick)
    times = timing.choose(measured, conv_mode, own)
    result = {
        "threads": threads,
        "batch_size": _batch_of(net),
        "backend": backends.name_of(net.kernels),
        "dtype": dtype,
        "phase": net.phase,
        "iterations": iterations,
        "weights": weights_used,
        "fuse": bool(net.fused),
        "layers": [one.to_json() for one in times.layers],
        "total_ms": times.total_ms,
        "totals": times.totals,
    }
    if as_json:
        options.show_json(result)
    else:
        _show(result, times)


def _check_backward(backward: bool, modes: dict[str, tuple[str, ...]]) -> None:
    if backward and any(mode != "LOWERED_GEMM" for several in modes.values() for mode in several):
        raise click.UsageError(
            "--backward times training, which runs LOWERED_GEMM; add --conv-mode LOWERED_GEMM."
        )


def _take_weights(net: Net, weights: Path | None, matrices: Path | None) -> str:
    """Load the weights; return what is timed, in words."""
    from minissl import timing

    if weights is not None:
        net.load(weights)
        return str(weights)
    if matrices is not None:
        found = timing.load_matrices(net, matrices)
        return f"{matrices} ({', '.join(found)}; random elsewhere)"
    return "random"


def _batch_of(net: Net) -> int:
    """Return N, from the first blob of the network."""
    return next(iter(net.blobs.values())).shape[0]


def _show(result: dict[str, Any], times: NetTime) -> None:
    """Print the table, with speed-ups where the baseline was timed as well."""
    backward = any(one.backward_ms is not None for one in times.layers)
    baseline = {one.name: one for one in times.measured if one.conv_mode == "LOWERED_GEMM"}
    compared = bool(times.totals)
    headings = ["layer", "type or mode", "lowering", "product", "rest", "total ms", "share %"]
    headings += ["eff.", "real GFLOP/s"]
    headings += ["backward"] if backward else []
    headings += ["x product", "x layer"] if compared else []
    rows = []
    for one in times.layers:
        row = [
            one.name,
            _kind(one),
            one.lowering_ms,
            one.product_ms,
            one.rest_ms,
            one.total_ms if one.timed and not one.fused_into else None,
            _share(one, times),
            one.effective_gflops,
            one.real_gflops,
        ]
        row += [one.backward_ms] if backward else []
        row += list(_speed_ups(one, baseline.get(one.name))) if compared else []
        rows.append(row)
    options.show_table(options.table(headings, rows, names=2))
    click.echo(
        f"total {times.total_ms:.4g} ms for a batch of {result['batch_size']}, "
        f"{result['threads']} threads, {result['backend']}, {result['dtype']}, "
        f"weights: {result['weights']}"
    )
    for mode, milliseconds in result["totals"].items():
        click.echo(f"  {mode:14} {milliseconds:9.4g} ms")
    if times.asked == "auto":
        click.echo("auto: every mode was measured, the fastest of each layer is shown")
    if result["weights"] == "random":
        click.echo("random dense weights: give --weights or --matrices to see what zeros save")


def _kind(one: LayerTime) -> str:
    """Return the mode or the type, and why a layer has no time of its own."""
    kind = one.conv_mode or one.type
    if one.fused_into:
        return f"{kind} (in {one.fused_into})"
    return kind if one.timed else f"{kind} (not timed)"


def _share(one: LayerTime, times: NetTime) -> str | None:
    """Return the percentage of the network's time, of what is part of it."""
    if not one.timed or one.fused_into or not times.counts(one) or not times.total_ms:
        return None
    return f"{100 * one.total_ms / times.total_ms:.1f}"


def _speed_ups(one: LayerTime, baseline: LayerTime | None) -> tuple[float | None, float | None]:
    """Return how many times faster than LOWERED_GEMM the product and the layer are."""
    if baseline is None or one.conv_mode is None:
        return None, None
    product = None
    if one.product_ms and baseline.product_ms:
        product = baseline.product_ms / one.product_ms
    return product, baseline.total_ms / one.total_ms if one.total_ms else None
