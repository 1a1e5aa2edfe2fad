"""Softmax and multinomial logistic loss in one layer."""

from __future__ import annotations

from typing import Any

from minissl.blob import Blob, Shape
from minissl.layers.axes import around_axis, resolve_axis
from minissl.layers.base import Layer, register
from minissl.layers.labels import Labels, check_label_count
from minissl.layers.normalizer import BATCH_SIZE, FULL, VALID, read_normalization

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
        self.normalization = read_normalization(self, VALID)

        self._labels = Labels(self, outer, inner, scores[axis], self.ignore_label)
        self._probabilities: Any = None
        self._count: Any = None
        return [(), scores][: max(1, len(self.param.top))]

    def workspace_bytes(self) -> int:
        """The probabilities, kept for the backward pass."""
        outer, classes, inner = self._folded
        return outer * classes * inner * self.dtype.itemsize

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Loss = -sum log p[label] / n."""
        self._labels.read(bottom[1].data)
        if self._probabilities is None:
            self._probabilities = self.kernels.xp.empty(self._folded, self.dtype)
            self._count = self.kernels.xp.empty((), "float64")
        p = self._probabilities  # (outer, classes, inner)
        self.kernels.softmax_forward(bottom[0].data.reshape(self._folded), p)
        labels, valid = self._labels.classes, self._labels.valid  # (outer, inner)
        self.kernels.label_loss(
            p, labels, valid, SMALLEST_PROBABILITY, self._normalizer(), top[0].data, self._count
        )
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
        d_x = bottom[0].diff.reshape(self._folded)  # (outer, classes, inner)
        self.kernels.label_loss_backward(
            self._probabilities,
            self._labels.classes,
            self._labels.valid,
            top[0].diff,
            self._count,
            d_x,
        )

    def check(self) -> None:
        """Refuse labels that are no classes."""
        self._labels.check()

    def _normalizer(self) -> int | None:
        """Return n, None where the valid labels have to be counted."""
        outer, _, inner = self._folded
        return {VALID: None, FULL: outer * inner, BATCH_SIZE: outer}.get(self.normalization, 1)
