"""Operators that work element by element, as layers: activations, sums, products, powers."""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.onnx.graph import Node
from minissl.onnx.operators.table import operator
from minissl.onnx.translation import Inexpressible, Translation

# --- activations ---

#: operator -> layer type and its settings, made from the node's attributes
_ACTIVATIONS: dict[str, tuple[str, Any]] = {
    "Abs": ("AbsVal", lambda a: {}),
    "Elu": ("ELU", lambda a: {"elu_param": {"alpha": a.get("alpha", 1.0)}}),
    "Exp": ("Exp", lambda a: {}),
    "LeakyRelu": ("ReLU", lambda a: {"relu_param": {"negative_slope": a.get("alpha", 0.01)}}),
    "Log": ("Log", lambda a: {}),
    "Neg": ("Power", lambda a: {"power_param": {"scale": -1.0}}),
    "Reciprocal": ("Power", lambda a: {"power_param": {"power": -1.0}}),
    "Relu": ("ReLU", lambda a: {}),
    "Sigmoid": ("Sigmoid", lambda a: {}),
    "Softplus": ("BNLL", lambda a: {}),
    "Sqrt": ("Power", lambda a: {"power_param": {"power": 0.5}}),
    "Tanh": ("TanH", lambda a: {}),
}


@operator(*_ACTIVATIONS)
def _activation(t: Translation, node: Node) -> None:
    type_name, fields = _ACTIVATIONS[node.op]
    t.layer(node, type_name, [t.blob(node, 0)], node.outputs, **fields(node.attributes))


@operator("Clip")
def _clip(t: Translation, node: Node) -> None:
    """``max(x, 0)`` is ReLU; with an upper bound u too, ``u - relu(u - relu(x))``."""
    a = node.attributes
    x, low, high = t.blob(node, 0), t.constant(node, 1), t.constant(node, 2)
    lowest = float(a.get("min", -np.inf) if low is None else low)
    highest = float(a.get("max", np.inf) if high is None else high)
    if lowest != 0:
        raise Inexpressible(f"{node}: Caffe has no layer that clips at {lowest:g}; only at 0.")
    if highest > 1e30:
        t.layer(node, "ReLU", [x], node.outputs)
        return
    if highest <= 0:
        raise Inexpressible(f"{node}: its bounds {lowest:g} and {highest:g} leave nothing.")
    flipped = {"scale": -1.0, "shift": highest}
    y = t.layer(node, "Power", t.layer(node, "ReLU", [x]), power_param=flipped)
    t.layer(node, "Power", t.layer(node, "ReLU", y), node.outputs, power_param=flipped)


@operator("PRelu")
def _prelu(t: Translation, node: Node) -> None:
    x, slope = t.blob(node, 0), t.required(node, 1)
    shape = t.shape(x)
    name = t.weight_name(node)
    if slope.size == 1:
        fields = {"prelu_param": {"channel_shared": True}}
        t.layer(node, "PReLU", [x], node.outputs, [slope.reshape(1)], name, **fields)
        return
    aligned = (1,) * (len(shape) - slope.ndim) + slope.shape
    if len(shape) < 2 or slope.size != shape[1] or aligned[1] != shape[1]:
        raise Inexpressible(f"{node}: Caffe has one slope for each channel, not {slope.shape}.")
    t.layer(node, "PReLU", [x], node.outputs, [slope.ravel()], name)


# --- powers ---


@operator("Pow")
def _pow(t: Translation, node: Node) -> None:
    x, exponent = t.blob(node, 0), t.required(node, 1)
    if exponent.size != 1 or exponent.ndim > len(t.shape(x)):
        raise Inexpressible(f"{node}: Caffe raises a blob to one power, not {exponent.shape}.")
    fields = {"power": float(exponent.ravel()[0])}
    t.layer(node, "Power", [x], node.outputs, power_param=fields)


# --- two inputs ---


@operator("Add", "Sub", "Mul", "Div")
def _arithmetic(t: Translation, node: Node) -> None:
    if "broadcast" in node.attributes and "axis" in node.attributes:
        raise Inexpressible(f"{node}: it broadcasts as before opset 7; export it anew.")
    sides = [t.is_blob(node, i) for i in range(2)]
    both = all(sides) and t.shape(t.blob(node, 0)) == t.shape(t.blob(node, 1))
    if both:
        _of_two_blobs(t, node)
    elif sides[0] and not (sides[1] and t.is_computed(node, 1)):
        _with_constant(t, node, 0)
    elif sides[1]:
        _with_constant(t, node, 1)
    else:
        raise Inexpressible(f"{node}: its inputs have no shape in common.")


def _of_two_blobs(t: Translation, node: Node) -> None:
    """Eltwise; a quotient is the product with the reciprocal."""
    blobs = [t.blob(node, i) for i in range(2)]
    if node.op in ("Mul", "Div"):
        if node.op == "Div":
            blobs[1:] = t.layer(node, "Power", blobs[1:], power_param={"power": -1.0})
        fields: dict[str, Any] = {"operation": "PROD"}
    else:
        fields = {"coeff": [1.0, -1.0]} if node.op == "Sub" else {}
    t.layer(node, "Eltwise", blobs, node.outputs, eltwise_param=fields)


def _with_constant(t: Translation, node: Node, index: int) -> None:
    """One number is a Power layer; one for each channel is a Bias or a Scale."""
    x, c = t.blob(node, index), t.required(node, 1 - index)
    shape = t.shape(x)
    if c.ndim > len(shape):
        raise Inexpressible(f"{node}: its constant has more axes, {c.shape}, than {shape}.")
    if index == 1 and node.op == "Div":
        if c.size != 1:
            raise Inexpressible(f"{node}: Caffe divides no constants by blobs.")
        y = t.layer(node, "Power", [x], power_param={"power": -1.0})
        t.layer(node, "Power", y, node.outputs, power_param={"scale": float(c.ravel()[0])})
        return
    if index == 1 and node.op == "Sub":
        x = t.layer(node, "Power", [x], power_param={"scale": -1.0})[0]
    adds = node.op in ("Add", "Sub")
    if node.op == "Sub" and index == 0:
        c = -c
    elif node.op == "Div":
        with np.errstate(divide="ignore"):
            c = (1 / c.astype(np.float64)).astype(c.dtype)
    if c.size == 1:
        fields = {"shift" if adds else "scale": float(c.ravel()[0])}
        t.layer(node, "Power", [x], node.outputs, power_param=fields)
        return
    aligned = (1,) * (len(shape) - c.ndim) + c.shape
    if adds and index == 0 and _into_bias(t, node, x, aligned, c):
        return
    axes = [axis for axis, length in enumerate(aligned) if length != 1]
    first, last = axes[0], axes[-1]
    if aligned[first : last + 1] != shape[first : last + 1]:
        raise Inexpressible(f"{node}: {c.shape} fits no axes of {shape} that stand side by side.")
    where = {
        **({} if first == 1 else {"axis": first}),
        **({} if last == first else {"num_axes": last + 1 - first}),
    }
    values = c.reshape(shape[first : last + 1])
    if adds:
        t.layer(node, "Bias", [x], node.outputs, [values], bias_param=where)
    else:
        t.layer(node, "Scale", [x], node.outputs, [values], scale_param=where)


def _into_bias(t: Translation, node: Node, x: str, aligned: Any, c: np.ndarray) -> bool:
    """Give a constant to the product in front as its bias, where only this node reads that."""
    maker = t.maker(x)
    fields = {
        "Convolution": "convolution_param",
        "InnerProduct": "inner_product_param",
    }.get(maker.type)
    if fields is None or not t.read_once(node, 0):
        return False
    param = getattr(maker, fields)
    axis = 1 if maker.type == "Convolution" else len(aligned) - 1
    fits = aligned[axis] == c.size == param.num_output
    if param.bias_term or not fits:
        return False
    param.bias_term = True
    t.weights[maker.name].append(c.ravel())
    t.alias(node, x)
    return True


@operator("Sum", "Max", "Mean")
def _of_many(t: Translation, node: Node) -> None:
    blobs = [t.blob(node, i) for i in range(len(node.inputs))]
    if len({t.shape(blob) for blob in blobs}) > 1:
        raise Inexpressible(f"{node}: Caffe combines blobs of one shape.")
    if len(blobs) == 1:
        t.alias(node, blobs[0])
        return
    fields: dict[str, Any] = {"operation": "MAX"} if node.op == "Max" else {}
    if node.op == "Mean":
        fields = {"coeff": [1 / len(blobs)] * len(blobs)}
    t.layer(node, "Eltwise", blobs, node.outputs, eltwise_param=fields)
