"""Winograd's formula, in plain NumPy, is the convolution; float32 loses a digit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl.conv_modes import ConvShape
from minissl.kernels import reference, winograd
from minissl.kernels.winograd import Winograd
from tests.kernels.strategies import Case


@st.composite
def same_convolutions(draw, most=4):
    """Convolutions of 3 x 3 or 5 x 5 weights, stride 1 and any pad that is smaller."""
    channels, filters = draw(st.integers(1, most)), draw(st.integers(1, most))
    r = draw(st.sampled_from([3, 5]))
    pad = draw(st.integers(0, r - 1)), draw(st.integers(0, r - 1))
    size = tuple(draw(st.integers(max(1, r - 2 * p), 11)) for p in pad)
    shape = ConvShape(channels, size, filters, (r, r), pad=pad)
    return Case(draw(st.integers(1, 4)), shape, draw(st.integers(0, 2**32 - 1)))


def definition(case, x, w, b, d_y):
    """Outputs and gradients; that of the weights is added to ones."""
    y, d_x, d_w = np.empty_like(d_y), np.empty_like(x), np.ones_like(w)
    reference.conv_forward(x, w, b, *case.arguments, y)
    reference.conv_backward_input(d_y, w, *case.arguments, d_x)
    reference.conv_backward_weights(x, d_y, *case.arguments, d_w)
    return y, d_x, d_w


def by_winograd(case, x, w, b, d_y):
    pad = case.shape.pad
    y, d_x, d_w = np.full_like(d_y, np.nan), np.full_like(x, np.nan), np.ones_like(w)
    winograd.conv_winograd(x, w, b, pad, y)
    winograd.conv_winograd_backward_input(d_y, w, pad, d_x)
    winograd.conv_winograd_backward_weights(x, d_y, pad, d_w)
    return y, d_x, d_w


@pytest.mark.parametrize(
    ("w", "right"), [([1, -2, 4], [14, 29, 50, 77]), ([1, 0, 0, 0, 2], [32, 51])], ids=str
)
def test_one_axis_by_hand(w, right):
    """Four outputs of three weights, or two of five, over six numbers."""
    x, formula = np.arange(6.0) ** 2, Winograd(len(w))
    product = (formula.filter_matrix @ w) * (winograd.B_T @ x)
    assert formula.output_matrix @ product == pytest.approx(right)


@given(same_convolutions())
@settings(max_examples=40, deadline=None)
def test_all_three_passes_are_the_definition(case):
    arrays = case.arrays()
    for found, right in zip(by_winograd(case, *arrays), definition(case, *arrays), strict=True):
        assert np.allclose(found, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("r", [3, 5])
def test_what_float32_loses(r):
    """Right to 1e-5 of the largest output, where the plain sum is right to 1e-6."""
    case = Case(2, ConvShape(64, (8, 8), 64, (r, r), pad=(r // 2, r // 2)), 1)
    x, w, b, d_y = case.arrays(np.float32)
    right = definition(case, *(a.astype(np.float64) for a in (x, w, b, d_y)))
    for found, plain, exact in zip(
        by_winograd(case, x, w, b, d_y), definition(case, x, w, b, d_y), right, strict=True
    ):
        largest = np.abs(exact).max()
        assert np.abs(plain - exact).max() < 1e-6 * largest
        assert 0 < np.abs(found - exact).max() < 1e-5 * largest


def test_there_may_be_no_bias():
    case = Case(1, ConvShape(2, (5, 4), 3, (3, 3), pad=(1, 1)), 1)
    x, w, b, d_y = case.arrays()
    with_bias, without = (by_winograd(case, x, w, one, d_y)[0] for one in (b, None))
    assert np.allclose(with_bias - without, b.reshape(-1, 1, 1))
