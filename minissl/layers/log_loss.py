"""Losses of probabilities: MultinomialLogisticLoss and InfogainLoss."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register
from minissl.layers.labels import Labels, check_label_count

#: floor under a probability before its logarithm, Caffe's
SMALLEST_PROBABILITY = 1e-20


class _LogLoss(Layer):
    """``loss = -1 / N * sum over images and classes of h[n, k] log(max(p[n, k], 1e-20))``.

    Its layers differ in the weights h. ``d_p = -h / max(p, 1e-20) / N``, times the loss weight.
    """

    is_loss = True
    no_gradient = (1, 2)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Check the number of labels."""
        p, labels = bottom_shapes[:2]
        self.folded = p[0], prod(p[1:])  # (N, K)
        check_label_count(self, p, labels, p[0], 1)
        self._labels = Labels(self, p[0], 1, self.folded[1], None)
        return [()]

    def check(self) -> None:
        """Refuse labels that are no classes."""
        self._labels.check()

    def weights(self, bottom: list[Blob]) -> Any:
        """Return h, (N, K)."""
        raise NotImplementedError

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Loss = -sum of h log p, over N."""
        self._labels.read(bottom[1].data)
        terms = self.weights(bottom) * self.kernels.xp.log(self._floored(bottom))
        top[0].data[...] = terms.sum(dtype="float64") / -self.folded[0]

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_p = -loss_weight / N * h / p."""
        for blob in (b for b, wanted in zip(bottom[1:], propagate_down[1:], strict=True) if wanted):
            blob.diff.fill(0)
        if propagate_down[0]:
            d_p = bottom[0].diff.reshape(self.folded)  # (N, K)
            slope = self.weights(bottom) / self._floored(bottom)
            d_p[...] = slope * (top[0].diff / -self.folded[0])

    def _floored(self, bottom: list[Blob]) -> Any:
        p = bottom[0].data.reshape(self.folded)
        return self.kernels.xp.maximum(p, SMALLEST_PROBABILITY)


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(_LogLoss):
    """``loss = -1 / N * sum of log(p[label])`` of probabilities p, such as those of a Softmax.

    Bottoms: probabilities (N, K), labels (N). :class:`.SoftmaxWithLoss` computes both in one step,
    and more exactly.
    """

    n_bottoms = (2, 2)

    def weights(self, bottom: list[Blob]) -> Any:
        """Return h: 1 at the label, 0 elsewhere, (N, K)."""
        classes = self.kernels.xp.arange(self.folded[1])[None]  # (1, K)
        return (self._labels.classes == classes).astype(self.dtype)  # (N, 1) == (1, K)


@register("InfogainLoss")
class InfogainLoss(_LogLoss):
    """``loss = -1 / N * sum over n, k of H[label_n, k] log(p[n, k])``: some mistakes cost more.

    With the unit matrix as H it is the :class:`.MultinomialLogisticLoss`. H (K, K) is the third
    bottom, or the blob of the file ``infogain_loss_param.source`` (``.binaryproto``).

    Bottoms: probabilities (N, K), labels (N), and H where there is no file.
    """

    n_bottoms = (2, 3)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Check H, or read it."""
        tops = super().setup(bottom_shapes)
        p = self.param.infogain_loss_param
        K = self.folded[1]
        if p.HasField("axis") and p.axis % len(bottom_shapes[0]) != 1:
            raise self.config_error(f"axis {p.axis} is not supported; classes are axis 1")
        self._matrix: Any = None
        if len(bottom_shapes) == 3:
            size, origin = prod(bottom_shapes[2]), "the third bottom"
        elif p.source:
            from minissl.formats.blobs import read_binaryproto

            matrix = np.asarray(read_binaryproto(p.source, "infogain matrix"), self.dtype)
            size, origin = matrix.size, f"source '{p.source}'"
        else:
            raise self.config_error("needs its matrix: a third bottom, or a source")
        if size != K * K:
            raise self.shape_error(
                f"{origin} has {size} values where {K} classes need a matrix of {K} x {K}"
            )
        if len(bottom_shapes) == 2:
            self._matrix = self.kernels.xp.asarray(matrix.reshape(K, K))
        return tops

    def weights(self, bottom: list[Blob]) -> Any:
        """Return h: for each image the row of H at its label, (N, K)."""
        K = self.folded[1]
        matrix = self._matrix if self._matrix is not None else bottom[2].data.reshape(K, K)
        return matrix[self._labels.classes.reshape(-1)]  # (N, K)
