"""How long each layer takes, and each ``conv_mode`` of a convolution or an inner product.

All measurements of a network are interleaved: one round runs every layer once, and every mode and
stage of a layer one after the other, so that a disturbance of the machine hits all of them alike.
What is reported is the median over the rounds.

A layer with modes is a Convolution or an InnerProduct; the modes of an inner product go by the
``conv_mode`` that executes the product the same way (:mod:`minissl.conv_modes.inner_product`).

The stages of a convolution are lowering (im2col), the product (GEMM or its sparse counterpart) and
the rest (bias and scattering to filters, and the layers fused to it). Published speed-ups often
count the product alone. A direct mode has no stages; those of LOWERED_CCNMM are of its lowered
form, also where direct tiles run the layer.

What is timed is what the network runs: layers that are fused (:mod:`minissl.fusion`) are one
measurement, reported for the first of them.

Dimensions: N images of a batch, F filters, K columns, P x Q output pixels.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minissl import backend as backends
from minissl.channels import dense_weights
from minissl.conv_modes import MODES, Prepared, prepare
from minissl.conv_modes.inner_product import GEMM_MODES, PRODUCTS, prepare_inner_product
from minissl.errors import ConfigError, WeightsError
from minissl.formats.matrix_market import read_matrix
from minissl.fusion import Step
from minissl.layers import Layer
from minissl.net import Net
from minissl.summary import flop_per_image

BASELINE = "LOWERED_GEMM"
#: what may be asked for in place of a mode, when every mode is timed
SEVERAL = ("all", "auto")


@dataclass(frozen=True)
class LayerTime:
    """Milliseconds of one layer for one batch, and what it computed in them.

    Attributes
    ----------
    name, type : str
    conv_mode : str or None
        Only of layers with modes.
    lowering_ms, product_ms : float or None
        Stages of a convolution, where the backend can run them alone.
    total_ms : float
        The forward pass of the layer.
    backward_ms : float or None
        Only where it was asked for and the layer takes part in it.
    dense_flop, executed_flop : int
        For the whole batch: of the dense layer, and what the mode really executes.
    timed : bool
        False for data layers, which are fed with random numbers instead.
    fused : tuple of str
        Layers that run in the same step; their time is part of ``total_ms``.
    fused_into : str or None
        The layer in whose step this one runs; its own ``total_ms`` is then 0.
    """

    name: str
    type: str
    conv_mode: str | None
    lowering_ms: float | None
    product_ms: float | None
    total_ms: float
    backward_ms: float | None
    dense_flop: int
    executed_flop: int
    timed: bool = True
    fused: tuple[str, ...] = ()
    fused_into: str | None = None

    @property
    def effective_gflops(self) -> float | None:
        """Dense operations / time, in 1e9/s: what a dense program would need to keep up."""
        return self._rate(self.dense_flop)

    @property
    def real_gflops(self) -> float | None:
        """Executed operations / time, in 1e9/s."""
        return self._rate(self.executed_flop)

    @property
    def rest_ms(self) -> float | None:
        """Whole layer less lowering and product; stages are timed apart, so at least 0."""
        if self.lowering_ms is None or self.product_ms is None:
            return None
        return max(0.0, self.total_ms - self.lowering_ms - self.product_ms)

    def _rate(self, flop: int) -> float | None:
        return flop / self.total_ms / 1e6 if flop and self.total_ms else None

    def to_json(self) -> dict[str, Any]:
        """Return the values as they are reported."""
        return {
            "name": self.name,
            "type": self.type,
            "conv_mode": self.conv_mode,
            "lowering_ms": self.lowering_ms,
            "product_ms": self.product_ms,
            "total_ms": self.total_ms,
            "backward_ms": self.backward_ms,
            "effective_gflops": self.effective_gflops,
            "real_gflops": self.real_gflops,
            "timed": self.timed,
            "fused": list(self.fused),
            "fused_into": self.fused_into,
        }


@dataclass(frozen=True)
class NetTime:
    """The measurements of a network, as they were asked for.

    Attributes
    ----------
    measured : list of LayerTime
        All of them.
    asked : str or None
        A mode, ``all``, ``auto`` (the fastest of each layer), or None for the net's own modes.
    chosen : dict
        For each layer with modes, the one that counts in ``total_ms``.
    """

    measured: list[LayerTime]
    asked: str | None
    chosen: dict[str, str]

    @property
    def layers(self) -> list[LayerTime]:
        """What is reported: one entry for each layer; with ``all``, for each layer and mode."""
        return [one for one in self.measured if self.asked == "all" or self.counts(one)]

    def counts(self, one: LayerTime) -> bool:
        """Whether a measurement is part of the network as it would run."""
        return one.conv_mode in (None, self.chosen.get(one.name))

    @property
    def total_ms(self) -> float:
        """Milliseconds of the forward pass of the network; data layers are left out."""
        return total_ms(self.measured, self.chosen)

    @property
    def totals(self) -> dict[str, float]:
        """``total_ms`` in every mode that was timed, and in the fastest of each layer.

        Layers that do not have a mode count as dense.
        """
        if self.asked not in SEVERAL:
            return {}
        timed = {(one.name, one.conv_mode) for one in self.measured}
        result = {}
        for mode in MODES:
            used = {name: mode if (name, mode) in timed else BASELINE for name in self.chosen}
            result[mode] = total_ms(self.measured, used)
        return {**result, "fastest": total_ms(self.measured, fastest(self.measured))}


def own_modes(param: Any) -> dict[str, str]:
    """Return the ``conv_mode`` that a net (NetParameter) asks for, by layer.

    A compacted layer (``kept_columns``) without a mode runs as LOWERED_CCNMM.
    """
    modes = {}
    for layer in param.layer:
        if layer.type == "Convolution":
            fields = layer.convolution_param
            mode = fields.ConvMode.Name(fields.conv_mode)
        elif layer.type == "InnerProduct":
            fields = layer.inner_product_param
            name = fields.GemmMode.Name(fields.gemm_mode)
            mode = GEMM_MODES.get(name, name)
        else:
            continue
        modes[layer.name] = "LOWERED_CCNMM" if mode == BASELINE and fields.kept_columns else mode
    return modes


def without_modes(param: Any) -> Any:
    """Return a copy of a net in which every layer is dense, to be timed in any mode."""
    copy = type(param)()
    copy.CopyFrom(param)
    for layer in copy.layer:
        if layer.type == "Convolution":
            layer.convolution_param.ClearField("conv_mode")
        if layer.type == "InnerProduct":
            layer.inner_product_param.ClearField("gemm_mode")
    return copy


def modes_of(layer: Layer) -> tuple[str, ...]:
    """Return the modes that a layer can be timed in; none where it has no weights to multiply."""
    offered = {"Convolution": MODES, "InnerProduct": PRODUCTS}
    return tuple(offered.get(layer.type_name, ()))


def feed_random(net: Net, seed: int = 0) -> None:
    """Fill the tops of all data layers: images with numbers from 0 to 1, labels with 0."""
    rng = np.random.default_rng(seed)
    for layer in net.layers:
        if not layer.is_data:
            continue
        for blob in net.bottoms_and_tops(layer)[1]:
            values = rng.random(blob.shape) if len(blob.shape) > 1 else np.zeros(blob.shape)
            blob.data[...] = net.kernels.xp.asarray(values.astype(net.dtype))


def load_matrices(net: Net, folder: str | Path) -> list[str]:
    """Take the weights of convolutions and inner products from Matrix Market files.

    For a layer ``conv1`` the file is ``conv1.mtx``, ``coo_conv1.weight`` or ``conv1.weight``, an
    F x K matrix; its bias keeps its value.

    Returns
    -------
    list of str
        The layers that found a file.

    Raises
    ------
    WeightsError
        When a matrix does not fit its layer, or no layer found a file.
    """
    weights = {}
    for layer in net.layers:
        if layer.type_name not in ("Convolution", "InnerProduct"):
            continue
        stem = re.sub(r"[/\\]", "_", layer.name)
        names = (f"{stem}.mtx", f"coo_{stem}.weight", f"{stem}.weight")
        path = next((Path(folder, name) for name in names if Path(folder, name).is_file()), None)
        if path is None:
            continue
        matrix, own = read_matrix(path), layer.parameters[0]
        if matrix.shape != own.matrix_shape:
            raise WeightsError(
                f"{path} holds a {matrix.shape[0]} x {matrix.shape[1]} matrix where layer "
                f"'{layer.name}' has {own.matrix_shape[0]} x {own.matrix_shape[1]}; use the net "
                "that it belongs to"
            )
        others = [np.asarray(parameter.data) for parameter in layer.parameters[1:]]
        weights[layer.name] = [matrix.reshape(own.shape), *others]
    if not weights:
        raise WeightsError(
            f"{folder} holds no matrix for a layer of net '{net.name}'; name the files "
            "LAYER.mtx or coo_LAYER.weight"
        )
    net.load(weights)
    return list(weights)


def time_net(
    net: Net,
    modes: Mapping[str, Sequence[str]] | None = None,
    iterations: int = 50,
    backward: bool = False,
    tick: Callable[[], Any] | None = None,
) -> list[LayerTime]:
    """Time every layer of a network.

    Parameters
    ----------
    net : Net
        With weights; its layers dense (:func:`without_modes`), so that any mode can be timed.
    modes : dict, optional
        Modes to time, by layer; LOWERED_GEMM where nothing is said.
    iterations : int
        Rounds, of which the median is taken. One more round runs first, to warm up and to compile.
    backward : bool
        Time the backward pass of each layer as well.
    tick : callable, optional
        Called after each round.

    Returns
    -------
    list of LayerTime
        In the order of the steps, one entry for each mode of a layer. Split layers are part of it,
        and so are layers fused to another.

    Raises
    ------
    ConfigError
        For an unknown mode.
    """
    feed_random(net)
    watch = _Stopwatch()
    steps = _forward_steps(net, modes or {})
    with backends.single_threaded_blas():
        for round_number in range(iterations + 1):
            if round_number == 1:
                watch.forget()
            net.forget()
            for step in steps:
                step.run(watch)
            if backward:
                _run_backward(net, watch)
            if tick:
                tick()
    measured = []
    for timed, following in zip(steps, [*steps[1:], None], strict=True):
        measured.append(timed.result(watch))
        if following is None or following.step is not timed.step:  # the last of its modes
            measured += timed.fused_results(watch)
    return measured


def modes_to_time(asked: str | None, own: dict[str, str], net: Net) -> dict[str, tuple[str, ...]]:
    """Return the modes to time for each layer of ``own``, the net's own modes.

    A layer that does not have the mode that was asked for keeps its own.
    """
    modes = {}
    for name, mode in own.items():
        offered = modes_of(net.layer(name))
        if asked in SEVERAL:
            modes[name] = offered
        else:
            modes[name] = (asked if asked in offered else mode,)
    return modes


def choose(measured: list[LayerTime], asked: str | None, own: dict[str, str]) -> NetTime:
    """Decide which measurements make up the network.

    With ``all`` these are the net's own modes, or the fastest where that was not timed.
    """
    chosen = fastest(measured)
    if asked == "all":
        chosen.update({layer: mode for layer, mode in own.items() if mode in MODES})
    return NetTime(measured, asked, chosen)


def fastest(measured: Sequence[LayerTime]) -> dict[str, str]:
    """Return for every layer with modes the one with the smallest ``total_ms``."""
    best: dict[str, LayerTime] = {}
    for one in measured:
        if one.conv_mode and (one.name not in best or one.total_ms < best[one.name].total_ms):
            best[one.name] = one
    return {name: str(one.conv_mode) for name, one in best.items()}


def total_ms(measured: Sequence[LayerTime], modes: Mapping[str, str] | None = None) -> float:
    """Sum the forward passes of a network, each layer in the mode named for it.

    Without ``modes`` every measurement counts. Data layers never do.
    """
    return sum(
        one.total_ms
        for one in measured
        if one.timed and (modes is None or one.conv_mode in (None, modes.get(one.name)))
    )


class _Stopwatch:
    """Collects durations under keys."""

    def __init__(self) -> None:
        self.seconds: dict[Any, list[float]] = {}

    @contextmanager
    def measure(self, key: Any) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds.setdefault(key, []).append(time.perf_counter() - start)

    def forget(self) -> None:
        self.seconds.clear()

    def median_ms(self, key: Any) -> float | None:
        return 1e3 * statistics.median(self.seconds[key]) if key in self.seconds else None


class _Timed:
    """The forward pass of one step: a layer, or layers that are fused."""

    def __init__(self, net: Net, step: Step):
        self.net, self.step, self.layer = net, step, step.layer
        self.fused = tuple(layer.name for layer in step.layers[1:])

    def run(self, watch: _Stopwatch) -> None:
        if not self.layer.is_data:
            with watch.measure((self.layer.name, "forward")):
                self.step.forward()

    def result(self, watch: _Stopwatch) -> LayerTime:
        total = watch.median_ms((self.layer.name, "forward")) or 0.0
        return self._result(self.layer, watch, total, fused=self.fused)

    def fused_results(self, watch: _Stopwatch) -> list[LayerTime]:
        """Return one entry for each layer that has no time of its own."""
        return [
            self._result(layer, watch, 0.0, fused_into=self.layer.name)
            for layer in self.step.layers[1:]
        ]

    def _result(self, layer: Layer, watch: _Stopwatch, total: float, **fusion: Any) -> LayerTime:
        top = self.net.bottoms_and_tops(layer)[1]
        images = top[0].shape[0] if top and top[0].shape else 1
        flop = images * flop_per_image(self.net, layer)
        return LayerTime(
            name=layer.name,
            type=layer.type_name,
            conv_mode=None,
            lowering_ms=None,
            product_ms=None,
            total_ms=total,
            backward_ms=watch.median_ms((layer.name, "backward")),
            dense_flop=flop,
            executed_flop=flop,
            timed=not layer.is_data,
            **fusion,
        )


class _TimedMode(_Timed):
    """The first layer of a step in one mode, with what is fused to it; whole and by stages."""

    def __init__(self, net: Net, step: Step, mode: str):
        super().__init__(net, step)
        self.mode = mode
        layer: Any = step.layer
        bias = layer.parameters[1].data if layer.has_bias else None
        weights = net.kernels.xp.ascontiguousarray(net.kernels.xp.asarray(dense_weights(layer)))
        self.filters, self.weights = layer.filters, int(weights.size)
        self.prepared: Prepared
        self.stages: dict[str, int] = {}
        if layer.type_name == "Convolution":
            self.prepared = prepare(mode, layer.shape, weights, bias, net.kernels)
            self.stages = _stages_of(net.kernels) if self.prepared.has_stages else {}
        else:
            self.prepared = prepare_inner_product(mode, weights, bias, net.kernels)

    def run(self, watch: _Stopwatch) -> None:
        key = self.layer.name, self.mode
        # in this order: the product alone multiplies what the lowering has left
        for stage, bit in self.stages.items():
            with watch.measure((*key, stage)):
                self.step.forward(self.prepared, stages=bit)
        with watch.measure((*key, "forward")):
            self.step.forward(self.prepared)

    def result(self, watch: _Stopwatch) -> LayerTime:
        key = self.layer.name, self.mode
        product = self.net.bottoms_and_tops(self.layer)[1][0]
        positions = product.size // self.filters  # N * P * Q; N of an inner product
        return LayerTime(
            name=self.layer.name,
            type=self.layer.type_name,
            conv_mode=self.mode,
            lowering_ms=watch.median_ms((*key, "lowering")),
            product_ms=watch.median_ms((*key, "product")),
            total_ms=watch.median_ms((*key, "forward")) or 0.0,
            backward_ms=watch.median_ms((self.layer.name, "backward")),
            dense_flop=2 * self.weights * positions,
            executed_flop=2 * self.prepared.multiply_adds * positions,
            fused=self.fused,
        )


def _forward_steps(net: Net, modes: Mapping[str, Sequence[str]]) -> list[_Timed]:
    steps: list[_Timed] = []
    for step in net.steps:
        layer = step.layer
        offered = modes_of(layer)
        if not offered:
            steps.append(_Timed(net, step))
            continue
        wanted = modes.get(layer.name, (BASELINE,))
        unknown = [mode for mode in wanted if mode not in offered]
        if unknown:
            raise ConfigError(
                f"layer '{layer.name}': conv_mode {unknown[0]} cannot be timed; "
                f"choose one of {', '.join(offered)}"
            )
        steps += [_TimedMode(net, step, mode) for mode in wanted]
    return steps


def _stages_of(kernels: Any) -> dict[str, int]:
    """Return the stages that a backend can run alone; the plain definition has none."""
    if backends.name_of(kernels) != "numba":
        return {}
    from minissl.kernels.cpu.stages import LOWER, MULTIPLY

    return {"lowering": LOWER, "product": MULTIPLY}


def _run_backward(net: Net, watch: _Stopwatch) -> None:
    """Run the backward pass layer by layer, as :meth:`minissl.net.Net.backward` does."""
    net.clear_gradients()
    for number in reversed(range(len(net.layers))):
        layer = net.layers[number]
        if not net.runs_backward(layer):
            continue
        bottom, top = net.bottoms_and_tops(layer)
        for blob, weight in zip(top, net.loss_weights[number], strict=True):
            if weight:
                blob.diff[...] = weight
        with watch.measure((layer.name, "backward")):
            layer.backward(top, net.propagates(layer), bottom)
