"""The register-blocked convolutions equal the definition: every ISA, layout, shape and pattern."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minissl.conv_modes import ConvShape
from minissl.conv_modes.lowered_ccnmm import LoweredCcnmm
from minissl.conv_modes.lowered_csrmm import LoweredCsrmm
from minissl.kernels import reference
from minissl.kernels.cpu.micro import isa
from minissl.kernels.cpu.micro.dense import DenseConvolution
from minissl.kernels.cpu.micro.sparse import SparseConvolution
from minissl.kernels.cpu.micro.sparse_layout import layouts, over_moved_pixels, over_pixels
from minissl.kernels.cpu.micro.tiles import one_row
from tests.conftest import needs_compiler
from tests.kernels.cpu.micro.cases import expected, integers, wide_convolutions
from tests.kernels.strategies import PATTERNS, Case, convolutions, sparsify

pytestmark = needs_compiler

ISAS = isa.available()
#: the layouts of pixels; vectors of either length could take either
PIXELS = {"shifted sums": over_pixels, "moved pixels": over_moved_pixels}
KINDS = (*PIXELS, "images", "either", "dense")
every_isa = pytest.mark.parametrize("vectors", ISAS, ids=[one.name for one in ISAS])
every_kind = pytest.mark.parametrize("kind", KINDS)


def prepared(kind, vectors, shape, w, b):
    """A convolution ready to run; with pixels or ``images`` forced into the lanes."""
    if kind == "dense":
        packed = LoweredCcnmm(shape, w, b, reference)
        return DenseConvolution(vectors, shape, packed.values, *packed.structure, packed.b)
    rows = LoweredCsrmm(shape, w, b, reference)
    ways = layouts(vectors, shape)
    if kind == "images":
        ways = [way for way in ways if way.tile.images] or ways
    elif kind in PIXELS:
        way = PIXELS[kind](vectors, one_row(shape))
        ways = [way] if way else ways
    return SparseConvolution(vectors, shape, rows.values, rows.columns, rows.row_start, b, ways)


def run(convolution, case, x, relu=False):
    y = np.full((case.N, case.shape.filters, *case.shape.output), np.nan, np.float32)
    convolution.run(x, y, relu)
    return y


@every_isa
@every_kind
@given(wide_convolutions(), st.sampled_from(PATTERNS), st.booleans(), st.booleans())
@example(
    Case(2, ConvShape(4, (13, 13), 6, (3, 3), pad=(1, 1), groups=2), 1), "elements", True, True
)
@example(Case(1, ConvShape(3, (5, 240), 2, (3, 5), pad=(1, 2)), 2), "elements", True, False)
@example(Case(17, ConvShape(2, (8, 8), 33, (3, 3), pad=(1, 1)), 3), "both", True, False)
@example(Case(1, ConvShape(2, (4, 9), 3, (1, 1), pad=(2, 3)), 4), "dense", True, False)
@settings(max_examples=25, deadline=None)
def test_whole_numbers_are_bitwise_the_definition(vectors, kind, case, pattern, bias, relu):
    rng = np.random.default_rng(case.seed)
    x, w, b = integers(case, rng)
    sparsify(w, case.shape, pattern, rng)
    if pattern == "one element":
        w *= 4  # 0.75 would not be a whole number
    b = b if bias else None
    before = x.copy(), w.copy()
    y = run(prepared(kind, vectors, case.shape, w, b), case, x, relu)
    assert np.array_equal(y, expected(case, x, w, b, relu))
    assert np.array_equal(x, before[0]) and np.array_equal(w, before[1])


@every_isa
@every_kind
@given(convolutions(), st.sampled_from(PATTERNS))
@settings(max_examples=15, deadline=None)
def test_real_numbers_agree(vectors, kind, case, pattern):
    x, w, b, _ = case.arrays(np.float32)
    sparsify(w, case.shape, pattern, np.random.default_rng(case.seed))
    y = run(prepared(kind, vectors, case.shape, w, b), case, x)
    correct = expected(case, *(a.astype(np.float64) for a in (x, w, b)), False)
    scale = max(1.0, float(np.abs(correct).max()))
    assert np.allclose(y, correct, rtol=1e-5, atol=1e-5 * scale)


@every_isa
@every_kind
@pytest.mark.parametrize("N", [1, 2, 5, 33])
def test_threads_change_nothing(vectors, kind, N):
    numba = pytest.importorskip("numba")
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("needs two threads")
    shape = ConvShape(8, (14, 18), 24, (3, 3), pad=(1, 1), groups=2)
    case = Case(N, shape, 7)
    x, w, b, _ = case.arrays(np.float32)
    w[:12][np.random.default_rng(1).random(w[:12].shape) < 0.8] = 0  # one group sparser
    convolution = prepared(kind, vectors, shape, w, b)
    before, results = numba.get_num_threads(), []
    try:
        for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
            numba.set_num_threads(threads)
            results.append(run(convolution, case, x).tobytes())
    finally:
        numba.set_num_threads(before)
    assert len(set(results)) == 1


@every_isa
@every_kind
def test_arrays_in_any_layout(vectors, kind):
    case = Case(3, ConvShape(2, (6, 7), 5, (3, 2)), 3)
    x, w, b = integers(case, np.random.default_rng(3))
    convolution = prepared(kind, vectors, case.shape, w, b)
    y = np.zeros((*case.shape.output, 5, 3), np.float32).transpose(3, 2, 0, 1)
    convolution.run(np.asfortranarray(x), y)
    assert np.array_equal(y, expected(case, x, w, b, False))


@every_isa
def test_batches_cut_into_chunks_give_the_same_bits(vectors):
    case = Case(37, ConvShape(6, (9, 10), 7, (3, 3), pad=(1, 1)), 5)
    x, w, b, _ = case.arrays(np.float32)
    for kind in ("either", "dense"):
        convolution = prepared(kind, vectors, case.shape, w, b)
        whole = run(convolution, case, x)
        size = convolution.images_per_chunk(case.N)
        for first in range(0, case.N, size):
            part = Case(len(x[first : first + size]), case.shape, 0)
            found = run(convolution, part, x[first : first + size])
            assert found.tobytes() == whole[first : first + size].tobytes()


@every_isa
def test_planes_that_are_too_large_are_not_made(vectors):
    shape = ConvShape(64, (600, 600), 8, (3, 3))
    assert [way.tile.images for way in layouts(vectors, shape)] == [False]
    assert layouts(vectors, shape._replace(channels=4096)) == []


@every_isa
def test_nan_is_not_rectified_away(vectors):
    case = Case(1, ConvShape(1, (3, 20), 1, (1, 1)), 0)
    x = np.ones((1, 1, 3, 20), np.float32)
    x[0, 0, 1, 17] = np.nan
    for kind in KINDS:
        w = np.ones((1, 1, 1, 1), np.float32)
        y = run(prepared(kind, vectors, case.shape, w, None), case, x, relu=True)
        assert np.isnan(y[0, 0, 1, 17]) and np.isnan(y).sum() == 1
