"""Reading: any bytes give a model or one MinisslError, quickly and in little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx", reason="onnx is not installed; pip install 'minissl[onnx]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from minissl.errors import ConfigError, MinisslError, WeightsError  # noqa: E402
from minissl.onnx.convert import from_onnx, read  # noqa: E402
from minissl.onnx.files import write_model  # noqa: E402
from minissl.onnx.graph import graph_of  # noqa: E402

FLOAT = TensorProto.FLOAT


def model_of(nodes, constants=(), shape=(1, 3, 8, 8), outputs=("y",), sparse=()):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "g",
        [value("x", FLOAT, shape)],
        [value(name, FLOAT, None) for name in outputs],
        list(constants),
        sparse_initializer=list(sparse),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


def conv_model():
    w = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight"], ["a"], "conv"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MaxPool", ["b"], ["y"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    return model_of(nodes, [numpy_helper.from_array(w, "conv.weight")])


def save(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def constant(name, **fields):
    return TensorProto(name=name, **fields)


def test_missing_foreign_truncated_and_empty_files(tmp_path):
    with pytest.raises(WeightsError, match="There is no ONNX model"):
        read(tmp_path / "none.onnx")
    path = save(conv_model(), tmp_path / "net.onnx")
    whole = path.read_bytes()
    for content in (b"", b"layer { }", whole[:-7], whole[: len(whole) // 2], b"\x08" * 1000):
        path.write_bytes(content)
        with pytest.raises(MinisslError):
            read(path)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_bytes_give_a_result_or_one_error(data, tmp_path):
    content = bytearray(conv_model().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "net.onnx"
    path.write_bytes(bytes(content))
    try:
        read(path)
    except MinisslError as reason:
        assert str(reason).count("\n") == 0


@pytest.mark.parametrize(
    "tensor",
    [
        constant("w", data_type=FLOAT, dims=[2**40, 2**40], raw_data=b"1234"),
        constant("w", data_type=FLOAT, dims=[-1], raw_data=b"1234"),
        constant("w", data_type=FLOAT, dims=[-2, -2], float_data=[1, 2, 3, 4]),
        constant("w", data_type=FLOAT, dims=[4, 3, 3, 3]),
        constant("w", data_type=FLOAT, dims=[1], raw_data=b"123"),
        constant("w", data_type=FLOAT, dims=[2], float_data=[1, 2, 3]),
        constant("w", data_type=99, dims=[1], raw_data=b"1234"),
        constant("w", data_type=0, dims=[1], raw_data=b"1234"),
        constant("w", data_type=TensorProto.INT4, dims=[2**50], raw_data=b"1"),
        constant("w", data_type=TensorProto.INT8, dims=[1], int32_data=[2**30]),
    ],
)
def test_tensors_that_lie(tensor, tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    path = save(model_of(nodes, [tensor]), tmp_path / "net.onnx")
    tracemalloc.start()
    with pytest.raises(MinisslError):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "link", "folder", "", "a\0b", "none", "loop"]
)
def test_external_data_stays_in_the_folder(location, tmp_path):
    folder = tmp_path / "model"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"1234")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to(folder / "loop")
    tensor = constant("w", data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    path = save(model_of([helper.make_node("Add", ["x", "w"], ["y"])], [tensor]), folder / "n.onnx")
    with pytest.raises(WeightsError, match=r"not a file in the model's own folder"):
        read(path)


@pytest.mark.parametrize(
    ("offset", "length", "fine"),
    [("4", "4", True), ("4", None, True), ("6", "4", False), ("-4", "4", False), ("x", "4", False)],
)
def test_external_data(offset, length, fine, tmp_path):
    (tmp_path / "weights").write_bytes(np.float32([1, 2]).tobytes())
    tensor = constant("w", data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    entries = {"location": "weights", "offset": offset, "length": length}
    for key, value in entries.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], [tensor])
    path = save(model, tmp_path / "net.onnx")
    if fine:
        (layer,) = read(path).net_param.layer[1:]
        assert layer.power_param.shift == 2
        with pytest.raises(WeightsError, match="lies in another file"):
            graph_of(model)
    else:
        with pytest.raises(WeightsError):
            read(path)


@pytest.mark.parametrize(
    ("dims", "indices"),
    [
        ([2**40, 2**40], [0]),
        ([-1], [0]),
        ([4], [4]),
        ([4], [-1]),
        ([2, 2], [[0, 2]]),
        ([4], [0, 1]),
    ],
)
def test_sparse_tensors_that_lie(dims, indices, tmp_path):
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    places = numpy_helper.from_array(np.array(indices, np.int64), "i")
    sparse = onnx.SparseTensorProto(values=values, indices=places, dims=dims)
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    with pytest.raises(WeightsError):
        read(save(model_of(nodes, sparse=[sparse]), tmp_path / "net.onnx"))


# --- graphs that lie ---


def integers(name, values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def number(name, value):
    return numpy_helper.from_array(np.float32(value), name)


GRAPHS = {
    "a cycle": ([("Add", ["x", "b"], ["a"]), ("Relu", ["a"], ["b"]), ("Relu", ["b"], ["y"])], []),
    "a name made twice": ([("Relu", ["x"], ["y"]), ("Relu", ["x"], ["y"])], []),
    "an unknown operator": ([("Frobnicate", ["x"], ["y"])], []),
    "a foreign domain": ([("Relu", ["x"], ["y"], {"domain": "com.example"})], []),
    "an input too few": ([("Conv", ["x"], ["y"])], []),
    "an input left out": ([("Relu", [""], ["y"])], []),
    "no inputs": ([("Relu", [], ["y"])], []),
    "no outputs": ([("Relu", ["x"], [])], []),
    "an output that nobody makes": ([("Relu", ["x"], ["z"])], []),
    "a huge constant": (
        [("ConstantOfShape", ["s"], ["c"]), ("Add", ["x", "c"], ["y"])],
        [integers("s", [2**20, 2**20])],
    ),
    "a negative constant": (
        [("ConstantOfShape", ["s"], ["c"]), ("Add", ["x", "c"], ["y"])],
        [integers("s", [-5, 3])],
    ),
    "a huge broadcast": (
        [("Add", ["a", "b"], ["c"]), ("Add", ["x", "c"], ["y"])],
        [integers("a", np.zeros((2**17, 1))), integers("b", np.zeros((1, 2**17)))],
    ),
    "a range without end": (
        [("Range", ["a", "b", "c"], ["d"]), ("Add", ["x", "d"], ["y"])],
        [integers("a", 0), integers("b", 2**60), integers("c", 1)],
    ),
    "a range of steps of 0": (
        [("Range", ["a", "b", "c"], ["d"]), ("Add", ["x", "d"], ["y"])],
        [integers("a", 0), integers("b", 9), integers("c", 0)],
    ),
    "huge padding": (
        [("MaxPool", ["x"], ["y"], {"kernel_shape": [2, 2], "pads": [2**40] * 4})],
        [],
    ),
    "a huge kernel": ([("MaxPool", ["x"], ["y"], {"kernel_shape": [2**40, 2]})], []),
    "a kernel of 0": ([("MaxPool", ["x"], ["y"], {"kernel_shape": [0, 2]})], []),
    "a kernel of text": ([("MaxPool", ["x"], ["y"], {"kernel_shape": "big"})], []),
    "a stride of 0": (
        [("AveragePool", ["x"], ["y"], {"kernel_shape": [2, 2], "strides": [0, 0]})],
        [],
    ),
    "an LRN of none": ([("LRN", ["x"], ["y"])], []),
    "a split of nothing": ([("Split", ["x", "s"], ["y", "z"])], [integers("s", [9, 9])]),
    "a reshape that loses": ([("Reshape", ["x", "s"], ["y"])], [integers("s", [5, 5])]),
    "a reshape to nothing": ([("Reshape", ["x", "s"], ["y"])], [integers("s", [])]),
    "an axis beyond": ([("Concat", ["x", "x"], ["y"], {"axis": 9})], []),
    "a softmax beyond": ([("Softmax", ["x"], ["y"], {"axis": 2**62})], []),
    "an If without branches": ([("If", ["c"], ["y"])], [number("c", 1)]),
    "weights of another size": (
        [("Conv", ["x", "w"], ["y"])],
        [numpy_helper.from_array(np.zeros((4, 5, 3, 3), np.float32), "w")],
    ),
    "weights of two axes": (
        [("Conv", ["x", "w"], ["y"])],
        [numpy_helper.from_array(np.zeros((4, 5), np.float32), "w")],
    ),
    "groups that do not divide": (
        [("Conv", ["x", "w"], ["y"], {"group": 2})],
        [numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w")],
    ),
    "integers to convolve": (
        [("Conv", ["x", "w"], ["y"], {"strides": [2**33, 1]})],
        [numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w")],
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_that_lie(name, tmp_path):
    rows, constants = GRAPHS[name]
    nodes = []
    for op, inputs, outputs, *more in rows:
        nodes.append(helper.make_node(op, inputs, outputs, **(more[0] if more else {})))
    path = save(model_of(nodes, constants), tmp_path / "net.onnx")
    tracemalloc.start()
    with pytest.raises(MinisslError) as reason:
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 2e7
    tracemalloc.stop()
    assert "\n" not in str(reason.value)


def test_inputs_of_any_size_are_refused(tmp_path):
    relu = [helper.make_node("Relu", ["x"], ["y"])]
    for shape in ([1, None, 8, 8], [0, 3, 8, 8], [-4, 3], None):
        path = save(model_of(relu, shape=shape), tmp_path / "net.onnx")
        with pytest.raises(ConfigError):
            read(path)


def field(number, content):
    """Encode a field of bytes as protocol buffers do."""
    size, rest = bytearray(), len(content)
    while rest > 0x7F:
        size.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([number << 3 | 2]) + bytes(size) + bytes([rest]) + content


@pytest.mark.parametrize("depth", [5, 40, 500, 5000])
def test_deep_branches(depth, tmp_path):
    graph = field(2, b"g")
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"  # type: GRAPH
        node = field(2, b"y") + field(4, b"If") + field(5, attribute)
        graph = field(1, node) + field(2, b"g")
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x08" + field(8, b"\x10\x0d") + field(7, graph))
    with pytest.raises(MinisslError):
        read(path)


def test_long_models_take_linear_time(tmp_path):
    """20,000 nodes of one name; anything quadratic would take minutes."""
    nodes = [
        helper.make_node("Identity", [f"v{i}" if i else "x"], [f"v{i + 1}"], "n")
        for i in range(20_000)
    ]
    nodes.append(helper.make_node("Relu", ["v20000"], ["y"], "n"))
    made = read(save(model_of(nodes), tmp_path / "net.onnx"))
    assert [layer.type for layer in made.net_param.layer] == ["Input", "ReLU"]


# --- writing ---


def test_nothing_is_written_that_the_checker_refuses(tmp_path):
    model = model_of([helper.make_node("Relu", ["nothing"], ["y"])])
    with pytest.raises(MinisslError, match="checker"):
        write_model(model, tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    path = save(conv_model(), tmp_path / "net.onnx")
    with pytest.raises(MinisslError, match="Cannot make the folder"):
        from_onnx(path, path / "below")
