"""Random pruning keeps the counts of the network it imitates, and nothing else of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minissl.errors import ConfigError
from minissl.sparsity.flops import Input, LayerShape, count
from minissl.sparsity.random_pruning import masks_like


@st.composite
def patterns(draw) -> list[LayerShape]:
    """Two convolutions and an inner product that follow each other; whole rows, columns are 0."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    g1, g2 = draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 3), (2, 2)]))
    F1, F2, C, s = 6 * draw(st.integers(1, 2)), 6, g1 * draw(st.integers(1, 2)), 4
    shapes = [((F1, C // g1, 1, 3), g1), ((F2, F1 // g2, 2, 1), g2), ((5, F2 * s), 1)]
    names = ["conv1", "conv2", "ip1"]
    layers = []
    for number, (shape, g) in enumerate(shapes):
        matrix = np.ones((g, shape[0] // g, int(np.prod(shape[1:]))))
        matrix *= rng.random((g, matrix.shape[1], 1)) < 0.6
        matrix *= rng.random((g, 1, matrix.shape[2])) < 0.6
        source = Input(names[number - 1] if number else None)
        spatial = s if number == 2 else None
        layers.append(
            LayerShape(names[number], matrix.reshape(shape), 7 - number, (source,), g, spatial)
        )
    return layers


def filled(layers):
    """The same layers without a zero."""
    return [with_weight(one, np.ones_like(one.weight)) for one in layers]


def with_weight(one, weight):
    return LayerShape(one.name, weight, one.pixels, one.inputs, one.conv_groups, one.spatial)


def pruned(layers, masks):
    return [
        with_weight(one, one.weight * masks[one.name].reshape(one.weight.shape)) for one in layers
    ]


def counts(layers):
    """Filters, channels and columns of each band of each layer."""
    return [
        (
            one.nonzero.any(axis=2).sum(axis=1).tolist(),
            one.nonzero.any(axis=1).sum(axis=1).tolist(),
            int(one.nonzero.any(axis=1).reshape(-1, one.columns_per_channel).any(axis=1).sum()),
        )
        for one in layers
    ]


@given(patterns(), st.integers(0, 2**31 - 1))
def test_as_many_filters_channels_and_columns_are_left(like, seed):
    dense = filled(like)
    found = pruned(dense, masks_like(like, dense, seed))
    assert counts(found) == counts(like)
    # what is read is what is there, as often as in the network it imitates
    for rule in ("structured", "propagated"):
        assert [getattr(one, rule) for one in count(found)] == [
            getattr(one, rule) for one in count(like)
        ]


@given(patterns(), st.integers(0, 2**31 - 1))
def test_the_seed_decides(like, seed):
    first, again = (masks_like(like, filled(like), seed) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)


def lenet(filters1, filters2, channels2):
    """LeNet's convolutions with this many living filters and channels, the first of each."""
    conv1, conv2 = np.zeros((20, 1, 5, 5)), np.zeros((50, 20, 5, 5))
    conv1[:filters1] = 1
    conv2[:filters2, :channels2] = 1
    return [
        LayerShape("conv1", conv1, 576),
        LayerShape("conv2", conv2, 64, (Input("conv1"),)),
        LayerShape("ip1", np.ones((500, 800)), 1, (Input("conv2"),), spatial=16),
    ]


def test_any_filter_may_be_chosen_and_channels_follow():
    like, dense = lenet(3, 12, 3), lenet(20, 50, 20)
    chosen = np.zeros(20)
    for seed in range(200):
        masks = masks_like(like, dense, seed)
        filters = np.flatnonzero(masks["conv1"].any(axis=2))
        channels = np.flatnonzero(masks["conv2"].any(axis=1).reshape(20, 25).any(axis=1))
        assert filters.tolist() == channels.tolist() and len(filters) == 3
        assert masks["ip1"].all()
        chosen[filters] += 1
    # each is in 30 of 200 by expectation, with a deviation of 5
    assert chosen.min() > 8 and chosen.max() < 56


def test_weights_that_are_zero_already_are_left_out_first():
    pattern = np.zeros((4, 10))
    pattern[:2, :5] = 1
    there = np.ones((4, 10))
    there[3], there[:, ::3] = 0, 0  # columns 0, 3, 6, 9
    like, dense = [LayerShape("ip1", pattern)], [LayerShape("ip1", there)]
    for seed in range(20):
        (found,) = pruned(dense, masks_like(like, dense, seed))
        assert counts([found]) == counts(like)


def test_networks_that_do_not_fit():
    with pytest.raises(ConfigError, match="layers are the same"):
        masks_like(lenet(3, 12, 3), lenet(20, 50, 20)[:2], 1)
    two = [*lenet(20, 50, 20)[:1], LayerShape("b", np.ones((5, 20)), 1, (Input("conv1"),) * 2)]
    with pytest.raises(ConfigError, match="'b' reads several layers at once"):
        masks_like(two, two, 1)
