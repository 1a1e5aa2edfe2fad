"""Softmax and multinomial logistic loss in one layer."""

from __future__ import annotations

from typing import Any

from minissl.blob import Blob, Shape
from minissl.layers.axes import around_axis, resolve_axis
from minissl.layers.base import Layer, register
from minissl.layers.labels import check_label_count, read_labels

# LossParameter.NormalizationMode
FULL, VALID, BATCH_SIZE, NONE = 0, 1, 2, 3

# Smallest normal float32: Caffe's floor under a probability before its logarithm, in both types.
SMALLEST_PROBABILITY = 2.0**-126


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(Layer):
    """Mean negative log-probability of the true classes.

    With p = softmax(scores) along ``axis`` (1 by default) and one label l for each other position:

    ``loss = -1 / n * sum log p[l]``, over the positions whose label is not ``ignore_label``.

    n depends on ``normalization``: VALID (default) the number of positions that count, FULL all
    positions, BATCH_SIZE the positions in front of the class axis (images), NONE 1; never less
    than 1. The older ``normalize: true`` means VALID, ``false`` BATCH_SIZE.

    Bottoms: scores (N, classes) or (N, classes, H, W), and labels (N) or (N, H, W) with values 0 to
    classes - 1. Tops: the loss, a scalar, and if asked for the probabilities.
    """

    n_bottoms = (2, 2)
    n_tops = (1, 2)
    is_loss = True
    no_gradient = (1,)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Find the class axis and the normalisation; check the number of labels."""
        scores, labels = bottom_shapes
        axis = resolve_axis(self, self.param.softmax_param.axis, scores)
        self._folded = around_axis(scores, axis)  # (outer, classes, inner)
        outer, _, inner = self._folded
        check_label_count(self, scores, labels, outer, inner)

        loss_param = self.param.loss_param
        self.ignore_label = loss_param.ignore_label if loss_param.HasField("ignore_label") else None
        self.normalization = loss_param.normalization
        if loss_param.HasField("normalize") and not loss_param.HasField("normalization"):
            self.normalization = VALID if loss_param.normalize else BATCH_SIZE

        self._probabilities: Any = None
        return [(), scores][: max(1, len(self.param.top))]

    def workspace_bytes(self) -> int:
        """The probabilities, kept for the backward pass."""
        outer, classes, inner = self._folded
        return outer * classes * inner * self.dtype.itemsize

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Loss = -sum log p[label] / n."""
        xp = self.kernels.xp
        outer, classes, inner = self._folded
        labels, valid = read_labels(
            self, bottom[1].data, outer, inner, classes, self.ignore_label
        )  # (outer, inner)
        if self._probabilities is None:
            self._probabilities = xp.empty(self._folded, self.dtype)
        p = self._probabilities  # (outer, classes, inner)
        self.kernels.softmax_forward(bottom[0].data.reshape(self._folded), p)

        p_label = xp.take_along_axis(p, labels[:, None, :], axis=1)[:, 0, :]  # (outer, inner)
        log_p = xp.log(xp.maximum(p_label, SMALLEST_PROBABILITY))
        total = -(log_p * valid).sum(dtype="float64")
        top[0].data[...] = total / self._normalizer(valid)
        if len(top) > 1:
            top[1].data[...] = p.reshape(top[1].shape)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_scores = loss_weight / n * (p - 1 at the label), 0 where ignored.

        ``top[0].diff`` holds the loss weight.
        """
        if propagate_down[1]:
            raise self.config_error(
                "labels have no gradient; set propagate_down: false for the second bottom"
            )
        if not propagate_down[0]:
            return
        xp = self.kernels.xp
        outer, classes, inner = self._folded
        labels, valid = read_labels(
            self, bottom[1].data, outer, inner, classes, self.ignore_label
        )  # (outer, inner)
        d_x = bottom[0].diff.reshape(self._folded)  # (outer, classes, inner)
        d_x[...] = self._probabilities
        d_x[xp.arange(outer)[:, None], labels, xp.arange(inner)[None, :]] -= 1
        d_x *= valid[:, None, :]
        d_x *= float(top[0].diff) / self._normalizer(valid)

    def _normalizer(self, valid: Any) -> float:
        outer, _, inner = self._folded
        if self.normalization == VALID:
            n = int(valid.sum())
        elif self.normalization == FULL:
            n = outer * inner
        elif self.normalization == BATCH_SIZE:
            n = outer
        else:
            n = 1
        return max(1, n)  # a batch without a single valid label has loss 0, not NaN
