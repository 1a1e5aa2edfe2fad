"""HingeLoss: every class one against the rest, by a margin."""

from __future__ import annotations

from math import prod
from typing import Any

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register
from minissl.layers.labels import Labels, check_label_count

# HingeLossParameter.Norm
L1, L2 = 1, 2


@register("HingeLoss")
class HingeLoss(Layer):
    """Hinge loss of one-against-all classifiers.

    With s = 1 for the true class of an image and -1 for every other class, margins are
    ``m = max(0, 1 - s * x)`` and

    ``loss = 1 / N * sum of m`` (norm L1, the default) or ``1 / N * sum of m^2`` (L2).

    Bottoms: scores (N, classes), labels (N). Backward: ``d_x = -s / N`` where m > 0, for L2 times
    ``2 m``, times the loss weight.
    """

    n_bottoms = (2, 2)
    is_loss = True
    no_gradient = (1,)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Check the number of labels."""
        scores, labels = bottom_shapes
        self.folded = scores[0], prod(scores[1:])  # (N, classes)
        check_label_count(self, scores, labels, scores[0], 1)
        self.norm = self.param.hinge_loss_param.norm
        self._labels = Labels(self, scores[0], 1, self.folded[1], None)
        return [()]

    def check(self) -> None:
        """Refuse labels that are no classes."""
        self._labels.check()

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Loss = sum of m or m^2, over N."""
        self._labels.read(bottom[1].data)
        m = self._margins(bottom[0])
        terms = m * m if self.norm == L2 else m
        top[0].data[...] = terms.sum(dtype="float64") / self.folded[0]

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x = -s / N where m > 0, times 2 m for L2."""
        if propagate_down[1]:
            bottom[1].diff.fill(0)
        if not propagate_down[0]:
            return
        m = self._margins(bottom[0])
        slope = 2 * m if self.norm == L2 else (m > 0).astype(self.dtype)
        d_x = bottom[0].diff.reshape(self.folded)  # (N, classes)
        d_x[...] = -self._signs() * slope * (top[0].diff / self.folded[0])

    def _signs(self) -> Any:
        """Return s, (N, classes)."""
        classes = self.kernels.xp.arange(self.folded[1])[None]  # (1, classes)
        return (self._labels.classes == classes).astype(self.dtype) * 2 - 1

    def _margins(self, scores: Blob) -> Any:
        """Return m, (N, classes)."""
        x = scores.data.reshape(self.folded)
        return self.kernels.xp.maximum(0, 1 - self._signs() * x)
