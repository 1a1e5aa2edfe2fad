"""Labels as whole numbers, and the loss they give."""

from __future__ import annotations

import numpy as np

from minissl.kernels.reference.types import Array


def read_labels(
    values: Array,
    classes: int,
    ignore_label: int | None,
    labels: Array,
    valid: Array,
    status: Array,
) -> None:
    """Read labels as whole numbers and find which of them count.

    Parameters
    ----------
    values : floating-point numbers, 0 .. classes - 1 each, or ``ignore_label``
    labels : int64, written
        Ignored positions hold class 0, so that the array can be used as an index.
    valid : bool, written
        False where the label is ``ignore_label``.
    status : float64 (2,)
        Becomes (1, label) where a label is no class; else left as it is.
    """
    valid[...] = True if ignore_label is None else values != ignore_label
    # written so that NaN counts as bad
    good = (values >= 0) & (values < classes) & (values == np.floor(values))
    bad = valid & ~good
    if bad.any():
        status[...] = 1, values[bad][0]
    labels[...] = np.where(valid & good, values, 0)


def label_loss(
    p: Array,
    labels: Array,
    valid: Array,
    least: float,
    normalizer: int | None,
    loss: Array,
    count: Array,
) -> None:
    """Mean negative log-probability of labels: loss = -1/n * sum of log max(p[label], least).

    Parameters
    ----------
    p : (outer, classes, inner)
    labels, valid : (outer, inner), see :func:`read_labels`
    normalizer : int or None
        n; None for the number of valid positions. At least 1 in any case.
    loss : (), written
    count : float64 (), written
        n as it was used.
    """
    p_label = np.take_along_axis(p, labels[:, None, :], axis=1)[:, 0, :]  # (outer, inner)
    log_p = np.log(np.maximum(p_label, least))
    count[...] = max(1, int(valid.sum()) if normalizer is None else normalizer)
    loss[...] = -(log_p * valid).sum(dtype="float64") / count


def label_loss_backward(
    p: Array, labels: Array, valid: Array, weight: Array, count: Array, d_x: Array
) -> None:
    """Gradient of :func:`label_loss` where p is a softmax of x.

    d_x = weight / count * (p - 1 at the label), 0 where the position does not count.

    Parameters
    ----------
    weight, count : ()
        Gradient of the loss, and its n.
    """
    outer, _, inner = p.shape
    d_x[...] = p
    d_x[np.arange(outer)[:, None], labels, np.arange(inner)[None, :]] -= 1
    d_x *= valid[:, None, :]
    d_x *= float(weight) / float(count)
