"""Class labels as they come from data: floating-point blobs that hold whole numbers."""

from __future__ import annotations

from typing import Any

from minissl.backend import to_host
from minissl.blob import Shape
from minissl.errors import DataError
from minissl.layers.base import Layer


def check_label_count(layer: Layer, scores: Shape, labels: Shape, outer: int, inner: int) -> None:
    """Refuse labels that are not one per prediction (``outer * inner`` of them)."""
    count = 1
    for length in labels:
        count *= length
    if count != outer * inner:
        raise layer.shape_error(
            f"scores of shape {scores} need {outer * inner} labels but the label blob has shape "
            f"{labels}; give one label for every position that is classified"
        )


class Labels:
    """The labels of one layer, read anew in each forward pass.

    Attributes
    ----------
    classes : integer array, (outer, inner)
        Ignored positions hold class 0, so that the array can be used as an index.
    valid : bool array, (outer, inner)
        False where the label is ``ignore_label``.
    """

    def __init__(self, layer: Layer, outer: int, inner: int, count: int, ignore_label: int | None):
        self.layer, self.count, self.ignore_label = layer, count, ignore_label
        self.shape = outer, inner
        self.classes: Any = None
        self.valid: Any = None
        self._status: Any = None  # whether there was a label that is no class, and which

    def read(self, values: Any) -> None:
        """Read the label blob, of ``outer * inner`` elements.

        Raises
        ------
        DataError
            For a label that is no class; by a backend that does not wait only later, from
            :meth:`check`.
        """
        kernels = self.layer.kernels
        if self._status is None:
            self.classes = kernels.xp.empty(self.shape, "int64")
            self.valid = kernels.xp.empty(self.shape, "bool")
            self._status = kernels.xp.zeros(2, "float64")
        kernels.read_labels(
            values.reshape(self.shape),
            self.count,
            self.ignore_label,
            self.classes,
            self.valid,
            self._status,
        )
        kernels.at_once(self.check)

    def check(self) -> None:
        """Raise what is wrong with the labels that were read since the last check."""
        if self._status is None:
            return
        wrong, label = to_host(self._status)
        if wrong:
            self._status[...] = 0
            raise DataError(
                f"layer '{self.layer.name}' ({self.layer.type_name}): label {label:g} is not one "
                f"of the {self.count} classes 0 to {self.count - 1}; correct the labels, "
                "num_output or ignore_label"
            )
