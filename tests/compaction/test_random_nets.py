"""Chains of drawn layers with drawn zeros: the same outputs, never larger, nothing left to do."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl.channels import layer_shapes
from minissl.compaction import compact, prove
from minissl.sparsity import flops
from tests.compaction.nets import build, conv, data, ip, layer, rebuild

ACTIVATIONS = ("ReLU", "Sigmoid", "TanH", "Dropout", None)
POOLINGS = ("pool: MAX", "pool: AVE", "pool: MAX pad: 1", "pool: AVE pad: 1", None, None)


@st.composite
def nets(draw, pads=(0, 0, 1)):
    """Convolutions and inner products in a row, at most one fan-out, zeros in most layers."""
    text = [data(channels=2, height=draw(st.integers(10, 12)), width=10)]
    last, names = "data", []
    for number in range(draw(st.integers(1, 3))):
        name = f"conv{number}"
        group = draw(st.sampled_from([1, 1, 2]))
        filters = 2 * draw(st.integers(1, 3))
        bias = draw(st.sampled_from(["", "bias_term: false"]))
        pad, kernel = draw(st.sampled_from(pads)), draw(st.integers(1, 2))
        text.append(
            conv(name, last, filters, f"kernel_size: {kernel} pad: {pad} group: {group} {bias}")
        )
        last = name
        names.append(name)
        activation = draw(st.sampled_from(ACTIVATIONS))
        if activation:
            top = draw(st.sampled_from([last, f"{name}_active"]))
            text.append(layer(activation, f"{name}_a", last, top))
            last = top
        pooling = draw(st.sampled_from(POOLINGS))
        if pooling == "pool: AVE pad: 1" and 1 not in pads:
            pooling = "pool: AVE"
        if pooling and number < 2:
            window = f"kernel_size: 2 stride: {draw(st.integers(1, 2))}"
            fields = f"pooling_param {{ {pooling} {window} }}"
            text.append(layer("Pooling", f"{name}_pool", last, f"{name}_pool", fields))
            last = f"{name}_pool"
    if draw(st.booleans()):
        text.append(conv("side", last, 2, f"kernel_size: 1 pad: {draw(st.sampled_from(pads))}"))
        names.append("side")
    for number in range(draw(st.integers(0, 2))):
        name = f"ip{number}"
        transpose = str(draw(st.booleans())).lower()
        text.append(ip(name, last, draw(st.integers(1, 4)), f"transpose: {transpose}"))
        text.append(layer(draw(st.sampled_from(ACTIVATIONS[:4])), f"{name}_a", name, name))
        last = name
        names.append(name)
    seed = draw(st.integers(0, 2**32 - 1))
    net = build(*text, backend=draw(st.sampled_from(["numpy", "numba"])), seed=seed)
    rng = np.random.default_rng(seed)
    weights = net.weights()
    for name in names:
        w = weights[name][0]
        transposed = name.startswith("ip") and net.layer(name).transpose
        make_sparse(w.T if transposed else w, rng)
    net.load(weights)
    return net


def make_sparse(w, rng):
    """Zero rows, columns, channels, single weights, and now and then everything."""
    kind = rng.integers(0, 8)
    if kind == 0:
        w[...] = 0
        return
    w[rng.random(len(w)) < rng.choice([0, 0.4, 0.8])] = 0
    w[:, rng.random(w.shape[1]) < rng.choice([0, 0.4, 0.8])] = 0
    flat = w.reshape(len(w), -1)
    dead_columns = rng.random(flat.shape[1]) < rng.choice([0, 0.5])
    w[...] = np.where(dead_columns, 0, flat).reshape(w.shape)
    w[rng.random(w.shape) < rng.choice([0, 0.3])] = 0


@settings(max_examples=100, deadline=None)
@given(nets(), st.sampled_from(["numpy", "numba"]))
def test_outputs_stay_and_nothing_grows(net, backend):
    compacted = compact(net)
    report = compacted.report
    assert report.bytes_after <= report.bytes_before
    smaller = rebuild(net, compacted, backend)
    proof = prove(net, smaller)
    assert set(proof.compared) == set(net.outputs)
    assert proof.max_abs_difference <= 1e-12 * max(1, proof.largest_output)
    again = compact(smaller)
    assert again.net_param == compacted.net_param
    for name, blobs in compacted.weights.items():
        assert all(map(np.array_equal, blobs, again.weights[name]))


@settings(max_examples=100, deadline=None)
@given(nets(pads=(0,)))
def test_what_is_left_is_what_propagation_counts(net):
    """Without borders in the way, the compacted net executes the published count.

    More only by what the report says: fillers for conv groups and whole dead layers, and columns
    whose index would take more than they save. Less only by the zero filters of output layers,
    which packed layers skip.
    """
    compacted = compact(net)
    fillers = any("dead filter" in why for x in compacted.report.layers for why in x.stays)
    expected = {one.name: one.propagated for one in flops.count(layer_shapes(net))}
    shapes = layer_shapes(rebuild(net, compacted))
    for shape, count in zip(shapes, flops.count(shapes), strict=True):
        if not fillers:
            assert count.propagated == expected[count.name]
            if shape.kept_columns is not None and shape.weight.any():
                assert count.dense == expected[count.name]
        if shape.nonzero.any(axis=2).all() and shape.nonzero.any(axis=1).all():
            assert count.executed == count.propagated
