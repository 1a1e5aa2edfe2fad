"""FLOP by every rule; published tables come from synthetic patterns with the published counts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minissl.errors import ConfigError, ShapeError
from minissl.sparsity.flops import Input, LayerShape, count, propagate, total

from .strategies import conv_shapes, weights

RULES = ("dense", "zeros", "structured", "propagated", "executed")


def lenet(conv1, conv2):
    """LeNet's two convolutions, 24 x 24 and 8 x 8 output pixels; conv2 is followed by ip1."""
    ip1 = np.ones((500, 800))
    return [
        LayerShape("conv1", conv1, pixels=24 * 24),
        LayerShape("conv2", conv2, pixels=8 * 8, inputs=(Input("conv1"),)),
        LayerShape("ip1", ip1, inputs=(Input("conv2"),), spatial=16),
    ]


def percent(layer, rule):
    return 100 * getattr(layer, rule) / layer.dense


@pytest.mark.parametrize(
    ("filters", "channels", "flop"),
    [
        ((20, 50), 20, (100, 100)),
        ((5, 19), 4, (25, 7.6)),
        ((3, 12), 3, (15, 3.6)),
    ],
)
def test_table_1_counts_the_layers_own_rows_and_columns(filters, channels, flop):
    """LeNet 1 to 3: kept filters of each layer, kept input channels of conv2."""
    conv1, conv2 = np.zeros((20, 1, 5, 5)), np.zeros((50, 20, 5, 5))
    conv1[20 - filters[0] :] = 1
    conv2[: filters[1], 20 - channels :] = 1
    first, second, _ = count(lenet(conv1, conv2))
    assert percent(first, "structured") == pytest.approx(flop[0], rel=1e-12)
    assert percent(second, "structured") == pytest.approx(flop[1], rel=1e-12)


@pytest.mark.parametrize(
    ("positions", "columns", "channels", "flop"),
    [
        (25, 500, 20, (100, 100)),
        (21, 41, 2, (8.4, 8.2)),
        (7, 14, 1, (1.4, 2.8)),
    ],
)
def test_table_2_counts_what_later_layers_read(positions, columns, channels, flop):
    """LeNet 1, 4 and 5: kept filter shapes; conv1 keeps the filters that conv2 still reads."""
    conv1, conv2 = np.zeros((20, 25)), np.zeros((50, 500))
    conv1[:, :positions] = 1
    kept = np.linspace(0, 25 * channels - 1, columns).astype(int)  # spread over the kept channels
    conv2[:, kept] = 1
    layers = lenet(conv1.reshape(20, 1, 5, 5), conv2.reshape(50, 20, 5, 5))
    assert conv2.any(axis=0).sum() == columns
    first, second, _ = count(layers)
    assert percent(first, "propagated") == pytest.approx(flop[0], rel=1e-12)
    assert percent(second, "propagated") == pytest.approx(flop[1], rel=1e-12)
    assert percent(first, "structured") == pytest.approx(4 * positions, rel=1e-12)
    assert propagate(layers)["conv1"].filters.sum() == channels


@pytest.mark.parametrize(
    ("neurons", "flop"),
    [
        ((784, 500, 300), ("100.00", "100.00", "100.00")),
        ((469, 294, 166), ("35.18", "32.54", "55.33")),
        ((434, 174, 78), ("19.26", "9.05", "26.00")),
    ],
)
def test_table_of_the_mlp_is_the_product_of_kept_ends(neurons, flop):
    """Rows die in one layer and columns in the next, neither alone gives the published number."""
    inputs, hidden1, hidden2 = neurons
    ip1, ip2, ip3 = np.zeros((500, 784)), np.zeros((300, 500)), np.ones((10, 300))
    half1, half2 = (500 + hidden1) // 2, (300 + hidden2) // 2
    ip1[:half1, :inputs] = 1  # the rest of the neurons is cut off by ip2's columns
    ip2[:half2, half1 - hidden1 :] = 1
    ip3[:, : half2 - hidden2] = 0
    layers = [
        LayerShape("ip1", ip1),
        LayerShape("ip2", ip2, inputs=(Input("ip1"),)),
        LayerShape("ip3", ip3, inputs=(Input("ip2"),)),
    ]
    # 1e-9: the table rounds 35.175 up
    assert tuple("%.2f" % (percent(layer, "propagated") + 1e-9) for layer in count(layers)) == flop
    alive = propagate(layers)
    assert [int(alive[name].filters.sum()) for name in ("ip1", "ip2", "ip3")] == [
        hidden1,
        hidden2,
        10,
    ]


def test_dense_flop_of_caffenet():
    """The published 447.9, 299.0, 224.3 and 149.5 MFLOP of conv2 to conv5, 75.5 of fc6."""
    shapes = [
        ((256, 48, 5, 5), 27 * 27, 2, 447.9),
        ((384, 256, 3, 3), 13 * 13, 1, 299.0),
        ((384, 192, 3, 3), 13 * 13, 2, 224.3),
        ((256, 192, 3, 3), 13 * 13, 2, 149.5),
        ((4096, 9216), 1, 1, 75.5),
    ]
    for shape, pixels, g, published in shapes:
        weight = np.broadcast_to(np.float32(1), shape)
        (layer,) = count([LayerShape("conv", weight, pixels=pixels, conv_groups=g)])
        assert round(layer.dense / 1e6, 1) == published
        assert len({getattr(layer, rule) for rule in RULES}) == 1


@given(conv_shapes(), st.data(), st.integers(1, 9))
def test_one_layer_against_naive_counts(drawn, data, pixels):
    shape, g = drawn
    w = data.draw(weights(shape))
    matrix = w.reshape(shape[0], -1)
    kept = sum(
        int((band != 0).any(axis=1).sum()) * int((band != 0).any(axis=0).sum())
        for band in np.split(matrix, g)
    )
    modes = {
        "LOWERED_GEMM": 2 * matrix.size * pixels,
        "LOWERED_CSRMM": 2 * int((matrix != 0).sum()) * pixels,
        "LOWERED_CCNMM": 2 * kept * pixels,
    }
    for mode, executed in modes.items():
        (layer,) = count([LayerShape("conv1", w, pixels=pixels, conv_groups=g, conv_mode=mode)])
        assert layer.dense == modes["LOWERED_GEMM"]
        assert layer.zeros == modes["LOWERED_CSRMM"]
        assert layer.structured == modes["LOWERED_CCNMM"]
        assert layer.executed == executed
        assert layer.zeros <= layer.structured <= layer.dense


@given(st.data())
def test_chains_survive_what_a_naive_removal_leaves(data):
    """Take dead filters and channels out of real arrays, over and over, and compare the sizes."""
    widths = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=5))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    density = data.draw(st.sampled_from([0.2, 0.4, 0.7]))
    matrices = [
        (rng.random((rows, columns)) < density).astype(float) for columns, rows in pairwise(widths)
    ]
    layers = [
        LayerShape(f"ip{i}", matrix, inputs=(Input(f"ip{i - 1}" if i else None),))
        for i, matrix in enumerate(matrices)
    ]
    small = [matrix.copy() for matrix in matrices]
    for _ in range(sum(widths) + 1):
        for i, matrix in enumerate(small):
            small[i] = matrix[:, matrix.any(axis=0)] if i == 0 else matrix
        for i in range(1, len(small)):
            keep = small[i - 1].any(axis=1) & small[i].any(axis=0)
            small[i - 1], small[i] = small[i - 1][keep], small[i][:, keep]
    assert [layer.propagated for layer in count(layers)] == [2 * matrix.size for matrix in small]


def test_deaths_travel_both_ways_until_nothing_changes():
    """One zero column at the end empties the whole chain in front of it."""
    first = np.eye(3)
    second = np.eye(3)
    third = np.ones((2, 3))
    third[:, 1] = 0
    layers = [
        LayerShape("a", first),
        LayerShape("b", second, inputs=(Input("a"),)),
        LayerShape("c", third, inputs=(Input("b"),)),
    ]
    alive = propagate(layers)
    for name in "ab":
        assert alive[name].filters.tolist() == [True, False, True]
        assert alive[name].columns.tolist() == [[True, False, True]]
    second[2] = 0  # and forwards, beside it
    layers[1] = LayerShape("b", second, inputs=(Input("a"),))
    assert [layer.propagated for layer in count(layers)] == [2, 2, 4]


def test_a_filter_dies_only_when_every_reader_ignores_it():
    producer = LayerShape("a", np.ones((3, 2)))
    left, right = np.ones((2, 3)), np.ones((4, 3))
    left[:, :2] = 0
    right[:, 1:] = 0
    layers = [
        producer,
        LayerShape("left", left, inputs=(Input("a"),)),
        LayerShape("right", right, inputs=(Input("a"),)),
    ]
    assert propagate(layers)["a"].filters.tolist() == [True, False, True]
    assert [layer.propagated for layer in count(layers)] == [2 * 2 * 2, 2 * 2, 2 * 4]


def test_outputs_keep_all_their_filters():
    w = np.ones((3, 2))
    w[1] = 0
    assert propagate([LayerShape("ip", w)])["ip"].filters.all()
    reader = np.ones((2, 3))
    reader[:, 0] = 0
    layers = [
        LayerShape("a", w, is_output=True),
        LayerShape("b", reader, inputs=(Input("a"),)),
    ]
    alive = propagate(layers)
    assert alive["a"].filters.all()
    assert alive["b"].columns.tolist() == [[False, True, True]]


def test_flatten_maps_a_channel_to_its_pixels():
    conv = np.ones((3, 1, 1, 1))
    conv[0] = 0
    ip = np.ones((2, 12))
    ip[:, 8:] = 0  # nothing of channel 2
    layers = [
        LayerShape("conv", conv, pixels=4),
        LayerShape("ip", ip, inputs=(Input("conv"),), spatial=4),
    ]
    alive = propagate(layers)
    assert alive["conv"].filters.tolist() == [False, True, False]
    assert alive["ip"].columns.tolist() == [[False] * 4 + [True] * 4 + [False] * 4]
    assert [layer.propagated for layer in count(layers)] == [2 * 4, 2 * 2 * 4]


def test_conv_groups_read_channels_of_their_own():
    """Group 0 reads channels 0 and 1, group 1 reads channels 2 and 3."""
    first = np.ones((4, 1, 1, 1))
    first[3] = 0
    second = np.ones((2, 2, 1, 2))
    second[0, 1] = 0
    layers = [
        LayerShape("a", first),
        LayerShape("b", second, inputs=(Input("a"),), conv_groups=2),
    ]
    alive = propagate(layers)
    assert alive["a"].filters.tolist() == [True, False, True, False]
    assert alive["b"].columns.tolist() == [[True, True, False, False], [True, True, False, False]]


def test_concatenated_inputs_are_side_by_side():
    a, b = np.ones((2, 1)), np.ones((2, 1))
    a[0], b[1] = 0, 0
    reader = np.ones((1, 5))
    reader[0, 1] = 0
    layers = [
        LayerShape("a", a),
        LayerShape("b", b),
        LayerShape(
            "c", reader, inputs=(Input("a"), Input("b", first_channel=2), Input(None, 4, 1))
        ),
    ]
    alive = propagate(layers)
    assert alive["a"].filters.tolist() == [False, False]
    assert alive["b"].filters.tolist() == [True, False]
    assert alive["c"].columns.tolist() == [[False, False, True, False, True]]


def test_a_summed_channel_lives_as_long_as_one_term_does():
    """A residual block whose last convolution is dead: the shortcut keeps the channels alive."""
    layers = [
        LayerShape("conv1", np.ones((2, 1))),
        LayerShape("branch_a", np.ones((3, 2)), inputs=(Input("conv1"),)),
        LayerShape("branch_b", np.zeros((2, 3)), inputs=(Input("branch_a"),)),
        LayerShape("ip", np.ones((4, 2)), inputs=(Input("conv1"), Input("branch_b"))),
    ]
    alive = propagate(layers)
    assert alive["conv1"].filters.all()
    assert not alive["branch_a"].filters.any()  # nobody reads it any more
    assert not alive["branch_b"].filters.any()
    assert alive["ip"].columns.all()
    assert [layer.propagated for layer in count(layers)] == [4, 0, 0, 16]


def test_an_all_zero_layer_costs_nothing_behind_it_and_before_it():
    conv = np.ones((2, 1, 3, 3))
    layers = [
        LayerShape("a", conv, pixels=5),
        LayerShape("b", np.zeros((3, 2)), inputs=(Input("a"),)),
        LayerShape("c", np.ones((2, 3)), inputs=(Input("b"),)),
    ]
    assert [layer.propagated for layer in count(layers)] == [0, 0, 0]


def test_json_and_total():
    w = np.ones((2, 3))
    w[0, 0] = 0
    w[1] = 0
    counts = count(
        [
            LayerShape("a", w, pixels=2, conv_mode="LOWERED_CSRMM"),
            LayerShape("b", np.ones((5, 2)), inputs=(Input("a"),)),
        ]
    )
    assert [layer.to_json() for layer in counts] == [
        {"name": "a", "dense": 24, "zeros": 8, "structured": 8, "propagated": 8, "executed": 8},
        {"name": "b", "dense": 20, "zeros": 20, "structured": 20, "propagated": 10, "executed": 20},
    ]
    assert total(counts).to_json() == {
        "name": "total",
        "dense": 44,
        "zeros": 28,
        "structured": 28,
        "propagated": 18,
        "executed": 28,
    }


def test_refusals():
    w = np.ones((2, 3))
    with pytest.raises(ConfigError, match=r"a: unknown conv_mode 'CSR'.*LOWERED_CSRMM"):
        count([LayerShape("a", w, conv_mode="CSR")])
    with pytest.raises(ConfigError, match=r"b: its input 'a' is no earlier layer"):
        count([LayerShape("b", w, inputs=(Input("a"),)), LayerShape("a", w)])
    with pytest.raises(ShapeError, match=r"b: no input gives channel 2 of the 3"):
        count([LayerShape("a", w), LayerShape("b", w, inputs=(Input("a"),))])
    with pytest.raises(ShapeError, match=r"b: no input gives channel 2 of the 3"):
        count([LayerShape("a", w), LayerShape("b", w, inputs=(Input("a", channels=3),))])
    with pytest.raises(ShapeError, match=r"b: channels 2 to 3 come from 'a'"):
        count([LayerShape("a", w), LayerShape("b", w, inputs=(Input("a", 2), Input(None)))])
