"""Class labels as they come from data: floating-point blobs that hold whole numbers."""

from __future__ import annotations

from typing import Any

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


def read_labels(
    layer: Layer, values: Any, outer: int, inner: int, classes: int, ignore_label: int | None
) -> tuple[Any, Any]:
    """Read labels as integers and find which of them count.

    Parameters
    ----------
    values : array
        Label blob with ``outer * inner`` elements.
    classes : int
        Labels must lie in 0 .. classes - 1.
    ignore_label : int or None
        Label of positions that do not count; it may lie outside that range.

    Returns
    -------
    labels : integer array, (outer, inner)
        Ignored positions hold class 0, so that the array can be used as an index.
    valid : bool array, (outer, inner)
        False where the label is ``ignore_label``.

    Raises
    ------
    DataError
        For a label that is no class.
    """
    xp = layer.kernels.xp
    values = values.reshape(outer, inner)
    valid = xp.ones(values.shape, dtype=bool)
    if ignore_label is not None:
        valid = values != ignore_label
    # written so that NaN counts as bad
    good = (values >= 0) & (values < classes) & (values == xp.floor(values))
    bad = valid & ~good
    if bad.any():
        raise DataError(
            f"layer '{layer.name}' ({layer.type_name}): label {float(values[bad][0]):g} is not one "
            f"of the {classes} classes 0 to {classes - 1}; correct the labels, num_output or "
            "ignore_label"
        )
    return xp.where(valid, values, 0).astype("int64"), valid
