"""Every conv mode gives what the dense reference gives, whatever is zero."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl import Net, backend
from minissl.conv_modes import MODES, ConvShape, prepare, supports
from minissl.errors import ConfigError
from minissl.formats.prototxt import parse_net
from minissl.kernels import reference
from minissl.kernels.cpu import convolution
from minissl.kernels.cpu.micro import isa
from tests.conftest import needs_compiler
from tests.kernels.strategies import PATTERNS, convolutions, sparsify

#: every mode of any geometry; WINOGRAD has tests of its own, test_winograd.py
PLAIN = sorted(set(MODES) - {"WINOGRAD"})


def dense(case, x, w, b):
    y = np.empty((case.N, case.shape.filters, *case.shape.output), x.dtype)
    reference.conv_forward(x, w, b, *case.arguments, y)
    return y


@pytest.mark.parametrize("backend_name", ["numpy", "numba"])
@pytest.mark.parametrize("mode", PLAIN)
@given(
    case=convolutions(),
    pattern=st.sampled_from(PATTERNS),
    bias=st.booleans(),
    chunk_bytes=st.sampled_from([1, 1000, convolution.CHUNK_BYTES]),
)
@settings(max_examples=40, deadline=None)
def test_modes_equal_the_reference(backend_name, mode, case, pattern, bias, chunk_bytes):
    x, w, b, _ = case.arrays()
    sparsify(w, case.shape, pattern, np.random.default_rng(case.seed))
    b = b if bias else None
    prepared = prepare(mode, case.shape, w, b, backend.get(backend_name))
    y = np.full((case.N, case.shape.filters, *case.shape.output), np.nan)
    with mock.patch.object(convolution, "CHUNK_BYTES", chunk_bytes):
        prepared.forward(x, y)
    assert np.allclose(y, dense(case, x, w, b), rtol=1e-12, atol=1e-12)
    assert np.array_equal(prepared.dense(), w)


@pytest.mark.parametrize("backend_name", ["numpy", "numba"])
@given(case=convolutions(), pattern=st.sampled_from(PATTERNS))
@settings(max_examples=40, deadline=None)
def test_gradients_of_the_kept_rows_and_columns(backend_name, case, pattern):
    x, w, b, d_y = case.arrays()
    sparsify(w, case.shape, pattern, np.random.default_rng(case.seed))
    packed = prepare("LOWERED_CCNMM", case.shape, w, b, backend.get(backend_name))
    d_x, expected_x = np.full_like(x, np.nan), np.empty_like(x)
    d_w, expected_w = np.ones_like(w), np.zeros_like(w)
    packed.backward_input(d_y, d_x)
    reference.conv_backward_input(d_y, w, *case.arguments, expected_x)
    assert np.allclose(d_x, expected_x, rtol=1e-12, atol=1e-12)
    packed.backward_weights(x, d_y, d_w)
    reference.conv_backward_weights(x, d_y, *case.arguments, expected_w)
    bands, expected = case.shape.bands(w), case.shape.bands(expected_w)
    kept = bands.any(axis=2, keepdims=True) & bands.any(axis=1, keepdims=True)  # (G, F/G, K)
    assert np.allclose(case.shape.bands(d_w), 1 + kept * expected, rtol=1e-11, atol=1e-11)


@needs_compiler
@pytest.mark.parametrize("vectors", ["generic", *(one.name for one in isa.available())])
@pytest.mark.parametrize("mode", PLAIN)
@given(case=convolutions(), pattern=st.sampled_from(PATTERNS), relu=st.booleans())
@settings(max_examples=15, deadline=None)
def test_modes_agree_with_any_vectors(vectors, mode, case, pattern, relu):
    rng = np.random.default_rng(case.seed)
    x, w, b, _ = (rng.integers(-4, 5, a.shape).astype(np.float32) for a in case.arrays())
    sparsify(w, case.shape, pattern, rng)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINISSL_ISA", vectors)
        prepared = prepare(mode, case.shape, w, b, backend.get("numba"))
    y = np.full((case.N, case.shape.filters, *case.shape.output), np.nan, np.float32)
    prepared.forward(x, y, relu=relu)
    expected = dense(case, x, w, b)
    assert np.array_equal(y, np.maximum(expected, 0) if relu else expected)
    if mode.startswith("DIRECT"):
        assert (prepared.fast is None) == (vectors == "generic")


@needs_compiler
@pytest.mark.skipif(not isa.available(), reason="this CPU has no vectors for it")
def test_where_a_mode_is_made_to_be_fast(monkeypatch):
    monkeypatch.delenv(isa.VARIABLE, raising=False)
    shape, numba = ConvShape(2, (5, 5), 20, (3, 3)), backend.get("numba")
    for mode in PLAIN:
        direct = mode.startswith("DIRECT")
        assert supports(mode, shape, numba)
        assert supports(mode, shape, numba, np.float64) == (not direct)
        assert supports(mode, shape, reference) == (not direct)
        assert supports(mode, shape._replace(size=(90_000, 90_000)), numba) == (not direct)


def test_float64_has_plain_kernels_only():
    shape = ConvShape(2, (5, 5), 20, (3, 3))
    w = np.ones(shape.weight_shape)
    for mode in ("LOWERED_CCNMM", "DIRECT_SCONV", "DIRECT_DCONV"):
        assert prepare(mode, shape, w, None, backend.get("numba")).fast is None


@needs_compiler
@pytest.mark.skipif(not isa.available(), reason="this CPU has no vectors for it")
def test_direct_tiles_are_for_weights_that_stay():
    shape = ConvShape(2, (5, 5), 20, (3, 3))
    w = np.ones(shape.weight_shape, np.float32)
    prepared = prepare("LOWERED_CCNMM", shape, w, None, backend.get("numba"))
    assert prepared.fast is not None
    few = prepare("LOWERED_CCNMM", shape, w * (np.arange(20) < 2)[:, None, None, None], None,
                  backend.get("numba"))  # fmt: skip
    assert few.fast is None  # two filters would leave most lanes empty
    x, y = np.ones((1, 2, 5, 5), np.float32), np.empty((1, 20, 3, 3), np.float32)
    prepared.pack(2 * w, None)
    prepared.forward(x, y)
    assert np.all(y == 36)


@given(case=convolutions(), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_what_is_executed_is_counted(case, seed):
    rng = np.random.default_rng(seed)
    w = sparsify(rng.uniform(0.5, 1, case.shape.weight_shape), case.shape, "both", rng)
    counts = {mode: prepare(mode, case.shape, w, None, reference).multiply_adds for mode in PLAIN}
    bands = case.shape.bands(w)
    kept = sum(int(b.any(1).sum() * b.any(0).sum()) for b in bands)
    assert counts == {
        "LOWERED_GEMM": w.size,
        "LOWERED_CSRMM": np.count_nonzero(w),
        "LOWERED_CCNMM": kept,
        "DIRECT_SCONV": np.count_nonzero(w),
        "DIRECT_DCONV": w.size,
    }


@given(case=convolutions(), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_kept_columns_round_trip(case, seed):
    rng = np.random.default_rng(seed)
    w = sparsify(rng.uniform(0.5, 1, case.shape.weight_shape), case.shape, "columns", rng)
    kept = [np.flatnonzero(band.any(axis=0)).tolist() for band in case.shape.bands(w)]
    packed = case.shape.gather_columns(w, kept)
    assert packed.size == sum(case.shape.rows * len(columns) for columns in kept)
    assert np.array_equal(case.shape.scatter_columns(packed, kept), w)


def test_unknown_mode_is_refused():
    shape = ConvShape(1, (3, 3), 1, (1, 1))
    with pytest.raises(ConfigError, match="LOWERED_CCNMM"):
        prepare("AUTO", shape, np.ones((1, 1, 1, 1)), None, reference)


NET = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "y"
  convolution_param { num_output: 4 kernel_size: 3 %s
    weight_filler { type: "gaussian" std: 1 } bias_filler { type: "uniform" } } }
"""


@pytest.mark.parametrize("mode", ["LOWERED_CSRMM", "LOWERED_CCNMM", "DIRECT_SCONV", "DIRECT_DCONV"])
def test_weights_are_packed_at_load_and_the_dense_copy_is_released(mode, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (2, 2, 6, 6))
    plain = Net(parse_net(NET % ""), dtype="float64")
    sparse = Net(parse_net(NET % f"conv_mode: {mode}"), dtype="float64")
    for seed in (1, 2):  # the second load must not leave the first weights behind
        weights = np.random.default_rng(seed).uniform(-1, 1, (4, 2, 3, 3))
        weights[1] = weights[:, :, 0] = 0
        blobs = {"conv": [weights, np.arange(4.0)]}
        plain.load(blobs)
        sparse.load(blobs)
        expected = plain.forward({"x": x})["y"]
        assert np.allclose(sparse.forward({"x": x})["y"], expected, rtol=1e-12, atol=1e-12)
    parameter = sparse.layer("conv").parameters[0]
    assert parameter._data is None
    assert np.array_equal(parameter.data, weights)
    sparse.save(tmp_path / "w.npz")
    assert np.array_equal(np.load(tmp_path / "w.npz")["conv.0"], weights)


def test_training_in_a_sparse_mode_is_refused():
    with pytest.raises(ConfigError, match=r"'conv'.*inference only.*train without conv_mode"):
        Net(parse_net(NET % "conv_mode: LOWERED_CSRMM"), phase="TRAIN")
