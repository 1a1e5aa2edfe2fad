"""SigmoidCrossEntropyLoss: independent yes-or-no questions."""

from __future__ import annotations

from typing import Any

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register
from minissl.layers.euclidean_loss import check_same_size
from minissl.layers.normalizer import BATCH_SIZE, FULL, VALID, read_normalization


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(Layer):
    """Cross-entropy of targets t in [0, 1] and probabilities p = 1 / (1 + exp(-x)).

    ``loss = -1 / n * sum of (t log p + (1 - t) log(1 - p))``

    computed as ``max(x, 0) - x t + log(1 + exp(-|x|))``, which cannot overflow. n is the number of
    images N, as in Caffe, unless ``loss_param.normalization`` says VALID (targets that count), FULL
    (all targets) or NONE (1); targets that are ``ignore_label`` do not count.

    Bottoms: scores and targets, N images of equally many values. Backward: ``d_x = (p - t) / n``
    times the loss weight.
    """

    n_bottoms = (2, 2)
    is_loss = True
    no_gradient = (1,)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Compare the shapes; read the normalization."""
        self.shape, targets = bottom_shapes
        check_same_size(self, self.shape, targets)
        loss_param = self.param.loss_param
        self.ignore_label = loss_param.ignore_label if loss_param.HasField("ignore_label") else None
        self.normalization = read_normalization(self, BATCH_SIZE)
        return [()]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Loss = sum of max(x, 0) - x t + log(1 + exp(-|x|)), over n."""
        xp = self.kernels.xp
        x, t, counts = self._operands(bottom)
        terms = xp.maximum(x, 0) - x * t + xp.log1p(xp.exp(-xp.abs(x)))
        top[0].data[...] = (terms * counts).sum(dtype="float64") / self._normalizer(counts)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x = loss_weight / n * (p - t), 0 where ignored."""
        if propagate_down[1]:
            bottom[1].diff.fill(0)
        if not propagate_down[0]:
            return
        xp = self.kernels.xp
        x, t, counts = self._operands(bottom)
        small = xp.exp(-xp.abs(x))  # p is 1 / (1 + small) for x >= 0, else small / (1 + small)
        p = xp.where(x >= 0, 1, small) / (1 + small)
        bottom[0].diff[...] = (p - t) * counts * (top[0].diff / self._normalizer(counts))

    def _operands(self, bottom: list[Blob]) -> tuple[Any, Any, Any]:
        """Return scores, targets, and where a target counts (1 or 0)."""
        x, t = bottom[0].data, bottom[1].data.reshape(self.shape)
        if self.ignore_label is None:
            return x, t, self.kernels.xp.ones((), self.dtype)
        return x, t, (t != self.ignore_label).astype(self.dtype)

    def _normalizer(self, counts: Any) -> Any:
        """Return n, at least 1."""
        if self.normalization == VALID and self.ignore_label is not None:
            return self.kernels.xp.maximum(counts.sum(), 1)
        size = 1
        for length in self.shape:
            size *= length
        return {VALID: size, FULL: size, BATCH_SIZE: self.shape[0]}.get(self.normalization, 1)
