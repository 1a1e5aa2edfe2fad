"""Units of work, against counts by hand and what must hold for any layer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minissl.conv_modes import MODES, ConvShape
from minissl.conv_modes.auto import product_shape
from minissl.conv_modes.cost import CONVOLUTION, INNER_PRODUCT, Work, direct, lowered, products
from minissl.conv_modes.cost.lowered import panel_columns
from minissl.conv_modes.inner_product import PRODUCTS
from minissl.machine.constants import TERMS

SHAPE = ConvShape(4, (12, 12), 6, (3, 3), pad=(1, 1), groups=2)


def random_weights(shape, seed=0, zeros=0.5):
    rng = np.random.default_rng(seed)
    w = rng.random(shape.weight_shape, np.float32) + 1
    w[rng.random(w.shape) < zeros] = 0
    return w


def ones(shape):
    return np.ones(shape.weight_shape, np.float32)


def test_every_mode_has_a_cost():
    assert set(CONVOLUTION) == set(MODES) and set(INNER_PRODUCT) == set(PRODUCTS)


def test_zeros_are_counted_by_conv_group():
    w = ones(SHAPE)
    w[0] = 0  # a filter of the first group
    w[3:, 1] = 0  # a channel of the second: 9 of 18 columns
    w[5, 0, 0, :2] = 0
    work = Work.of(SHAPE, w, 8, 2)
    assert work.row_nonzeros.tolist() == [0, 18, 18, 9, 9, 7] and work.nonzeros == 61
    assert work.rows == (2, 3) and work.columns == (18, 9) and work.channels == (2, 1)
    assert work.pixels == 144 and work.itemsize == 4


def test_gemm_counts_what_it_multiplies_and_lowers():
    shape = ConvShape(32, (16, 16), 64, (3, 3), pad=(1, 1))
    amounts = lowered.gemm(Work.of(shape, ones(shape), 1, 1))
    assert amounts["gemm"] == 64 * 288 * 256 and amounts["gemm_call"] == 1
    assert amounts["lower"] == amounts["gemm_pack"] == 288 * 256
    assert amounts["lower_row"] == 288 * 16 and amounts["write"] == 64 * 256
    assert amounts["gemm_weight"] == 64 * 288 and not amounts["lower_strided"]


def test_a_small_gemm_packs_nothing():
    amounts = lowered.gemm(Work.of(SHAPE, ones(SHAPE), 1, 1))
    assert amounts["gemm_small"] == 2 * 3 * 18 * 144
    assert amounts["gemm"] == amounts["gemm_pack"] == 0


def test_threads_take_whole_chunks():
    shape = ConvShape(64, (32, 32), 64, (3, 3), pad=(1, 1))  # a chunk is one image
    one, two, many = (
        lowered.gemm(Work.of(shape, ones(shape), 5, threads))["gemm"] for threads in (1, 2, 8)
    )
    assert two == one * 3 / 5 and many == one / 5


def test_kept_rows_and_columns():
    shape = ConvShape(32, (16, 16), 64, (3, 3), pad=(1, 1))
    w = ones(shape)
    w[10:20] = 0
    w[:, ::2] = 0
    amounts = lowered.ccnmm(Work.of(shape, w, 1, 1))
    assert amounts["gemm"] == 56 * 144 * 256  # 54 rows, rounded up to tiles of 4
    assert amounts["lower"] == 144 * 256 and amounts["write"] == 64 * 256
    nothing = lowered.ccnmm(Work.of(shape, 0 * w, 1, 1))
    assert nothing["gemm"] == nothing["lower"] == 0 and nothing["write"] == 64 * 256


@pytest.mark.parametrize(("n", "columns"), [(1, 16), (17, 32), (33, 64), (64, 64), (130, 144)])
def test_panels_are_filled_up(n, columns):
    assert panel_columns(n) == columns


def test_compressed_rows_count_non_zeros():
    shape = ConvShape(8, (16, 16), 16, (3, 3), pad=(1, 1))
    w = random_weights(shape)
    nonzeros = np.count_nonzero(w)
    amounts = lowered.csrmm(Work.of(shape, w, 2, 2))
    assert amounts["csr_l1"] == nonzeros * 512 / 2
    assert amounts["csr_entry"] == nonzeros * 8 / 2
    assert amounts["panel"] == 72 * 512 / 2


def test_a_single_image_is_bound_by_reading_weights():
    w = np.ones((256, 100), np.float32)
    shape = product_shape(256, 100)
    amounts = products.gemm(Work.of(shape, w, 1, 1))
    assert amounts["vector_l2"] == 25_600 and "product" not in amounts
    many = products.gemm(Work.of(shape, w, 64, 2))
    assert many["product"] == 64 * 25_600 / 2 and many["product_l2"] == 25_600 / 2
    assert many["product_input"] == 64 * 100  # of 2 blocks, one for each thread
    large = np.ones((4000, 4000), np.float32)
    assert "vector_memory" in products.gemm(Work.of(product_shape(4000, 4000), large, 1, 1))


def test_rows_that_are_removed_from_an_inner_product():
    w = np.ones((40, 30), np.float32)
    w[:10] = w[:, :20] = 0
    amounts = products.ccnmm(Work.of(product_shape(40, 30), w, 4, 1))
    assert amounts["product_small"] == 4 * 30 * 10
    assert amounts["take"] == 4 * (40 + 10 + 2 * 30)
    empty = products.ccnmm(Work.of(product_shape(40, 30), 0 * w, 4, 1))
    assert set(empty) == {"squeeze_call", "take"}


@pytest.mark.skipif(direct.chosen() is None, reason="this CPU has no vectors for direct tiles")
def test_what_lies_in_the_padding_is_not_multiplied():
    inner = ConvShape(16, (8, 8), 32, (3, 3))
    padded = inner._replace(size=(6, 6), pad=(1, 1))
    amounts = [direct.dconv(Work.of(s, ones(s), 1, 1))["tile"] for s in (inner, padded)]
    # 6 outputs of 3 pixels along each axis, of which the first and the last reach out by one
    assert amounts[1] == pytest.approx(amounts[0] * (16 / 18) ** 2)


def test_no_direct_mode_without_vectors(monkeypatch):
    monkeypatch.setenv("MINISSL_ISA", "generic")
    work = Work.of(SHAPE, ones(SHAPE), 2, 1)
    assert direct.sconv(work) is None and direct.dconv(work) is None
    assert direct.ccnmm(work) == lowered.ccnmm(work)


#: a batch in two chunks, of which a GEMM of the average would be a small one
SMALL_CHUNKS = ConvShape(6, (6, 14), 8, (3, 5), pad=(2, 2))


@st.composite
def layers(draw):
    groups = draw(st.integers(1, 3))
    kernel, size = draw(st.integers(1, 5)), draw(st.integers(5, 20))
    shape = ConvShape(
        groups * draw(st.integers(1, 6)),
        (size, draw(st.integers(5, 20))),
        groups * draw(st.integers(1, 40)),
        (kernel, draw(st.integers(1, 5))),
        stride=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        pad=(draw(st.integers(0, 2)), draw(st.integers(0, 2))),
        dilation=(1, 1),
        groups=groups,
    )
    zeros = draw(st.sampled_from([0, 0.5, 0.9, 1]))
    return shape, random_weights(shape, draw(st.integers(0, 9)), zeros)


def is_sound(amounts):
    known = set(amounts) <= set(TERMS)
    return known and all(np.isfinite(units) and units >= 0 for units in amounts.values())


@example((SMALL_CHUNKS, ones(SMALL_CHUNKS)), 14, 2)
@given(layers(), st.integers(1, 40), st.integers(1, 5))
def test_units_of_any_convolution(layer, images, threads):
    shape, w = layer
    work = Work.of(shape, w, images, threads)
    dense = Work.of(shape, ones(shape), images, threads)
    alone = Work.of(shape, w, images, 1)
    for mode, cost in CONVOLUTION.items():
        amounts = cost(work)
        if amounts is None:
            continue
        assert is_sound(amounts)
        # the busiest thread never does more than a single one would
        for term, units in amounts.items():
            if term not in ("region", "csr_task"):
                assert units <= cost(alone).get(term, 0) * (1 + 1e-9), (mode, term)
    assert lowered.csrmm(work)["csr_entry"] <= lowered.csrmm(dense)["csr_entry"]


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 70),
    st.integers(1, 5),
    st.integers(0, 9),
)
def test_units_of_any_inner_product(F, K, images, threads, seed):
    shape = product_shape(F, K)
    w = random_weights(shape, seed, 0.7).reshape(F, K)
    for cost in INNER_PRODUCT.values():
        assert is_sound(cost(Work.of(shape, w, images, threads)))
