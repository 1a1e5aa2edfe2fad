"""A network of minissl, rebuilt for onnxruntime and PyTorch: the layers of CaffeNet and LeNet.

Weights, shapes and outputs are those of the network; Dropout, which passes everything on at
inference, is left out. Both are built as their own users would: one ONNX graph that onnxruntime
may optimise as it likes, one ``nn.Sequential``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl import Net


def chain_of(net: Net) -> list[Any]:
    """Return the layers that compute, in order; each reads what the one before has written."""
    return [layer for layer in net.layers if not layer.is_data and layer.type_name != "Dropout"]


def _no_overhang(layer: Any, net: Net) -> None:
    """Refuse windows that hang over the border: the peers would need other settings for them."""
    bottom, top = net.bottoms_and_tops(layer)
    for axis in (0, 1):
        size, windows = bottom[0].shape[2 + axis], top[0].shape[2 + axis]
        reach = (windows - 1) * layer.stride[axis] + layer.kernel[axis] - 2 * layer.pad[axis]
        if reach > size:
            raise SystemExit(f"the windows of layer '{layer.name}' hang over the border")


# --- onnxruntime ---


def onnx_model(net: Net) -> bytes:
    """Return the network as an ONNX model with the input ``x`` and the output ``y``."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = [], []
    layers = chain_of(net)
    names = ["x", *(layer.name for layer in layers[:-1]), "y"]
    for layer, source, target in zip(layers, names, names[1:], strict=False):
        kind, attributes = _onnx_node(layer, net)
        inputs = [source]
        for i, parameter in enumerate(layer.parameters):
            inputs.append(f"{layer.name}.{i}")
            constants.append(numpy_helper.from_array(np.asarray(parameter.data), inputs[-1]))
        if kind == "Gemm":
            nodes.append(helper.make_node("Flatten", [source], [f"{layer.name}.flat"], axis=1))
            inputs[0] = f"{layer.name}.flat"
        nodes.append(helper.make_node(kind, inputs, [target], **attributes))
    first, last = net.bottoms_and_tops(layers[0])[0][0], net.bottoms_and_tops(layers[-1])[1][0]
    graph = helper.make_graph(
        nodes,
        net.name or "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, first.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, last.shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def _onnx_node(layer: Any, net: Net) -> tuple[str, dict[str, Any]]:
    """Return the operator of a layer and its attributes."""
    kind = layer.type_name
    if kind == "Convolution":
        return "Conv", {
            "strides": layer.stride,
            "pads": [*layer.pad, *layer.pad],
            "dilations": layer.dilation,
            "group": layer.groups,
        }
    if kind == "Pooling":
        _no_overhang(layer, net)
        operator = "MaxPool" if layer.method == 0 else "AveragePool"
        window = {"kernel_shape": layer.kernel, "strides": layer.stride}
        return operator, {**window, "pads": [*layer.pad, *layer.pad]}
    if kind == "LRN":
        constants = {"alpha": layer.alpha, "beta": layer.beta, "bias": layer.k}
        return "LRN", {"size": layer.window[0], **constants}
    simple = {
        "InnerProduct": ("Gemm", {"transB": 1}),
        "ReLU": ("Relu", {}),
        "Softmax": ("Softmax", {"axis": 1}),
    }
    if kind not in simple:
        raise SystemExit(f"layer '{layer.name}' ({kind}) has no counterpart here")
    return simple[kind]


# --- PyTorch ---


def torch_model(net: Net) -> Any:
    """Return the network as a ``torch.nn.Sequential`` for inference."""
    import torch

    modules: list[Any] = []
    for layer in chain_of(net):
        module = _torch_module(layer, net)
        if isinstance(module, torch.nn.Linear):
            modules.append(torch.nn.Flatten())
        for own, parameter in zip(module.parameters(), layer.parameters, strict=True):
            own.data = torch.from_numpy(np.array(parameter.data))
        modules.append(module)
    return torch.nn.Sequential(*modules).eval()


def _torch_module(layer: Any, net: Net) -> Any:
    from torch import nn

    kind = layer.type_name
    if kind == "Convolution":
        channels = layer.shape.channels
        geometry = layer.kernel, layer.stride, layer.pad, layer.dilation, layer.groups
        return nn.Conv2d(channels, layer.filters, *geometry, layer.has_bias)
    if kind == "Pooling":
        _no_overhang(layer, net)
        pool = nn.MaxPool2d if layer.method == 0 else nn.AvgPool2d
        return pool(layer.kernel, layer.stride, layer.pad)
    if kind == "LRN":
        return nn.LocalResponseNorm(layer.window[0], layer.alpha, layer.beta, layer.k)
    if kind == "InnerProduct":
        return nn.Linear(layer.inputs, layer.filters, layer.has_bias)
    simple = {"ReLU": lambda: nn.ReLU(inplace=True), "Softmax": lambda: nn.Softmax(dim=1)}
    if kind not in simple:
        raise SystemExit(f"layer '{layer.name}' ({kind}) has no counterpart here")
    return simple[kind]()
