"""Groups of weights are tiles of the weight matrix.

A filter bank of shape (F, C/g, kh, kw) is F rows by C/g*kh*kw columns of the same memory. Every
kind of group that the paper prunes is a rectangle in it, so one description serves all: a tile,
``xdimen`` columns wide and ``ydimen`` rows high, repeated over the whole matrix.

Here 4 filters read 2 input channels with kernels of 3 weights; ``c`` is the input channel::

                 c = 0      c = 1
               +----------+----------+
    filter 0   | .  .  .  | .  .  .  |   filter    6 x 1   one row
    filter 1   | .  .  .  | .  .  .  |   shape     1 x 4   one column: the same position
    filter 2   | .  .  .  | .  .  .  |                     of every filter
    filter 3   | .  .  .  | .  .  .  |   channel   3 x 4   the columns of one input channel
               +----------+----------+   kernel2d  3 x 1   one 2-D kernel
                                         depth     6 x 4   the whole layer

A convolution with g conv groups has g bands of F/g rows, each reading channels of its own; a
column, a shape fibre or a channel then ends at the border of its band.

Dimensions: R rows, C columns of the matrix; F filters, g conv groups, kh x kw kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from minissl.errors import ConfigError

#: the kinds of groups that :func:`tile_of` knows
KINDS = ("filter", "channel", "shape", "depth", "kernel2d", "row", "column")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tile:
    """A group of ``ydimen`` rows by ``xdimen`` columns, named as in BlockGroupLassoSpec."""

    xdimen: int
    ydimen: int

    def __str__(self) -> str:
        """Return columns x rows, ``500x1`` for a row of 500 weights."""
        return f"{self.xdimen}x{self.ydimen}"


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """Return R, C of a blob's weight matrix: R = shape[0], C = everything else.

    C = 1 in one dimension, and R = C = 1 for a single number.
    """
    return (shape[0] if shape else 1), prod(shape[1:])


def bands(matrix: np.ndarray, conv_groups: int) -> np.ndarray:
    """View a matrix (R, C) as its conv-group bands (g, R/g, C).

    Raises
    ------
    ConfigError
        When the rows cannot be shared out evenly.
    """
    R, C = matrix.shape
    return matrix.reshape(conv_groups, _rows_of_band(R, conv_groups), C)  # (g, R/g, C)


def tile_of(kind: str, shape: Shape, conv_groups: int = 1) -> Tile:
    """Return the tile that makes groups of a kind (SSL paper, Section 3.2 and Figure 2).

    Parameters
    ----------
    kind : {"filter", "channel", "shape", "depth", "kernel2d", "row", "column"}
        ``row`` is the same as ``filter`` and ``column`` as ``shape``, seen from the matrix.
    shape : tuple of int
        (F, C/g, kh, kw) of a convolution, (F, K) of an inner product; any other works too.
    conv_groups : int
        g; columns and channels are groups of one band of F/g rows.

    Raises
    ------
    ConfigError
        For an unknown kind, or conv groups that do not divide the filters.

    Examples
    --------
    >>> tile_of("channel", (128, 64, 3, 3))
    Tile(xdimen=9, ydimen=128)
    """
    R, C = matrix_shape(shape)
    band_rows = _rows_of_band(R, conv_groups)
    kernel_area = prod(shape[2:])
    tiles = {
        "filter": Tile(C, 1),
        "row": Tile(C, 1),
        "shape": Tile(1, band_rows),
        "column": Tile(1, band_rows),
        "channel": Tile(kernel_area, band_rows),
        "kernel2d": Tile(kernel_area, 1),
        "depth": Tile(C, R),
    }
    if kind not in tiles:
        raise ConfigError(f"unknown kind of group '{kind}'; choose one of {', '.join(KINDS)}")
    return tiles[kind]


def check_tile(tile: Tile, shape: Shape, where: str) -> None:
    """Refuse a tile that does not divide the weight matrix of a blob.

    Parameters
    ----------
    tile : Tile
    shape : tuple of int
        Of the blob; its matrix is R x C.
    where : str
        Layer and blob, for the message.

    Raises
    ------
    ConfigError
        Names the layer, the sizes and the nearest sizes that would fit.
    """
    R, C = matrix_shape(shape)
    for field, size, whole, what in (
        ("xdimen", tile.xdimen, C, "columns"),
        ("ydimen", tile.ydimen, R, "rows"),
    ):
        if size < 1 or whole % size:
            fitting = " or ".join(str(divisor) for divisor in _nearest_divisors(size, whole))
            raise ConfigError(
                f"{where}: {field} {size} of block_group_lasso does not divide the {whole} {what} "
                f"of its {R} x {C} weight matrix; use {field} {fitting}"
            )


def block_tiles(parameter_spec, shape: Shape, where: str) -> list[Tile]:
    """Return the tiles of a ParamSpec's ``block_group_lasso`` entries in their order, checked.

    They are checked even where their decay is 0: a tile that does not fit is a mistake either way.
    """
    tiles = [Tile(block.xdimen, block.ydimen) for block in parameter_spec.block_group_lasso]
    for tile in tiles:
        check_tile(tile, shape, where)
    return tiles


def _rows_of_band(rows: int, conv_groups: int) -> int:
    if conv_groups < 1 or rows % conv_groups:
        raise ConfigError(
            f"group {conv_groups} does not divide {rows} filters; use a group that divides them"
        )
    return rows // conv_groups


def _nearest_divisors(size: int, whole: int) -> list[int]:
    """Return the divisors of ``whole`` next below and next above ``size``, where there are any."""
    divisors = [number for number in range(1, whole + 1) if whole % number == 0]
    below = [number for number in divisors if number < size]
    above = [number for number in divisors if number > size]
    return below[-1:] + above[:1]
