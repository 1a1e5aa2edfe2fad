"""Linear pairs: <A x, y> = <x, A' y> for random x and y, with A' the by-hand backward pass."""

from __future__ import annotations

import numpy as np
import pytest

from minissl.gradient_check import adjoint_error
from minissl.kernels.geometry import convolution_output, pooling_output

# height/width pairs: size, kernel, stride, pad, dilation
GEOMETRIES = [
    ((4, 5), (3, 3), (1, 1), (0, 0), (1, 1)),
    ((5, 4), (3, 2), (2, 1), (1, 0), (1, 1)),
    ((6, 5), (2, 3), (1, 2), (0, 2), (3, 1)),
    ((3, 3), (1, 1), (2, 2), (0, 0), (1, 1)),
    ((2, 2), (4, 4), (3, 1), (1, 2), (1, 1)),
    ((7, 6), (3, 2), (2, 3), (2, 1), (2, 2)),
]
every_geometry = pytest.mark.parametrize("geometry", GEOMETRIES)


def filled(shape, compute):
    """Return an array that ``compute`` fills; NaN remains where it does not."""
    result = np.full(shape, np.nan)
    compute(result)
    return result


def outputs(geometry) -> tuple[int, ...]:
    return tuple(convolution_output(*axis) for axis in zip(*geometry, strict=True))


@every_geometry
def test_im2col_and_col2im(geometry, kernels):
    (h, w), kernel, *rest = geometry
    p, q = outputs(geometry)
    x_shape, col_shape = (2, h, w), (2 * kernel[0] * kernel[1], p * q)
    error = adjoint_error(
        lambda x: filled(col_shape, lambda col: kernels.im2col(x, kernel, *rest, col)),
        lambda col: filled(x_shape, lambda x: kernels.col2im(col, kernel, *rest, x)),
        x_shape,
        col_shape,
    )
    assert error < 1e-12


@every_geometry
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_and_its_gradient_of_the_input(geometry, groups, kernels):
    (h, w), kernel, *rest = geometry
    x_shape, y_shape = (2, 4, h, w), (2, 6, *outputs(geometry))
    weights = np.random.default_rng(9).normal(size=(6, 4 // groups, *kernel))
    error = adjoint_error(
        lambda x: filled(
            y_shape, lambda y: kernels.conv_forward(x, weights, None, *rest, groups, y)
        ),
        lambda y: filled(
            x_shape, lambda x: kernels.conv_backward_input(y, weights, *rest, groups, x)
        ),
        x_shape,
        y_shape,
    )
    assert error < 1e-12


@every_geometry
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_and_its_gradient_of_the_weights(geometry, groups, kernels):
    (h, w), kernel, *rest = geometry
    y_shape, w_shape = (2, 6, *outputs(geometry)), (6, 4 // groups, *kernel)
    x = np.random.default_rng(9).normal(size=(2, 4, h, w))

    def d_weights(y):
        d_w = np.zeros(w_shape)
        kernels.conv_backward_weights(x, y, *rest, groups, d_w)
        return d_w

    error = adjoint_error(
        lambda weights: filled(
            y_shape, lambda y: kernels.conv_forward(x, weights, None, *rest, groups, y)
        ),
        d_weights,
        w_shape,
        y_shape,
    )
    assert error < 1e-12


def test_convolution_and_its_gradient_of_the_bias(kernels):
    x, weights = np.zeros((2, 1, 3, 3)), np.zeros((4, 1, 2, 2))
    geometry = ((1, 1), (0, 0), (1, 1), 1)

    def d_bias(y):
        d_b = np.zeros(4)
        kernels.conv_backward_bias(y, d_b)
        return d_b

    error = adjoint_error(
        lambda b: filled((2, 4, 2, 2), lambda y: kernels.conv_forward(x, weights, b, *geometry, y)),
        d_bias,
        (4,),
        (2, 4, 2, 2),
    )
    assert error < 1e-12


def test_inner_product_and_its_gradients(kernels):
    rng = np.random.default_rng(9)
    x, weights = rng.normal(size=(3, 5)), rng.normal(size=(4, 5))

    def d_weights(y):
        d_w = np.zeros((4, 5))
        kernels.inner_product_backward_weights(x, y, d_w)
        return d_w

    def product(x, w):
        return filled((3, 4), lambda y: kernels.inner_product_forward(x, w, None, y))

    assert adjoint_error(lambda w: product(x, w), d_weights, (4, 5), (3, 4)) < 1e-12
    error = adjoint_error(
        lambda x: product(x, weights),
        lambda y: filled((3, 5), lambda x: kernels.inner_product_backward_input(y, weights, x)),
        (3, 5),
        (3, 4),
    )
    assert error < 1e-12


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad"),
    [
        ((4, 4), (2, 2), (2, 2), (0, 0)),
        ((6, 5), (3, 3), (2, 2), (0, 0)),  # last windows hang over
        ((4, 5), (3, 3), (2, 2), (1, 1)),  # ... and are clipped at the padded edge
        ((5, 6), (2, 4), (2, 1), (0, 3)),
        ((2, 2), (4, 4), (1, 1), (1, 1)),
    ],
)
def test_average_pooling(size, kernel, stride, pad, kernels):
    y_size = [pooling_output(*axis) for axis in zip(size, kernel, stride, pad, strict=True)]
    x_shape, y_shape = (2, 3, *size), (2, 3, *y_size)
    error = adjoint_error(
        lambda x: filled(y_shape, lambda y: kernels.ave_pool_forward(x, kernel, stride, pad, y)),
        lambda y: filled(x_shape, lambda x: kernels.ave_pool_backward(y, kernel, stride, pad, x)),
        x_shape,
        y_shape,
    )
    assert error < 1e-12
