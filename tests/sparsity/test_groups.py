from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minissl.errors import ConfigError
from minissl.sparsity.groups import (
    KINDS,
    Tile,
    bands,
    block_tiles,
    check_tile,
    matrix_shape,
    tile_of,
)

from .strategies import conv_shapes


@pytest.mark.parametrize(
    ("kind", "xdimen", "ydimen"),
    [
        ("filter", 576, 1),
        ("channel", 9, 128),
        ("shape", 1, 128),
        ("depth", 576, 128),
        ("kernel2d", 9, 1),
        ("row", 576, 1),
        ("column", 1, 128),
    ],
)
def test_published_table(kind, xdimen, ydimen):
    assert tile_of(kind, (128, 64, 3, 3)) == Tile(xdimen, ydimen)


@pytest.mark.parametrize(
    ("kind", "tile"),
    [
        ("filter", Tile(1200, 1)),
        ("channel", Tile(25, 128)),
        ("shape", Tile(1, 128)),
        ("depth", Tile(1200, 256)),
        ("kernel2d", Tile(25, 1)),
    ],
)
def test_conv_groups_shorten_columns_and_channels_only(kind, tile):
    assert tile_of(kind, (256, 48, 5, 5), conv_groups=2) == tile


def test_inner_product_and_bias():
    assert tile_of("filter", (300, 500)) == Tile(500, 1)
    assert tile_of("channel", (300, 500)) == Tile(1, 300)
    assert tile_of("kernel2d", (300, 500)) == Tile(1, 1)
    assert tile_of("row", (20,)) == Tile(1, 1)
    assert tile_of("column", (20,)) == Tile(1, 20)


@given(conv_shapes())
def test_every_kind_puts_each_weight_in_the_group_that_its_name_says(drawn):
    """Number the groups by the tile, and by the indices (f, c, i, j) that define the kind."""
    shape, g = drawn
    f, c, i, j = np.indices(shape)
    band = f // (shape[0] // g)
    named = {
        "filter": (f,),
        "row": (f,),
        "channel": (band, c),
        "shape": (band, c, i, j),
        "column": (band, c, i, j),
        "depth": (0 * f,),
        "kernel2d": (f, c),
    }
    rows, columns = np.indices(matrix_shape(shape))
    for kind in KINDS:
        tile = tile_of(kind, shape, g)
        by_tile = set(zip((rows // tile.ydimen).flat, (columns // tile.xdimen).flat, strict=True))
        both = set(
            zip(
                (rows // tile.ydimen).flat,
                (columns // tile.xdimen).flat,
                *(index.flat for index in named[kind]),
                strict=True,
            )
        )
        by_name = {pair[2:] for pair in both}
        assert len(by_tile) == len(by_name) == len(both), kind
        check_tile(tile, shape, kind)


def test_unknown_kind_and_conv_groups_that_do_not_divide():
    with pytest.raises(ConfigError, match=r"'fibre'.*kernel2d"):
        tile_of("fibre", (4, 2, 3, 3))
    with pytest.raises(ConfigError, match="group 3 does not divide 4 filters"):
        tile_of("column", (4, 2, 3, 3), conv_groups=3)
    with pytest.raises(ConfigError, match="group 0"):
        bands(np.zeros((4, 2)), 0)


def test_bands_are_views():
    matrix = np.arange(12.0).reshape(4, 3)
    view = bands(matrix, 2)
    assert view.shape == (2, 2, 3)
    view[1, 0, 0] = -1
    assert matrix[2, 0] == -1


@pytest.mark.parametrize(
    ("tile", "message"),
    [
        (Tile(7, 1), r"conv2.*xdimen 7 .*500 columns of its 50 x 500 .*use xdimen 5 or 10"),
        (Tile(25, 3), r"conv2.*ydimen 3 .*50 rows.*use ydimen 2 or 5"),
        (Tile(501, 1), r"xdimen 501.*use xdimen 500$"),
        (Tile(1, 100), r"ydimen 100.*use ydimen 50$"),
        (Tile(0, 1), r"xdimen 0.*use xdimen 1$"),
    ],
)
def test_tiles_that_do_not_divide_name_layer_sizes_and_nearest_divisors(tile, message):
    with pytest.raises(ConfigError, match=message):
        check_tile(tile, (50, 20, 5, 5), "conv2")


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40), st.integers(1, 40))
def test_check_tile_accepts_divisors_and_nothing_else(rows, columns, ydimen, xdimen):
    fits = rows % ydimen == 0 and columns % xdimen == 0
    try:
        check_tile(Tile(xdimen, ydimen), (rows, columns), "layer")
        accepted = True
    except ConfigError:
        accepted = False
    assert accepted == fits


def test_block_tiles_keep_their_order_and_are_checked():
    def block(x, y):
        return SimpleNamespace(xdimen=x, ydimen=y)

    spec = SimpleNamespace(block_group_lasso=[block(36, 1), block(1, 6), block(9, 1)])
    assert block_tiles(spec, (12, 4, 3, 3), "conv2") == [Tile(36, 1), Tile(1, 6), Tile(9, 1)]
    spec.block_group_lasso.append(block(1, 5))
    with pytest.raises(ConfigError, match=r"conv2.*ydimen 5"):
        block_tiles(spec, (12, 4, 3, 3), "conv2")


def test_a_tile_is_named_columns_by_rows():
    assert str(Tile(500, 1)) == "500x1"
