"""The compiled twins: same names, same arguments, same results, for any number of threads."""

import ast
import inspect
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minissl import backend
from minissl.conv_modes import offered_modes, prepare
from minissl.kernels import reference
from minissl.kernels.cpu import convolution
from minissl.kernels.names import NAMES
from minissl.sparsity import group_lasso
from minissl.sparsity.groups import Tile
from tests.kernels import naive
from tests.kernels.strategies import convolutions

cpu = backend.get("numba")
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


#: the kernels: names of every backend that can be called
FUNCTIONS = [name for name in NAMES if callable(getattr(reference, name))]


@pytest.mark.parametrize("kernels", [reference, cpu])
def test_every_backend_offers_the_same_names(kernels):
    assert not [name for name in NAMES if not hasattr(kernels, name)]


def test_the_list_of_names_leaves_out_no_definition():
    defined = {
        name
        for path in Path(reference.__file__).parent.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not (name := node.name).startswith("_")
    }
    assert defined == set(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_are_the_same(name):
    ours = [p for p in inspect.signature(getattr(cpu, name)).parameters if p != "stages"]
    assert ours == list(inspect.signature(getattr(reference, name)).parameters)


def run_both(name, arguments, outputs):
    """Call a kernel of both backends on copies; return their outputs."""
    results = []
    for module in (reference, cpu):
        copies = [output.copy() for output in outputs]
        with backend.single_threaded_blas():
            getattr(module, name)(*arguments, *copies)
        results.append(copies)
    return zip(*results, strict=True)


def assert_agree(name, arguments, *outputs):
    before = [a.copy() for a in arguments if isinstance(a, np.ndarray)]
    for expected, found in run_both(name, arguments, outputs):
        tolerance = TOLERANCE[expected.dtype.name] if expected.dtype.kind == "f" else 0
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        assert np.allclose(found, expected, rtol=tolerance, atol=tolerance * scale), name
    after = [a for a in arguments if isinstance(a, np.ndarray)]
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, after, strict=True))


#: bytes of a chunk: a row of an image, a few rows or images, all of a small case
CHUNKS = st.sampled_from([1, 1000, 4000, convolution.CHUNK_BYTES])


@given(convolutions(), st.sampled_from(["float64", "float32"]), CHUNKS)
@settings(max_examples=60, deadline=None)
def test_convolutions_agree(case, dtype, chunk_bytes):
    x, w, b, d_y = case.arrays(dtype)
    nothing = np.full_like(d_y, np.nan)
    with mock.patch.object(convolution, "CHUNK_BYTES", chunk_bytes):
        assert_agree("conv_forward", (x, w, b, *case.arguments), nothing)
        assert_agree("conv_forward", (x, w, None, *case.arguments), nothing)
    assert_agree("conv_backward_weights", (x, d_y, *case.arguments), np.ones_like(w))
    assert_agree("conv_backward_input", (d_y, w, *case.arguments), np.full_like(x, np.nan))
    assert_agree("conv_backward_bias", (d_y,), np.ones_like(b))


@given(convolutions())
@settings(max_examples=30, deadline=None)
def test_lowering_agrees(case):
    x, _, _, _ = case.arrays()
    s = case.shape
    K, pixels = s.channels * s.kernel[0] * s.kernel[1], s.output[0] * s.output[1]
    pairs = (s.kernel, s.stride, s.pad, s.dilation)
    assert_agree("im2col", (x[0], *pairs), np.full((K, pixels), np.nan))
    kept = np.arange(0, K, 2)
    assert_agree("lower_columns", (x[0], kept, *pairs), np.full((len(kept), pixels), np.nan))
    col = np.random.default_rng(case.seed).uniform(-1, 1, (K, pixels))
    assert_agree("col2im", (col, *pairs), np.full_like(x[0], np.nan))


def test_many_images_make_many_chunks():
    """More images than a chunk holds, and more chunks than parts of a sum."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (70, 3, 14, 14))
    w, d_y = rng.uniform(-1, 1, (4, 3, 5, 5)), rng.uniform(-1, 1, (70, 4, 10, 10))
    arguments = ((1, 1), (0, 0), (1, 1), 1)
    assert_agree("conv_forward", (x, w, None, *arguments), np.empty_like(d_y))
    assert_agree("conv_backward_weights", (x, d_y, *arguments), np.zeros_like(w))
    assert_agree("conv_backward_input", (d_y, w, *arguments), np.empty_like(x))


@given(
    N=st.integers(1, 20),
    K=st.integers(1, 30),
    F=st.integers(1, 40),
    dtype=st.sampled_from(["float64", "float32"]),
    seed=st.integers(0, 2**32 - 1),
)
@example(N=3, K=300, F=270, dtype="float32", seed=1)  # several blocks of inputs and outputs
@example(N=3, K=270, F=300, dtype="float64", seed=2)
@example(N=0, K=6, F=4, dtype="float32", seed=3)
@settings(max_examples=40, deadline=None)
def test_inner_products_agree(N, K, F, dtype, seed):
    rng = np.random.default_rng(seed)
    x, w, b, d_y = (
        rng.uniform(-1, 1, shape).astype(dtype) for shape in ((N, K), (F, K), (F,), (N, F))
    )
    assert_agree("inner_product_forward", (x, w, b), np.full_like(d_y, np.nan))
    assert_agree("inner_product_forward", (x, w, None), np.full_like(d_y, np.nan))
    assert_agree("inner_product_backward_weights", (x, d_y), np.ones_like(w))
    assert_agree("inner_product_backward_input", (d_y, w), np.full_like(x, np.nan))
    assert_agree("inner_product_backward_bias", (d_y,), np.ones_like(b))
    every_other = rng.uniform(-1, 1, (F, 2 * K)).astype(dtype)[:, ::2]
    assert_agree("inner_product_backward_input", (d_y, every_other), np.full_like(x, np.nan))


@given(
    ydim=st.integers(1, 4),
    xdim=st.integers(1, 5),
    bands=st.integers(1, 4),
    tiles=st.integers(1, 40),
    dtype=st.sampled_from(["float64", "float32"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_regularization_agrees(ydim, xdim, bands, tiles, dtype, seed):
    rng = np.random.default_rng(seed)
    w = rng.uniform(-1, 1, (bands * ydim, tiles * xdim)).astype(dtype)
    w[rng.random(w.shape) < 0.3] = 0
    d_w, m = rng.uniform(-1, 1, (2, *w.shape)).astype(dtype)
    sums = np.full((bands, tiles), np.nan)
    assert_agree("tile_square_sums", (w, ydim, xdim), sums)
    assert_agree("tile_add_scaled", (w, rng.uniform(0, 3, sums.shape), ydim, xdim), d_w)
    factors = rng.uniform(-1, 3, sums.shape) * (rng.random(sums.shape) < 0.7)
    assert_agree("tile_scale", (factors, ydim, xdim), w)
    for multiplier in (None, m):
        assert_agree("add_l2", (w, 0.7, multiplier), d_w)
        assert_agree("add_l1", (w, 0.7, multiplier), d_w)
        for name in ("sum_of_squares", "sum_of_magnitudes"):
            expected = getattr(reference, name)(w, multiplier)
            assert np.isclose(getattr(cpu, name)(w, multiplier), expected, rtol=1e-6, atol=1e-6)


@given(st.integers(1, 200), st.sampled_from(["float64", "float32"]), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_updates_agree(size, dtype, seed):
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
        for module in (reference, cpu):
            copies = [a.copy() for a in state]
            getattr(module, name)(*copies, *constants)
            results.append(copies)
        for expected, found in zip(*results, strict=True):
            assert np.allclose(found, expected, rtol=TOLERANCE[dtype], atol=0), name


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 17, 99])
def test_non_finite_values_are_seen(value, where):
    for module in (reference, cpu):
        w = np.ones(100, np.float32)
        assert module.all_finite(w)
        w[where] = value
        assert not module.all_finite(w)


def test_results_are_bitwise_equal_for_any_number_of_threads():
    numba = pytest.importorskip("numba")
    most = numba.config.NUMBA_NUM_THREADS
    if most < 2 or numba.config.DISABLE_JIT:
        pytest.skip("needs compiled code and two threads")
    rng = np.random.default_rng(3)
    x = rng.standard_normal((33, 4, 12, 12)).astype("float32")
    w = rng.standard_normal((6, 2, 3, 3)).astype("float32")
    arguments = ((1, 1), (1, 1), (1, 1), 2)
    results = {}
    before = numba.get_num_threads()
    try:
        for threads in (1, 2):
            numba.set_num_threads(threads)
            with backend.single_threaded_blas():
                y = np.empty((33, 6, 12, 12), "float32")
                d_w, d_x, d_b = np.zeros_like(w), np.empty_like(x), np.zeros(6, "float32")
                cpu.conv_forward(x, w, None, *arguments, y)
                with mock.patch.object(convolution, "CHUNK_BYTES", 2000):
                    bands = np.empty_like(y)
                    cpu.conv_forward(x, w, None, *arguments, bands)
                cpu.conv_backward_weights(x, y, *arguments, d_w)
                cpu.conv_backward_input(y, w, *arguments, d_x)
                cpu.conv_backward_bias(y, d_b)
                flat, v = y.reshape(33, -1), rng_matrix(300, y.size // 33)
                z, d_v = np.empty((33, 300), "float32"), np.zeros_like(v)
                d_flat = np.empty_like(flat)
                cpu.inner_product_forward(flat, v, None, z)
                cpu.inner_product_backward_weights(flat, z, d_v)
                cpu.inner_product_backward_input(z, v, d_flat)
                pooled = [np.empty((33, 6, 6, 6), "float32") for _ in range(3)]
                argmax = np.empty((33, 6, 6, 6), "int32")
                windows = ((3, 3), (2, 2), (0, 0))
                cpu.max_pool_forward(y, *windows, pooled[0], None)
                cpu.max_pool_forward(y, *windows, pooled[1], argmax)
                cpu.ave_pool_forward(y, *windows, pooled[2])
                spread = np.empty((2, *y.shape), "float32")
                cpu.max_pool_backward(pooled[0], argmax, *windows, spread[0])
                cpu.ave_pool_backward(pooled[2], *windows, spread[1])
                normal = [np.empty_like(y) for _ in range(4)]
                cpu.lrn_forward(y, (5, 1, 1), 1.0, 0.75, 1.0, normal[0], normal[1])
                cpu.lrn_backward(y, normal[1], normal[0], y, (5, 1, 1), 1.0, 0.75, normal[2])
                cpu.lrn_forward(y, (1, 3, 3), 1.0, 0.75, 1.0, None, normal[3])
                scale, within = np.empty_like(y), np.empty_like(y)
                cpu.lrn_forward(y, (1, 3, 3), 1.0, 0.75, 1.0, scale, within)
                gradient = np.empty_like(y)
                cpu.lrn_backward(y, within, scale, y, (1, 3, 3), 1.0, 0.75, gradient)
                channels = [np.zeros(6, "float32") for _ in range(4)]
                folded, by_channel = y.reshape(33, 6, -1), np.empty((3, 33, 6, 144), "float32")
                cpu.channel_moments(folded, *channels[:2])
                cpu.batch_norm_forward(folded, *channels[:2], 0.1, by_channel[0])
                cpu.batch_norm_backward(folded, *channels[:2], 0.1, folded, by_channel[1])
                cpu.channel_scale_gradient(folded, by_channel[0], channels[2])
                cpu.channel_scale_gradient(flat[:, :6, None], flat[:, 6:12, None], channels[3])
                cpu.weighted_sum(by_channel[0], 0.5, by_channel[1], 2.0, by_channel[2])
            arrays = (
                y,
                bands,
                d_w,
                d_x,
                d_b,
                z,
                d_v,
                d_flat,
                argmax,
                *pooled,
                spread,
                *normal,
                gradient,
                *channels,
                by_channel,
            )
            results[threads] = [a.tobytes() for a in arrays]
    finally:
        numba.set_num_threads(before)
    assert results[1] == results[2]


WINDOWS = [(1, 1, 1), (3, 1, 1), (5, 1, 1), (9, 1, 1), (1, 3, 3), (1, 5, 5), (1, 9, 9)]


@given(
    shape=st.tuples(*(st.integers(1, most) for most in (3, 7, 9, 20))),
    window=st.sampled_from([*WINDOWS, (1, 1, 3), (1, 7, 1), (3, 3, 5)]),
    beta=st.sampled_from([0.75, 0.5, 1.3]),
    dtype=st.sampled_from(["float64", "float32"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_normalizations_agree(shape, window, beta, dtype, seed):
    rng = np.random.default_rng(seed)
    x, d_y = rng.uniform(-2, 2, (2, *shape)).astype(dtype)
    constants = (2.5, beta, 1.5)
    nothing = np.full_like(x, np.nan)
    assert_agree("lrn_forward", (x, window, *constants), nothing, nothing)
    scale, y, alone = (np.empty_like(x) for _ in range(3))
    cpu.lrn_forward(x, window, *constants, scale, y)
    cpu.lrn_forward(x, window, *constants, None, alone)
    assert np.array_equal(y, alone)
    expected = naive.normalize(x.astype("float64"), window, *constants)
    assert np.allclose(y, expected, rtol=TOLERANCE[dtype], atol=0)
    assert_agree("lrn_backward", (x, y, scale, d_y, window, *constants[:2]), nothing)


@pytest.mark.parametrize("window", [(1, 3, 3), (1, 5, 5), (3, 1, 1)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_normalization_keeps_what_is_not_finite_in_its_window(window, value):
    """The end of a row lies next to the beginning of the next, but is no neighbour of it."""
    x, d_y = np.random.default_rng(5).uniform(-2, 2, (2, 1, 4, 5, 6)).astype(np.float32)
    x[0, 1, 2, 5] = x[0, 3, 4, 0] = value
    results = []
    for module in (reference, cpu):
        scale, y, d_x = (np.empty_like(x) for _ in range(3))
        with np.errstate(all="ignore"):
            module.lrn_forward(x, window, 2.5, 0.75, 1.5, scale, y)
            module.lrn_backward(x, y, scale, d_y, window, 2.5, 0.75, d_x)
        results.append((y, scale, d_x))
    for expected, found in zip(*results, strict=True):
        assert np.isnan(expected).sum() < expected.size / 2
        assert np.allclose(found, expected, rtol=2e-5, atol=2e-5, equal_nan=True)


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 40), st.sampled_from([1, 2, 9, 33, 100])),
    dtype=st.sampled_from(["float64", "float32"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_what_is_done_to_channels_agrees(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    x, d_y = rng.uniform(-2, 2, (2, *shape)).astype(dtype)
    mean, variance, scale = rng.uniform(0.5, 2, (3, shape[1])).astype(dtype)
    nothing, no_sums = np.full_like(x, np.nan), np.full_like(mean, np.nan)
    assert_agree("channel_moments", (x,), no_sums, no_sums)
    assert_agree("batch_norm_forward", (x, mean, variance, 0.1), nothing)
    assert_agree("batch_norm_backward", (x, mean, variance, 0.1, d_y), nothing)
    assert_agree("channel_scale", (x, scale, mean), nothing)
    assert_agree("channel_scale", (x, scale, None), nothing)
    assert_agree("channel_scale_gradient", (x, d_y), np.ones_like(mean))
    assert_agree("weighted_sum", (x, 0.3, d_y, -2.0), nothing)
    for module in (reference, cpu):  # in place
        y, d_x = x.copy(), d_y.copy()
        module.batch_norm_forward(y, mean, variance, 0.1, y)
        module.batch_norm_backward(x, mean, variance, 0.1, d_x, d_x)
        module.channel_scale(y, scale, mean, y)
        module.weighted_sum(y, 0.3, d_x, -2.0, y)
        if module is reference:
            expected = y, d_x
    tolerance = 10 * TOLERANCE[dtype]
    for found, other in zip((y, d_x), expected, strict=True):
        assert np.allclose(found, other, rtol=tolerance, atol=tolerance)


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 9), st.sampled_from([1, 9, 33, 100])),
    relu=st.booleans(),
    bias=st.booleans(),
    dtype=st.sampled_from(["float64", "float32"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_fused_normalizations_agree(shape, relu, bias, dtype, seed):
    """With the definition; forward also bitwise with the kernels that run one after the other."""
    rng = np.random.default_rng(seed)
    x, d_y = rng.uniform(-2, 2, (2, *shape)).astype(dtype)
    scale, offset = rng.uniform(-2, 2, (2, shape[1])).astype(dtype)
    mean, variance = np.empty((2, shape[1]), dtype)
    reference.channel_moments(x, mean, variance)
    offset = offset if bias else None
    found = {}
    for module in (reference, cpu):
        y, d_x, total = np.full_like(x, np.nan), d_y.copy(), np.full_like(x, np.nan)
        d_scale, d_bias = np.ones_like(scale), np.ones_like(scale) if bias else None
        given_ = x, mean, variance, 0.1, scale
        module.norm_scale_forward(*given_, offset, y, relu)
        module.norm_scale_backward(x, y, *given_[1:], d_x, d_scale, d_bias, d_x, relu)
        apart, no_scale = np.full_like(x, np.nan), np.ones_like(scale)  # in memory of its own
        module.norm_scale_backward(x, y, *given_[1:], d_y, no_scale, None, apart, relu)
        assert np.array_equal(apart, d_x) and np.array_equal(no_scale, d_scale)
        module.weighted_sum(x, 1.0, d_y, 1.0, total, relu)
        d_a, d_b = d_y.copy(), np.full_like(x, np.nan)
        module.sum_relu_backward(total, d_a, d_a, d_b)
        found[module] = [y, d_x, d_scale, *([d_bias] if bias else []), total, d_a, d_b]
    for one, other in zip(*found.values(), strict=True):
        tolerance = 10 * TOLERANCE[dtype]
        size = max(1.0, float(np.abs(other).max()))
        assert np.allclose(one, other, rtol=tolerance, atol=tolerance * size)
    step_by_step = np.empty_like(x)
    cpu.batch_norm_forward(x, mean, variance, 0.1, step_by_step)
    cpu.channel_scale(step_by_step, scale, offset, step_by_step)
    if relu:
        cpu.relu_forward(step_by_step, 0.0, step_by_step)
    assert np.array_equal(found[cpu][0], step_by_step)


@given(
    size=st.sampled_from([1, 7, 300, 4096 * 8 + 5]),
    decay=st.sampled_from([None, ("L1", 0.3), ("L2", 0.3)]),
    average=st.sampled_from([1.0, 0.5]),
    nesterov=st.booleans(),
    masked=st.booleans(),
    grouped=st.booleans(),
    threshold=st.sampled_from([0.0, 0.2]),
    dtype=st.sampled_from(["float64", "float32"]),
)
@settings(max_examples=60, deadline=None)
def test_the_step_in_one_pass_is_the_steps_one_by_one(
    size, decay, average, nesterov, masked, grouped, threshold, dtype
):
    """Bitwise, of this backend; and what the definition computes."""
    rng = np.random.default_rng(size)
    state = [rng.uniform(-1, 1, (2, size)).astype(dtype) for _ in range(3)]
    mask = (rng.random((2, size)) < 0.7).astype(dtype) if masked else None
    multiplier = rng.uniform(0, 2, (2, size)).astype(dtype) if masked and grouped else None
    groups = [(1, size, 0.2), (2, 1, 0.1)] if grouped else []
    results = {}
    for module in (reference, cpu):
        w, d_w, h = results[module] = [a.copy() for a in state]
        assert module.sgd_step(
            w, d_w, h, average, decay, multiplier, groups, 0.1, 0.9, nesterov, mask, threshold
        )
    for one, other in zip(*results.values(), strict=True):
        near = np.abs(np.abs(results[reference][0]) - threshold) < 1e-5
        same = np.isclose(one, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
        assert (same | near).all()
    w, d_w, h = state
    number = np.dtype(dtype).type
    d_w *= number(average)
    if decay:
        (cpu.add_l1 if decay[0] == "L1" else cpu.add_l2)(w, decay[1], multiplier, d_w)
    for ydim, xdim, strength in groups:
        group_lasso.add_gradient(d_w, w, Tile(xdim, ydim), strength, cpu)
    (cpu.nesterov_update if nesterov else cpu.sgd_update)(d_w, h, 0.1, 0.9)
    cpu.apply_update(w, d_w, mask)
    cpu.zero_out(w, threshold)
    for one, other in zip(results[cpu], state, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("size", [5, 3000, 40000])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_step_in_one_pass_notices_what_is_not_finite(size, value):
    for module in (reference, cpu):
        for array, place in ((0, 0), (1, size // 2), (2, size - 1)):
            arrays = [np.ones(size, np.float32) for _ in range(3)]
            arrays[array][place] = value
            assert not module.sgd_step(*arrays, 1, None, None, [], 0.1, 0.9, False, None, 1e-4)


@given(convolutions(), st.sampled_from(["float64", "float32"]))
@settings(max_examples=40, deadline=None)
def test_a_convolution_that_rectifies_equals_a_relu_behind_it(case, dtype):
    x, w, b, d_y = case.arrays(dtype)
    s = case.shape
    lowered = np.empty_like(d_y)
    prepare("LOWERED_GEMM", s, w, b, cpu).forward(x, lowered, relu=True)
    for mode in offered_modes(s, cpu):
        prepared = prepare(mode, s, w, b, cpu)
        plain, fused, expected = (np.full_like(d_y, np.nan) for _ in range(3))
        with backend.single_threaded_blas():
            prepared.forward(x, plain)
            prepared.forward(x, fused, relu=True)
        cpu.relu_forward(plain, 0.0, expected)
        assert np.array_equal(fused, expected), mode
    y = np.empty_like(d_y)
    prepare("LOWERED_CSRMM", s, w, b, reference).forward(x, y, relu=True)
    assert np.allclose(y, lowered, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * 10)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.0, -3.0, 2.0])
def test_rectifying_on_the_way_shows_what_the_layer_shows(value):
    x, w = np.full((1, 1), value, "float32"), np.ones((1, 1), "float32")
    plain, fused, expected = (np.zeros((1, 1), "float32") for _ in range(3))
    for module in (cpu, reference):
        with np.errstate(invalid="ignore"):
            module.inner_product_forward(x, w, None, plain)
            module.inner_product_forward(x, w, None, fused, relu=True)
            module.relu_forward(plain, 0.0, expected)
        assert np.array_equal(fused, expected, equal_nan=True)


def rng_matrix(rows, columns):
    return np.random.default_rng(4).standard_normal((rows, columns)).astype("float32")
