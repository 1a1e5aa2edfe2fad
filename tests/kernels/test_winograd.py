"""Winograd's formula, in plain NumPy, is the convolution; float32 loses a digit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl.conv_modes import ConvShape
from minissl.kernels import reference
from minissl.kernels.reference import winograd
from tests.kernels.strategies import Case


@st.composite
def same_convolutions(draw, most=4):
    """3 x 3 convolutions whose outputs are as large as their inputs."""
    channels, filters = draw(st.integers(1, most)), draw(st.integers(1, most))
    size = draw(st.integers(1, 11)), draw(st.integers(1, 11))
    shape = ConvShape(channels, size, filters, (3, 3), pad=(1, 1))
    return Case(draw(st.integers(1, 4)), shape, draw(st.integers(0, 2**32 - 1)))


def definition(case, x, w, b, d_y):
    """Outputs and gradients; that of the weights is added to ones."""
    y, d_x, d_w = np.empty_like(d_y), np.empty_like(x), np.ones_like(w)
    reference.conv_forward(x, w, b, *case.arguments, y)
    reference.conv_backward_input(d_y, w, *case.arguments, d_x)
    reference.conv_backward_weights(x, d_y, *case.arguments, d_w)
    return y, d_x, d_w


def by_winograd(x, w, b, d_y):
    y, d_x, d_w = np.full_like(d_y, np.nan), np.full_like(x, np.nan), np.ones_like(w)
    winograd.conv_winograd(x, w, b, y)
    winograd.conv_winograd_backward_input(d_y, w, d_x)
    winograd.conv_winograd_backward_weights(x, d_y, d_w)
    return y, d_x, d_w


def test_one_axis_by_hand():
    """Four outputs of three weights over six numbers."""
    x, w = np.arange(6.0) ** 2, np.array([1.0, -2, 4])
    product = (winograd.G @ w) * (winograd.B_T @ x)
    assert winograd.A_T @ product == pytest.approx([14, 29, 50, 77])


@given(same_convolutions())
@settings(max_examples=40, deadline=None)
def test_all_three_passes_are_the_definition(case):
    arrays = case.arrays()
    for found, right in zip(by_winograd(*arrays), definition(case, *arrays), strict=True):
        assert np.allclose(found, right, rtol=1e-12, atol=1e-12)


def test_what_float32_loses():
    """Right to 1e-5 of the largest output, where the plain sum is right to 1e-6."""
    case = Case(2, ConvShape(64, (8, 8), 64, (3, 3), pad=(1, 1)), 1)
    x, w, b, d_y = case.arrays(np.float32)
    right = definition(case, *(a.astype(np.float64) for a in (x, w, b, d_y)))
    for found, plain, exact in zip(
        by_winograd(x, w, b, d_y), definition(case, x, w, b, d_y), right, strict=True
    ):
        largest = np.abs(exact).max()
        assert np.abs(plain - exact).max() < 1e-6 * largest
        assert 0 < np.abs(found - exact).max() < 1e-5 * largest


def test_weights_may_be_missing_a_bias():
    case = Case(1, ConvShape(2, (5, 4), 3, (3, 3), pad=(1, 1)), 1)
    x, w, b, d_y = case.arrays()
    with_bias, without = by_winograd(x, w, b, d_y)[0], by_winograd(x, w, None, d_y)[0]
    assert np.allclose(with_bias - without, b.reshape(-1, 1, 1))
