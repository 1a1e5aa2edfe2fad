"""Accuracy: the share of positions whose label is among the best classes."""

from __future__ import annotations

from minissl.blob import Blob, Shape
from minissl.layers.axes import around_axis, resolve_axis
from minissl.layers.base import Layer, register
from minissl.layers.labels import Labels, check_label_count


@register("Accuracy")
class Accuracy(Layer):
    """Top-k accuracy, between 0 and 1.

    A position counts as right when its label is among the first ``top_k`` classes, sorted by
    (score, index) in descending order: of equal scores the class with the *higher* index comes
    first, as in Caffe. Positions labelled ``ignore_label`` do not count; with none left the
    accuracy is 0.

    Bottoms: scores (N, classes) or (N, classes, H, W), labels (N) or (N, H, W). Tops: the accuracy,
    a scalar, and if asked for the accuracy of each class (classes), 0 for a class without examples.
    """

    n_bottoms = (2, 2)
    n_tops = (1, 2)
    no_gradient = (0, 1)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Find the class axis; check top_k and the number of labels."""
        scores, labels = bottom_shapes
        accuracy_param = self.param.accuracy_param
        axis = resolve_axis(self, accuracy_param.axis, scores)
        self._folded = around_axis(scores, axis)  # (outer, classes, inner)
        outer, classes, inner = self._folded
        check_label_count(self, scores, labels, outer, inner)
        self.top_k = accuracy_param.top_k
        if not 1 <= self.top_k <= classes:
            raise self.config_error(
                f"top_k {self.top_k} must lie between 1 and the number of classes, {classes}"
            )
        self.ignore_label = (
            accuracy_param.ignore_label if accuracy_param.HasField("ignore_label") else None
        )
        self._labels = Labels(self, outer, inner, classes, self.ignore_label)
        return [(), (classes,)][: max(1, len(self.param.top))]

    def check(self) -> None:
        """Refuse labels that are no classes."""
        self._labels.check()

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Count the labels that at most top_k - 1 classes outrank."""
        xp = self.kernels.xp
        classes = self._folded[1]
        scores = bottom[0].data.reshape(self._folded)  # (outer, classes, inner)
        self._labels.read(bottom[1].data)
        labels, valid = self._labels.classes, self._labels.valid  # (outer, inner)

        label = labels[:, None, :]  # (outer, 1, inner)
        index = xp.arange(classes)[None, :, None]  # (1, classes, 1)
        score = xp.take_along_axis(scores, label, axis=1)  # (outer, 1, inner)
        # Counting the classes below, not those above, makes NaN scores count as wrong.
        below = (scores < score) | ((scores == score) & (index < label))
        rank = classes - 1 - below.sum(axis=1)  # (outer, inner), 0 is best
        right = valid & (rank < self.top_k)

        top[0].data[...] = right.sum() / xp.maximum(1, valid.sum())
        if len(top) > 1:
            examples = xp.bincount(labels[valid], minlength=classes)
            hits = xp.bincount(labels[right], minlength=classes)
            top[1].data[...] = hits / xp.maximum(examples, 1)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """Accuracy is constant almost everywhere: its gradient is zero."""
        for blob, wanted in zip(bottom, propagate_down, strict=True):
            if wanted:
                blob.diff.fill(0)
