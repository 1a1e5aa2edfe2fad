"""The registry of layers under test: one record for each layer and combination of options.

Generic tests (tests/layers/test_gradients.py) run every record: gradients against finite
differences, both backends, float32 against float64, non-contiguous input. Adding a layer means
adding records here; a test fails when a registered layer has none.

Kinks and ties are avoided by construction: ``separated`` values are at least 0.1 apart and at least
0.05 away from 0, far more than the step of the finite differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf import text_format

from minissl.formats import proto
from minissl.layers import Context, Layer, create


def layer_param(text: str) -> Any:
    """Parse the inside of a ``layer { ... }`` block."""
    return text_format.Parse(text, proto.LayerParameter())


def make_layer(
    text: str, kernels: Any, dtype: Any = np.float64, phase: str = "TRAIN", seed: int = 0
) -> Layer:
    """Make a layer, not yet set up, from the inside of a ``layer { ... }`` block."""
    rng = np.random.default_rng(seed)
    return create(layer_param(text), Context(kernels, np.dtype(dtype), rng, phase))


def separated(shape: tuple[int, ...]) -> Callable[[np.random.Generator], np.ndarray]:
    """Values -0.15, -0.05, 0.05, 0.15 ... in random order: no ties, none at 0."""
    size = math.prod(shape)
    values = (np.arange(size) - size // 2 + 0.5) * 0.1
    return lambda rng: rng.permutation(values).reshape(shape)


def normal(shape: tuple[int, ...]) -> Callable[[np.random.Generator], np.ndarray]:
    """Normally distributed values."""
    return lambda rng: rng.normal(size=shape)


def labels(*values: Any) -> Callable[[np.random.Generator], np.ndarray]:
    """Return these very values."""
    return lambda rng: np.array(values, dtype=np.float64)


Values = Callable[[np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One layer with one combination of options.

    ``linear`` says that the layer is linear in each single bottom and parameter, so that central
    differences are exact and the tolerance is 1e-9 instead of 1e-7.
    """

    name: str
    text: str
    bottoms: tuple[Values, ...]
    linear: bool = False
    in_place: bool = False
    phase: str = "TRAIN"
    objective_tops: tuple[int, ...] | None = None

    @property
    def type_name(self) -> str:
        return layer_param(self.text).type

    @property
    def step(self) -> float:
        return 0.5 if self.linear else 1e-5

    @property
    def tolerance(self) -> float:
        return 1e-9 if self.linear else 1e-7

    def values(self, seed: int = 0) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [draw(rng) for draw in self.bottoms]


def _activation(name: str, options: str, in_place: bool = False, **more: Any) -> Case:
    top = "x" if in_place else "y"
    text = f'name: "a" bottom: "x" top: "{top}" {options}'
    return Case(name, text, (separated((2, 3, 2, 2)),), in_place=in_place, **more)


ACTIVATIONS = [
    _activation("relu", 'type: "ReLU"'),
    _activation("relu, leaky", 'type: "ReLU" relu_param { negative_slope: 0.3 }'),
    _activation("relu, negative slope", 'type: "ReLU" relu_param { negative_slope: -0.5 }'),
    _activation("relu, in place", 'type: "ReLU"', in_place=True),
    _activation(
        "relu, leaky in place", 'type: "ReLU" relu_param { negative_slope: 0.3 }', in_place=True
    ),
    _activation("sigmoid", 'type: "Sigmoid"'),
    _activation("sigmoid, in place", 'type: "Sigmoid"', in_place=True),
    _activation("tanh", 'type: "TanH"'),
    _activation("tanh, in place", 'type: "TanH"', in_place=True),
    _activation("dropout", 'type: "Dropout" dropout_param { dropout_ratio: 0.3 }', linear=True),
    _activation(
        "dropout, in place",
        'type: "Dropout" dropout_param { dropout_ratio: 0.3 }',
        in_place=True,
        linear=True,
    ),
    _activation(
        "dropout, ratio 0", 'type: "Dropout" dropout_param { dropout_ratio: 0 }', linear=True
    ),
    _activation("dropout, testing", 'type: "Dropout"', phase="TEST", linear=True),
    _activation(
        "dropout, testing in place", 'type: "Dropout"', phase="TEST", in_place=True, linear=True
    ),
]


def _pooling(name: str, shape: tuple[int, ...], options: str, tops: str = "", **more: Any) -> Case:
    text = f'name: "p" type: "Pooling" bottom: "x" top: "y" {tops} pooling_param {{ {options} }}'
    return Case(f"pooling, {name}", text, (separated(shape),), **more)


POOLING = [
    _pooling("max", (2, 2, 4, 4), "kernel_size: 2 stride: 2"),
    _pooling("max, ceil", (1, 2, 6, 5), "kernel_size: 3 stride: 2"),
    _pooling("max, pad and clipped last window", (2, 1, 4, 4), "kernel_size: 2 stride: 2 pad: 1"),
    _pooling(
        "max, rectangular",
        (1, 2, 5, 6),
        "kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 3 pad_h: 1 pad_w: 0",
    ),
    _pooling("max, global", (2, 3, 3, 2), "global_pooling: true"),
    _pooling(
        "max, with positions",
        (1, 2, 4, 4),
        "kernel_size: 3 stride: 1",
        tops='top: "mask"',
        objective_tops=(0,),
    ),
    _pooling("max, stride beyond kernel", (1, 2, 5, 5), "kernel_size: 1 stride: 3"),
    _pooling("max, kernel beyond input", (1, 2, 2, 2), "kernel_size: 4 stride: 1 pad: 1"),
    _pooling("max, floor", (1, 2, 6, 5), "kernel_size: 3 stride: 2 round_mode: FLOOR"),
    _pooling(
        "ave, floor",
        (1, 2, 6, 5),
        "pool: AVE kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR",
        linear=True,
    ),
    _pooling("ave", (2, 2, 4, 4), "pool: AVE kernel_size: 2 stride: 2", linear=True),
    _pooling("ave, ceil", (1, 2, 6, 5), "pool: AVE kernel_size: 3 stride: 2", linear=True),
    _pooling(
        "ave, pad and clipped last window",
        (1, 2, 4, 5),
        "pool: AVE kernel_size: 3 stride: 2 pad: 1",
        linear=True,
    ),
    _pooling(
        "ave, rectangular",
        (2, 1, 5, 6),
        "pool: AVE kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 2",
        linear=True,
    ),
    _pooling("ave, global", (2, 3, 3, 2), "pool: AVE global_pooling: true", linear=True),
]


def _lrn(name: str, shape: tuple[int, ...], options: str) -> Case:
    text = f'name: "n" type: "LRN" bottom: "x" top: "y" lrn_param {{ {options} }}'
    return Case(f"lrn, {name}", text, (normal(shape),))


NORMALIZATION = [
    _lrn("across", (2, 7, 2, 3), "alpha: 2"),
    _lrn("across, k and beta", (1, 4, 2, 2), "local_size: 3 alpha: 3 beta: 0.4 k: 2"),
    _lrn("across, window beyond the channels", (1, 3, 2, 2), "local_size: 9 alpha: 5"),
    _lrn("across, one channel wide", (1, 3, 2, 2), "local_size: 1 alpha: 0.5"),
    _lrn("within", (2, 2, 4, 5), "norm_region: WITHIN_CHANNEL local_size: 3 alpha: 4"),
    _lrn(
        "within, beta",
        (1, 2, 3, 2),
        "norm_region: WITHIN_CHANNEL local_size: 5 alpha: 4 beta: 1.2 k: 7",
    ),
]


def _per_channel(
    kind: str, name: str, shape: tuple[int, ...], options: str = "", second: Any = None, **more: Any
) -> Case:
    """BatchNorm, Scale or Bias, of one bottom or two."""
    top = "x" if more.get("in_place") else "y"
    field = {"BatchNorm": "batch_norm", "Scale": "scale", "Bias": "bias"}[kind]
    bottoms = 'bottom: "x" bottom: "s"' if second else 'bottom: "x"'
    text = f'name: "b" type: "{kind}" {bottoms} top: "{top}" {field}_param {{ {options} }}'
    values = (normal(shape), normal(second)) if second else (normal(shape),)
    return Case(f"{kind}, {name}", text, values, linear=kind != "BatchNorm", **more)


PER_CHANNEL = [
    _per_channel("BatchNorm", "images", (3, 2, 2, 3)),
    _per_channel("BatchNorm", "large eps", (2, 3, 2, 2), "eps: 0.7"),
    _per_channel("BatchNorm", "in place", (3, 2, 2, 2), in_place=True),
    _per_channel("BatchNorm", "vectors", (5, 3)),
    _per_channel("BatchNorm", "one axis", (5,)),
    _per_channel("BatchNorm", "global", (2, 3, 2, 2), "use_global_stats: true"),
    _per_channel("BatchNorm", "global in place", (2, 3), "use_global_stats: true", in_place=True),
    _per_channel("BatchNorm", "testing", (2, 3, 2, 2), phase="TEST"),
    _per_channel(
        "BatchNorm", "testing by the batch", (3, 2, 2), "use_global_stats: false", phase="TEST"
    ),
    _per_channel("Scale", "channels", (2, 3, 2, 2)),
    _per_channel("Scale", "bias", (2, 3, 2, 2), "bias_term: true"),
    _per_channel("Scale", "in place", (2, 3, 2, 2), "bias_term: true", in_place=True),
    _per_channel("Scale", "vectors", (4, 3), "bias_term: true"),
    _per_channel("Scale", "two axes", (2, 3, 2, 2), "axis: 1 num_axes: 2 bias_term: true"),
    _per_channel("Scale", "all axes", (2, 3, 2), "axis: 0 num_axes: -1 bias_term: true"),
    _per_channel("Scale", "last axis", (2, 3, 2), "axis: -1"),
    _per_channel("Scale", "a single number", (2, 3, 2), "num_axes: 0 bias_term: true"),
    _per_channel("Scale", "by a blob", (2, 3, 2), "axis: 0", second=(2, 3)),
    _per_channel(
        "Scale", "by a blob, in place", (2, 3, 2), "bias_term: true", second=(3,), in_place=True
    ),
    _per_channel("Bias", "channels", (2, 3, 2, 2)),
    _per_channel("Bias", "in place", (2, 3, 2), in_place=True),
    _per_channel("Bias", "two axes", (2, 3, 2, 2), "axis: 2 num_axes: 2"),
    _per_channel("Bias", "a blob", (2, 3, 2), "axis: 0", second=(2,)),
    _per_channel("Bias", "a blob, in place", (2, 3, 2), "axis: -2", second=(3, 2), in_place=True),
]


def _eltwise(name: str, count: int, options: str, values: Any = normal, **more: Any) -> Case:
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(count))
    text = f'name: "e" type: "Eltwise" {bottoms} top: "y" eltwise_param {{ {options} }}'
    drawn = tuple(values((2, 3, 2)) for _ in range(count))
    return Case(f"eltwise, {name}", text, drawn, **more)


def _apart(shape: tuple[int, ...]) -> Values:
    """Values of which no two draws are equal: a random multiple of 0.1 and a random rest."""
    return lambda rng: (
        rng.permutation(math.prod(shape)).reshape(shape) * 0.1 + rng.uniform(0.01, 0.09)
    )


COMBINATIONS = [
    _eltwise("sum", 2, "", linear=True),
    _eltwise("sum of three, coefficients", 3, "coeff: 0.5 coeff: -2 coeff: 1", linear=True),
    _eltwise("product", 2, "operation: PROD", linear=True),
    _eltwise("product of three", 3, "operation: PROD", linear=True),
    _eltwise("product of three, quotient", 3, "operation: PROD stable_prod_grad: false"),
    _eltwise("maximum", 2, "operation: MAX", _apart),
    _eltwise("maximum of three", 3, "operation: MAX", _apart),
]


def _concat(name: str, options: str, *shapes: tuple[int, ...]) -> Case:
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(len(shapes)))
    text = f'name: "c" type: "Concat" {bottoms} top: "y" concat_param {{ {options} }}'
    return Case(f"concat, {name}", text, tuple(map(normal, shapes)), linear=True)


CONCATENATIONS = [
    _concat("channels", "", (2, 1, 2, 2), (2, 3, 2, 2), (2, 2, 2, 2)),
    _concat("one", "", (2, 3, 2)),
    _concat("images", "axis: 0", (1, 3), (2, 3)),
    _concat("last axis", "axis: -1", (2, 3, 1), (2, 3, 4)),
    _concat("old name", "concat_dim: 2", (2, 2, 3), (2, 2, 1)),
]


def _softmax(name: str, shape: tuple[int, ...], options: str = "") -> Case:
    text = f'name: "s" type: "Softmax" bottom: "x" top: "y" {options}'
    return Case(f"softmax, {name}", text, (normal(shape),))


def _loss(name: str, shape: tuple[int, ...], target: Values, options: str, **more: Any) -> Case:
    tops = 'top: "loss" top: "p"' if "objective_tops" in more else 'top: "loss"'
    text = f'name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" {tops} {options}'
    return Case(f"softmax loss, {name}", text, (normal(shape), target), **more)


_SPATIAL = labels([[0, 2], [1, 255]], [[2, 2], [255, 255]])  # (2, 2, 2), three ignored

LOSSES = [
    _softmax("axis 1 of 2", (3, 4)),
    _softmax("axis 1 of 4", (2, 3, 2, 2)),
    _softmax("last axis", (2, 3, 4), "softmax_param { axis: -1 }"),
    _softmax("first axis", (3, 2, 2), "softmax_param { axis: 0 }"),
    _loss("default", (4, 3), labels(0, 2, 1, 2), ""),
    _loss("labels as (N, 1, 1, 1)", (2, 3), labels([[[2]]], [[[0]]]), ""),
    _loss("spatial", (2, 3, 2, 2), labels([[0, 2], [1, 1]], [[2, 2], [0, 1]]), ""),
    _loss("ignored, VALID", (2, 3, 2, 2), _SPATIAL, "loss_param { ignore_label: 255 }"),
    _loss(
        "ignored, FULL",
        (2, 3, 2, 2),
        _SPATIAL,
        "loss_param { ignore_label: 255 normalization: FULL }",
    ),
    _loss(
        "ignored, BATCH_SIZE",
        (2, 3, 2, 2),
        _SPATIAL,
        "loss_param { ignore_label: 255 normalization: BATCH_SIZE }",
    ),
    _loss(
        "ignored, NONE",
        (2, 3, 2, 2),
        _SPATIAL,
        "loss_param { ignore_label: 255 normalization: NONE }",
    ),
    _loss(
        "ignored, normalize: false",
        (2, 3, 2, 2),
        _SPATIAL,
        "loss_param { ignore_label: 255 normalize: false }",
    ),
    _loss("all ignored", (2, 3), labels(1, 1), "loss_param { ignore_label: 1 }"),
    _loss("last axis", (2, 2, 3), labels([0, 2], [1, 1]), "softmax_param { axis: -1 }"),
    _loss("with probabilities", (3, 4), labels(3, 0, 1), "", objective_tops=(0,)),
]


def _shaping(name: str, shape: tuple[int, ...], text: str) -> Case:
    return Case(name, f'name: "f" bottom: "x" {text}', (normal(shape),), linear=True)


SHAPING = [
    _shaping("flatten", (2, 3, 2, 2), 'type: "Flatten" top: "y"'),
    _shaping(
        "flatten, middle axes",
        (2, 3, 2, 2),
        'type: "Flatten" top: "y" flatten_param { axis: 1 end_axis: 2 }',
    ),
    _shaping(
        "flatten, from the end", (2, 3, 2), 'type: "Flatten" top: "y" flatten_param { axis: -2 }'
    ),
    _shaping("slice, equal", (2, 4, 2), 'type: "Slice" top: "a" top: "b"'),
    _shaping("slice, one", (2, 3), 'type: "Slice" top: "a"'),
    _shaping(
        "slice, points",
        (2, 2, 6),
        'type: "Slice" top: "a" top: "b" top: "c" '
        "slice_param { axis: 2 slice_point: 1 slice_point: 4 }",
    ),
    _shaping(
        "slice, old name",
        (3, 2, 2),
        'type: "Slice" top: "a" top: "b" slice_param { slice_dim: 0 slice_point: 2 }',
    ),
    _shaping("split, one", (2, 3), 'type: "Split" top: "a"'),
    _shaping("split, two", (2, 3), 'type: "Split" top: "a" top: "b"'),
    _shaping("split, three", (2, 3), 'type: "Split" top: "a" top: "b" top: "c"'),
]


def _convolution(name: str, shape: tuple[int, ...], options: str) -> Case:
    text = f'name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param {{ {options} }}'
    return Case(f"convolution, {name}", text, (normal(shape),), linear=True)


CONVOLUTIONS = [
    _convolution("plain", (2, 2, 4, 4), "num_output: 3 kernel_size: 3"),
    _convolution("1x1", (2, 3, 2, 3), "num_output: 2 kernel_size: 1"),
    _convolution("1x1 with stride", (1, 2, 3, 4), "num_output: 2 kernel_size: 1 stride: 2"),
    _convolution("no bias", (1, 2, 3, 3), "num_output: 2 kernel_size: 2 bias_term: false"),
    _convolution("pad", (1, 2, 3, 3), "num_output: 2 kernel_size: 3 pad: 1"),
    _convolution(
        "stride that leaves a rest", (1, 2, 6, 5), "num_output: 2 kernel_size: 3 stride: 2"
    ),
    _convolution("dilation", (1, 2, 5, 5), "num_output: 2 kernel_size: 2 dilation: 3"),
    _convolution("groups", (2, 4, 3, 3), "num_output: 6 kernel_size: 2 group: 2"),
    _convolution("one channel per group", (1, 3, 3, 3), "num_output: 3 kernel_size: 2 group: 3"),
    _convolution(
        "rectangular",
        (1, 2, 4, 5),
        "num_output: 2 kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 pad_w: 2",
    ),
    _convolution("kernel beyond input", (1, 1, 2, 2), "num_output: 2 kernel_size: 4 pad: 1"),
    _convolution(
        "everything at once",
        (2, 4, 5, 6),
        "num_output: 2 kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 2 "
        "dilation: 2 dilation: 3 group: 2",
    ),
]


def _inner_product(name: str, shape: tuple[int, ...], options: str) -> Case:
    text = (
        'name: "i" type: "InnerProduct" bottom: "x" top: "y" '
        f"inner_product_param {{ num_output: 3 {options} }}"
    )
    return Case(f"inner product, {name}", text, (normal(shape),), linear=True)


INNER_PRODUCTS = [
    _inner_product("plain", (4, 5), ""),
    _inner_product("one image", (1, 5), ""),
    _inner_product("of images", (2, 2, 3, 2), ""),
    _inner_product("no bias", (4, 5), "bias_term: false"),
    _inner_product("transpose", (4, 5), "transpose: true"),
    _inner_product("transpose, no bias", (2, 2, 2), "transpose: true bias_term: false"),
    _inner_product("axis 2", (2, 3, 4), "axis: 2"),
    _inner_product("axis -1, transpose", (2, 3, 4), "axis: -1 transpose: true"),
    _inner_product("axis 0", (2, 3), "axis: 0"),
]

CASES = [
    *ACTIVATIONS,
    *POOLING,
    *NORMALIZATION,
    *PER_CHANNEL,
    *COMBINATIONS,
    *CONCATENATIONS,
    *LOSSES,
    *SHAPING,
    *CONVOLUTIONS,
    *INNER_PRODUCTS,
]

#: layers without a gradient: where data comes from, and a count
WITHOUT_GRADIENT = {"Accuracy", "Data", "Input", "MemoryData"}
