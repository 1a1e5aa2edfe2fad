"""How sparse a blob is, in every sense that is printed.

The published program prints four lines at each display, one value for each learnable blob:

======= ==============================================================================
Element 100 * (weights with |w| < 1e-4) / size
Column  100 * (columns that are exactly zero) / C, over the whole matrix
Row     100 * (rows that are exactly zero) / R
Block   "(x,y):v;" for each tile of the blob, v = 100 * (tiles exactly zero) / tiles
======= ==============================================================================

Element counts small weights, the other three exact zeros. Group lasso acts on each conv group by
itself, while the Column line looks at the whole matrix; so the same is counted by conv group too,
together with what a smaller network could drop: filters, input channels and 2-D kernels.

Percentages are 0 to 100.

Dimensions: R rows, C columns of the matrix; g conv groups; kh x kw kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from minissl.sparsity.groups import Tile, bands
from minissl.sparsity.zero_out import is_small


@dataclass(frozen=True)
class BandStatistics:
    """Percentages of one conv group's R/g rows; ``filter`` is the same as ``row``.

    ``column``: columns without a weight in the band; ``channel``: input channels that no filter of
    the band reads; ``kernel2d``: 2-D kernels without a weight.
    """

    group: int
    element: float
    row: float
    column: float
    filter: float
    channel: float
    kernel2d: float


@dataclass(frozen=True)
class BlobStatistics:
    """Percentages of one learnable blob.

    ``element``, ``row``, ``column`` and ``blocks`` (by tile, named "XxY") are those of the four
    printed lines, over the whole matrix; ``bands`` holds one entry for each conv group.
    """

    name: str
    blob: int
    shape: tuple[int, ...]
    element: float
    row: float
    column: float
    blocks: dict[str, float]
    bands: tuple[BandStatistics, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """Return one row for each conv group, ``group`` counting from 0.

        Blocks may straddle conv groups, so every row holds those of the whole blob. With several
        conv groups a row also has ``whole``: element, row and column over the whole matrix.
        """
        whole = {"element": self.element, "row": self.row, "column": self.column}
        rows = []
        for band in self.bands:
            row: dict[str, Any] = {
                "name": self.name,
                "blob": self.blob,
                "shape": list(self.shape),
                "group": band.group,
                "element": band.element,
                "row": band.row,
                "column": band.column,
                "filter": band.filter,
                "channel": band.channel,
                "kernel2d": band.kernel2d,
                "blocks": dict(self.blocks),
            }
            if len(self.bands) > 1:
                row["whole"] = dict(whole)
            rows.append(row)
        return rows


def zero_rows(matrix: np.ndarray) -> np.ndarray:
    """Return where a row is exactly zero, bool (R,)."""
    return ~np.any(matrix, axis=1)


def zero_columns(matrix: np.ndarray) -> np.ndarray:
    """Return where a column is exactly zero, bool (C,)."""
    return ~np.any(matrix, axis=0)


def zero_tiles(matrix: np.ndarray, tile: Tile) -> np.ndarray:
    """Return where a tile is exactly zero, bool (R/ydimen, C/xdimen)."""
    R, C = matrix.shape
    tiles = matrix.reshape(R // tile.ydimen, tile.ydimen, C // tile.xdimen, tile.xdimen)
    return ~np.any(tiles, axis=(1, 3))  # (R/ydimen, C/xdimen)


def percentage(which: np.ndarray, dtype: npt.DTypeLike = np.float64) -> float:
    """Return 100 * (true elements) / (elements), formed in the given precision."""
    number = np.dtype(dtype).type
    return float(number(100) * number(int(np.count_nonzero(which))) / number(which.size))


def statistics_of(
    name: str, blob: int, w: np.ndarray, conv_groups: int = 1, tiles: Sequence[Tile] = ()
) -> BlobStatistics:
    """Measure one learnable blob.

    Parameters
    ----------
    name : str
        Of the layer.
    blob : int
        Which of the layer's blobs: 0 for weights, 1 for the bias.
    w : ndarray
        (F, C/g, kh, kw), (F, K), or any other shape; a bias is N x 1.
    conv_groups : int
        How many, g.
    tiles : sequence of Tile
        The blob's ``block_group_lasso`` entries.
    """
    matrix = w.reshape(w.shape[0], -1)  # (R, C)
    kernel_area = prod(w.shape[2:])
    return BlobStatistics(
        name=name,
        blob=blob,
        shape=tuple(w.shape),
        element=percentage(is_small(matrix)),
        row=percentage(zero_rows(matrix)),
        column=percentage(zero_columns(matrix)),
        blocks={str(tile): percentage(zero_tiles(matrix, tile)) for tile in tiles},
        bands=tuple(
            _band_statistics(group, band, kernel_area)
            for group, band in enumerate(bands(matrix, conv_groups))  # (R/g, C) each
        ),
    )


def _band_statistics(group: int, band: np.ndarray, kernel_area: int) -> BandStatistics:
    """Measure one band (R/g, C)."""
    rows, C = band.shape
    kernels = band.reshape(rows, C // kernel_area, kernel_area)  # (R/g, C/g, kh*kw)
    dead_kernels = ~np.any(kernels, axis=2)  # (R/g, C/g)
    return BandStatistics(
        group=group,
        element=percentage(is_small(band)),
        row=percentage(zero_rows(band)),
        column=percentage(zero_columns(band)),
        filter=percentage(zero_rows(band)),
        channel=percentage(np.all(dead_kernels, axis=0)),
        kernel2d=percentage(dead_kernels),
    )


def log_lines(
    blobs: Iterable[tuple[np.ndarray, Sequence[Tile]]],
) -> list[tuple[str, str]]:
    """Return the four sparsity lines of a display iteration, each a header and its values.

    The header is one log message, the values follow on a line of their own without a prefix. A
    value ends with a tab and has C++'s six digits. Percentages are formed in the precision of the
    weights, as the published program does; in float32 this decides some last digits.

    Parameters
    ----------
    blobs : iterable of (matrix, tiles)
        The weight matrix (R, C) of every learnable blob in net order, and its tiles.
    """
    element, column, row, block = "", "", "", ""
    for matrix, tiles in blobs:
        element += _value(is_small(matrix), matrix) + "\t"
        column += _value(zero_columns(matrix), matrix) + "\t"
        row += _value(zero_rows(matrix), matrix) + "\t"
        for tile in tiles:
            block += f"({tile.xdimen},{tile.ydimen}):{_value(zero_tiles(matrix, tile), matrix)};"
        block += "\t"
    values = {"Element": element, "Column": column, "Row": row, "Block": block}
    return [(f"{title:>11} Sparsity %: ", line) for title, line in values.items()]


def _value(which: np.ndarray, matrix: np.ndarray) -> str:
    return "%g" % percentage(which, matrix.dtype)
