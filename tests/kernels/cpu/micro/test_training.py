"""The direct passes of training equal the definition: every ISA and shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given, settings

from minissl.conv_modes import ConvShape
from minissl.kernels import reference
from minissl.kernels.cpu import micro
from minissl.kernels.cpu.micro import isa, spreading
from minissl.kernels.cpu.micro.correlation import Correlation
from minissl.kernels.cpu.micro.spreading import SpreadGradient
from minissl.kernels.cpu.micro.weight_gradient import BAND, WeightGradient
from tests.conftest import needs_compiler
from tests.kernels.cpu.micro.cases import integers, wide_convolutions
from tests.kernels.strategies import Case

ISAS = isa.available()
every_isa = pytest.mark.parametrize("vectors", ISAS, ids=[one.name for one in ISAS])
PASSES = ("forward", "weights", "input")


def case_of(*arguments, N=2, **options):
    return Case(N, ConvShape(*arguments, **options), 1)


#: channels 1 and 3, batch 1, 1x1, strides with and without a remainder, gradients as one long row,
#: groups, several bands; rows shorter than a vector, also with strides, dilation, and a kernel
#: larger than the image
CASES = [
    case_of(1, (28, 28), 20, (5, 5), N=19),
    case_of(3, (32, 32), 16, (3, 3), pad=(1, 1), N=1),
    case_of(16, (8, 8), 12, (3, 3), pad=(1, 1), N=70),
    case_of(8, (17, 16), 9, (3, 3), (2, 2), (1, 1)),
    case_of(5, (13, 9), 7, (1, 1), (2, 2)),
    case_of(4, (1, 1), 3, (1, 1), N=33),
    case_of(5, (12, 12), 13, (5, 5), N=3),
    case_of(3, (9, 16), 4, (4, 1)),
    case_of(4, (9, 27), 6, (3, 2), (1, 3), (2, 0), (2, 1), groups=2),
    case_of(6, (7, 7), 9, (5, 5), pad=(2, 2), N=3),
    case_of(4, (8, 8), 10, (3, 3), (2, 2), (1, 1), groups=2),
    case_of(3, (6, 5), 5, (3, 3), (1, 1), (2, 2), (2, 2)),
    case_of(2, (3, 2), 4, (5, 5), pad=(4, 4)),
]


def examples(test):
    for case in CASES:
        test = example(case)(test)
    return test


def gradient(case, rng):
    return rng.integers(-4, 5, (case.N, case.shape.filters, *case.shape.output)).astype("float32")


def run(vectors, case, x, w, b, d_y):
    """All passes; gradients of weights and bias are added to what is there."""
    y, d_x = np.full_like(d_y, np.nan), np.full_like(x, np.nan)
    d_w, d_b = np.ones_like(w), np.ones_like(b)
    Correlation(vectors, case.shape, gradient=False).run(x, w, b, y)
    Correlation(vectors, case.shape, gradient=True).run(d_y, w, None, d_x)
    WeightGradient(vectors, case.shape).run(x, d_y, d_w, d_b)
    return y, d_x, d_w, d_b


def expected(case, x, w, b, d_y):
    y, d_x, d_w, d_b = np.empty_like(d_y), np.empty_like(x), np.ones_like(w), np.ones_like(b)
    reference.conv_forward(x, w, b, *case.arguments, y)
    reference.conv_backward_input(d_y, w, *case.arguments, d_x)
    reference.conv_backward_weights(x, d_y, *case.arguments, d_w)
    reference.conv_backward_bias(d_y, d_b)
    return y, d_x, d_w, d_b


@needs_compiler
@every_isa
@given(wide_convolutions())
@examples
@settings(max_examples=10, deadline=None)
def test_whole_numbers_are_bitwise_the_definition(vectors, case):
    rng = np.random.default_rng(case.seed)
    x, w, b = integers(case, rng)
    given = x, w, b, gradient(case, rng)
    before = [a.copy() for a in given]
    for found, correct in zip(run(vectors, case, *given), expected(case, *given), strict=True):
        assert np.array_equal(found, correct)
    assert all(np.array_equal(a, b) for a, b in zip(given, before, strict=True))


@needs_compiler
@every_isa
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.shape.size))
def test_real_numbers_agree_for_any_number_of_threads(vectors, case):
    numba = pytest.importorskip("numba")
    arrays = case.arrays(np.float32)
    before, results = numba.get_num_threads(), []
    try:
        for threads in {1, min(2, numba.config.NUMBA_NUM_THREADS)}:
            numba.set_num_threads(threads)
            results.append(run(vectors, case, *arrays))
    finally:
        numba.set_num_threads(before)
    assert len({b"".join(a.tobytes() for a in arrays) for arrays in results}) == 1
    correct = expected(case, *(a.astype(np.float64) for a in arrays))
    for found, right in zip(results[0], correct, strict=True):
        assert np.allclose(found, right, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(right).max()))


@needs_compiler
@every_isa
@given(wide_convolutions())
@example(case_of(20, (12, 12), 50, (5, 5), N=3))  # LeNet's conv2
@settings(max_examples=20, deadline=None)
def test_spreading_gives_the_same_gradient_of_the_input(vectors, case):
    s = case.shape
    reach = [d * (k - 1) + 1 for k, d in zip(s.kernel, s.dilation, strict=True)]
    size = tuple(max(pair) for pair in zip(s.size, reach, strict=True))
    case.shape = s = s._replace(stride=(1, 1), pad=(0, 0), size=size)
    assume(spreading.applies(vectors, s))  # not for rows longer than a tile
    rng = np.random.default_rng(case.seed)
    x, w, _ = integers(case, rng)
    d_y, correct = gradient(case, rng), np.empty_like(x)
    reference.conv_backward_input(d_y, w, *case.arguments, correct)
    for order in "CF":
        found = np.full_like(x, np.nan, order=order)
        SpreadGradient(vectors, s).run(np.asarray(d_y, order=order), w, None, found)
        assert np.array_equal(found, correct)


@every_isa
def test_spreading_is_for_little_padding(vectors):
    conv2 = ConvShape(20, (12, 12), 50, (5, 5))
    chosen = min(micro.training_passes("input", conv2, "float32"), key=lambda one: one.cost())
    assert isinstance(chosen, SpreadGradient)
    for change in (
        {"pad": (2, 2)},
        {"stride": (1, 2)},
        {"size": (12, 5 * vectors.lanes)},  # longer rows than a tile holds
    ):
        assert not spreading.applies(vectors, conv2._replace(**change))


@needs_compiler
@every_isa
@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case.shape.size))
def test_passes_are_adjoint(vectors, case):
    """<y, d_y> = <x, d_x> = <w, d_w> for a convolution without bias, exactly in whole numbers."""
    rng = np.random.default_rng(case.seed)
    x, w, b = integers(case, rng)
    d_y = gradient(case, rng)
    y, d_x, d_w, _ = run(vectors, case, x, w, 0 * b, d_y)
    products = [
        int(np.vdot(a.astype(np.int64), b.astype(np.int64)))
        for a, b in ((y, d_y), (x, d_x), (w, d_w - 1))
    ]
    assert len(set(products)) == 1


@needs_compiler
@every_isa
def test_short_rows_share_a_vector(vectors):
    """Three rows of 5 outputs are one vector of 16, or two of 8; rows of whole vectors stay."""
    short, whole = (ConvShape(8, (5, w), 8, (3, 3), pad=(1, 1)) for w in (5, 2 * vectors.lanes))
    for gradient in (False, True):
        found, plain = (Correlation(vectors, one, gradient) for one in (short, whole))
        assert found.source.apart and found.is_flat
        assert not plain.source.apart and not plain.is_flat


@needs_compiler
@every_isa
def test_arrays_in_any_layout(vectors):
    case = CASES[3]
    rng = np.random.default_rng(3)
    x, w, b = integers(case, rng)
    d_y = gradient(case, rng)
    y, _, d_w, d_b = expected(case, x, w, b, d_y)
    out = np.empty(y.shape[::-1], np.float32).T
    Correlation(vectors, case.shape, gradient=False).run(np.asfortranarray(x), w, b, out)
    assert np.array_equal(out, y)
    found = np.ones_like(w), np.ones_like(b)
    WeightGradient(vectors, case.shape).run(np.asfortranarray(x), np.asfortranarray(d_y), *found)
    assert np.array_equal(found[0], d_w) and np.array_equal(found[1], d_b)


@needs_compiler
@every_isa
def test_bands_are_whole_images_or_pieces_of_one(vectors):
    small = WeightGradient(vectors, ConvShape(4, (8, 8), 4, (3, 3), pad=(1, 1)))
    large = WeightGradient(vectors, ConvShape(4, (100, 50), 4, (3, 3), pad=(1, 1)))
    assert (small.images, small.rows) == (BAND // 64, 8)
    assert large.images == 1 and large.rows < 100


@every_isa
@pytest.mark.parametrize("name", PASSES)
def test_costs_grow_with_the_work(vectors, name):
    def cost(**changes):
        shape = ConvShape(8, (16, 16), 16, (3, 3), pad=(1, 1))._replace(**changes)
        if name == "weights":
            return WeightGradient(vectors, shape).cost()
        return Correlation(vectors, shape, gradient=name == "input").cost()

    same = cost()
    assert cost(filters=64) > 3 * same
    assert cost(channels=32) > 3 * same
    assert cost(size=(32, 32)) > 3 * same
    # a quarter of the multiply-adds, and phases to be made or joined
    assert same / 4 < cost(stride=(2, 2)) < same


@pytest.mark.parametrize("name", PASSES)
def test_what_must_be_lowered(name, monkeypatch):
    shape = ConvShape(3, (8, 8), 4, (3, 3))
    assert micro.training_pass(name, shape, "float64") is None
    assert micro.training_pass(name, shape._replace(size=(30000, 30000)), "float32") is None
    monkeypatch.setenv("MINISSL_ISA", "generic")
    assert micro.training_pass(name, shape, "float32") is None
