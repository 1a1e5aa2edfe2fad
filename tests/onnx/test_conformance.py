"""ONNX's conformance suite against the backend; what it refuses is listed with a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed; pip install 'minissl[onnx]'")

from onnx import numpy_helper  # noqa: E402
from onnx.backend.test.runner import Runner  # noqa: E402

from minissl.formats.toml import read_toml  # noqa: E402
from minissl.onnx import backend  # noqa: E402
from tests.conftest import needs_compiler  # noqa: E402
from tests.onnx import cases  # noqa: E402

pytestmark = needs_compiler

LIST = read_toml(Path(__file__).with_name("refused.toml"))
REFUSED = [name for entry in LIST["refused"] for name in entry["cases"]]
#: the length of the list; only ever make it smaller
LONGEST = 709

needs_the_release = pytest.mark.skipif(
    not onnx.__version__.startswith(LIST["onnx"] + "."),
    reason=f"the list is for the cases of onnx {LIST['onnx']}, this is {onnx.__version__}",
)


def test_the_list_only_becomes_shorter():
    assert len(REFUSED) <= LONGEST
    assert len(set(REFUSED)) == len(REFUSED)
    assert all(len(entry["reason"]) > 20 for entry in LIST["refused"])


@needs_the_release
def test_every_listed_case_exists():
    known = {case.name for kind in cases.KINDS for case in cases.load(kind)}
    assert set(REFUSED) <= known


@needs_the_release
@pytest.mark.slow
def test_node_cases():
    passed, complaints = cases.run_all("node", set(REFUSED))
    assert not complaints, "\n".join(complaints)
    assert sum(passed.values()) >= 1194
    assert passed["layers"] >= 200  # by layers of minissl alone


@needs_the_release
@pytest.mark.parametrize(
    ("kind", "least", "by_layers"),
    [("simple", 7, 1), ("pytorch-converted", 79, 54), ("pytorch-operator", 35, 15)],
)
def test_other_cases(kind, least, by_layers):
    passed, complaints = cases.run_all(kind, set(REFUSED))
    assert not complaints, "\n".join(complaints)
    assert sum(passed.values()) >= least
    assert passed["layers"] >= by_layers


# --- networks whose weights are computed, so that their files are small ---

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
#: name -> whether it becomes one net, nothing left to array functions
NETS = {
    "bvlc_alexnet": True,
    "inception_v1": True,
    "resnet50": True,
    "squeezenet": True,
    "vgg19": True,
    "zfnet512": True,
    "inception_v2": True,
    "densenet121": True,
    "shufflenet": False,  # exchanges channels, which Caffe has no layer for
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_weightless_models(name):
    path = LIGHT / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip("this release of onnx comes without the model")
    model = onnx.load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [
        Runner.generate_dummy_data(value, seed=0, name=name, random=False)
        for value in model.graph.input
        if value.name not in weights
    ]
    content = (LIGHT / f"light_{name}_output_0.pb").read_bytes()
    expected = numpy_helper.to_array(onnx.TensorProto.FromString(content))
    last = model.graph.node[-1]
    scores = last.input[0] if last.op_type == "Softmax" else last.output[0]
    if scores != last.output[0]:
        model.graph.output.add(name=scores).type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    prepared = backend.prepare(model)
    output, *known = prepared.run(inputs)
    if known and np.abs(known[0]).max() > 1e6:
        # one unit in the last place of such scores is a factor for the softmax, which is then one
        # of rounding errors; the scores themselves can be compared
        onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
        session = onnxruntime.InferenceSession(model.SerializeToString())
        (expected,) = session.run([scores], {session.get_inputs()[0].name: inputs[0]})
        (output,) = known
    np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-7)
    assert (prepared.ways == {"*": "layers"}) == NETS[name], prepared.reason


# --- the interface ---


def test_devices():
    assert backend.supports_device("CPU")
    assert not backend.supports_device("TPU")


def test_run_node():
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    (y,) = backend.run_node(node, [np.float32([-1, 0, 2])])
    assert y.tolist() == [0, 0, 2]


def test_is_compatible():
    def model(op):
        value = onnx.helper.make_tensor_value_info
        info = [value(name, onnx.TensorProto.FLOAT, [2]) for name in "xy"]
        node = onnx.helper.make_node(op, ["x"], ["y"])
        return onnx.helper.make_model(onnx.helper.make_graph([node], "g", info[:1], info[1:]))

    assert backend.is_compatible(model("Relu"))
    assert not backend.is_compatible(model("Det"))
