"""The layers of the test vectors: prototxt, shapes of the bottoms, how they are filled.

A row is (variant, layer, bottoms, more): ``layer`` is the inside of a ``layer { ... }`` block
without name and connections, a bottom is (filling, shape) with a function of
:mod:`minissl.vectors.values`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from minissl.vectors import values

Filling = Callable[[str, tuple[int, ...]], np.ndarray]
IMAGES = (2, 3, 4, 5)  # N, C, H, W
ROWS = (4, 5)  # N, K


@dataclass(frozen=True)
class Row:
    """One layer with one combination of options.

    ``tops`` is their number, ``has_gradient`` whether a backward pass is part of the vector,
    ``parameters`` how to fill each of the layer's blobs (:func:`values.uniform` where it ends).
    """

    variant: str
    layer: str
    bottoms: tuple[tuple[Filling, tuple[int, ...]], ...]
    tops: int = 1
    has_gradient: bool = True
    phase: str = "TRAIN"
    parameters: tuple[Filling, ...] = ()


def labels(below: int) -> Filling:
    """Whole numbers below a bound."""
    return partial(values.integers, below=below)


def _one(variant: str, layer: str, shape=IMAGES, filling: Filling = values.distinct, **more) -> Row:
    return Row(variant, layer, ((filling, shape),), **more)


def _convolution(variant: str, options: str, shape=(2, 4, 5, 6)) -> Row:
    options = f'type: "Convolution" convolution_param {{ {options} }}'
    return _one(variant, options, shape, values.uniform)


def _pooling(variant: str, options: str, **more) -> Row:
    layer = f'type: "Pooling" pooling_param {{ {options} }}'
    return _one(variant, layer, (2, 2, 6, 5), **more)


def _loss(variant: str, layer: str, shape, target: Filling, target_shape, **more) -> Row:
    return Row(variant, layer, ((values.distinct, shape), (target, target_shape)), **more)


CONVOLUTIONS = [
    _convolution("plain", "num_output: 3 kernel_size: 3"),
    _convolution("stride 2 and pad 1", "num_output: 2 kernel_size: 3 stride: 2 pad: 1"),
    _convolution("dilation 2", "num_output: 2 kernel_size: 3 dilation: 2 pad: 2"),
    _convolution("two conv groups", "num_output: 6 kernel_size: 2 group: 2"),
    _convolution("1x1 without bias", "num_output: 3 kernel_size: 1 bias_term: false"),
    _convolution(
        "rectangular",
        "num_output: 2 kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 1 pad_h: 0 pad_w: 2",
    ),
    _one(
        "stride 2",
        'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 3 stride: 2 pad: 1 }',
        (1, 3, 3, 4),
        values.uniform,
    ),
]
INNER_PRODUCTS = [
    _one("plain", 'type: "InnerProduct" inner_product_param { num_output: 3 }', ROWS),
    _one(
        "transposed",
        'type: "InnerProduct" inner_product_param { num_output: 3 transpose: true }',
        (2, 2, 3),
    ),
    _one(
        "plain",
        'type: "Embed" embed_param { num_output: 3 input_dim: 6 }',
        (5,),
        labels(6),
    ),
]
POOLINGS = [
    _pooling("maximum", "kernel_size: 2 stride: 2"),
    _pooling("maximum, last window clipped", "kernel_size: 3 stride: 2 pad: 1"),
    _pooling("mean", "pool: AVE kernel_size: 3 stride: 2"),
    _pooling("mean over padding", "pool: AVE kernel_size: 3 stride: 2 pad: 1"),
    _pooling("global mean", "pool: AVE global_pooling: true"),
]
ACTIVATIONS = [
    _one("plain", 'type: "ReLU"'),
    _one("leaky", 'type: "ReLU" relu_param { negative_slope: 0.25 }'),
    _one("plain", 'type: "PReLU"'),
    _one("plain", 'type: "ELU" elu_param { alpha: 0.5 }'),
    _one("plain", 'type: "Sigmoid"'),
    _one("plain", 'type: "TanH"'),
    _one("plain", 'type: "AbsVal"'),
    _one("plain", 'type: "BNLL"'),
    _one("base e", 'type: "Exp"'),
    _one("base 2", 'type: "Exp" exp_param { base: 2 scale: 0.5 shift: 1 }'),
    _one("base e", 'type: "Log"', filling=values.positive),
    _one("base 2", 'type: "Log" log_param { base: 2 scale: 3 shift: 1 }', filling=values.positive),
    _one("square", 'type: "Power" power_param { power: 2 scale: 0.5 shift: 1 }'),
    _one("plain", 'type: "Threshold" threshold_param { threshold: 0.5 }', has_gradient=False),
    _one("testing", 'type: "Dropout" dropout_param { dropout_ratio: 0.5 }', phase="TEST"),
]
NORMALIZATIONS = [
    _one("across channels", 'type: "LRN" lrn_param { local_size: 3 alpha: 2 beta: 0.75 }'),
    _one(
        "within a channel",
        'type: "LRN" lrn_param { local_size: 3 alpha: 2 beta: 0.75 norm_region: WITHIN_CHANNEL }',
    ),
    _one("plain", 'type: "MVN"'),
    _one("mean only", 'type: "MVN" mvn_param { normalize_variance: false }'),
    _one(
        "training",
        'type: "BatchNorm"',
        parameters=(values.uniform, values.positive, values.positive),
    ),
    _one(
        "testing",
        'type: "BatchNorm"',
        phase="TEST",
        parameters=(values.uniform, values.positive, values.positive),
    ),
    _one("with bias", 'type: "Scale" scale_param { bias_term: true }', filling=values.uniform),
    _one("plain", 'type: "Bias"', filling=values.uniform),
    Row("of two bottoms", 'type: "Scale"', ((values.uniform, IMAGES), (values.uniform, (3,)))),
]
SHAPES = [
    _one("plain", 'type: "Flatten"', filling=values.uniform),
    _one("plain", 'type: "Reshape" reshape_param { shape { dim: 0 dim: -1 dim: 2 } }'),
    _one("two tops", 'type: "Split"', tops=2),
    _one("three along channels", 'type: "Tile" tile_param { tiles: 3 }'),
    _one("sums of squares", 'type: "Reduction" reduction_param { operation: SUMSQ axis: 1 }'),
    _one("means", 'type: "Reduction" reduction_param { operation: MEAN axis: 1 coeff: 2 }'),
    _one("three tops", 'type: "Slice" slice_param { axis: 1 }', tops=3),
    _one(
        "at points", 'type: "Slice" slice_param { axis: 3 slice_point: 1 slice_point: 3 }', tops=3
    ),
    Row(
        "channels",
        'type: "Concat"',
        ((values.uniform, (2, 3, 2, 2)), (values.uniform, (2, 1, 2, 2))),
    ),
    Row(
        "of a reference",
        'type: "Crop" crop_param { axis: 2 offset: 1 offset: 2 }',
        ((values.uniform, IMAGES), (values.uniform, (2, 3, 2, 3))),
    ),
    Row(
        "sum with coefficients",
        'type: "Eltwise" eltwise_param { operation: SUM coeff: 1 coeff: -0.5 }',
        ((values.uniform, IMAGES), (values.uniform, IMAGES)),
    ),
    Row(
        "product",
        'type: "Eltwise" eltwise_param { operation: PROD }',
        ((values.uniform, IMAGES), (values.distinct, IMAGES)),
    ),
    Row(
        "maximum",
        'type: "Eltwise" eltwise_param { operation: MAX }',
        ((values.distinct, (2, 3)), (partial(values.uniform, scale=1 / 16), (2, 3))),
    ),
    _one("best two", 'type: "ArgMax" argmax_param { top_k: 2 }', ROWS, has_gradient=False),
]
LOSSES = [
    _one("along channels", 'type: "Softmax"'),
    _loss("plain", 'type: "SoftmaxWithLoss"', ROWS, labels(5), (4,)),
    _loss(
        "one label ignored",
        'type: "SoftmaxWithLoss" loss_param { ignore_label: 2 }',
        (2, 4, 2, 3),
        labels(4),
        (2, 2, 3),
    ),
    _loss("plain", 'type: "SigmoidCrossEntropyLoss"', ROWS, values.share, ROWS),
    _loss("plain", 'type: "EuclideanLoss"', ROWS, values.uniform, ROWS),
    _loss("L1", 'type: "HingeLoss"', ROWS, labels(5), (4,)),
    _loss("L2", 'type: "HingeLoss" hinge_loss_param { norm: L2 }', ROWS, labels(5), (4,)),
    Row(
        "plain",
        'type: "MultinomialLogisticLoss"',
        ((values.share, ROWS), (labels(5), (4,))),
    ),
    Row(
        "matrix as a bottom",
        'type: "InfogainLoss"',
        ((values.share, ROWS), (labels(5), (4,)), (values.share, (5, 5))),
    ),
    Row(
        "margin 1",
        'type: "ContrastiveLoss"',
        (
            (partial(values.uniform, scale=1 / 256), ROWS),
            (partial(values.uniform, scale=1 / 512), ROWS),
            (labels(2), (4,)),
        ),
    ),
    _loss(
        "top 2",
        'type: "Accuracy" accuracy_param { top_k: 2 }',
        ROWS,
        labels(5),
        (4,),
        has_gradient=False,
    ),
]

ROWS_OF_TABLE = [
    *CONVOLUTIONS,
    *INNER_PRODUCTS,
    *POOLINGS,
    *ACTIVATIONS,
    *NORMALIZATIONS,
    *SHAPES,
    *LOSSES,
]
