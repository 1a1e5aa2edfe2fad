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


def fold_operand(
    layer: Layer, axis: int, num_axes: int, bottom_shapes: list[Shape]
) -> tuple[Shape, tuple[int, int, int]]:
    """Find along which axes a Scale or Bias layer applies its second operand.

    That is the second bottom, or without one a parameter over ``num_axes`` axes from ``axis`` on
    (-1: all of them, 0: a single number).

    Returns
    -------
    tuple
        The operand's shape, and the bottom's shape folded around it as (outer, size, inner).

    Raises
    ------
    ConfigError, ShapeError
        When the bottom has no such axes, or the second bottom other lengths; when the second bottom
        is the top.
    """
    shape = bottom_shapes[0]
    if len(bottom_shapes) == 2:
        if layer.param.bottom[1] in layer.param.top:
            raise layer.config_error("cannot be computed in place of its second bottom")
        operand = bottom_shapes[1]
        num_axes = len(operand)
    if num_axes < -1:
        raise layer.config_error(f"num_axes is {num_axes}; use -1 for all axes, or 0 and more")
    first = resolve_axis(layer, axis, shape) if num_axes else 0
    last = len(shape) if num_axes == -1 else first + num_axes
    if last > len(shape):
        raise layer.config_error(
            f"{num_axes} axes from axis {first} on are more than the bottom of shape {shape} has"
        )
    if len(bottom_shapes) == 1:
        operand = shape[first:last]
    elif operand != shape[first:last]:
        raise layer.shape_error(
            f"the second bottom has shape {operand} where the first, of shape {shape}, has "
            f"{shape[first:last]} from axis {first} on"
        )
    return operand, (math.prod(shape[:first]), math.prod(operand), math.prod(shape[last:]))
