"""Records of Caffe's rarer layers, which the networks of the paper do not need."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gradient_cases import Case, Values, labels, normal, separated


def _elementwise(name: str, options: str, values: Values | None = None, **more: Any) -> Case:
    top = "x" if more.get("in_place") else "y"
    text = f'name: "a" bottom: "x" top: "{top}" {options}'
    return Case(name, text, (values or separated((2, 3, 2, 2)),), **more)


def positive(shape: tuple[int, ...]) -> Values:
    """Values between 0.5 and 2."""
    return lambda rng: rng.uniform(0.5, 2, shape)


ELEMENTWISE = [
    _elementwise("abs", 'type: "AbsVal"'),
    _elementwise("abs, in place", 'type: "AbsVal"', in_place=True),
    _elementwise("bnll", 'type: "BNLL"'),
    _elementwise("bnll, in place", 'type: "BNLL"', in_place=True),
    _elementwise("elu", 'type: "ELU"'),
    _elementwise("elu, alpha, in place", 'type: "ELU" elu_param { alpha: 0.3 }', in_place=True),
    _elementwise("elu, alpha below 0", 'type: "ELU" elu_param { alpha: -2 }', in_place=True),
    _elementwise("exp", 'type: "Exp"'),
    _elementwise("exp, options", 'type: "Exp" exp_param { base: 2 scale: -0.5 shift: 1.5 }'),
    _elementwise("exp, in place", 'type: "Exp" exp_param { base: 0.5 shift: 3 }', in_place=True),
    _elementwise("exp, base 1", 'type: "Exp" exp_param { base: 1 }'),
    _elementwise("log", 'type: "Log"', positive((2, 3))),
    _elementwise(
        "log, options, in place",
        'type: "Log" log_param { base: 3 scale: -0.5 shift: 4 }',
        positive((2, 3)),
        in_place=True,
    ),
    _elementwise("power, nothing to do", 'type: "Power"', linear=True),
    _elementwise(
        "power, linear",
        'type: "Power" power_param { scale: -2 shift: 3 }',
        linear=True,
        in_place=True,
    ),
    _elementwise("power, square", 'type: "Power" power_param { power: 2 scale: 0.5 shift: -1 }'),
    _elementwise(
        "power, root, in place",
        'type: "Power" power_param { power: 0.5 scale: 2 shift: 0.1 }',
        positive((2, 3)),
        in_place=True,
    ),
    _elementwise(
        "power, inverse", 'type: "Power" power_param { power: -1 shift: 1 }', positive((2, 3))
    ),
    _elementwise("power, 0", 'type: "Power" power_param { power: 0 scale: 2 }'),
    _elementwise("prelu", 'type: "PReLU"'),
    _elementwise("prelu, in place", 'type: "PReLU"', in_place=True),
    _elementwise("prelu, of vectors", 'type: "PReLU"', separated((4, 3))),
    _elementwise("prelu, shared", 'type: "PReLU" prelu_param { channel_shared: true }'),
    _elementwise("threshold", 'type: "Threshold" threshold_param { threshold: 0.3 }'),
]


def _shaping(name: str, shape: tuple[int, ...], text: str, **more: Any) -> Case:
    text = f'name: "f" bottom: "x" top: "y" {text}'
    return Case(name, text, (normal(shape),), linear=True, **more)


def _reduction(name: str, options: str, **more: Any) -> Case:
    text = f'name: "r" type: "Reduction" bottom: "x" top: "y" reduction_param {{ {options} }}'
    return Case(f"reduction, {name}", text, (separated((2, 3, 4)),), **more)


def _crop(name: str, x: tuple[int, ...], reference: tuple[int, ...], options: str = "") -> Case:
    text = f'name: "c" type: "Crop" bottom: "x" bottom: "r" top: "y" crop_param {{ {options} }}'
    return Case(f"crop, {name}", text, (normal(x), normal(reference)), linear=True)


SHAPING = [
    _shaping("reshape", (2, 6), 'type: "Reshape" reshape_param { shape { dim: 3 dim: 4 } }'),
    _shaping(
        "reshape, keep and infer",
        (2, 6),
        'type: "Reshape" reshape_param { shape { dim: 0 dim: 2 dim: -1 } }',
    ),
    _shaping(
        "reshape, some axes",
        (2, 4, 3),
        'type: "Reshape" reshape_param { shape { dim: 2 dim: 2 } axis: 1 num_axes: 1 }',
    ),
    _shaping(
        "reshape, a new last axis",
        (2, 3),
        'type: "Reshape" reshape_param { shape { dim: 1 } axis: -1 num_axes: 0 }',
    ),
    _shaping("tile", (2, 3, 2), 'type: "Tile" tile_param { tiles: 3 }'),
    _shaping("tile, last axis", (2, 3), 'type: "Tile" tile_param { tiles: 2 axis: -1 }'),
    _reduction("sum of all", "", linear=True),
    _reduction("mean", "operation: MEAN axis: 1 coeff: 3", linear=True),
    _reduction("sum of magnitudes", "operation: ASUM axis: -1"),
    _reduction("sum of squares", "operation: SUMSQ axis: 1 coeff: 0.5"),
    _crop("pixels", (2, 3, 4, 5), (1, 2, 2, 3)),
    _crop("one offset", (1, 2, 4, 5), (1, 2, 3, 3), "offset: 1"),
    _crop("channels too", (2, 3, 4), (2, 2, 3), "axis: 1 offset: 1 offset: 0"),
    _crop("last axis", (2, 3, 4), (2, 1, 2), "axis: -1 offset: 2"),
]


def _mvn(name: str, shape: tuple[int, ...], options: str) -> Case:
    """Not of normal values: the check would draw these very numbers for d_y, and d_x be 0."""
    text = f'name: "m" type: "MVN" bottom: "x" top: "y" mvn_param {{ {options} }}'
    return Case(f"mvn, {name}", text, (positive(shape),))


NORMALIZATION = [
    _mvn("channels", (2, 3, 2, 2), ""),
    _mvn("images", (2, 3, 2, 2), "across_channels: true"),
    _mvn("mean only", (2, 3, 4), "normalize_variance: false"),
    _mvn("large eps", (2, 2, 5), "eps: 0.5"),
]


def _stochastic(name: str, shape: tuple[int, ...], options: str, **more: Any) -> Case:
    fields = f"pooling_param {{ pool: STOCHASTIC {options} }}"
    text = f'name: "p" type: "Pooling" bottom: "x" top: "y" {fields}'
    return Case(f"pooling, stochastic, {name}", text, (positive(shape),), **more)


POOLING = [
    _stochastic("training", (2, 2, 4, 4), "kernel_size: 2 stride: 2"),
    _stochastic("training, ceil", (1, 2, 6, 5), "kernel_size: 3 stride: 2"),
    _stochastic("training, global", (2, 2, 3, 2), "global_pooling: true"),
    _stochastic("testing", (2, 2, 4, 5), "kernel_size: 3 stride: 2", phase="TEST"),
]


def _loss(kind: str, name: str, values: tuple[Values, ...], options: str = "", **more: Any) -> Case:
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(len(values)))
    text = f'name: "l" type: "{kind}" {bottoms} top: "loss" {options}'
    return Case(f"{kind}, {name}", text, values, **more)


def probabilities(shape: tuple[int, ...]) -> Values:
    """Rows that sum to 1, none below 0.05."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        p = rng.uniform(0.2, 1, shape)
        return p / p.sum(axis=1, keepdims=True)

    return draw


_TARGETS = labels([0, 1, 0.3], [1, 0, 2])  # 2 is ignored where ignore_label says so
_PAIRS = normal((4, 3)), normal((4, 3)), labels(1, 0, 0, 1)

LOSSES = [
    _loss("EuclideanLoss", "vectors", (normal((3, 4)), normal((3, 4)))),
    _loss("EuclideanLoss", "of other shapes", (normal((2, 3, 2, 1)), normal((2, 6)))),
    _loss("HingeLoss", "L1", (normal((4, 3)), labels(0, 2, 1, 2))),
    _loss("HingeLoss", "L2", (normal((4, 3)), labels(0, 2, 1, 2)), "hinge_loss_param { norm: L2 }"),
    _loss("SigmoidCrossEntropyLoss", "by images", (normal((2, 3)), labels([0, 1, 0.3], [1, 0, 1]))),
    _loss(
        "SigmoidCrossEntropyLoss",
        "ignored, VALID",
        (normal((2, 3)), _TARGETS),
        "loss_param { ignore_label: 2 normalization: VALID }",
    ),
    _loss(
        "SigmoidCrossEntropyLoss",
        "ignored, by images",
        (normal((2, 3)), _TARGETS),
        "loss_param { ignore_label: 2 }",
    ),
    _loss(
        "SigmoidCrossEntropyLoss",
        "FULL",
        (normal((2, 3)), _TARGETS),
        "loss_param { normalization: FULL }",
    ),
    _loss("MultinomialLogisticLoss", "plain", (probabilities((3, 4)), labels(3, 0, 1))),
    _loss(
        "InfogainLoss",
        "by a blob",
        (probabilities((3, 3)), labels(2, 0, 1), positive((3, 3))),
    ),
    _loss("ContrastiveLoss", "plain", _PAIRS, "contrastive_loss_param { margin: 3 }"),
    _loss(
        "ContrastiveLoss",
        "legacy",
        _PAIRS,
        "contrastive_loss_param { margin: 9 legacy_version: true }",
    ),
    _loss("ContrastiveLoss", "beyond the margin", _PAIRS, "contrastive_loss_param { margin: 0.1 }"),
]


def _deconvolution(name: str, shape: tuple[int, ...], options: str) -> Case:
    text = f'name: "d" type: "Deconvolution" bottom: "x" top: "y" convolution_param {{ {options} }}'
    return Case(f"deconvolution, {name}", text, (normal(shape),), linear=True)


WITH_WEIGHTS = [
    _deconvolution("plain", (2, 2, 3, 3), "num_output: 3 kernel_size: 3"),
    _deconvolution("stride", (1, 2, 2, 3), "num_output: 2 kernel_size: 4 stride: 2 pad: 1"),
    _deconvolution("1x1, no bias", (2, 3, 2, 2), "num_output: 2 kernel_size: 1 bias_term: false"),
    _deconvolution("groups", (2, 4, 2, 3), "num_output: 6 kernel_size: 2 group: 2 stride: 3"),
    _deconvolution(
        "everything at once",
        (2, 4, 3, 2),
        "num_output: 2 kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 2 "
        "dilation: 2 dilation: 3 group: 2",
    ),
    Case(
        "embed",
        'name: "e" type: "Embed" bottom: "x" top: "y" embed_param { input_dim: 5 num_output: 3 }',
        (labels([0, 4], [4, 2]),),
        linear=True,
    ),
    Case(
        "embed, no bias",
        'name: "e" type: "Embed" bottom: "x" top: "y" '
        "embed_param { input_dim: 3 num_output: 2 bias_term: false }",
        (labels(1, 1, 2),),
        linear=True,
    ),
]

CASES = [
    *ELEMENTWISE,
    *SHAPING,
    *NORMALIZATION,
    *POOLING,
    *LOSSES,
    *WITH_WEIGHTS,
]

#: layers without a gradient, or without a top to have one from
WITHOUT_GRADIENT = {"ArgMax", "DummyData", "HDF5Data", "ImageData", "Silence"}
