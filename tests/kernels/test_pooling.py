"""Poolings and their gradients are those of the definition: every window, by all vectors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl import backend
from minissl.kernels import reference
from minissl.kernels.cpu.micro import isa
from minissl.kernels.geometry import pooling_output
from tests.kernels.test_cpu import assert_agree, run_both

cpu = backend.get("numba")
ISAS = ["generic", *(one.name for one in isa.available())]


@st.composite
def windows(draw):
    """Pooling of (N, C, H, W): kernel, stride and pad, the usual sizes more often."""
    kernel, stride, pad, sizes = [], [], [], []
    for _ in "hw":
        k, s = draw(
            st.sampled_from([(3, 2), (2, 2), (1, 1), (3, 1), (4, 3), (2, 3), (5, 2), (7, 1)])
        )
        p = draw(st.integers(0, k - 1))
        size = draw(st.integers(max(1, k - 2 * p), 40))
        kernel, stride, pad, sizes = [*kernel, k], [*stride, s], [*pad, p], [*sizes, size]
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), *sizes)
    down = draw(st.booleans())
    windows = [pooling_output(*axis, down) for axis in zip(sizes, kernel, stride, pad, strict=True)]
    return shape, (*shape[:2], *windows), tuple(kernel), tuple(stride), tuple(pad)


@pytest.mark.parametrize("vectors", ISAS)
@given(
    case=windows(), dtype=st.sampled_from(["float64", "float32"]), seed=st.integers(0, 2**32 - 1)
)
@settings(max_examples=50, deadline=None)
def test_max_pooling_agrees(vectors, case, dtype, seed):
    shape, y_shape, *geometry = case
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 9, shape).astype(dtype)  # with many equal values
    x[rng.random(shape) < rng.choice([0, 0.2])] = np.nan  # is handed on, the first of several
    x[rng.random(shape) < rng.choice([0, 0.2])] = -np.inf  # is not taken for padding
    x[rng.random(shape) < rng.choice([0, 0.1])] = np.inf
    y, argmax = np.full(y_shape, 7, dtype), np.full(y_shape, -1, np.int32)
    d_y = rng.uniform(-1, 1, y_shape).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINISSL_ISA", vectors)
        both = run_both("max_pool_forward", (x, *geometry), (y, argmax))
        (values, found), (places, where) = both
        assert np.array_equal(values, found, equal_nan=True) and np.array_equal(places, where)
        for kernels in (reference, cpu):  # without the places
            kernels.max_pool_forward(x, *geometry, y, None)
            assert np.array_equal(values, y, equal_nan=True)
        assert_agree("max_pool_backward", (d_y, places, *geometry), np.full_like(x, np.nan))


@pytest.mark.parametrize("vectors", ISAS)
@given(
    case=windows(), dtype=st.sampled_from(["float64", "float32"]), seed=st.integers(0, 2**32 - 1)
)
@settings(max_examples=80, deadline=None)
def test_average_pooling_agrees(vectors, case, dtype, seed):
    shape, y_shape, *geometry = case
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, shape).astype(dtype)
    d_y = rng.uniform(-1, 1, y_shape).astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINISSL_ISA", vectors)
        assert_agree("ave_pool_forward", (x, *geometry), np.full_like(d_y, np.nan))
        assert_agree("ave_pool_backward", (d_y, *geometry), np.full_like(x, np.nan))


@pytest.mark.parametrize("vectors", ISAS)
def test_large_windows_run_as_well(vectors, monkeypatch):
    monkeypatch.setenv("MINISSL_ISA", vectors)
    x = np.random.default_rng(0).normal(size=(2, 3, 20, 20)).astype(np.float32)
    y, argmax = np.empty((2, 3, 2, 1), np.float32), np.empty((2, 3, 2, 1), np.int32)
    (values, found), (places, where) = run_both(
        "max_pool_forward", (x, (11, 20), (9, 5), (0, 0)), (y, argmax)
    )
    assert np.array_equal(values, found) and np.array_equal(places, where)
    assert_agree("max_pool_backward", (values, places, (11, 20), (9, 5), (0, 0)), x)


@pytest.mark.parametrize("vectors", ISAS)
@pytest.mark.parametrize("kernel, stride", [((8, 8), (4, 4)), ((2, 8), (4, 3)), ((3, 3), (2, 2))])
def test_the_largest_windows_of_tiles_and_no_images(vectors, kernel, stride, monkeypatch):
    monkeypatch.setenv("MINISSL_ISA", vectors)
    for N in (0, 2):
        x = np.random.default_rng(0).normal(size=(N, 3, 20, 33)).astype(np.float32)
        P, Q = (1 + (n - k) // s for n, k, s in zip((20, 33), kernel, stride, strict=True))
        y, argmax = np.empty((N, 3, P, Q), np.float32), np.empty((N, 3, P, Q), np.int32)
        geometry = kernel, stride, (0, 0)
        (values, found), (places, where) = run_both("max_pool_forward", (x, *geometry), (y, argmax))
        assert np.array_equal(values, found) and np.array_equal(places, where)
        assert_agree("max_pool_backward", (values, places, *geometry), x)
        assert_agree("ave_pool_forward", (x, *geometry), y)
        assert_agree("ave_pool_backward", (values, *geometry), x)


@pytest.mark.parametrize("vectors", ISAS)
def test_nothing_is_written_beside_what_is_no_run_of_memory(vectors, monkeypatch):
    """Tiles see addresses only: such arrays are for the plain loops, or refused."""
    monkeypatch.setenv("MINISSL_ISA", vectors)
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 6)).astype(np.float32)
    geometry = (2, 2), (2, 2), (0, 0)
    for mean in (False, True):
        whole = np.full((2, 5, 3, 3), 7, np.float32)
        argmax = np.empty((2, 3, 3, 3), np.int32)
        y = whole[:, 1:4]
        try:
            if mean:
                cpu.ave_pool_forward(x, *geometry, y)
            else:
                cpu.max_pool_forward(x, *geometry, y, argmax)
        except Exception:  # Numba's, which names the types
            assert (y == 7).all()
        else:
            blocks = x.reshape(2, 3, 3, 2, 3, 2)
            correct = blocks.mean(axis=(3, 5)) if mean else blocks.max(axis=(3, 5))
            assert np.allclose(y, correct, atol=1e-6)
        assert (whole[:, 0] == 7).all() and (whole[:, 4] == 7).all()
