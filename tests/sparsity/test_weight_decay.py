from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minissl.errors import ConfigError, ShapeError
from minissl.sparsity import weight_decay
from minissl.sparsity.weight_decay import DecayTerm

from .strategies import conv_shapes, dtypes, weights


def gradient_of(w, kind, strength, multiplier=None):
    d_w = np.full_like(w, 0.25)
    weight_decay.add_gradient(d_w, w, kind, strength, multiplier)
    return d_w - w.dtype.type(0.25)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hand_computed(dtype):
    w = np.array([[2, -3], [0, 0.5]], dtype)
    np.testing.assert_array_equal(gradient_of(w, "L2", 0.5), [[1, -1.5], [0, 0.25]])
    np.testing.assert_array_equal(gradient_of(w, "L1", 0.5), [[0.5, -0.5], [0, 0.5]])
    assert weight_decay.penalty(w, "L2", 0.5) == 0.25 * (4 + 9 + 0.25)
    assert weight_decay.penalty(w, "L1", 0.5) == 0.5 * 5.5
    m = np.array([[1, 2], [3, 0]], dtype)
    np.testing.assert_array_equal(gradient_of(w, "L2", 0.5, m), [[1, -3], [0, 0]])
    np.testing.assert_array_equal(gradient_of(w, "L1", 0.5, m), [[0.5, -1], [0, 0]])
    assert weight_decay.penalty(w, "L2", 0.5, m) == 0.25 * (4 + 18)
    assert weight_decay.penalty(w, "L1", 0.5, m) == 0.5 * (2 + 6)


def test_negative_multipliers_keep_their_sign_in_the_gradient_only():
    w = np.array([2.0, -3.0])
    m = np.array([-1.0, -2.0])
    np.testing.assert_array_equal(gradient_of(w, "L1", 0.5, m), [-0.5, 1.0])
    assert weight_decay.penalty(w, "L1", 0.5, m) == 0.5 * (2 + 6)
    assert weight_decay.penalty(w, "L2", 0.5, m) == -0.25 * (4 + 18)


@given(conv_shapes(), st.data(), st.sampled_from(["L1", "L2"]), st.booleans())
def test_gradient_is_the_finite_difference_of_the_penalty(drawn, data, kind, with_multiplier):
    w = data.draw(weights(drawn[0]))
    m = np.linspace(0.5, 2, w.size).reshape(w.shape) if with_multiplier else None
    step = 1e-4
    expected = np.empty_like(w)
    for index in np.ndindex(w.shape):  # L1 is linear on either side of 0, and even at 0
        moved = w.copy()
        moved[index] += step
        above = weight_decay.penalty(moved, kind, 0.3, m)
        moved[index] -= 2 * step
        expected[index] = (above - weight_decay.penalty(moved, kind, 0.3, m)) / (2 * step)
    np.testing.assert_allclose(gradient_of(w, kind, 0.3, m), expected, rtol=1e-7, atol=1e-8)


@given(conv_shapes(), st.data(), st.sampled_from(["L1", "L2"]), dtypes)
def test_a_multiplier_of_ones_changes_nothing(drawn, data, kind, dtype):
    w = data.draw(weights(drawn[0], dtype))
    ones = np.ones_like(w)
    np.testing.assert_array_equal(gradient_of(w, kind, 0.3, ones), gradient_of(w, kind, 0.3))
    assert weight_decay.penalty(w, kind, 0.3, ones) == weight_decay.penalty(w, kind, 0.3)


def test_penalty_of_float32_weights_is_summed_in_double():
    w = np.full(200_000, 0.1, np.float32)
    exact = 0.5 * 200_000 * float(np.float32(0.1)) ** 2
    assert weight_decay.penalty(w, "L2", 1.0) == pytest.approx(exact, rel=1e-12)


def read(spec_kind="", solver_kind="L2", decay=0.0005, mult=1.0):
    return weight_decay.term_of(
        SimpleNamespace(regularization_type=spec_kind, decay_mult=mult),
        SimpleNamespace(regularization_type=solver_kind, weight_decay=decay),
        "ip1 blob 0",
    )


def test_the_type_is_the_parameters_or_else_the_solvers():
    half = float(np.float32(0.0005))
    assert read() == DecayTerm("L2", half)
    assert read(solver_kind="L1") == DecayTerm("L1", half)
    assert read(spec_kind="L1") == DecayTerm("L1", half)
    assert read(spec_kind="L2", solver_kind="L1", mult=0.5) == DecayTerm("L2", half * 0.5)


@pytest.mark.parametrize("kinds", [{"spec_kind": "l1"}, {"solver_kind": "ISTA"}])
def test_unknown_types_are_refused_unless_there_is_no_decay(kinds):
    with pytest.raises(ConfigError, match=r"ip1 blob 0.*use one of L1, L2"):
        read(**kinds)
    assert read(**kinds, decay=0.0) is None
    assert read(**kinds, mult=0.0) is None


def test_functions_refuse_unknown_types():
    w = np.ones((2, 2))
    with pytest.raises(ConfigError, match="'L3'"):
        weight_decay.penalty(w, "L3", 1.0)
    with pytest.raises(ConfigError, match="'L3'"):
        weight_decay.add_gradient(np.zeros_like(w), w, "L3", 1.0)


def test_multipliers_of_another_shape_are_refused():
    weight_decay.check_multiplier(np.ones((4, 2)), (4, 2), "ip1 blob 0")
    with pytest.raises(ShapeError, match=r"ip1 blob 0.*\(2, 4\).*\(4, 2\)"):
        weight_decay.check_multiplier(np.ones((2, 4)), (4, 2), "ip1 blob 0")
