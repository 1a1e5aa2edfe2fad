"""Operators that multiply by weights, as layers: convolutions, inner products; and Pad.

Dimensions: N images, C channels, L samples of a signal, F filters, K inputs of a product.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minissl.onnx.arrays.shapes import pad_widths
from minissl.onnx.arrays.windows import window_settings
from minissl.onnx.graph import Node
from minissl.onnx.operators.shapes import reshape
from minissl.onnx.operators.table import MAX_PADDED, operator
from minissl.onnx.translation import Inexpressible, Translation


@operator("Conv")
def _conv(t: Translation, node: Node) -> None:
    x, (w, b) = t.blob(node, 0), (t.required(node, 1), t.constant(node, 2))
    shape = t.shape(x)
    if len(shape) == 3 and w.ndim == 3:
        _conv_of_signals(t, node, x, w, b)
        return
    if len(shape) != 4 or w.ndim != 4:
        raise Inexpressible(f"{node}: Caffe convolves images, not blobs of shape {shape}.")
    settings = window_settings(node.attributes, shape[2:], w.shape[2:])
    _convolution(t, node, x, w, b, settings, groups=node.attributes.get("group", 1))


def _conv_of_signals(t: Translation, node: Node, x: str, w: np.ndarray, b: Any) -> None:
    """Look at signals (N, C, L) as images of one row."""
    shape = t.shape(x)
    _, (s,), (d,), (before, behind) = window_settings(node.attributes, shape[2:], w.shape[2:])
    image = reshape(t, node, x, (*shape[:2], 1, shape[2]))
    w = w[:, :, None, :]
    settings = w.shape[2:], [1, s], [1, d], [0, before, 0, behind]
    groups = node.attributes.get("group", 1)
    y = _convolution(t, node, image, w, b, settings, (), groups)
    N, F, _, L = t.shape(y)
    reshape(t, node, y, (N, F, L), node.outputs[:1])


def _convolution(
    t: Translation,
    node: Node,
    x: str,
    w: Any,
    b: Any,
    settings: Any,
    tops: Any = None,
    groups: int = 1,
) -> str:
    """Add a convolution of images; unequal padding becomes zeros in the kernel."""
    _, stride, dilation, pads = settings
    w, pad = _even_padding(node, w, pads, dilation)
    fields: dict[str, Any] = {
        "num_output": w.shape[0],
        "bias_term": b is not None,
        "group": groups,
        **_two("kernel_size", w.shape[2:]),
        **_two("stride", stride, 1),
        **_two("pad", pad, 0),
        **({} if list(dilation) == [1, 1] else {"dilation": list(dilation)}),
    }
    return t.layer(
        node,
        "Convolution",
        [x],
        node.outputs if tops is None else tops,
        blobs=[w] if b is None else [w, b],
        name=t.weight_name(node),
        convolution_param=fields,
    )[0]


def _even_padding(node: Node, w: np.ndarray, pads: Any, dilation: Any) -> tuple[np.ndarray, Any]:
    """Return weights and padding (h, w) that is the same on both sides.

    The smaller side gets the padding of the larger one, and the kernel rows of zeros on that side,
    which read nothing but the padding that was added.
    """
    widths = [(0, 0), (0, 0)]
    for before, behind, step in zip(pads[:2], pads[2:], dilation, strict=True):
        more, rest = divmod(abs(before - behind), step)
        if rest:
            raise Inexpressible(
                f"{node}: its padding {list(pads)} is uneven in a way that Caffe cannot express."
            )
        widths.append((more, 0) if before < behind else (0, more))
    sides = [n + sum(more) for n, more in zip(w.shape, widths, strict=True)]
    if math.prod(sides) > max(MAX_PADDED, w.size):
        raise Inexpressible(f"{node}: its padding {list(pads)} is out of range.")
    pad = [max(before, behind) for before, behind in zip(pads[:2], pads[2:], strict=True)]
    return np.pad(w, widths), pad


def _two(name: str, values: Any, usual: int | None = None) -> dict[str, Any]:
    """Return the field of a (height, width) setting: one number, or ``_h`` and ``_w``."""
    h, w = (int(value) for value in values)
    if h == w:
        return {} if h == usual else {name: [h]}
    short = name.removesuffix("_size")
    return {f"{short}_h": h, f"{short}_w": w}


@operator("Pad")
def _pad(t: Translation, node: Node) -> None:
    """Put zeros around an image, or before and behind its channels, by a 1 x 1 convolution.

    Its matrix is the identity, with rows of zeros for the new channels.
    """
    x, value = t.blob(node, 0), t.constant(node, 2)
    shape, a = t.shape(x), node.attributes
    widths = pad_widths(a, len(shape), t.constant(node, 1), t.constant(node, 3))
    if not any(before or behind for before, behind in widths):
        t.alias(node, x)
        return
    fill = a.get("value", 0) if value is None else value.reshape(-1)[0]
    zeros = a.get("mode", "constant") == "constant" and fill == 0
    if not zeros or len(shape) != 4 or widths[0] != (0, 0) or min(map(min, widths)) < 0:
        raise Inexpressible(f"{node}: Caffe pads images with zeros and nothing else.")
    C, (before, behind) = shape[1], widths[1]
    if before or behind:
        F = before + C + behind
        if F * C > MAX_PADDED:
            raise Inexpressible(f"{node}: its padding {widths} is out of range.")
        w, groups = np.eye(F, C, -before, dtype=np.float32).reshape(F, C, 1, 1), 1
    else:
        w, groups = np.ones((C, 1, 1, 1), np.float32), C
    (top, bottom), (left, right) = widths[2:]
    settings = [1, 1], [1, 1], [1, 1], [top, left, bottom, right]
    _convolution(t, node, x, w, None, settings, groups=groups)


@operator("ConvTranspose")
def _conv_transpose(t: Translation, node: Node) -> None:
    x, (w, b) = t.blob(node, 0), (t.required(node, 1), t.constant(node, 2))
    shape = t.shape(x)
    a = node.attributes
    extra = any(a.get("output_padding", ()))
    if len(shape) != 4 or extra or "output_shape" in a or a.get("auto_pad", "NOTSET") != "NOTSET":
        raise Inexpressible(f"{node}: Caffe's Deconvolution has no output shape or padding of its.")
    _, stride, dilation, pads = window_settings(a, shape[2:], w.shape[2:])
    if pads[:2] != pads[2:]:
        raise Inexpressible(f"{node}: Caffe's Deconvolution pads both sides alike, not {pads}.")
    groups = a.get("group", 1)
    fields = {
        "num_output": w.shape[1] * groups,
        "bias_term": b is not None,
        "group": groups,
        **_two("kernel_size", w.shape[2:]),
        **_two("stride", stride, 1),
        **_two("pad", pads[:2], 0),
        **({} if list(dilation) == [1, 1] else {"dilation": list(dilation)}),
    }
    blobs = [w] if b is None else [w, b]
    name = t.weight_name(node)
    t.layer(node, "Deconvolution", [x], node.outputs, blobs, name, convolution_param=fields)


@operator("Gemm")
def _gemm(t: Translation, node: Node) -> None:
    x, w, c = t.blob(node, 0), t.required(node, 1), t.constant(node, 2)
    a = node.attributes
    if a.get("transA", 0) or len(t.shape(x)) != 2 or w.ndim != 2:
        raise Inexpressible(f"{node}: InnerProduct multiplies rows, (N, K), by a matrix.")
    w = w if a.get("transB", 0) else w.T  # (F, K)
    w = w * w.dtype.type(a.get("alpha", 1.0))
    b = None
    if c is not None:
        if c.size not in (1, w.shape[0]) or (c.ndim == 2 and c.shape[0] != 1):
            raise Inexpressible(f"{node}: InnerProduct adds one number to each output, not more.")
        b = np.broadcast_to(c.ravel() * c.dtype.type(a.get("beta", 1.0)), w.shape[:1])
    _inner_product(t, node, x, w, b, axis=1)


@operator("MatMul")
def _matmul(t: Translation, node: Node) -> None:
    x, w = t.blob(node, 0), t.required(node, 1)
    if w.ndim != 2 or len(t.shape(x)) < 2:
        raise Inexpressible(f"{node}: InnerProduct multiplies rows, (N, K), by a matrix.")
    _inner_product(t, node, x, w.T, None, axis=len(t.shape(x)) - 1)


def _inner_product(t: Translation, node: Node, x: str, w: Any, b: Any, axis: int) -> None:
    fields: dict[str, Any] = {"num_output": w.shape[0], "bias_term": b is not None}
    if axis != 1:
        fields["axis"] = axis
    if w.shape[1] != t.shape(x)[axis]:
        raise Inexpressible(f"{node}: a matrix for {w.shape[1]} inputs meets {t.shape(x)}.")
    blobs = [w] if b is None else [w, b]
    name = t.weight_name(node)
    t.layer(node, "InnerProduct", [x], node.outputs, blobs, name, inner_product_param=fields)
