"""What is timed in a round: one step of the network, in one mode.

A step is a layer, or several that are fused (:mod:`minissl.fusion`): those are one measurement,
reported for the first of them.

Dimensions: N images of a batch, C channels, F filters, G conv groups, P x Q output pixels.
"""

from __future__ import annotations

import inspect
from typing import Any

from minissl.channels import dense_weights
from minissl.conv_modes import ConvShape, Prepared, prepare
from minissl.conv_modes.inner_product import prepare_inner_product
from minissl.fusion import Step
from minissl.layers import Layer
from minissl.net import Net
from minissl.summary import flop_per_image
from minissl.timing.measurements import PARTS, UPDATE, LayerTime
from minissl.timing.modes import trained_modes
from minissl.timing.stopwatch import Stopwatch


class Timed:
    """The forward pass of one step: a layer, or layers that are fused."""

    def __init__(self, net: Net, step: Step):
        self.net, self.step, self.layer = net, step, step.layer
        self.fused = tuple(layer.name for layer in step.layers[1:])

    def run(self, watch: Stopwatch) -> None:
        """Run it once."""
        if not self.layer.is_data:
            with watch.measure((self.layer.name, "total")):
                self.step.forward()

    def result(self, watch: Stopwatch, peak_gflops: float | None = None) -> LayerTime:
        """Sum up the rounds."""
        return self._result(self.layer, watch, peak_gflops, fused=self.fused)

    def fused_results(self, watch: Stopwatch, peak_gflops: float | None = None) -> list[LayerTime]:
        """Return one entry for each layer that has no time of its own."""
        return [
            self._result(layer, watch, peak_gflops, fused_into=self.layer.name)
            for layer in self.step.layers[1:]
        ]

    def _result(
        self, layer: Layer, watch: Stopwatch, peak_gflops: float | None, **fusion: Any
    ) -> LayerTime:
        top = self.net.bottoms_and_tops(layer)[1]
        images = top[0].shape[0] if top and top[0].shape else 1
        flop = images * flop_per_image(self.net, layer)
        return _layer_time(
            watch,
            (layer.name,),
            backward=(layer.name, "backward"),
            name=layer.name,
            type=layer.type_name,
            conv_mode=None,
            dense_flop=flop,
            executed_flop=flop,
            timed=not layer.is_data,
            peak_gflops=peak_gflops,
            **fusion,
        )


class TimedMode(Timed):
    """The first layer of a step in one mode, with what is fused to it; whole and by stages.

    Parameters
    ----------
    net : Net
    step : Step
        Begins with a Convolution or an InnerProduct.
    mode : str
    groups : bool
        Run every conv group by itself as well, where there are several.
    """

    def __init__(self, net: Net, step: Step, mode: str, groups: bool = False):
        super().__init__(net, step)
        self.mode = mode
        layer: Any = step.layer
        bottom, self.top = net.bottoms_and_tops(layer)
        bias = layer.parameters[1].data if layer.has_bias else None
        weights = net.kernels.xp.ascontiguousarray(net.kernels.xp.asarray(dense_weights(layer)))
        self.filters, self.weights = layer.filters, int(weights.size)
        self.prepared: Prepared
        self.stages: dict[str, int] = {}
        #: in training a convolution runs by kernels of its own
        self.is_trained = trained_modes(net).get(layer.name) == mode
        self.groups: list[_Group] = []
        if layer.type_name == "Convolution":
            self.prepared = prepare(mode, layer.shape, weights, bias, net.kernels)
            self.stages = _stages_of(net.kernels, mode)
            if groups and layer.shape.groups > 1:
                self.groups = [
                    _Group(self, g, weights, bias, bottom[0].data)
                    for g in range(layer.shape.groups)
                ]
        else:
            self.prepared = prepare_inner_product(mode, weights, bias, net.kernels)

    def run(self, watch: Stopwatch) -> None:
        """Run every stage, the whole layer, then its conv groups."""
        key = self.layer.name, self.mode
        # in this order: the product alone multiplies what the lowering has left
        for stage, bit in self.stages.items():
            with watch.measure((*key, stage)):
                self.step.forward(self.prepared, stages=bit)
        with watch.measure((*key, "total")):
            self.step.forward(None if self.is_trained else self.prepared)
        for group in self.groups:
            group.run(watch)

    def result(self, watch: Stopwatch, peak_gflops: float | None = None) -> LayerTime:
        """Sum up the rounds."""
        positions = self.top[0].size // self.filters  # N * P * Q; N of an inner product
        layer: Any = self.layer
        return _layer_time(
            watch,
            (self.layer.name, self.mode),
            backward=(self.layer.name, "backward"),
            name=self.layer.name,
            type=self.layer.type_name,
            conv_mode=self.mode,
            dense_flop=2 * self.weights * positions,
            executed_flop=round(2 * self.prepared.multiply_adds * positions),
            groups=tuple(group.result(watch, positions, peak_gflops) for group in self.groups),
            peak_gflops=peak_gflops,
            fused=self.fused,
            passes=layer.trained.passes() if self.is_trained else {},
        )


class _Group:
    """One conv group of a convolution, as a convolution of its own."""

    def __init__(self, timed: TimedMode, g: int, weights: Any, bias: Any, x: Any):
        whole: ConvShape = timed.layer.shape  # type: ignore[attr-defined]
        xp, rows = timed.net.kernels.xp, whole.rows
        channels = whole.channels // whole.groups
        shape = whole._replace(channels=channels, filters=rows, groups=1)
        own = slice(g * rows, (g + 1) * rows)  # of F filters
        w = xp.ascontiguousarray(weights[own])  # (F/G, C/G, kh, kw)
        b = None if bias is None else xp.ascontiguousarray(bias[own])
        self.whole, self.number, self.weights = timed, g + 1, int(w.size)
        self.prepared = prepare(timed.mode, shape, w, b, timed.net.kernels)
        N = x.shape[0]
        self.x = xp.empty((N, channels, *whole.size), x.dtype)
        self.x[...] = x[:, g * channels : (g + 1) * channels]
        self.y = xp.empty((N, rows, *whole.output), x.dtype)

    @property
    def key(self) -> tuple[str, str, int]:
        return self.whole.layer.name, self.whole.mode, self.number

    def run(self, watch: Stopwatch) -> None:
        for stage, bit in self.whole.stages.items():
            with watch.measure((*self.key, stage)):
                self.prepared.forward(self.x, self.y, stages=bit)
        with watch.measure((*self.key, "total")):
            self.prepared.forward(self.x, self.y)

    def result(self, watch: Stopwatch, positions: int, peak_gflops: float | None) -> LayerTime:
        return _layer_time(
            watch,
            self.key,
            name=f"{self.whole.layer.name}_{self.number}",
            type=self.whole.layer.type_name,
            conv_mode=self.whole.mode,
            dense_flop=2 * self.weights * positions,
            executed_flop=2 * self.prepared.multiply_adds * positions,
            peak_gflops=peak_gflops,
        )


def update_time(watch: Stopwatch) -> LayerTime:
    """Sum up the rounds of the update; it counts as the last step of the backward pass."""
    return _layer_time(
        watch,
        (UPDATE,),
        backward=(UPDATE, "backward"),
        name=UPDATE,
        type="SGD",
        conv_mode=None,
        dense_flop=0,
        executed_flop=0,
    )


def _layer_time(watch: Stopwatch, key: Any, backward: Any = None, **options: Any) -> LayerTime:
    """Put medians and quartiles of what was measured under a key into a LayerTime."""
    keys = {part: (*key, part) for part in PARTS}
    keys["backward"] = backward
    spread = {part: watch.quartiles_ms(one) for part, one in keys.items()}
    return LayerTime(
        lowering_ms=watch.median_ms(keys["lowering"]),
        product_ms=watch.median_ms(keys["product"]),
        total_ms=watch.median_ms(keys["total"]) or 0.0,
        backward_ms=watch.median_ms(keys["backward"]),
        quartiles_ms={part: both for part, both in spread.items() if both},
        **options,
    )


def _stages_of(kernels: Any, mode: str) -> dict[str, int]:
    """Return the stages that can be run alone: of lowered modes, not by the plain definition."""
    has_stages = "stages" in inspect.signature(kernels.conv_forward).parameters
    if not has_stages or not mode.startswith("LOWERED"):
        return {}
    from minissl.kernels.cpu.stages import LOWER, MULTIPLY

    return {"lowering": LOWER, "product": MULTIPLY}
