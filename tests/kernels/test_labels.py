"""Labels and their loss: the compiled twins do what the definitions do, for bad labels too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl import backend
from minissl.kernels import reference

cpu = backend.get("numba")

CLASSES = 5
LABELS = st.sampled_from([0, 1, 2, 3, 4, 4, 255, -1, 1.5, 5, np.nan, np.inf])


@st.composite
def label_blobs(draw):
    """Labels (outer, inner), good and bad, in float32 or float64."""
    outer, inner = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    values = draw(st.lists(LABELS, min_size=outer * inner, max_size=outer * inner))
    dtype = draw(st.sampled_from(["float32", "float64"]))
    return np.array(values, dtype).reshape(outer, inner)


def read(kernels, values, ignored):
    labels, valid = np.full(values.shape, -7, np.int64), np.empty(values.shape, bool)
    status = np.zeros(2)
    kernels.read_labels(values, CLASSES, ignored, labels, valid, status)
    return labels, valid, status


@given(label_blobs(), st.sampled_from([None, 255, -1, 2]))
@settings(deadline=None)  # the first example compiles
def test_labels_are_read_alike(values, ignored):
    for mine, theirs in zip(
        read(cpu, values, ignored), read(reference, values, ignored), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


@given(label_blobs(), st.sampled_from([None, 255, 2]), st.sampled_from([None, 0, 1, 40]))
@settings(deadline=None)
def test_the_loss_and_its_gradient_are_alike(values, ignored, normalizer):
    labels, valid, _ = read(reference, values, ignored)
    outer, inner = values.shape
    rng = np.random.default_rng(3)
    p = rng.random((outer, CLASSES, inner)).astype(values.dtype)
    p[0, labels[0, 0], 0] = 0  # as small as a probability is taken to be
    found = []
    for kernels in (cpu, reference):
        loss, count, d_x = np.empty((), p.dtype), np.empty(()), np.full_like(p, np.nan)
        kernels.label_loss(p, labels, valid, 1e-30, normalizer, loss, count)
        kernels.label_loss_backward(p, labels, valid, np.float64(0.7), count, d_x)
        found.append((loss, count, d_x))
    tolerance = 1e-5 if p.dtype == np.float32 else 1e-12
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=1e-12)


def test_the_first_bad_label_is_told():
    values = np.array([[1.0], [7.0], [9.0]])
    assert (
        read(cpu, values, None)[2].tolist() == [1, 7] == read(reference, values, None)[2].tolist()
    )


def test_a_good_status_is_left_as_it_is():
    status = np.array([1.0, 8.0])
    labels, valid = np.empty((1, 1), np.int64), np.empty((1, 1), bool)
    for kernels in (cpu, reference):
        kernels.read_labels(np.array([[3.0]]), CLASSES, None, labels, valid, status)
        assert status.tolist() == [1, 8] and labels.item() == 3


@pytest.mark.parametrize("kernels", [cpu, reference])
def test_positions_that_do_not_count_have_no_gradient(kernels):
    p = np.full((2, CLASSES, 1), 0.2)
    labels, valid = np.array([[0], [3]]), np.array([[False], [True]])
    d_x = np.full_like(p, np.nan)
    kernels.label_loss_backward(p, labels, valid, np.float64(1), np.float64(2), d_x)
    assert not d_x[0].any() and d_x[1, :, 0] == pytest.approx([0.1, 0.1, 0.1, -0.4, 0.1])
