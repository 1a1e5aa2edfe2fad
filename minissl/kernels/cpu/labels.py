"""Labels as whole numbers, and the loss they give: a pass or two over few numbers, on one thread.

NumPy would make a dozen arrays of them, which takes longer than the last layer of a small network.
"""

from __future__ import annotations

import numpy as np

from minissl.kernels.cpu.jit import kernel


@kernel
def _read_labels(values, classes, has_ignored, ignored, labels, valid, status):
    is_good = True
    for o in range(values.shape[0]):
        for i in range(values.shape[1]):
            value = values[o, i]
            counts = not has_ignored or value != ignored
            is_class = value >= 0 and value < classes and value == np.floor(value)  # not for NaN
            if counts and not is_class and is_good:
                status[0], status[1] = 1, value
                is_good = False
            valid[o, i] = counts
            labels[o, i] = np.int64(value) if counts and is_class else 0


@kernel
def _label_loss(p, labels, valid, least):
    """Return the sum of -log max(p[label], least) over the valid positions, and their number."""
    total, count = 0.0, 0
    for o in range(labels.shape[0]):
        for i in range(labels.shape[1]):
            if valid[o, i]:
                total -= np.log(max(p[o, labels[o, i], i], least))
                count += 1
    return total, count


@kernel
def _label_loss_backward(p, labels, valid, scale, d_x):
    outer, classes, inner = p.shape
    for o in range(outer):
        for c in range(classes):
            for i in range(inner):
                d_x[o, c, i] = p[o, c, i] * scale if valid[o, i] else scale * 0
        for i in range(inner):
            if valid[o, i]:
                c = labels[o, i]
                d_x[o, c, i] = (p[o, c, i] - p.dtype.type(1)) * scale


def read_labels(values, classes, ignore_label, labels, valid, status) -> None:
    """Read labels as whole numbers and find which of them count; see the reference."""
    ignored = 0 if ignore_label is None else ignore_label
    _read_labels(values, classes, ignore_label is not None, ignored, labels, valid, status)


def label_loss(p, labels, valid, least, normalizer, loss, count) -> None:
    """Mean negative log-probability of labels; see the reference."""
    total, found = _label_loss(p, labels, valid, p.dtype.type(least))
    count[...] = max(1, found if normalizer is None else normalizer)
    loss[...] = total / count


def label_loss_backward(p, labels, valid, weight, count, d_x) -> None:
    """Gradient of the loss where p is a softmax; see the reference."""
    _label_loss_backward(p, labels, valid, p.dtype.type(float(weight) / float(count)), d_x)
