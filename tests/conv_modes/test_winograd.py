"""WINOGRAD gives what the dense reference gives but for rounding, or says why it cannot."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl import Net, backend
from minissl.conv_modes import ConvShape, executed_mode, prepare, supports
from minissl.conv_modes.auto import predict
from minissl.errors import ConfigError
from minissl.formats.prototxt import parse_net
from minissl.kernels import reference
from minissl.kernels.cpu.micro import isa
from minissl.timing.modes import modes_of
from tests.conftest import needs_compiler
from tests.kernels.test_winograd import same_convolutions

#: of the largest output
EXACT = {np.float32: 1e-5, np.float64: 1e-12}
WIDE = ConvShape(32, (16, 16), 32, (3, 3), pad=(1, 1))
needs_vectors = pytest.mark.skipif(not isa.available(), reason="this CPU has no vectors for it")


def outputs(case):
    return np.full((case.N, case.shape.filters, *case.shape.output), np.nan)


@needs_compiler
@pytest.mark.parametrize("vectors", ["generic", *(one.name for one in isa.available())])
@given(same_convolutions(most=40), st.sampled_from(sorted(EXACT, key=str)), st.data())
@settings(max_examples=25, deadline=None)
def test_it_equals_the_reference(vectors, case, dtype, data):
    x, w, b, _ = (a.astype(dtype) for a in case.arrays())
    b = b if data.draw(st.booleans()) else None
    relu = data.draw(st.booleans())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINISSL_ISA", vectors)
        prepared = prepare("WINOGRAD", case.shape, w, b, backend.get("numba"))
        y = outputs(case).astype(dtype)
        prepared.forward(x, y, relu=relu)
    assert (prepared.fast is None) == (vectors == "generic" or dtype is np.float64)
    right = outputs(case)
    wide = (None if a is None else a.astype(np.float64) for a in (x, w, b))
    reference.conv_forward(*wide, *case.arguments, right)
    right = np.maximum(right, 0) if relu else right
    assert np.allclose(y, right, rtol=0, atol=EXACT[dtype] * max(1, np.abs(right).max()))
    assert np.array_equal(prepared.dense(), w)


@needs_compiler
@needs_vectors
def test_many_filters_and_channels():
    rng = np.random.default_rng(0)
    shape = ConvShape(300, (9, 10), 400, (3, 3), pad=(1, 1))
    x = rng.standard_normal((2, 300, 9, 10), np.float32)
    w = rng.standard_normal(shape.weight_shape, np.float32)
    ours, right = (np.empty((2, 400, 9, 10), np.float32) for _ in range(2))
    for mode, y in (("WINOGRAD", ours), ("LOWERED_GEMM", right)):
        prepare(mode, shape, w, None, backend.get("numba")).forward(x, y)
    exact = 2e-5  # the more channels are added up, the more is lost
    assert np.allclose(ours, right, rtol=0, atol=exact * np.abs(right).max())


@needs_compiler
@needs_vectors
@pytest.mark.parametrize("size", [4, 8, 33])
def test_a_divided_batch_gives_the_same_bits(size):
    rng = np.random.default_rng(size)
    shape = WIDE._replace(size=(size, size))
    w, b = (rng.standard_normal(n, np.float32) for n in (shape.weight_shape, shape.filters))
    prepared = prepare("WINOGRAD", shape, w, b, backend.get("numba"))
    N, chunk = 37, prepared.images_per_chunk(37)
    assert 1 <= chunk <= N and prepared.images_per_chunk(1) == 1
    x = rng.standard_normal((N, 32, size, size), np.float32)
    whole, parts = (np.empty((N, 32, size, size), np.float32) for _ in range(2))
    prepared.forward(x, whole)
    for first in range(0, N, chunk):
        prepared.forward(x[first : first + chunk], parts[first : first + chunk])
    assert np.array_equal(whole, parts)


@pytest.mark.parametrize(("r", "size", "multiplications"), [(3, 8, 36 * 4), (5, 7, 36 * 16)])
def test_multiplications_are_counted_by_tiles(r, size, multiplications):
    shape = ConvShape(3, (size, size), 2, (r, r), pad=(r // 2, r // 2))
    counted = prepare("WINOGRAD", shape, np.ones(shape.weight_shape), None, reference).multiply_adds
    assert counted == round(3 * 2 * multiplications / size**2)


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": (1, 1), "pad": (0, 0)},
        {"kernel": (3, 5)},
        {"kernel": (7, 7)},
        {"stride": (2, 2)},
        {"dilation": (1, 2)},
        {"groups": 2},
        {"pad": (3, 0)},
    ],
    ids=str,
)
def test_other_geometries_are_refused(changes):
    shape = WIDE._replace(**changes)
    with pytest.raises(ConfigError, match=r"3 x 3 and 5 x 5.*choose another mode, or AUTO"):
        prepare("WINOGRAD", shape, np.ones(shape.weight_shape, np.float32), None, reference)
    kernels = backend.get("numba")
    assert not supports("WINOGRAD", shape, kernels)
    chosen = predict(shape, np.ones(shape.weight_shape, np.float32), 8, 1)
    assert "WINOGRAD" not in chosen.seconds


def test_a_gpu_is_refused():
    kernels = SimpleNamespace(xp=None)  # any arrays but numpy's
    with pytest.raises(ConfigError, match="CPU only"):
        prepare("WINOGRAD", WIDE, np.ones(WIDE.weight_shape, np.float32), None, kernels)


@needs_compiler
@needs_vectors
def test_where_it_is_made_to_be_fast(monkeypatch):
    monkeypatch.delenv(isa.VARIABLE, raising=False)
    numba = backend.get("numba")
    assert supports("WINOGRAD", WIDE, numba)
    assert not supports("WINOGRAD", WIDE, numba, np.float64)
    assert not supports("WINOGRAD", WIDE, reference)
    large = WIDE._replace(channels=512, filters=512)  # runs by tiles too, but AUTO does not ask
    assert supports("WINOGRAD", large, numba)
    w = np.zeros(large.weight_shape, np.float32) + 1
    assert "WINOGRAD" not in predict(large, w, 8, 1).seconds


@needs_compiler
@needs_vectors
def test_auto_takes_it_where_it_multiplies_least():
    rng = np.random.default_rng(0)
    w = rng.standard_normal(WIDE.weight_shape).astype(np.float32)
    assert predict(WIDE, w, 64, 1).mode == "WINOGRAD"
    assert predict(WIDE._replace(channels=3), w[:, :3], 64, 1).mode != "WINOGRAD"
    assert "WINOGRAD" not in predict(WIDE, w, 64, 1, kernels=reference).seconds
    w[4:] = 0  # what multiplies by what is left multiplies less
    assert predict(WIDE, w, 64, 1).mode != "WINOGRAD"


NET = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 9 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "y"
  convolution_param { num_output: 4 kernel_size: 3 %s
    weight_filler { type: "gaussian" std: 1 } bias_filler { type: "uniform" } } }
layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
"""


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_a_net_runs_in_it(name):
    options = {"dtype": "float32", "backend": name}
    modes = "", "conv_mode: WINOGRAD"
    plain, ours = (Net(parse_net(NET % mode), **options) for mode in modes)
    ours.load(plain.weights())
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 9)).astype(np.float32)
    right = plain.forward({"x": x})["y"]
    assert np.allclose(ours.forward({"x": x})["y"], right, rtol=0, atol=1e-5 * right.max())
    assert modes_of(ours.layer("conv"))[-1] == "WINOGRAD"


def test_a_layer_that_cannot_says_so_when_the_net_is_built():
    with pytest.raises(ConfigError, match=r"'conv'.*conv_mode WINOGRAD is for 3 x 3"):
        Net(parse_net(NET % "conv_mode: WINOGRAD stride: 2"))
    strided = Net(parse_net(NET % "stride: 2"))
    assert "WINOGRAD" not in modes_of(strided.layer("conv"))


def test_a_compacted_layer_multiplies_what_it_keeps():
    assert executed_mode("WINOGRAD", is_compacted=True) == "LOWERED_CCNMM"
