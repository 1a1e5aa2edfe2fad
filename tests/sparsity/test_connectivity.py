from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minissl.errors import ConfigError
from minissl.kernels import reference
from minissl.sparsity.connectivity import MODES, mask_of
from minissl.sparsity.zero_out import zero_out

from .strategies import conv_shapes, dtypes, weights


def naive_grpwise(w, conv_groups):
    matrix = w.reshape(w.shape[0], -1)
    mask = np.ones_like(matrix)
    height = matrix.shape[0] // conv_groups
    for group in range(conv_groups):
        band = slice(group * height, (group + 1) * height)
        for row in range(band.start, band.stop):
            if not matrix[row].any():
                mask[row] = 0
        for column in range(matrix.shape[1]):
            if not matrix[band, column].any():
                mask[band, column] = 0
    return mask.reshape(w.shape)


@given(conv_shapes(), st.data(), dtypes)
def test_masks_equal_the_naive_loops(drawn, data, dtype):
    shape, g = drawn
    w = data.draw(weights(shape, dtype))
    before = w.copy()
    eltwise = mask_of(w, "DISCONNECTED_ELTWISE", g)
    grpwise = mask_of(w, "DISCONNECTED_GRPWISE", g)
    np.testing.assert_array_equal(eltwise, w != 0)
    np.testing.assert_array_equal(grpwise, naive_grpwise(w, g))
    assert eltwise.shape == grpwise.shape == w.shape
    assert eltwise.dtype == grpwise.dtype == dtype
    np.testing.assert_array_equal(w, before)


@given(conv_shapes(), st.data(), st.sampled_from(MODES[1:]), dtypes)
def test_frozen_weights_stay_zero_and_the_others_move_freely(drawn, data, mode, dtype):
    shape, g = drawn
    w = data.draw(weights(shape, dtype))
    mask = mask_of(w, mode, g)
    update = np.full(shape, 0.25, dtype)
    moved = w.copy()
    reference.apply_update(moved, update, mask)
    np.testing.assert_array_equal(moved[mask == 0], 0)
    np.testing.assert_array_equal(moved[mask == 1], w[mask == 1] - dtype(0.25))


def test_grpwise_leaves_lone_zeros_trainable_and_eltwise_does_not():
    w = np.array([[1, 0, 3, 0], [0, 0, 0, 0], [5, 0, 0, 8.0]])
    grpwise = [[1, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 1]]
    np.testing.assert_array_equal(mask_of(w, "DISCONNECTED_GRPWISE"), grpwise)
    np.testing.assert_array_equal(mask_of(w, "DISCONNECTED_ELTWISE"), w != 0)


def test_columns_are_those_of_a_band():
    """A column that is zero in one conv group only is frozen in that group, not in the other."""
    w = np.array([[0, 1], [0, 2], [3, 4], [5, 6.0]])
    np.testing.assert_array_equal(
        mask_of(w, "DISCONNECTED_GRPWISE", conv_groups=2), [[0, 1], [0, 1], [1, 1], [1, 1]]
    )
    np.testing.assert_array_equal(mask_of(w, "DISCONNECTED_GRPWISE"), np.ones((4, 2)))


def test_a_zero_block_is_not_frozen_by_grpwise():
    w = np.ones((4, 4))
    w[:2, :2] = 0
    np.testing.assert_array_equal(mask_of(w, "DISCONNECTED_GRPWISE"), np.ones((4, 4)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_eltwise_freezes_what_zero_out_removes(dtype):
    w = np.array([[9e-5, 1e-4, -9e-5, -1e-4, 0, 2e-4]], dtype)
    mask = mask_of(w, "DISCONNECTED_ELTWISE")
    zero_out(w)
    np.testing.assert_array_equal(mask, w != 0)
    np.testing.assert_array_equal(mask, [[0, 1, 0, 1, 0, 1]])


def test_connected_has_no_mask_and_freezes_nothing():
    assert mask_of(np.zeros((2, 2)), "CONNECTED") is None
    w = np.zeros((2, 2))
    reference.apply_update(w, np.ones((2, 2)), None)
    np.testing.assert_array_equal(w, -1)


def test_refusals():
    assert MODES == ("CONNECTED", "DISCONNECTED_ELTWISE", "DISCONNECTED_GRPWISE")
    with pytest.raises(ConfigError, match=r"'ELTWISE'.*DISCONNECTED_ELTWISE"):
        mask_of(np.zeros((2, 2)), "ELTWISE")
    with pytest.raises(ConfigError, match="group 0"):
        mask_of(np.zeros((2, 2)), "DISCONNECTED_GRPWISE", 0)
