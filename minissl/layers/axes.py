"""The axis fields of a prototxt: negative numbers count from the end, as in Caffe."""

from __future__ import annotations

import math

from minissl.blob import Shape
from minissl.layers.base import Layer


def resolve_axis(layer: Layer, axis: int, shape: Shape, field: str = "axis") -> int:
    """Turn a possibly negative ``axis`` into an index of ``shape``.

    Raises
    ------
    ConfigError
        When the blob has no such axis; ``field`` is the prototxt field to name.
    """
    n_axes = len(shape)
    if not -n_axes <= axis < n_axes:
        raise layer.config_error(
            f"{field} {axis} does not exist in a bottom of shape {shape}; "
            f"choose {field} from {-n_axes} to {n_axes - 1}"
        )
    return axis % n_axes


def around_axis(shape: Shape, axis: int) -> tuple[int, int, int]:
    """Return (outer, axis length, inner): the shape seen with everything else folded.

    Examples
    --------
    >>> around_axis((2, 10, 4, 4), 1)
    (2, 10, 16)
    """
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
