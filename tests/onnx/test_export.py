"""Nets written as ONNX models: onnxruntime gives the same outputs, whatever the layers."""

from __future__ import annotations

import re

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed; pip install 'minissl[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")

from minissl import Net, models  # noqa: E402
from minissl.compaction import compact  # noqa: E402
from minissl.errors import ConfigError  # noqa: E402
from minissl.formats.prototxt import parse_net  # noqa: E402
from minissl.layers import LAYERS  # noqa: E402
from minissl.onnx import export_layers  # noqa: E402
from minissl.onnx.export import WRITERS, export  # noqa: E402
from minissl.onnx.graph import graph_of  # noqa: E402
from minissl.onnx.translation import input_shapes, translate  # noqa: E402
from tests.compaction import nets  # noqa: E402
from tests.gradient_cases import CASES  # noqa: E402

TOLERANCE = 1e-5

#: layers that have no writer
STAY_BEHIND = ("Split", "Silence", "Accuracy")
#: options of layers that have no counterpart
REFUSED = (
    "pooling, max, with positions",
    "BatchNorm, testing by the batch",
)


def test_every_layer_is_written_or_stays_behind():
    others = {name for name, layer in LAYERS.items() if layer.is_loss or layer.is_data}
    assert export_layers
    assert set(LAYERS) - others - set(STAY_BEHIND) == set(WRITERS)


def outputs_of(model, inputs):
    """Check a model and run it by onnxruntime: {name: array}."""
    # the full check infers types, and takes a Conv of sparse weights for an error
    onnx.checker.check_model(model, full_check=not model.graph.sparse_initializer)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [value.name for value in session.get_outputs()]
    given = {value.name: inputs[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(names, given), strict=True))


def agree(ours, theirs, what=""):
    """Compare relative to the largest element: small ones are sums that cancel."""
    assert ours.shape == theirs.shape, what
    scale = np.abs(ours).max()
    assert scale > 0, what
    error = np.abs(ours.astype(np.float64) - theirs).max() / scale
    assert error <= TOLERANCE, f"{what}: relative error {error:.1e}"


def input_layer(name, shape):
    dims = " ".join(f"dim: {length}" for length in shape)
    return (
        f'layer {{ name: "in {name}" type: "Input" top: "{name}" '
        f"input_param {{ shape {{ {dims} }} }} }}"
    )


def net_of(case):
    """Build the net of a case with drawn weights; return it with its inputs."""
    names = re.findall(r'bottom: "(\w+)"', case.text)
    values = dict(zip(names, (v.astype(np.float32) for v in case.values()), strict=True))
    layers = [input_layer(name, value.shape) for name, value in values.items()]
    net = Net(parse_net("\n".join([*layers, f"layer {{ {case.text} }}"])), "TEST", "numpy")
    rng = np.random.default_rng(1)
    weights = net.weights()
    if weights:  # positive, for variances
        net.load({k: [rng.uniform(0.5, 1.5, b.shape) for b in v] for k, v in weights.items()})
    return net, values


#: a BatchNorm without a channel axis: Scale, its other half, needs one
NO_CHANNELS = "BatchNorm, one axis"
WRITTEN = [
    case
    for case in CASES
    if case.type_name in WRITERS and case.name not in REFUSED and "STOCHASTIC" not in case.text
]


@pytest.mark.parametrize("case", WRITTEN, ids=lambda case: case.name)
def test_layers_agree_with_onnxruntime(case):
    net, values = net_of(case)
    model = export(net)
    ours = {name: y.copy() for name, y in net.forward(values).items()}
    theirs = outputs_of(model, values)
    tops = net.layers[-1].param.top
    found = [name for name in theirs if name.split("@")[0] in tops]
    assert len(found) == len(theirs) == len(set(tops))
    for name in found:
        top = name.split("@")[0]
        if ours[top].any():
            agree(ours[top], theirs[name], name)
        else:
            assert not theirs[name].any()


@pytest.mark.parametrize(
    "case", [case for case in WRITTEN if case.name != NO_CHANNELS], ids=lambda case: case.name
)
def test_layers_come_back(case):
    """Where a model can be read again, it is the same function."""
    net, values = net_of(case)
    model = export(net)
    graph = graph_of(model)
    try:
        made = translate(graph, input_shapes(graph, len(next(iter(values.values())))))
    except ConfigError as reason:
        assert case.type_name in ("ArgMax", "Embed", "Threshold", "Tile", "MVN", "Scale", "Bias")
        pytest.skip(str(reason))
    again = Net(made.net_param, "TEST", "numpy")
    if made.weights:
        again.load(made.weights)
    ours = {name: y.copy() for name, y in net.forward(values).items()}
    again.forward({blob: values[name] for name, blob in made.inputs.items()})
    for name, blob in made.outputs.items():
        theirs = again.blobs[blob].data
        np.testing.assert_allclose(theirs, ours[name.split("@")[0]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_what_onnx_cannot_say_is_refused(name):
    (case,) = (case for case in CASES if case.name == name)
    net, _ = net_of(case)
    with pytest.raises(ConfigError):
        export(net)


# --- whole nets ---


def test_labels_stay_behind_and_any_batch_fits():
    net = Net(models.path("lenet.prototxt"), "TEST", "numpy", data={"source": "mnist-small"})
    model = export(net)
    assert [value.name for value in model.graph.input] == ["data"]
    assert [value.name for value in model.graph.output] == ["ip2"]
    net.forward()
    images = net.blobs["data"].data
    for part in (images, images[:3]):
        agree(net.blobs["ip2"].data[: len(part)], outputs_of(model, {"data": part})["ip2"])


def test_a_chain_in_place():
    text = [
        nets.data(2, 5, 5),
        nets.conv("conv", "data", 3),
        nets.layer("Power", "square", "conv", "conv", "power_param { power: 2 }"),
        nets.layer("Power", "half", "conv", "conv", "power_param { scale: 0.5 }"),
    ]
    net = nets.build(*text, dtype="float32")
    (y,) = net.forward({"data": np.ones((2, 2, 5, 5))}).values()
    theirs = outputs_of(export(net), {"data": np.ones((2, 2, 5, 5), np.float32)})
    agree(y, theirs["conv"])


def compacted_net(groups=1):
    """A net whose columns were dead inside living channels, compacted."""
    text = [
        nets.data(4, 7, 6),
        nets.conv("conv", "data", 12, f"kernel_size: 3 group: {groups}"),
        nets.layer("ReLU", "relu", "conv", "conv"),
        nets.ip("ip", "conv", 3),
    ]
    net = nets.build(*text, dtype="float32")

    def columns(w):
        for g in range(groups):
            rows = w.reshape(groups, -1, w[0].size)
            rows[g][:, np.random.default_rng(g).permutation(w[0].size)[3 + g :]] = 0

    def inputs(w):
        w[:, 5::3] = 0

    net = nets.change(net, conv=columns, ip=inputs)
    smaller = compact(net)
    (conv, ip) = (nets.rebuild(net, smaller).layer(name) for name in ("conv", "ip"))
    assert conv.kept_columns and ip.kept_columns
    return net, smaller


@pytest.mark.parametrize("groups", [1, 2])
def test_filter_shapes_survive_compaction(groups):
    net, smaller = compacted_net(groups)
    model = export(nets.rebuild(net, smaller))
    x = np.random.default_rng(0).normal(size=(2, 4, 7, 6)).astype(np.float32)
    agree(net.forward({"data": x})["ip"], outputs_of(model, {"data": x})["ip"])

    stored = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    weights = smaller.weights
    assert stored["ip.weight"] == weights["ip"][0].shape
    packed = [shape for name, shape in stored.items() if name.endswith(".packed")]
    zeros = sum(rows for rows, _ in packed)  # the column of zeros of each group
    assert sum(rows * columns for rows, columns in packed) - zeros == weights["conv"][0].size
    dense = net.weights()["conv"][0].size
    assert dense not in [int(np.prod(shape)) for shape in stored.values()]
    assert [node.op_type for node in model.graph.node].count("Gather") == groups + 1


def test_sparse_initializers():
    text = [nets.data(4, 7, 6), nets.conv("conv", "data", 8), nets.ip("ip", "conv", 3)]
    net = nets.build(*text, dtype="float32")

    def scatter(w):
        w.ravel()[np.random.default_rng(0).permutation(w.size)[w.size // 5 :]] = 0

    net = nets.change(net, conv=scatter)
    model = export(net, sparse=True)
    (sparse,) = model.graph.sparse_initializer  # ip has no zeros
    kept = np.count_nonzero(net.weights()["conv"][0])
    assert len(onnx.numpy_helper.to_array(sparse.values)) == kept
    assert sum(np.prod(t.dims) for t in model.graph.initializer if t.name.startswith("conv.w")) == 0
    x = np.random.default_rng(0).normal(size=(2, 4, 7, 6)).astype(np.float32)
    agree(net.forward({"data": x})["ip"], outputs_of(model, {"data": x})["ip"])
    assert model.ByteSize() < export(net).ByteSize()
    graph = graph_of(model)
    np.testing.assert_array_equal(graph.constants["conv.weight"], net.weights()["conv"][0])
