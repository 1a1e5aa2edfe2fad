from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given

from minissl.sparsity.zero_out import ZERO_THRESHOLD, applies_to, is_small, zero_out

from .strategies import conv_shapes, dtypes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_threshold_is_strict_in_the_precision_of_the_weights(dtype, sign):
    """float32(1e-4) lies below the double 1e-4, and stays all the same."""
    limit = dtype(1e-4)
    below, above = np.nextafter(limit, dtype(0)), np.nextafter(limit, dtype(1))
    w = sign * np.array([[below, limit, above]], dtype)
    assert is_small(w).tolist() == [[True, False, False]]
    zero_out(w)
    np.testing.assert_array_equal(w, sign * np.array([[0, limit, above]], dtype))


def test_kernels_get_the_threshold_in_the_precision_of_the_weights():
    """A compiled kernel would widen float32 weights to compare them with a double."""
    seen = []
    kernels = SimpleNamespace(zero_out=lambda w, threshold: seen.append(threshold.dtype))
    for dtype in (np.float32, np.float64):
        zero_out(np.zeros((1, 1), dtype), kernels=kernels)
    assert seen == [np.float32, np.float64]


def test_the_published_threshold():
    assert ZERO_THRESHOLD == 1e-4


@given(conv_shapes(), dtypes)
def test_zero_out_changes_small_weights_only_and_once(drawn, dtype):
    shape, _ = drawn
    w = np.random.default_rng(np.prod(shape)).normal(scale=2e-4, size=shape).astype(dtype)
    expected = np.where(np.abs(w) < dtype(1e-4), dtype(0), w)
    zero_out(w)
    np.testing.assert_array_equal(w, expected)
    zero_out(w)
    np.testing.assert_array_equal(w, expected)


def test_threshold_of_choice_and_special_values():
    w = np.array([0.5, -0.5, 0.4, np.nan, np.inf, -np.inf, 5e-324])
    zero_out(w, 0.5)
    np.testing.assert_array_equal(w, [0.5, -0.5, 0, np.nan, np.inf, -np.inf, 0])
    zero_out(w, 0.0)
    np.testing.assert_array_equal(w, [0.5, -0.5, 0, np.nan, np.inf, -np.inf, 0])


def test_weights_only_unless_the_published_program_is_followed():
    roles = ("weight", "bias", "statistic")
    assert [applies_to(role) for role in roles] == [True, False, False]
    assert [applies_to(role, original=True) for role in roles] == [True, True, True]
    assert not any(applies_to(role, enabled=False) for role in roles)
    assert not any(applies_to(role, enabled=False, original=True) for role in roles)
