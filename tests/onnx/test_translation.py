"""From graphs to prototxt: what each node becomes, and what is refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx", reason="onnx is not installed; pip install 'minissl[onnx]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from minissl import Net  # noqa: E402
from minissl.onnx import arrays  # noqa: E402
from minissl.onnx.graph import graph_of  # noqa: E402
from minissl.onnx.patterns import recognize  # noqa: E402
from minissl.onnx.translation import Inexpressible, input_shapes, translate  # noqa: E402


def tensor(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def drawn(name, shape):
    return tensor(name, np.random.default_rng(len(name)).uniform(0.5, 1.5, shape))


def read(nodes, constants=(), shape=(2, 3, 6, 6), outputs=("y",), opset=13):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        "g",
        [value("x", TensorProto.FLOAT, shape)],
        [value(name, TensorProto.FLOAT, None) for name in outputs],
        list(constants),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return recognize(graph_of(model))


def made_of(*args, **more):
    graph = read(*args, **more)
    return translate(graph, input_shapes(graph, batch=2))


def types(made):
    return [layer.type for layer in made.net_param.layer[1:]]


def run(made, x):
    net = Net(made.net_param, "TEST", "numpy")
    if made.weights:
        net.load(made.weights)
    net.forward({made.inputs["x"]: x})
    return {name: net.blobs[blob].data for name, blob in made.outputs.items()}


def same_as_arrays(nodes, constants=(), shape=(2, 3, 6, 6), **more):
    """Translate and compare with the operators as functions of arrays; return the net."""
    graph = read(nodes, constants, shape, **more)
    made = translate(graph, input_shapes(graph, batch=2))
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values = {**graph.constants, "x": x}
    for node in graph.nodes:
        inputs = [values[name] if name else None for name in node.inputs]
        results = arrays.call(node.op, node.attributes, graph.opset, len(node.outputs), inputs)
        values.update(zip(node.outputs, results, strict=False))
    for name, found in run(made, x).items():
        assert np.ptp(values[name]) > 0 or values[name].size == 1
        np.testing.assert_allclose(found, values[name], rtol=1e-4, atol=1e-5)
    return made


# --- what pooling and convolution of Caffe cannot say directly ---


@settings(max_examples=60, deadline=None)
@given(data=st.data(), op=st.sampled_from(["MaxPool", "AveragePool"]))
def test_pooling_of_any_padding(data, op):
    kernel = [data.draw(st.integers(1, 4)) for _ in range(2)]
    pads = [data.draw(st.integers(0, k - 1)) for k in kernel * 2]
    settings_ = {
        "kernel_shape": kernel,
        "pads": pads,
        "strides": [data.draw(st.integers(1, 3)) for _ in range(2)],
        "ceil_mode": data.draw(st.integers(0, 1)),
    }
    if op == "AveragePool":
        settings_["count_include_pad"] = data.draw(st.integers(0, 1))
    try:
        same_as_arrays([(op, ["x"], ["y"], settings_)], shape=(1, 2, 5, 6), opset=19)
    except Inexpressible:
        assume(False)


@pytest.mark.parametrize("counts", [0, 1])
def test_a_window_of_the_whole_image_with_its_padding(counts):
    settings_ = {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1}
    settings_["count_include_pad"] = counts
    same_as_arrays([("AveragePool", ["x"], ["y"], settings_)], shape=(1, 3, 2, 2), opset=19)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_convolution_of_any_padding(data):
    kernel = [data.draw(st.integers(1, 3)) for _ in range(2)]
    settings_ = {
        "pads": [data.draw(st.integers(0, 3)) for _ in range(4)],
        "strides": [data.draw(st.integers(1, 3)) for _ in range(2)],
    }
    made = same_as_arrays(
        [("Conv", ["x", "w"], ["y"], settings_)],
        [drawn("w", (4, 2, *kernel))],
        shape=(1, 2, 5, 6),
    )
    assert types(made) == ["Convolution"]


def test_uneven_padding_of_a_dilated_kernel_is_refused():
    settings_ = {"pads": [0, 0, 1, 1], "dilations": [2, 2]}
    with pytest.raises(Inexpressible, match="uneven"):
        made_of([("Conv", ["x", "w"], ["y"], settings_)], [drawn("w", (4, 3, 2, 2))])


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding(mode):
    settings_ = {"auto_pad": mode, "strides": [2, 2]}
    same_as_arrays([("Conv", ["x", "w"], ["y"], settings_)], [drawn("w", (4, 3, 3, 3))])


def test_resnet_pooling_rounds_down():
    settings_ = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    made = same_as_arrays([("MaxPool", ["x"], ["y"], settings_)])
    p = made.net_param.layer[1].pooling_param
    assert p.round_mode == p.FLOOR


# --- products and constants ---


def test_a_bias_behind_a_product_becomes_its_own():
    nodes = [("MatMul", ["x", "fc.weight"], ["a"]), ("Add", ["a", "b"], ["y"])]
    constants = [drawn("fc.weight", (5, 4)), drawn("b", (4,))]
    made = same_as_arrays(nodes, constants, shape=(3, 5))
    assert types(made) == ["InnerProduct"]
    assert made.net_param.layer[1].name == "fc"
    assert [array.shape for array in made.weights["fc"]] == [(4, 5), (4,)]


def test_a_bias_stays_a_layer_where_the_product_is_read_twice():
    nodes = [
        ("Conv", ["x", "w"], ["a"]),
        ("Add", ["a", "b"], ["c"]),
        ("Mul", ["a", "c"], ["y"]),
    ]
    constants = [drawn("w", (4, 3, 3, 3)), drawn("b", (4, 1, 1))]
    assert types(same_as_arrays(nodes, constants)) == ["Convolution", "Bias", "Eltwise"]


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 1), (1, 3, 1, 1), (6,), (6, 6), (3, 6, 6)])
@pytest.mark.parametrize("first", [True, False])
def test_arithmetic_with_constants(op, shape, first):
    inputs = ["x", "c"] if first else ["c", "x"]
    constants = [drawn("c", shape)]
    if op == "Div" and not first and np.prod(shape) > 1:
        with pytest.raises(Inexpressible):
            made_of([(op, inputs, ["y"])], constants)
        return
    if op == "Div" and not first:
        nodes = [("Exp", ["x"], ["e"]), (op, ["c", "e"], ["y"])]
        same_as_arrays(nodes, constants)
        return
    same_as_arrays([(op, inputs, ["y"])], constants)


def test_a_constant_that_fits_no_neighbouring_axes_is_refused():
    with pytest.raises(Inexpressible, match="side by side"):
        made_of([("Add", ["x", "c"], ["y"])], [drawn("c", (3, 1, 6))])


@pytest.mark.parametrize("bounds", [(0, 6), (0, None)])
def test_clip(bounds):
    constants = [tensor(name, v) for name, v in zip("lh", bounds, strict=True) if v is not None]
    inputs = ["x", "l", "h" if bounds[1] else ""]
    nodes = [("Mul", ["x", "c"], ["a"]), ("Clip", ["a", *inputs[1:]], ["y"])]
    same_as_arrays(nodes, [*constants, tensor("c", 5)])


def test_clip_at_other_bounds_is_refused():
    with pytest.raises(Inexpressible, match="clips at -1"):
        made_of([("Clip", ["x", "l", "h"], ["y"])], [tensor("l", -1), tensor("h", 1)])


# --- shapes ---


def test_slices_and_parts():
    nodes = [
        ("Slice", ["x", "s", "e", "a"], ["part"]),
        ("Split", ["part", "sizes"], ["p", "q"], {"axis": 2}),
        ("Concat", ["q", "p"], ["y"], {"axis": -2}),
    ]
    constants = [
        tensor("s", [1, 2], np.int64),
        tensor("e", [3, -1], np.int64),
        tensor("a", [1, 3], np.int64),
        tensor("sizes", [2, 4], np.int64),
    ]
    made = same_as_arrays(nodes, constants)
    net = Net(made.net_param, "TEST", "numpy")
    assert net.outputs == ["y"]  # what was cut off is silenced


def test_shortcuts_without_weights():
    """x[:, :, ::2, ::2] with zeros for the new channels: the shortcuts of many CIFAR ResNets."""
    nodes = [("Slice", ["x", "s", "e", "a", "two"], ["half"]), ("Pad", ["half", "pads"], ["y"])]
    constants = [
        tensor("s", [0, 0], np.int64),
        tensor("e", [2**62, 2**62], np.int64),
        tensor("a", [2, 3], np.int64),
        tensor("two", [2, 2], np.int64),
        tensor("pads", [0, 2, 0, 0, 0, 1, 0, 0], np.int64),
    ]
    made = same_as_arrays(nodes, constants)
    assert types(made) == ["Pooling", "Convolution"]
    half, wider = made.net_param.layer[1:]
    assert half.pooling_param.stride_h == 2 and half.pooling_param.kernel_size == 1
    assert wider.convolution_param.num_output == 6


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_steps_and_zeros_around(data):
    start = [data.draw(st.integers(0, 2)) for _ in range(2)]
    steps = [data.draw(st.integers(1, 4)) for _ in range(2)]
    around = [data.draw(st.integers(0, 3)) for _ in range(4)]
    pads = [0, 0, *around[:2], 0, 0, *around[2:]]
    nodes = [
        ("Slice", ["x", "s", "e", "a", "by"], ["part"]),
        ("Pad", ["part", "pads"], ["padded"]),
        ("Relu", ["padded"], ["y"]),
    ]
    constants = [
        tensor("s", start, np.int64),
        tensor("e", [7, 5], np.int64),
        tensor("a", [2, 3], np.int64),
        tensor("by", steps, np.int64),
        tensor("pads", pads, np.int64),
    ]
    same_as_arrays(nodes, constants, shape=(1, 2, 7, 6))


def test_padding_by_nothing_leaves_no_layer():
    """avg_pool2d of opset 9 pads by 0 first."""
    nodes = [("Pad", ["x"], ["p"], {"pads": [0] * 8}), ("Relu", ["p"], ["y"])]
    assert types(same_as_arrays(nodes, opset=9)) == ["ReLU"]


@pytest.mark.parametrize(
    ("pads", "mode", "value"),
    [
        ([1, 0, 0, 0] * 2, "constant", 0.0),
        ([0, 0, 1, 1] * 2, "reflect", 0.0),
        ([0, 0, 1, 1] * 2, "constant", 1.0),
        ([0, 0, -1, 0] * 2, "constant", 0.0),
    ],
)
def test_padding_by_anything_else_is_refused(pads, mode, value):
    settings_ = {"pads": pads, "mode": mode, "value": value}
    with pytest.raises(Inexpressible, match=r"\(Pad\): Caffe pads images with zeros"):
        made_of([("Pad", ["x"], ["y"], settings_)], opset=9)


def test_steps_over_images_or_channels_are_refused():
    constants = [tensor("s", [0], np.int64), tensor("e", [3], np.int64)]
    constants += [tensor("a", [1], np.int64), tensor("by", [2], np.int64)]
    with pytest.raises(Inexpressible, match="Caffe takes each n-th pixel of an image"):
        made_of([("Slice", ["x", "s", "e", "a", "by"], ["y"])], constants)


def test_the_shape_of_a_value_is_a_constant():
    """x.view(x.size(0), -1), as PyTorch exports it."""
    nodes = [
        ("Shape", ["x"], ["shape"]),
        ("Gather", ["shape", "zero"], ["n"]),
        ("Unsqueeze", ["n", "axes"], ["n1"]),
        ("Concat", ["n1", "rest"], ["target"], {"axis": 0}),
        ("Reshape", ["x", "target"], ["y"]),
    ]
    constants = [
        tensor("zero", 0, np.int64),
        tensor("axes", [0], np.int64),
        tensor("rest", [-1], np.int64),
    ]
    assert types(same_as_arrays(nodes, constants)) == ["Flatten"]


def test_reshape_fits_any_batch():
    made = same_as_arrays([("Reshape", ["x", "s"], ["y"])], [tensor("s", [2, 3, 36], np.int64)])
    assert list(made.net_param.layer[1].reshape_param.shape.dim) == [0, 0, -1]


@pytest.mark.parametrize(("order", "fine"), [((0, 2, 1, 3), True), ((0, 1, 3, 2), False)])
def test_axes_of_length_1_may_change_their_place(order, fine):
    nodes = [("Transpose", ["x"], ["y"], {"perm": order})]
    if fine:
        same_as_arrays(nodes, shape=(2, 1, 6, 6))
    else:
        with pytest.raises(Inexpressible, match="exchanges axes"):
            made_of(nodes)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("axis", [1, -1])
def test_softmax_of_old_folds_axes(op, opset, axis):
    same_as_arrays([(op, ["x"], ["y"], {"axis": axis})], opset=opset)


def test_batch_normalization_and_reduction():
    nodes = [
        ("BatchNormalization", ["x", "g", "b", "m", "v"], ["a"], {"epsilon": 0.1}),
        ("ReduceMean", ["a"], ["y"], {"axes": [2, 3], "keepdims": 0}),
    ]
    constants = [drawn(name, (3,)) for name in "gbmv"]
    assert types(same_as_arrays(nodes, constants)) == ["BatchNorm", "Scale", "Pooling", "Flatten"]


# --- the net as a whole ---


def test_activations_are_computed_in_place_where_nobody_else_reads():
    nodes = [
        ("Conv", ["x", "w"], ["a"]),
        ("Relu", ["a"], ["b"]),
        ("Relu", ["b"], ["c"]),
        ("Sigmoid", ["c"], ["d"]),
        ("Add", ["c", "d"], ["y"]),
    ]
    made = same_as_arrays(nodes, [drawn("w", (4, 3, 3, 3))])
    conv, relu, again, sigmoid, add = made.net_param.layer[1:]
    assert conv.top == relu.bottom == relu.top == again.bottom
    assert again.top == sigmoid.bottom == [add.bottom[0]] and again.top != sigmoid.top


def test_dead_nodes_are_left_out():
    nodes = [("Frobnicate", ["x"], ["a"]), ("Relu", ["x"], ["y"])]
    assert types(made_of(nodes)) == ["ReLU"]


def test_names_are_distinct():
    nodes = [("Relu", ["x"], ["a"], {"name": "r"}), ("Relu", ["a"], ["y"], {"name": "r"})]
    made = made_of(nodes)
    assert [layer.name for layer in made.net_param.layer] == ["x", "r", "r_2"]


def test_the_error_names_the_node():
    with pytest.raises(Inexpressible, match=r"node 'det' \(Det\): Caffe has no layer"):
        made_of([("Det", ["x"], ["y"], {"name": "det"})])


def test_a_branch_with_a_constant_condition_is_taken():
    def branch(op):
        out = helper.make_tensor_value_info("out" + op, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["x"], ["out" + op])], op, [], [out])

    choice = {"then_branch": branch("Tanh"), "else_branch": branch("Sigmoid")}
    made = made_of([("If", ["c"], ["y"], choice)], [tensor("c", False, bool)])
    assert types(made) == ["Sigmoid"]
