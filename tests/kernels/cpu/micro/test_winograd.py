"""Winograd's tiles compute the three passes: every ISA, size and number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings

from minissl.conv_modes import ConvShape
from minissl.conv_modes.training import TrainedConvolution
from minissl.kernels import cpu
from minissl.kernels.cpu import micro
from minissl.kernels.cpu.micro import isa, winograd
from minissl.kernels.cpu.micro.winograd import WinogradConvolution
from minissl.kernels.cpu.micro.winograd_gradient import WinogradWeightGradient
from tests.conftest import needs_compiler
from tests.kernels.strategies import Case
from tests.kernels.test_winograd import definition, same_convolutions

ISAS = isa.available()
every_isa = pytest.mark.parametrize("vectors", ISAS, ids=[one.name for one in ISAS])
PASSES = ("forward", "weights", "input")


def case_of(N, channels, filters, *size, r=3, pad=None):
    pad = r // 2 if pad is None else pad
    return Case(N, ConvShape(channels, size, filters, (r, r), pad=(pad, pad)), 1)


#: whole and broken vectors of channels, tiles and pixels; several images of a unit, and bands
CASES = [
    case_of(3, 16, 16, 32, 32),
    case_of(5, 64, 64, 8, 8),
    case_of(19, 32, 32, 4, 4),
    case_of(9, 20, 33, 13, 13),
    case_of(1, 16, 16, 40, 70),
    case_of(2, 3, 5, 7, 9),
    case_of(1, 1, 1, 1, 1),
    case_of(70, 1, 2, 2, 3),
    case_of(3, 32, 64, 8, 8, r=5),
    case_of(2, 20, 50, 12, 12, r=5, pad=0),
    case_of(1, 3, 4, 70, 41, r=5, pad=4),
    case_of(4, 16, 17, 9, 6, pad=2),
]


def examples(test):
    for case in CASES:
        test = example(case)(test)
    return test


def run(vectors, case, x, w, b, d_y):
    """All passes; the gradient of the weights is added to ones."""
    y, d_x, d_w = np.full_like(d_y, np.nan), np.full_like(x, np.nan), np.ones_like(w)
    WinogradConvolution(vectors, case.shape, gradient=False).run(x, w, b, y)
    WinogradConvolution(vectors, case.shape, gradient=True).run(d_y, w, None, d_x)
    WinogradWeightGradient(vectors, case.shape).run(x, d_y, d_w, None)
    return y, d_x, d_w


#: of y, d_x and d_w: gradients of weights are sums over all pixels, in which more is lost
EXACT = (1e-5, 1e-5, 2e-5)


def agree(found, right, exact):
    return np.allclose(found, right, rtol=0, atol=exact * max(1.0, np.abs(right).max()))


@needs_compiler
@every_isa
@given(same_convolutions(most=40))
@examples
@settings(max_examples=15, deadline=None)
def test_all_three_passes_are_the_definition(vectors, case):
    arrays = case.arrays(np.float32)
    before = [a.copy() for a in arrays]
    right = definition(case, *(a.astype(np.float64) for a in arrays))
    for found, correct, exact in zip(run(vectors, case, *arrays), right, EXACT, strict=True):
        assert agree(found, correct, exact)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


@needs_compiler
@every_isa
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.shape.size))
def test_bands_of_an_image_join(vectors, case, monkeypatch):
    """Units of a single row of tiles give what whole images give, bit by bit, but for sums."""
    arrays = case.arrays(np.float32)
    whole = run(vectors, case, *arrays)
    monkeypatch.setattr(winograd, "MOST_TILES", 1)
    bands = run(vectors, case, *arrays)
    assert np.array_equal(whole[0], bands[0]) and np.array_equal(whole[1], bands[1])
    assert agree(bands[2], whole[2], EXACT[2])


@needs_compiler
@every_isa
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.shape.size))
def test_any_number_of_threads_gives_the_same_bits(vectors, case):
    numba = pytest.importorskip("numba")
    arrays = case.arrays(np.float32)
    before, results = numba.get_num_threads(), set()
    try:
        for threads in {1, min(2, numba.config.NUMBA_NUM_THREADS)}:
            numba.set_num_threads(threads)
            results.add(b"".join(a.tobytes() for a in run(vectors, case, *arrays)))
    finally:
        numba.set_num_threads(before)
    assert len(results) == 1


@needs_compiler
@every_isa
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.shape.size))
def test_passes_are_adjoint(vectors, case):
    """<y, d_y> = <x, d_x> = <w, d_w> for a convolution without bias, but for rounding."""
    x, w, _, d_y = case.arrays(np.float32)
    y, d_x, d_w = run(vectors, case, x, w, None, d_y)
    pairs = [(y, d_y), (x, d_x), (w, d_w - 1)]
    products = [np.vdot(*(a.astype(np.float64) for a in pair)) for pair in pairs]
    scale = np.abs(y).max() * np.sqrt(y.size)
    assert products == pytest.approx([products[0]] * 3, abs=1e-5 * max(scale, 1.0))


@needs_compiler
@every_isa
def test_arrays_in_any_layout_and_a_bias(vectors):
    case = CASES[3]
    x, w, b, d_y = case.arrays(np.float32)
    y, _, d_w = run(vectors, case, x, w, b, d_y)
    out = np.empty(y.shape[::-1], np.float32).T
    forward = WinogradConvolution(vectors, case.shape, gradient=False)
    forward.run(np.asfortranarray(x), np.asfortranarray(w), b, out)
    assert np.array_equal(out, y)
    found, d_b = np.ones_like(w), np.ones_like(b)
    gradient = WinogradWeightGradient(vectors, case.shape)
    gradient.run(np.asfortranarray(x), np.asfortranarray(d_y), found, d_b)
    assert np.array_equal(found, d_w)
    right = np.ones_like(b)
    cpu.conv_backward_bias(d_y, right)
    assert np.array_equal(d_b, right)


@every_isa
@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"pad": (0, 2)}, True),
        ({"pad": (1, 3)}, False),
        ({"stride": (2, 2)}, False),
        ({"kernel": (5, 5), "pad": (2, 2)}, True),
        ({"kernel": (3, 5), "pad": (1, 2)}, False),
        ({"kernel": (7, 7), "pad": (3, 3)}, False),
        ({"dilation": (2, 2), "pad": (2, 2)}, False),
        ({"groups": 2}, False),
        ({"channels": 512, "filters": 512}, False),
    ],
    ids=str,
)
def test_where_it_applies(vectors, changes, fits):
    shape = ConvShape(64, (8, 8), 64, (3, 3), pad=(1, 1))._replace(**changes)
    assert winograd.applies(vectors, shape) == fits


@needs_compiler
@pytest.mark.skipif(not ISAS, reason="this CPU has no vectors to use")
@pytest.mark.parametrize("name", PASSES)
def test_chosen_where_channels_fill_vectors(name):
    wide = ConvShape(64, (8, 8), 64, (3, 3), pad=(1, 1))
    few = wide._replace(channels=3, filters=8)
    large = wide._replace(channels=512, filters=512)
    ways = [micro.training_pass(name, shape, "float32").way for shape in (wide, few, large)]
    assert ways == ["winograd", "direct", "direct"]
    trained = TrainedConvolution(wide, 128, cpu, "float32", lowers=False)
    assert set(trained.passes().values()) == {"winograd"}
    assert trained.mode == "WINOGRAD"
    assert TrainedConvolution(few, 1, cpu, "float32", True).mode == "LOWERED_GEMM"
