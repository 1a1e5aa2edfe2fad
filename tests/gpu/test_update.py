"""Decays, updates and what is not finite, on the GPU against the definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minissl.backend import to_host
from minissl.kernels import reference
from tests.gpu.agreement import DTYPES, SEEDS, TOLERANCE, assert_agree, few, on_device


@given(
    ydim=st.integers(1, 12),
    xdim=st.sampled_from([1, 2, 5, 31, 32, 50]),
    bands=st.integers(1, 3),
    tiles=st.sampled_from([1, 2, 31, 32, 33, 70]),
    dtype=DTYPES,
    seed=SEEDS,
)
@few(30)
def test_regularization_agrees(gpu, ydim, xdim, bands, tiles, dtype, seed):
    rng = np.random.default_rng(seed)
    w = rng.uniform(-1, 1, (bands * ydim, tiles * xdim)).astype(dtype)
    w[rng.random(w.shape) < 0.3] = 0
    d_w, m = rng.uniform(-1, 1, (2, *w.shape)).astype(dtype)
    sums = np.full((bands, tiles), np.nan)
    assert_agree(gpu, "tile_square_sums", (w, ydim, xdim), sums)
    assert_agree(gpu, "tile_add_scaled", (w, rng.uniform(0, 3, sums.shape), ydim, xdim), d_w)
    factors = rng.uniform(-1, 3, sums.shape) * (rng.random(sums.shape) < 0.7)
    assert_agree(gpu, "tile_scale", (factors, ydim, xdim), w)
    for multiplier in (None, m):
        assert_agree(gpu, "add_l2", (w, 0.7, multiplier), d_w)
        assert_agree(gpu, "add_l1", (w, 0.7, multiplier), d_w)
        for name in ("sum_of_squares", "sum_of_magnitudes"):
            expected = getattr(reference, name)(w, multiplier)
            found = getattr(gpu, name)(on_device(gpu, w), on_device(gpu, multiplier))
            assert np.isclose(found, expected, rtol=1e-6, atol=1e-6)


@given(size=st.integers(1, 300), dtype=DTYPES, seed=SEEDS)
@few(15)
def test_updates_agree(gpu, size, dtype, seed):
    rng = np.random.default_rng(seed)
    d_w, h, v, s, w = (rng.uniform(0.1, 1, size).astype(dtype) for _ in range(5))
    mask = (rng.random(size) < 0.5).astype(dtype)
    calls = {
        "sgd_update": ([d_w, h], (0.1, 0.9)),
        "nesterov_update": ([d_w, h], (0.1, 0.9)),
        "adam_update": ([d_w, h, v], (0.1, 0.9, 0.999, 1e-8)),
        "adagrad_update": ([d_w, v], (0.1, 1e-8)),
        "rmsprop_update": ([d_w, v], (0.1, 0.99, 1e-8)),
        "adadelta_update": ([d_w, v, s], (0.1, 0.95, 1e-6)),
        "apply_update": ([w, d_w], (mask,)),
        "zero_out": ([w], (0.5,)),
    }
    for name, (state, constants) in calls.items():
        results = []
        for module in (reference, gpu):
            copies = [module.xp.array(a) for a in state]
            there = [module.xp.array(c) if isinstance(c, np.ndarray) else c for c in constants]
            getattr(module, name)(*copies, *there)
            results.append([to_host(copy) for copy in copies])
        for expected, found in zip(*results, strict=True):
            assert np.allclose(found, expected, rtol=TOLERANCE[dtype], atol=0), name


@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 6),
    decay=st.sampled_from([None, ("L1", 0.3), ("L2", 0.3)]),
    terms=st.integers(0, 3),
    nesterov=st.booleans(),
    optional=st.booleans(),
    threshold=st.sampled_from([0.0, 0.2]),
    dtype=DTYPES,
    seed=SEEDS,
)
@few(40)
def test_the_step_in_one_pass_is_the_steps_one_by_one(
    gpu, rows, columns, decay, terms, nesterov, optional, threshold, dtype, seed
):
    rng = np.random.default_rng(seed)
    w, d_w, history, multiplier = rng.uniform(-1, 1, (4, 2 * rows, 3 * columns)).astype(dtype)
    w[:, 0] = 0  # groups that are zero
    mask = (rng.random(w.shape) < 0.7).astype(dtype) if optional else None
    multiplier = multiplier if optional else None
    groups = [(2 * rows, 1, 0.4), (1, 3 * columns, 0.2), (2, 3, 0.1)][:terms]
    there = [gpu.xp.array(a) for a in (w, d_w, history)]
    extra = [on_device(gpu, a) for a in (multiplier, mask)]
    gpu.sgd_step(*there, 0.5, decay, extra[0], groups, 0.1, 0.9, nesterov, extra[1], threshold)
    d_w *= d_w.dtype.type(0.5)
    if decay:
        add = reference.add_l1 if decay[0] == "L1" else reference.add_l2
        add(w, decay[1], multiplier, d_w)
    for ydim, xdim, strength in groups:
        sums = np.empty((w.shape[0] // ydim, w.shape[1] // xdim))
        reference.tile_square_sums(w, ydim, xdim, sums)
        factors = np.divide(strength, np.sqrt(sums), where=sums > 0, out=np.zeros_like(sums))
        reference.tile_add_scaled(w, factors, ydim, xdim, d_w)
    rule = reference.nesterov_update if nesterov else reference.sgd_update
    rule(d_w, history, 0.1, 0.9)
    reference.apply_update(w, d_w, mask)
    near = np.abs(np.abs(w) - threshold) < 1e-5  # which side these fall on is rounding
    reference.zero_out(w, threshold)
    for want, found in zip((w, d_w, history), map(to_host, there), strict=True):
        wrong = ~np.isclose(found, want, rtol=1e-5, atol=1e-5 if dtype == "float32" else 1e-12)
        assert not (wrong & ~near).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 17, 299])
def test_non_finite_values_are_seen(gpu, value, where):
    w = np.ones(300, np.float32)
    assert gpu.all_finite(gpu.xp.asarray(w))
    w[where] = value
    assert not gpu.all_finite(gpu.xp.asarray(w))
    assert not gpu.are_finite(gpu.xp.asarray(a) for a in (np.ones(3), w))
