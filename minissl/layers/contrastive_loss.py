"""ContrastiveLoss: like pairs close together, others apart."""

from __future__ import annotations

from math import prod
from typing import Any

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register
from minissl.layers.euclidean_loss import check_same_size


@register("ContrastiveLoss")
class ContrastiveLoss(Layer):
    """Loss of siamese networks, from the distance d = ||a - b|| of each pair.

    ``loss = 1 / 2N * sum of (t d^2 + (1 - t) max(margin - d, 0)^2)``

    with t = 1 for pairs that are alike and 0 for others. ``legacy_version`` has
    ``max(margin - d^2, 0)`` for others. Hadsell, Chopra and LeCun, CVPR 2006, equation 4.

    Bottoms: a and b (N, C), t (N). At d = 0 a pair that is not alike has no direction to part in,
    and no gradient.
    """

    n_bottoms = (3, 3)
    is_loss = True
    no_gradient = (2,)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Compare the shapes."""
        a, b, alike = bottom_shapes
        check_same_size(self, a, b)
        if prod(alike) != a[0]:
            raise self.shape_error(
                f"bottom 2 has shape {alike} where {a[0]} pairs need one value each"
            )
        p = self.param.contrastive_loss_param
        self.margin, self.is_legacy = p.margin, p.legacy_version
        self.folded = a[0], prod(a[1:])  # (N, C)
        return [()]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Loss = sum over pairs, over 2N."""
        _, squares, alike = self._pairs(bottom)
        xp = self.kernels.xp
        if self.is_legacy:
            apart = xp.maximum(self.margin - squares, 0)
        else:
            apart = xp.maximum(self.margin - xp.sqrt(squares), 0) ** 2
        terms = xp.where(alike, squares, apart)  # (N, 1)
        top[0].data[...] = terms.sum(dtype="float64") / (2 * self.folded[0])

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_a = loss_weight / N * factor * (a - b) = -d_b; the factor of a like pair is 1."""
        difference, squares, alike = self._pairs(bottom)
        xp = self.kernels.xp
        if self.is_legacy:
            apart = -(squares < self.margin).astype(self.dtype)
        else:
            d = xp.sqrt(squares)
            apart = -xp.maximum(self.margin - d, 0) / xp.where(d > 0, d, 1)
        factor = xp.where(alike, 1, apart) * (top[0].diff / self.folded[0])  # (N, 1)
        d_a = (difference * factor).reshape(bottom[0].shape)
        if propagate_down[0]:
            bottom[0].diff[...] = d_a
        if propagate_down[1]:
            bottom[1].diff[...] = -d_a.reshape(bottom[1].shape)
        if propagate_down[2]:
            bottom[2].diff.fill(0)

    def _pairs(self, bottom: list[Blob]) -> tuple[Any, Any, Any]:
        """Return a - b (N, C), d^2 (N, 1), and which pairs are alike (N, 1)."""
        a, b = (blob.data.reshape(self.folded) for blob in bottom[:2])
        difference = a - b
        squares = (difference * difference).sum(axis=1, keepdims=True)
        return difference, squares, bottom[2].data.reshape(-1, 1) != 0
