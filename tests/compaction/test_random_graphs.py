"""Drawn residual and branching networks with drawn zeros: the same outputs, and never larger."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl.compaction import compact, prove
from tests.compaction.nets import build, conv, data, ip, joined, layer, norm, rebuild
from tests.compaction.test_random_nets import make_sparse

ACTIVATIONS = ("ReLU", "Sigmoid", None)


class Graph:
    """Text of a network under construction, and what its blobs are."""

    def __init__(self, draw):
        self.draw = draw
        self.size = draw(st.integers(5, 8))
        self.text = [data(channels=2, height=self.size, width=self.size)]
        self.count = 0

    def name(self, kind):
        self.count += 1
        return f"{kind}{self.count}"

    def add(self, text):
        self.text.append(text)

    def conv(self, bottom, filters, kernel=None, stride=1, group=1):
        """Convolution, then nothing, norms or a bias, then nothing or an activation."""
        kernel = kernel or self.draw(st.sampled_from([1, 3]))
        name = self.name("conv")
        bias = self.draw(st.sampled_from(["", "bias_term: false"]))
        fields = f"kernel_size: {kernel} pad: {kernel // 2} stride: {stride} group: {group} {bias}"
        self.add(conv(name, bottom, filters, fields))
        behind = self.draw(st.sampled_from(["norm", "norm", "bias", "nothing"]))
        if behind == "norm":
            self.add(norm(name, name))
        elif behind == "bias":
            self.add(layer("Bias", f"{name}_bias", name, f"{name}_raised"))
            return f"{name}_raised"
        return name

    def activate(self, bottom):
        activation = self.draw(st.sampled_from(ACTIVATIONS))
        if activation:
            self.add(layer(activation, self.name("act"), bottom, bottom))
        return bottom

    def residual(self, x, channels):
        """x, or a convolution of x, plus one or two branches."""
        changes = self.draw(st.booleans())
        stride = self.draw(st.integers(1, 2)) if changes else 1
        filters = 2 * self.draw(st.integers(1, 3)) if changes else channels
        terms = [self.conv(x, filters, 1, stride) if changes else x]
        for _ in range(self.draw(st.sampled_from([1, 1, 2]))):
            inner = self.activate(self.conv(x, 2 * self.draw(st.integers(1, 2)), stride=stride))
            group = self.draw(st.sampled_from([1, 1, 2]))
            terms.append(self.conv(inner, filters, group=group))
        terms = self.draw(st.permutations(terms))
        name = self.name("sum")
        fields = ""
        if self.draw(st.integers(0, 4)) == 0:
            fields = "eltwise_param { %s }" % self.draw(
                st.sampled_from(
                    [
                        "operation: MAX",
                        "operation: PROD",
                        " ".join(f"coeff: {-1 if i else 2}" for i in range(len(terms))),
                    ]
                )
            )
        self.add(joined("Eltwise", name, terms, fields))
        return self.activate(name), filters

    def inception(self, x, channels):
        """Some convolutions of x, and perhaps x, side by side."""
        parts, total = [], 0
        for _ in range(self.draw(st.integers(1, 2))):
            filters = 2 * self.draw(st.integers(1, 2))
            parts.append(self.activate(self.conv(x, filters)))
            total += filters
        if self.draw(st.booleans()):
            pooled = self.name("pool")
            fields = "pooling_param { pool: MAX kernel_size: 3 pad: 1 stride: 1 }"
            self.add(layer("Pooling", pooled, x, pooled, fields))
            parts.append(pooled)
            total += channels
        name = self.name("concat")
        self.add(joined("Concat", name, parts))
        return name, total

    def divide(self, x, channels):
        """Halves of x, each convolved or not, side by side or added up."""
        name = self.name("slice")
        tops = f'top: "{name}_a" top: "{name}_b"'
        self.add(f'layer {{ name: "{name}" type: "Slice" bottom: "{x}" {tops} }}')
        halves = [f"{name}_a", f"{name}_b"]
        for i in range(2):
            if self.draw(st.booleans()):
                halves[i] = self.activate(self.conv(halves[i], channels // 2))
        joins = self.draw(st.sampled_from(["Concat", "Eltwise"]))
        joint = self.name("joint")
        self.add(joined(joins, joint, halves))
        filters = channels if joins == "Concat" else channels // 2
        if filters % 2:
            joint, filters = self.conv(joint, 2), 2
        return joint, filters

    def normalize(self, x, channels):
        name = self.name("lrn")
        region = self.draw(st.sampled_from(["ACROSS_CHANNELS", "WITHIN_CHANNEL"]))
        fields = f"lrn_param {{ local_size: 3 norm_region: {region} }}"
        self.add(layer("LRN", name, x, name, fields))
        return name, channels

    def plain(self, x, channels):
        filters = 2 * self.draw(st.integers(1, 3))
        return self.activate(self.conv(x, filters)), filters


@st.composite
def nets(draw, blocks=("residual", "residual", "residual", "inception", "divide", "normalize")):
    graph = Graph(draw)
    x, channels = graph.plain("data", 2)
    for _ in range(draw(st.integers(1, 3))):
        x, channels = getattr(graph, draw(st.sampled_from(blocks)))(x, channels)
    end = draw(st.sampled_from(["pool", "flat", "conv", "nothing"]))
    if end == "pool":
        fields = "pooling_param { pool: AVE global_pooling: true }"
        graph.add(layer("Pooling", "pool", x, "pool", fields))
        graph.add(ip("ip", "pool", 3))
    elif end == "flat":
        graph.add(layer("Flatten", "flat", x, "flat"))
        graph.add(ip("ip", "flat", 3))
    elif end == "conv":
        graph.add(conv("end", x, 3, "kernel_size: 3 pad: 1"))
    seed = draw(st.integers(0, 2**32 - 1))
    net = build(*graph.text, backend=draw(st.sampled_from(["numpy", "numba"])), seed=seed)
    _lose_weights(net, np.random.default_rng(seed))
    return net


def _lose_weights(net, rng):
    weights = net.weights()
    for name, blobs in weights.items():
        kind = net.layer(name).type_name
        if kind in ("Convolution", "InnerProduct"):
            make_sparse(blobs[0], rng)
        if kind in ("Convolution", "Bias"):
            blobs[-1][rng.random(len(blobs[-1])) < rng.choice([0, 0.5])] = 0
        if kind == "Scale":
            blobs[1][rng.random(len(blobs[1])) < rng.choice([0, 0.5, 1])] *= -1
    net.load(weights)


def check(net, backend, fold_norms):
    compacted = compact(net, fold_norms)
    report = compacted.report
    assert report.bytes_after <= report.bytes_before
    smaller = rebuild(net, compacted, backend)
    proof = prove(net, smaller)
    assert set(proof.compared) == set(net.outputs)
    # a piece that nobody reads any more stays where its channels are tied to others
    assert all(name.startswith("slice") for name in set(smaller.outputs) - set(net.outputs))
    assert proof.max_abs_difference <= 1e-11 * max(1, proof.largest_output)
    return compacted, smaller


@settings(max_examples=30, deadline=None)
@given(nets(), st.sampled_from(["numpy", "numba"]), st.booleans())
def test_outputs_stay_and_nothing_grows(net, backend, fold_norms):
    compacted, smaller = check(net, backend, fold_norms)
    again = compact(smaller, fold_norms)
    assert again.report.bytes_after <= compacted.report.bytes_after


@settings(max_examples=30, deadline=None)
@given(nets(blocks=["residual"]), st.booleans())
def test_residual_networks(net, fold_norms):
    compacted, smaller = check(net, "numpy", fold_norms)
    again = compact(smaller, fold_norms)
    if again.net_param != compacted.net_param:  # a map of constants has become smaller, or even
        why = [reason for reasons in compacted.report.stays.values() for reason in reasons]
        assert any("its map of constants" in reason for reason in why)
        assert again.report.bytes_after < compacted.report.bytes_after
        return
    for name, blobs in compacted.weights.items():
        assert all(map(np.array_equal, blobs, again.weights[name]))
