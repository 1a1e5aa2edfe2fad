"""Fused networks: what is fused, and that nobody can tell from any number."""

from __future__ import annotations

from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl import Net, fusion
from minissl.conv_modes import MODES
from minissl.formats.prototxt import parse_net
from minissl.kernels.geometry import pooling_output
from tests.kernels.strategies import PATTERNS, sparsify
from tests.tiny_nets import give_arrays, make_net

# --- networks that hypothesis draws ---


@dataclass
class Drawn:
    """A network in the making: its text, and the blob that the next layer reads."""

    lines: list[str] = field(default_factory=list)
    blob: str = "x"
    size: tuple[int, int] = (9, 8)
    is_image: bool = True

    def add(
        self, layer_type: str, options: str = "", in_place: bool = False, tops: str = ""
    ) -> None:
        name = f"{layer_type.lower()}{len(self.lines)}"
        top = self.blob if in_place else name
        self.lines.append(
            f'layer {{ name: "{name}" type: "{layer_type}" bottom: "{self.blob}" top: "{top}" '
            f"{tops} {options} }}"
        )
        self.blob = top


def _convolution(draw, net: Drawn) -> None:
    kernel = draw(st.integers(1, 3))
    pad = draw(st.integers(0, 1))
    if min(net.size) + 2 * pad < kernel:
        return
    net.size = tuple(n + 2 * pad - kernel + 1 for n in net.size)
    group = draw(st.integers(1, 2))
    covered = kernel == 3 and group == 1
    mode = draw(st.sampled_from(sorted(set(MODES) - (set() if covered else {"WINOGRAD"}))))
    net.add(
        "Convolution",
        f"convolution_param {{ num_output: 4 kernel_size: {kernel} pad: {pad} conv_mode: {mode} "
        f"group: {group} bias_term: {draw(st.sampled_from(['true', 'false']))} "
        'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 } }',
    )


def _pooling(draw, net: Drawn) -> None:
    kernel, stride = draw(st.sampled_from([(3, 2), (2, 2), (2, 1)]))
    if min(net.size) < kernel:
        return
    net.size = tuple(pooling_output(n, kernel, stride, 0) for n in net.size)
    method = draw(st.sampled_from(["MAX", "MAX", "AVE"]))
    mask = method == "MAX" and draw(st.integers(0, 5)) == 0
    net.add(
        "Pooling",
        f"pooling_param {{ pool: {method} kernel_size: {kernel} stride: {stride} }}",
        tops=f'top: "mask{len(net.lines)}"' if mask else "",
    )


def _element_wise(draw, net: Drawn) -> None:
    kinds = [("ReLU", ""), ("ReLU", ""), ("ReLU", "relu_param { negative_slope: 0.1 }")]
    kinds += [("Dropout", ""), ("Sigmoid", "")]
    in_place = net.blob != "x" and draw(st.booleans())
    net.add(*draw(st.sampled_from(kinds)), in_place=in_place)


def _normalization(draw, net: Drawn) -> None:
    region = draw(st.sampled_from(["ACROSS_CHANNELS", "WITHIN_CHANNEL"]))
    net.add("LRN", f"lrn_param {{ local_size: 3 alpha: 0.5 norm_region: {region} }}")


def _second_reader(draw, net: Drawn) -> None:
    """Let another layer read the blob as well: a Split layer comes in between."""
    blob = net.blob
    net.add("TanH")
    net.blob = blob


@st.composite
def networks(draw):
    """Chains of all kinds, an inner product at the end."""
    net = Drawn()
    images = draw(st.integers(1, 7))
    for _ in range(draw(st.integers(2, 7))):
        unit = draw(st.sampled_from([_convolution, _pooling, _element_wise, _element_wise,
                                     _normalization, _second_reader]))  # fmt: skip
        unit(draw, net)
    for _ in range(draw(st.integers(0, 2))):
        net.add(
            "InnerProduct", 'inner_product_param { num_output: 5 weight_filler { type: "xavier" } }'
        )
        for _ in range(draw(st.integers(0, 2))):
            _element_wise(draw, net)
    shape = f"shape {{ dim: {images} dim: 4 dim: 9 dim: 8 }}"
    source = f'layer {{ name: "in" type: "Input" top: "x" input_param {{ {shape} }} }}'
    return "\n".join([source, *net.lines])


def built(text: str, pattern: str = "dense", **options) -> tuple[Net, Net]:
    """Build a network twice, fused and not, with the same sparse weights."""
    nets = tuple(Net(parse_net(text), fuse=fuse, seed=7, **options) for fuse in (True, False))
    rng = np.random.default_rng(5)
    weights = {name: [b.copy() for b in blobs] for name, blobs in nets[0].weights().items()}
    for name, blobs in weights.items():
        layer = nets[0].layer(name)
        if layer.type_name == "Convolution":
            sparsify(blobs[0], layer.shape, pattern, rng)
    for net in nets:
        if weights:
            net.load(weights)
    return nets


def same(one: Net, other: Net) -> None:
    assert list(one.blobs) == list(other.blobs)
    for name in one.blobs:
        assert np.array_equal(one.blobs[name].data, other.blobs[name].data), name


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@given(
    text=networks(),
    pattern=st.sampled_from(PATTERNS),
    dtype=st.sampled_from(["float32", "float64"]),
    block_bytes=st.sampled_from([1, 3000, fusion.BLOCK_BYTES]),
)
@settings(max_examples=60, deadline=None)
def test_every_number_is_the_same(backend, text, pattern, dtype, block_bytes):
    fused, plain = built(text, pattern, backend=backend, dtype=dtype)
    rng = np.random.default_rng(1)
    with mock.patch.object(fusion, "BLOCK_BYTES", block_bytes):
        for _ in range(2):  # what was asked for after the first batch must not stay
            x = rng.normal(size=fused.blobs["x"].shape)
            found, expected = fused.forward({"x": x}), plain.forward({"x": x})
            for name, values in expected.items():
                assert np.array_equal(found[name], values), name
            same(fused, plain)
    assert not plain.fused


# --- which chains are found ---

CONVOLUTION = "convolution_param { num_output: 2 kernel_size: 1 }"


def net_of(*layers: str, **options) -> Net:
    """Make a net of layers ``name Type bottom top [options]``."""
    lines = ['layer { name: "x" type: "Input" top: "x" '
             "input_param { shape { dim: 2 dim: 2 dim: 4 dim: 4 } } }"]  # fmt: skip
    for layer in layers:
        name, kind, bottom, top, *rest = layer.split(" ", 4)
        given = {
            "Convolution": CONVOLUTION,
            "Pooling": "pooling_param { kernel_size: 2 }",
            "InnerProduct": "inner_product_param { num_output: 2 }",
        }.get(kind, "")
        text = "".join(rest) or given
        lines.append(
            f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {text} }}'
        )
    return Net(parse_net("\n".join(lines)), backend="numpy", **options)


def kinds(net: Net) -> list[str]:
    return [step.kind for step in net.steps if isinstance(step, fusion.FusedStep)]


def test_the_chains_of_skimcaffe():
    net = net_of(
        "c1 Convolution x c1", "r1 ReLU c1 c1", "p1 Pooling c1 p1", "n1 LRN p1 n1",
        "c2 Convolution n1 c2", "r2 ReLU c2 c2",
        "c3 Convolution c2 c3", "r3 ReLU c3 c3", "p3 Pooling c3 p3",
        "s Sigmoid p3 s", "r4 ReLU s r4", "p4 Pooling r4 p4",
        "f InnerProduct p4 f", "r5 ReLU f f", "d5 Dropout f f", "g InnerProduct f g",
    )  # fmt: skip
    assert kinds(net) == [
        "ConvolutionReLUPoolLRN",
        "ConvolutionReLU",
        "ConvolutionReLUPool",
        "ReLUPooling",
        "InnerProductReLUDropout",
    ]
    assert net.fused == {
        "r1": "c1", "p1": "c1", "n1": "c1", "r2": "c2", "r3": "c3", "p3": "c3",
        "p4": "r4", "r5": "f", "d5": "f",
    }  # fmt: skip
    assert [step.layer.name for step in net.steps] == ["x", "c1", "c2", "c3", "s", "r4", "f", "g"]


@pytest.mark.parametrize(
    "layers",
    [
        ["c Convolution x c", "t TanH c t"],
        ["r ReLU x r", 'p Pooling r p pooling_param { pool: AVE kernel_size: 2 }'],
        ["r ReLU x r relu_param { negative_slope: -1 }", "p Pooling r p"],
        ["c Convolution x c", 'p Pooling c p top: "m" pooling_param { kernel_size: 2 }'],
        ["c Convolution x c", "r ReLU c r", "t TanH c t"],  # two readers
        ["p Pooling x p", "r ReLU p p"],
        ["f InnerProduct x f", "t TanH f t"],
    ],
)  # fmt: skip
def test_what_is_not_fused(layers):
    assert kinds(net_of(*layers)) == []


def test_an_inner_product_over_all_axes_is_not_fused():
    """What comes out has no axis of images, along which a chain is divided."""
    net = net_of("f InnerProduct x f inner_product_param { num_output: 3 axis: 0 }", "r ReLU f f")
    assert kinds(net) == []


def test_a_leaky_relu_runs_on_its_own_within_the_step():
    net = net_of("c Convolution x c", "r ReLU c c relu_param { negative_slope: 0.5 }")
    assert kinds(net) == ["ConvolutionReLU"]


def test_only_phase_test_is_fused_and_only_unless_told_otherwise():
    train, test, plain = (
        make_net(phase=phase, backend="numpy", fuse=fuse)
        for phase, fuse in (("TRAIN", True), ("TEST", True), ("TEST", False))
    )
    assert not train.fused and not plain.fused
    assert test.fused == {"relu1": "conv1", "pool1": "conv1", "relu2": "ip1"}


# --- the blobs between ---


def test_blobs_between_are_computed_when_asked_for():
    fused, plain = built(CHAIN, backend="numpy")
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 4))
    fused.forward({"x": x})
    plain.forward({"x": x})
    between = fused.blobs["c"]
    assert between._data is None  # not even allocated
    assert np.array_equal(between.data, plain.blobs["c"].data) and between.data.any()
    assert np.array_equal(fused.blobs["p"].data, plain.blobs["p"].data)
    fused.forward({"x": 2 * x})
    assert between.deferred is not None
    assert np.array_equal(between.data, np.maximum(plain.blobs["c"].data * 2, 0))


CHAIN = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 dim: 4 dim: 4 } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 2
  kernel_size: 2 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 2 } }
"""


def test_a_watcher_sees_every_layer():
    net = net_of("c Convolution x c", "r ReLU c c", "p Pooling c p")
    seen = []
    net.watcher = lambda what, layer: seen.append((layer.name, net.blobs["c"].deferred))
    net.forward()
    assert seen == [("x", None), ("c", None), ("r", None), ("p", None)]


def test_gradients_of_a_fused_net_are_those_of_a_plain_one():
    text = "force_backward: true " + CHAIN.replace('top: "p"', 'top: "p" loss_weight: 1')
    fused, plain = built(text)
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 4))
    for net in (fused, plain):
        net.forward({"x": x})
        net.clear_gradients()
        net.backward()
    assert np.abs(fused.blobs["x"].diff).max() > 0
    assert np.array_equal(fused.blobs["x"].diff, plain.blobs["x"].diff)
    for one, other in zip(fused.parameters, plain.parameters, strict=True):
        assert np.array_equal(one.diff, other.diff)


def test_a_test_net_of_training_follows_the_weights():
    train = make_net(phase="TRAIN", backend="numba")
    nets = [make_net(backend="numba", share=train, fuse=fuse) for fuse in (True, False)]
    for net in nets:
        give_arrays(net)
    before = nets[0].forward()["loss"].copy()
    for parameter in train.parameters:
        parameter.data *= 2
    give_arrays(nets[0])
    give_arrays(nets[1])
    after, expected = (net.forward()["loss"] for net in nets)
    assert after == expected != before
