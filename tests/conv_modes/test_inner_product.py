"""Every mode of an inner product gives what the dense one gives, whatever is zero."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl import Net
from minissl import backend as backends
from minissl.backend import get, to_host
from minissl.conv_modes import ConvShape
from minissl.conv_modes.inner_product import GEMM_MODES, PRODUCTS, prepare_inner_product
from minissl.errors import ConfigError
from minissl.formats.prototxt import parse_net
from minissl.kernels import reference
from minissl.kernels.cpu import micro
from tests.kernels.strategies import PATTERNS, sparsify


def sparse_matrix(F, K, pattern, seed):
    rng = np.random.default_rng(seed)
    w = rng.uniform(-1, 1, (F, K))
    return sparsify(w, ConvShape(K, (1, 1), F, (1, 1)), pattern, rng)


@pytest.mark.parametrize("backend_name", ["numpy", "numba"])
@pytest.mark.parametrize("mode", sorted(PRODUCTS))
@given(
    N=st.sampled_from([1, 2, 3, 4, 5, 16, 33, 70]),
    K=st.integers(1, 60),
    F=st.integers(1, 40),
    pattern=st.sampled_from(PATTERNS),
    bias=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_modes_equal_the_reference(backend_name, mode, N, K, F, pattern, bias, seed):
    rng = np.random.default_rng(seed)
    w, x = sparse_matrix(F, K, pattern, seed), rng.uniform(-1, 1, (N, K))
    b = rng.uniform(-1, 1, F) if bias else None
    expected, y = np.full((2, N, F), np.nan)
    reference.inner_product_forward(x, w, b, expected)
    prepared = prepare_inner_product(mode, w, b, get(backend_name))
    prepared.forward(x, y)
    assert np.allclose(y, expected, rtol=1e-12, atol=1e-12)
    assert np.array_equal(prepared.dense(), w)


@pytest.mark.parametrize("vectors", ["generic", *(one.name for one in micro.isa.available())])
@given(
    N=st.sampled_from([4, 5, 8, 9, 16, 31, 32, 64, 65, 130]),
    K=st.integers(1, 900),
    F=st.integers(1, 40),
    zeros=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    relu=st.booleans(),
    threads=st.integers(1, 2),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None)
def test_batches_of_any_size_equal_the_dense_product(vectors, N, K, F, zeros, relu, threads, seed):
    rng = np.random.default_rng(seed)
    w = np.rint(rng.uniform(-9, 9, (F, K))).astype(np.float32)
    w[rng.random(w.shape) < zeros] = 0
    w[:, rng.random(K) < 0.2] = 0  # inputs that nothing reads
    x = np.rint(rng.uniform(-9, 9, (N, K))).astype(np.float32)
    b = np.rint(rng.uniform(-9, 9, F)).astype(np.float32)
    y = np.full((N, F), np.nan, np.float32)
    before = backends.threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINISSL_ISA", vectors)
        try:
            backends.set_threads(min(threads, before))
            prepared = prepare_inner_product("LOWERED_CSRMM", w, b, get("numba"))
            prepared.forward(x, y, relu)
        finally:
            backends.set_threads(before)
    expected = x @ w.T + b  # whole numbers: no rounding, whatever the order of the sums
    assert np.array_equal(y, np.maximum(expected, 0) if relu else expected)


def test_a_matrix_is_packed_once_for_each_width_of_batch():
    w = np.eye(40, 60, dtype=np.float32)
    packed = prepare_inner_product("LOWERED_CSRMM", w, None, get("numba"))
    sizes = []
    for N in (1, 30, 32, 64, 30):
        packed.forward(np.ones((N, 60), np.float32), np.empty((N, 40), np.float32))
        sizes.append(packed.nbytes)
    if micro.isa.chosen() is None:
        assert len(set(sizes)) == 1
    else:
        assert sizes[0] < sizes[1] == sizes[2] < sizes[3] == sizes[4]


@given(F=st.integers(1, 20), K=st.integers(1, 20), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_what_is_executed_is_counted(F, K, seed):
    w = sparse_matrix(F, K, "both", seed)
    packed = {mode: prepare_inner_product(mode, w, None, reference) for mode in PRODUCTS}
    counts = {mode: one.multiply_adds for mode, one in packed.items()}
    assert counts == {
        "LOWERED_GEMM": w.size,
        "LOWERED_CSRMM": np.count_nonzero(w),
        "LOWERED_CCNMM": w.any(axis=0).sum() * w.any(axis=1).sum(),
    }


def test_bytes_of_the_packed_weights():
    w = np.zeros((10, 100), np.float32)
    w[3, [5, 7]] = w[4, 5] = 1
    packed = {mode: prepare_inner_product(mode, w, None, reference) for mode in PRODUCTS}
    assert packed["LOWERED_GEMM"].nbytes == 4000
    assert packed["LOWERED_CSRMM"].nbytes == 3 * (4 + 2) + 11 * 8
    assert packed["LOWERED_CCNMM"].nbytes == 4 * 4 + 4 * 8


@pytest.mark.parametrize("N", [1, 6])
@pytest.mark.parametrize("K", [6144, 6145, 13000])
def test_a_wide_matrix_is_divided_into_slabs(N, K, backend_module):
    rng = np.random.default_rng(K)
    w = np.where(rng.random((3, K)) < 0.1, np.rint(rng.uniform(-9, 9, (3, K))), 0)
    x, b = np.rint(rng.uniform(-9, 9, (N, K))), np.array([1.0, 2, 3])
    xp = backend_module.xp
    weights, bias = xp.asarray(w), xp.asarray(b)
    packed = prepare_inner_product("LOWERED_CSRMM", weights, bias, backend_module)
    assert len(packed.slabs) == -(-K // 6144)
    assert all(columns.max() < 6144 for _, columns, _ in packed.slabs)
    y = xp.empty((N, 3))
    packed.forward(xp.asarray(x), y)
    assert np.array_equal(to_host(y), x @ w.T + b)
    assert np.array_equal(packed.dense(), w)
    assert packed.multiply_adds == np.count_nonzero(w)


def test_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match=r"has no mode WINOGRAD.*LOWERED_CCNMM"):
        prepare_inner_product("WINOGRAD", np.ones((1, 1)), None, reference)


@pytest.fixture
def backend_module(backend):
    return get(backend)


NET = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 5 dim: 2 dim: 3 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 4 %s
    weight_filler { type: "gaussian" std: 1 } bias_filler { type: "uniform" } } }
"""


@pytest.mark.parametrize("layout", ["", "transpose: true", "bias_term: false"])
@pytest.mark.parametrize("mode", ["SPMDM", "CCNMM"])
def test_weights_are_packed_at_load_and_the_dense_copy_is_released(mode, layout, tmp_path, backend):
    x = np.random.default_rng(0).uniform(-1, 1, (5, 2, 3, 3))
    plain = Net(parse_net(NET % layout), dtype="float64", backend=backend)
    sparse = Net(parse_net(NET % f"{layout} gemm_mode: {mode}"), dtype="float64", backend=backend)
    for seed in (1, 2):  # the second load must not leave the first weights behind
        weights = np.random.default_rng(seed).uniform(-1, 1, (4, 18))
        weights[1] = weights[:, 3] = 0
        stored = np.ascontiguousarray(weights.T) if "transpose" in layout else weights
        blobs = {"ip": [stored] if "bias" in layout else [stored, np.arange(4.0)]}
        plain.load(blobs)
        sparse.load(blobs)
        expected, found = (to_host(net.forward({"x": x})["y"]) for net in (plain, sparse))
        assert np.allclose(found, expected, rtol=1e-12, atol=1e-12)
    parameter = sparse.layer("ip").parameters[0]
    assert parameter._data is None
    assert np.array_equal(to_host(parameter.data), stored)
    sparse.save(tmp_path / "w.npz")
    assert np.array_equal(np.load(tmp_path / "w.npz")["ip.0"], stored)


@pytest.mark.parametrize("mode", ["GEMM", "SPMDM", "CCNMM"])
def test_a_compacted_layer_reads_its_own_columns(mode, backend):
    kept = [0, 4, 5, 17]
    columns = "kept_columns { %s }" % " ".join(f"column: {c}" for c in kept)
    net = Net(parse_net(NET % f"{columns} gemm_mode: {mode}"), dtype="float64", backend=backend)
    rng = np.random.default_rng(3)
    x, w, b = rng.uniform(-1, 1, (5, 18)), rng.uniform(-1, 1, (4, 4)), rng.uniform(-1, 1, 4)
    w[2] = w[:, 1] = 0
    net.load({"ip": [w, b]})
    y = net.forward({"x": x.reshape(5, 2, 3, 3)})["y"]
    assert np.allclose(to_host(y), x[:, kept] @ w.T + b, rtol=1e-12, atol=1e-12)
    layer = net.layer("ip")
    assert np.array_equal(to_host(layer.parameters[0].data), w)
    assert layer.conv_mode == ("LOWERED_CSRMM" if mode == "SPMDM" else "LOWERED_CCNMM")


def test_random_weights_are_packed_at_the_first_pass(backend):
    nets = [
        Net(parse_net(NET % f"gemm_mode: {mode}"), dtype="float64", backend=backend, seed=3)
        for mode in GEMM_MODES
    ]
    x = np.random.default_rng(0).uniform(-1, 1, (5, 2, 3, 3))
    dense, *others = (to_host(net.forward({"x": x})["y"]) for net in nets)
    assert np.abs(dense).max() > 0.1
    assert all(np.allclose(y, dense, rtol=1e-12, atol=1e-12) for y in others)


def test_training_in_a_sparse_mode_is_refused():
    with pytest.raises(ConfigError, match=r"'ip'.*SPMDM serves inference only.*GEMM"):
        Net(parse_net(NET % "gemm_mode: SPMDM"), phase="TRAIN")


def test_a_mode_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"'ip'.*SPGEMM is not part.*GEMM, SPMDM, CCNMM"):
        Net(parse_net(NET % "gemm_mode: SPGEMM"))
