"""ReLU, sums, softmax, and the loss of labels."""

from __future__ import annotations

import cupy

from minissl.kernels.gpu.raw import blocks, each, threads_for


def relu_forward(x, negative_slope, y) -> None:
    """Y = x where x > 0, negative_slope * x elsewhere; see the reference."""
    x = cupy.ascontiguousarray(x)
    each("elements", "relu", x, x.size, x, float(negative_slope), x.size, y)


def relu_backward(x, d_y, negative_slope, d_x) -> None:
    """d_x = d_y where x > 0, negative_slope * d_y elsewhere; see the reference."""
    x, d_y = cupy.ascontiguousarray(x), cupy.ascontiguousarray(d_y)
    each("elements", "relu_gradient", x, x.size, x, d_y, float(negative_slope), x.size, d_x)


def weighted_sum(a, alpha, b, beta, y, relu=False) -> None:
    """Y = alpha * a + beta * b; see the reference."""
    a, b = cupy.ascontiguousarray(a), cupy.ascontiguousarray(b)
    terms = a, float(alpha), b, float(beta), int(relu)
    each("elements", "weighted_sum", a, a.size, *terms, a.size, y)


def sum_relu_backward(y, d_y, d_a, d_b) -> None:
    """Gradient of a rectified sum; see the reference."""
    y, d_y = cupy.ascontiguousarray(y), cupy.ascontiguousarray(d_y)
    each("elements", "sum_relu_gradient", y, y.size, y, d_y, y.size, d_a, d_b)


def softmax_forward(x, y) -> None:
    """Softmax over the middle axis of (outer, classes, inner); see the reference."""
    outer, classes, inner = x.shape
    x = cupy.ascontiguousarray(x)
    threads = threads_for(classes)
    blocks("softmax", "softmax", x, outer * inner, x, classes, inner, y, threads=threads)


def softmax_backward(y, d_y, d_x) -> None:
    """d_x = y * (d_y - sum over classes of d_y * y); see the reference."""
    outer, classes, inner = y.shape
    y, d_y = cupy.ascontiguousarray(y), cupy.ascontiguousarray(d_y)
    blocks(
        "softmax", "softmax_gradient", y, outer * inner,
        y, d_y, classes, inner, d_x, threads=threads_for(classes),
    )  # fmt: skip


def read_labels(values, classes, ignore_label, labels, valid, status) -> None:
    """Labels as whole numbers, and which of them count; see the reference."""
    values = cupy.ascontiguousarray(values)
    each(
        "labels", "read_labels", values, values.size,
        values, classes, int(ignore_label is not None), float(ignore_label or 0), values.size,
        labels, valid, status,
    )  # fmt: skip


def label_loss(p, labels, valid, least, normalizer, loss, count) -> None:
    """Mean of -log p[label] over what counts; see the reference."""
    outer, classes, inner = p.shape
    blocks(
        "labels", "label_loss", p, 1,
        p, labels, valid, float(least), normalizer or 0, outer, classes, inner, loss, count,
        threads=threads_for(outer * inner),
    )  # fmt: skip


def label_loss_backward(p, labels, valid, weight, count, d_x) -> None:
    """Gradient of :func:`label_loss` of a softmax; see the reference."""
    each(
        "labels", "label_loss_gradient", p, p.size,
        p, labels, valid, weight, count, *p.shape, d_x,
    )  # fmt: skip
