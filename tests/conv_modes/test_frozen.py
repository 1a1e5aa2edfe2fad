"""What is computed while zeros are frozen, and that it changes only roundings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl import backend
from minissl.conv_modes import ConvShape
from minissl.conv_modes.frozen import without_zeros
from minissl.conv_modes.lowered_ccnmm import LoweredCcnmm
from minissl.conv_modes.narrow import NarrowConvolution
from minissl.conv_modes.training import TrainedConvolution
from minissl.kernels.cpu.micro import gather_channels, scatter_channels
from tests.conftest import needs_compiler, needs_vectors

WIDE = ConvShape(64, (8, 8), 64, (3, 3), pad=(1, 1))


def trained(shape=WIDE, name="numba", dtype="float32", lowers=False):
    return TrainedConvolution(shape, 4, backend.get(name), dtype, lowers)


def mask_of(shape, filters=(), channels=(), columns=()):
    mask = np.ones(shape.weight_shape, "float32")
    mask[list(filters)] = 0
    mask[:, list(channels)] = 0
    mask.reshape(len(mask), -1)[:, list(columns)] = 0
    return mask


@needs_compiler
@needs_vectors
def test_the_fastest_way_is_taken():
    """Winograd's tiles of all weights, of living channels, or few rows and columns lowered."""
    assert without_zeros(trained(), mask_of(WIDE), True) is None
    assert without_zeros(trained(), mask_of(WIDE, columns=[1, 2]), True) is None
    nearly = mask_of(WIDE, range(2), range(2))  # no tenth faster
    assert without_zeros(trained(), nearly, True) is None
    way = without_zeros(trained(), mask_of(WIDE, range(16), range(3, 35)), True)
    assert isinstance(way, NarrowConvolution)
    assert (way.filters.size, way.channels.size) == (48, 32)
    assert way.multiply_adds == 48 * 32 * 9
    few = mask_of(WIDE, range(4, 64), columns=range(4, 576))
    assert isinstance(without_zeros(trained(), few, True), LoweredCcnmm)
    nothing = without_zeros(trained(), mask_of(WIDE, range(64)), True)
    assert isinstance(nothing, LoweredCcnmm) and nothing.multiply_adds == 0
    assert isinstance(without_zeros(trained(), mask_of(WIDE, range(32)), False), LoweredCcnmm)


@pytest.mark.parametrize(
    "options", [{"lowers": True}, {"dtype": "float64"}, {"name": "numpy"}], ids=str
)
def test_what_lives_is_lowered_wherever_all_weights_are(options):
    assert without_zeros(trained(**options), mask_of(WIDE), True) is None
    assert isinstance(without_zeros(trained(**options), mask_of(WIDE, [3]), True), LoweredCcnmm)


@needs_compiler
@needs_vectors
@pytest.mark.parametrize(
    ("shape", "mask"),
    [
        (WIDE._replace(groups=2), mask_of(WIDE._replace(groups=2), range(16))),
        (WIDE, mask_of(WIDE)),
        (WIDE, mask_of(WIDE, range(64))),
    ],
    ids=["groups", "nothing dead", "all dead"],
)
def test_no_convolution_is_narrower(shape, mask):
    assert NarrowConvolution.of(trained(shape), mask) is None


@needs_compiler
@needs_vectors
@settings(deadline=None)
@given(st.data())
def test_a_narrow_convolution_equals_the_whole(data):
    C, F, kernel = (data.draw(st.integers(1, n)) for n in (20, 20, 3))
    stride, pad, N = data.draw(st.integers(1, 2)), data.draw(st.integers(0, 1)), 3
    shape = ConvShape(C, (7, 6), F, (kernel, kernel), (stride, stride), (pad, pad))
    filters = data.draw(st.lists(st.integers(0, F - 1), min_size=1, unique=True))
    channels = data.draw(st.lists(st.integers(0, C - 1), min_size=1, unique=True))
    whole = trained(shape)
    narrow = NarrowConvolution(whole, np.sort(filters), np.sort(channels))
    dead = [sorted(set(range(n)) - set(kept)) for n, kept in ((F, filters), (C, channels))]
    mask = mask_of(shape, *dead)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.standard_normal((N, C, 7, 6), "float32")
    w, b = rng.standard_normal(shape.weight_shape, "float32") * mask, rng.random(F, "float32")
    d_y = rng.standard_normal((N, F, *shape.output), "float32")
    narrow.pack(w, b if data.draw(st.booleans()) else None)
    found = [np.full_like(d_y, np.nan), np.ones_like(w), np.full_like(x, np.nan)]
    expected = [np.empty_like(d_y), np.ones_like(w), np.empty_like(x)]
    with backend.single_threaded_blas():
        narrow.forward(x, found[0])
        narrow.backward_weights(x, d_y, found[1])
        narrow.backward_input(d_y, found[2])
        whole.forward(x, w, narrow.b, expected[0])
        whole.backward_weights(x, d_y, expected[1], None)
        whole.backward_input(d_y, w, expected[2])
    expected[1] = 1 + (expected[1] - 1) * mask
    for one, other in zip(found, expected, strict=True):
        assert np.allclose(one, other, rtol=1e-5, atol=2e-5 * np.abs(other).max())


@settings(deadline=None)
@given(st.integers(0, 99))
def test_channels_come_together_and_go_back(seed):
    rng = np.random.default_rng(seed)
    N, C, H, W = rng.integers(1, 9, 4)
    x, rest = rng.random((N, C, H, W)), rng.random(C)
    kept = np.flatnonzero(rng.random(C) < 0.5)
    narrow, y = np.empty((N, kept.size, H, W)), np.empty_like(x)
    gather_channels(x, kept, narrow)
    assert np.array_equal(narrow, x[:, kept])
    places = np.full(C, -1)
    places[kept] = range(kept.size)
    scatter_channels(narrow, places, rest, y)
    expected = np.broadcast_to(rest[:, None, None], x.shape).copy()
    expected[:, kept] = x[:, kept]
    assert np.array_equal(y, expected)
