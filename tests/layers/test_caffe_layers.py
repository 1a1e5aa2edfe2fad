"""Caffe's rarer layers: values computed by hand, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minissl import Net
from minissl.backend import to_host
from minissl.errors import ConfigError, DataError, ShapeError
from minissl.formats import proto
from minissl.formats.prototxt import parse_net
from minissl.sparsity.zero_out import applies_to
from tests.layers.running import forward, set_up

E = math.e


@pytest.mark.parametrize(
    ("text", "x", "expected"),
    [
        ('type: "AbsVal"', [-2, 0, 3], [2, 0, 3]),
        ('type: "BNLL"', [0, 800, -800], [math.log(2), 800, 0]),
        ('type: "ELU" elu_param { alpha: 2 }', [-1, 0, 3], [2 / E - 2, 0, 3]),
        ('type: "Exp"', [0, 1, -1], [1, E, 1 / E]),
        ('type: "Exp" exp_param { base: 2 scale: 3 shift: 1 }', [0, 1], [2, 16]),
        ('type: "Log" log_param { base: 10 scale: 2 shift: 8 }', [1, 46], [1, 2]),
        ('type: "Power" power_param { power: 3 scale: 2 shift: -1 }', [1, 0, 2], [1, -1, 27]),
        ('type: "Power" power_param { power: 0 }', [5, 0], [1, 1]),
        ('type: "Threshold" threshold_param { threshold: 1 }', [0, 1, 1.5], [0, 0, 1]),
    ],
)
def test_elementwise_values(text, x, expected, every_kernels):
    (found,) = forward(text, every_kernels, x)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_prelu_has_a_slope_for_each_channel(every_kernels):
    text = 'type: "PReLU" prelu_param { filler { value: 0.5 } }'
    layer, bottom, top = set_up(text, every_kernels, [[[-2, 4], [-6, -8]]])
    layer.fill_parameters()
    assert layer.parameters[0].shape == (2,)
    layer.parameters[0].data[1] = 0.25
    layer.forward(bottom, top)
    np.testing.assert_array_equal(to_host(top[0].data), [[[-1, 4], [-1.5, -2]]])


def test_prelu_begins_with_a_quarter(kernels):
    layer, _, _ = set_up('type: "PReLU" prelu_param { channel_shared: true }', kernels, [[1.0]])
    layer.fill_parameters()
    assert layer.parameters[0].shape == () and layer.parameters[0].data == 0.25
    assert not applies_to(layer.parameters[0].role)  # a small slope is not sparsity


@pytest.mark.parametrize("in_place", [False, True])
def test_the_input_is_kept_only_where_it_is_overwritten(in_place, kernels):
    top = "x" if in_place else "y"
    text = f'name: "e" type: "ELU" bottom: "x" top: "{top}"'
    layer, _, _ = set_up(text, kernels, np.ones((2, 3)))
    assert layer.workspace_bytes() == (48 if in_place else 0)


def test_no_gradient_in_place_in_phase_test(kernels):
    layer, bottom, _ = set_up(
        'name: "e" type: "ELU" bottom: "x" top: "x"', kernels, [1.0], phase="TEST"
    )
    layer.forward(bottom, bottom)
    with pytest.raises(ConfigError, match="give its top another name"):
        layer.backward(bottom, [True], bottom)


# --- shapes ---


@pytest.mark.parametrize(
    ("options", "shape", "expected"),
    [
        ("shape { dim: 0 dim: -1 }", (2, 3, 4), (2, 12)),
        ("shape { dim: 4 dim: -1 dim: 2 }", (2, 3, 4), (4, 3, 2)),
        ("shape { dim: 2 dim: 2 } axis: 2", (2, 3, 4), (2, 3, 2, 2)),
        ("shape { dim: -1 } axis: 1 num_axes: 2", (2, 3, 4, 5), (2, 12, 5)),
        ("shape { dim: 1 } axis: 1 num_axes: 0", (2, 3), (2, 1, 3)),
        ("shape { dim: 1 dim: 1 } axis: -1 num_axes: 0", (2, 3), (2, 3, 1, 1)),
        ("shape { dim: 0 dim: 6 } axis: -3", (2, 3, 4), ShapeError),
        ("shape { dim: 5 }", (2, 3), ShapeError),
        ("shape { dim: 4 dim: -1 }", (2, 3), ShapeError),
        ("shape { dim: -1 dim: -1 }", (2, 3), ConfigError),
        ("shape { dim: 2 dim: 3 dim: 0 }", (2, 3), ConfigError),
        ("shape { dim: 6 } axis: 3", (2, 3), ConfigError),
        ("shape { dim: 6 } axis: 1 num_axes: 2", (2, 3), ConfigError),
    ],
)
def test_reshape(options, shape, expected, kernels):
    text = f'type: "Reshape" reshape_param {{ {options} }}'
    x = np.arange(math.prod(shape))
    if isinstance(expected, type):
        with pytest.raises(expected):
            set_up(text, kernels, x.reshape(shape))
        return
    (found,) = forward(text, kernels, x.reshape(shape))
    np.testing.assert_array_equal(found, x.reshape(expected))


def test_tile(every_kernels):
    x = np.arange(6).reshape(1, 2, 3)
    (found,) = forward('type: "Tile" tile_param { tiles: 2 }', every_kernels, x)
    np.testing.assert_array_equal(found, np.concatenate([x, x], axis=1))


def test_crop(every_kernels):
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    text = 'type: "Crop" crop_param { offset: 1 offset: 2 }'
    (found,) = forward(text, every_kernels, x, np.zeros((1, 1, 2, 3)))
    np.testing.assert_array_equal(found, x[:, :, 1:3, 2:5])


@pytest.mark.parametrize(
    ("text", "shapes", "words"),
    [
        ('type: "Crop" crop_param { offset: 3 }', [(1, 1, 4, 4), (1, 1, 2, 2)], "offset 3 and len"),
        ('type: "Crop" crop_param { offset: [1, 1, 1] }', [(1, 1, 4, 4)] * 2, "3 offsets for 2"),
        ('type: "Crop"', [(1, 1, 4, 4), (1, 4, 4)], "differ in their number of axes"),
        ('type: "Tile"', [(1, 2)], "tiles is 0"),
        ('type: "Exp" exp_param { base: 0 }', [(1, 2)], "base 0 must be above 0"),
        ('type: "Log" log_param { base: 1 }', [(1, 2)], "base 1 has no logarithm"),
        ('type: "PReLU"', [(3,)], "needs a bottom with channels"),
        ('type: "MVN"', [(3,)], r"needs a bottom of shape \(N, C"),
        ('type: "Embed" embed_param { num_output: 2 }', [(3,)], "must be at least 1"),
        ('type: "EuclideanLoss"', [(3, 2), (2, 3)], "same number of images"),
        ('type: "ContrastiveLoss"', [(3, 2), (3, 2), (2,)], "where 3 pairs need"),
        ('type: "InfogainLoss"', [(3, 2), (3,)], "a third bottom, or a source"),
        ('type: "InfogainLoss"', [(3, 2), (3,), (3, 3)], "a matrix of 2 x 2"),
        ('type: "ArgMax" argmax_param { top_k: 3 }', [(1, 2)], "top_k 3 must lie between 1"),
        ('type: "ArgMax"', [()], "needs a bottom of at least one axis"),
        (
            'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 1 pad: 2 }',
            [(1, 1, 3, 3)],
            "leaves nothing of the output",
        ),
        (
            'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 2 '
            "conv_mode: DIRECT_SCONV }",
            [(1, 1, 3, 3)],
            "conv_mode DIRECT_SCONV is for convolutions",
        ),
        (
            'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 2 group: 2 }',
            [(1, 3, 3, 3)],
            "group 2 must divide both",
        ),
    ],
)
def test_refused(text, shapes, words, kernels):
    with pytest.raises(ConfigError, match=words):
        set_up(text, kernels, *(np.zeros(shape) for shape in shapes))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("axis: 1", [10, -4]),
        ("operation: ASUM axis: 1", [10, 12]),
        ("operation: SUMSQ axis: -1 coeff: 0.5", [15, 25]),
        ("operation: MEAN", 6 / 8),
    ],
)
def test_reduction(options, expected, every_kernels):
    x = [[1, 2, 3, 4], [1, -2, 3, -6]]
    text = f'type: "Reduction" reduction_param {{ {options} }}'
    (found,) = forward(text, every_kernels, x)
    np.testing.assert_allclose(found, expected)


# --- ArgMax, Silence, MVN ---


def test_argmax_of_images(every_kernels):
    """Of equal values the later one comes first."""
    x = [[3, 7, 7, 1], [2, 0, 1, 2]]
    text = 'type: "ArgMax" argmax_param { top_k: 3 out_max_val: true }'
    (found,) = forward(text, every_kernels, x)
    assert found.shape == (2, 2, 3)
    np.testing.assert_array_equal(found[0], [[2, 1, 0], [7, 7, 3]])
    np.testing.assert_array_equal(found[1], [[3, 0, 2], [2, 2, 1]])


def test_argmax_along_an_axis(every_kernels):
    x = np.random.default_rng(0).permutation(24).reshape(2, 3, 4)
    (found,) = forward('type: "ArgMax" argmax_param { axis: 1 }', every_kernels, x)
    np.testing.assert_array_equal(found, x.argmax(axis=1)[:, None])
    text = 'type: "ArgMax" argmax_param { axis: -1 out_max_val: true }'
    (found,) = forward(text, every_kernels, x)
    np.testing.assert_array_equal(found, x.max(axis=2)[..., None])
    (found,) = forward('type: "ArgMax"', every_kernels, x.reshape(2, 3, 2, 2))
    assert found.shape == (2, 1, 1, 1)


def test_what_silence_reads_is_no_output():
    net = Net(
        parse_net(
            """layer { name: "d" type: "DummyData" top: "a" top: "b"
                       dummy_data_param { shape { dim: 2 } } }
               layer { name: "s" type: "Silence" bottom: "a" }"""
        )
    )
    assert list(net.forward()) == ["b"]


def test_mvn_leaves_constant_channels_at_zero(every_kernels):
    x = np.array([[[1.0, 3.0], [5.0, 5.0]]])
    layer, bottom, top = set_up('type: "MVN"', every_kernels, x)
    layer.forward(bottom, top)
    np.testing.assert_allclose(to_host(top[0].data), [[[-1, 1], [0, 0]]], atol=1e-8)
    layer.backward(top, [True], bottom)
    assert np.isfinite(to_host(bottom[0].diff)).all()


# --- losses ---


def test_euclidean_loss(every_kernels):
    (loss,) = forward('type: "EuclideanLoss"', every_kernels, [[1, 2], [3, 4]], [[1, 0], [0, 4]])
    assert loss == (4 + 9) / 4


@pytest.mark.parametrize(("norm", "expected"), [("L1", 3.5 / 2), ("L2", (1 + 0.25 + 4) / 2)])
def test_hinge_loss(norm, expected, every_kernels):
    """Margins 1 - 1 = 0, 1 + 0 = 1, 1 - 1.5 < 0; then 1 - 0.5, 1 + 1, 1 - 2 < 0."""
    scores = [[1, 0, -1.5], [1, 0.5, -2]]
    text = f'type: "HingeLoss" hinge_loss_param {{ norm: {norm} }}'
    (loss,) = forward(text, every_kernels, scores, [0, 1])
    assert loss == pytest.approx(expected)


def test_sigmoid_cross_entropy_is_divided_by_images(every_kernels):
    scores = [[0, 800, -800], [0, 1, 0]]
    targets = [[1, 1, 0], [0, 0, 1]]
    terms = 3 * math.log(2) + math.log(1 + E)
    text = 'type: "SigmoidCrossEntropyLoss"'
    (loss,) = forward(text, every_kernels, scores, targets)
    assert loss == pytest.approx(terms / 2)
    for mode, n in (("FULL", 6), ("VALID", 6), ("NONE", 1), ("BATCH_SIZE", 2)):
        options = f"loss_param {{ normalization: {mode} }}"
        (loss,) = forward(f"{text} {options}", every_kernels, scores, targets)
        assert loss == pytest.approx(terms / n)
    targets[1][1] = -1
    options = "loss_param { ignore_label: -1 normalization: VALID }"
    (loss,) = forward(f"{text} {options}", every_kernels, scores, targets)
    assert loss == pytest.approx(3 * math.log(2) / 5)


def test_log_losses(every_kernels, tmp_path):
    p = [[0.5, 0.25, 0.25], [0, 0.5, 0.5]]
    text = 'type: "MultinomialLogisticLoss"'
    (loss,) = forward(text, every_kernels, p, [1, 0])
    assert loss == pytest.approx((math.log(4) + 20 * math.log(10)) / 2)
    matrix = np.array([[1, 0, 0], [2, 3, 0], [0, 0, 1.0]])
    expected = (2 * math.log(2) + 3 * math.log(4) + math.log(2)) / 2
    (loss,) = forward('type: "InfogainLoss"', every_kernels, p, [1, 2], matrix)
    assert loss == pytest.approx(expected)
    source = f'infogain_loss_param {{ source: "{tmp_path}/h.binaryproto" }}'
    for dims in ([3, 3], [1, 3, 3], [1, 1, 3, 3]):
        blob = proto.BlobProto(shape=proto.BlobShape(dim=dims), data=matrix.ravel())
        (tmp_path / "h.binaryproto").write_bytes(blob.SerializeToString())
        (loss,) = forward(f'type: "InfogainLoss" {source}', every_kernels, p, [1, 2])
        assert loss == pytest.approx(expected)


@pytest.mark.parametrize(("legacy", "third"), [("false", 1), ("true", 0)])
def test_contrastive_loss(legacy, third, every_kernels):
    """Distances 5, 5 and 2 of a margin of 3; the pairs are alike, not, not."""
    a, b = [[3, 4], [3, 4], [0, 2]], [[0, 0], [0, 0], [0, 0]]
    options = f"contrastive_loss_param {{ margin: 3 legacy_version: {legacy} }}"
    text = f'type: "ContrastiveLoss" {options}'
    (loss,) = forward(text, every_kernels, a, b, [1, 0, 0])
    assert loss == pytest.approx((25 + 0 + third) / 6)


@pytest.mark.parametrize(
    "text",
    [
        'type: "HingeLoss"',
        'type: "MultinomialLogisticLoss"',
        'type: "Embed" embed_param { input_dim: 3 num_output: 1 }',
    ],
)
def test_numbers_that_are_no_classes_are_refused(text, kernels):
    bottoms = ([[1.0, 2.0, 3.0]], [3]) if "Loss" in text else ([3],)
    layer, bottom, top = set_up(text, kernels, *bottoms)
    layer.fill_parameters()
    with pytest.raises(DataError, match="3 is not one of the 3"):
        layer.forward(bottom, top)


# --- Deconvolution, Embed, DummyData ---


def test_bilinear_deconvolution_enlarges(every_kernels):
    """Each channel by itself, twice as large: a ramp stays a ramp inside."""
    text = """type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 4 stride: 2
        pad: 1 group: 2 bias_term: false weight_filler { type: "bilinear" } }"""
    x = np.arange(5.0) * np.ones((1, 2, 4, 1))
    layer, bottom, top = set_up(text, every_kernels, x)
    layer.fill_parameters()
    layer.forward(bottom, top)
    y = to_host(top[0].data)
    assert y.shape == (1, 2, 8, 10)
    np.testing.assert_allclose(y[0, :, 1:-1, 1:-1], (np.arange(8) / 2 + 0.25) * np.ones((2, 6, 1)))


def test_frozen_deconvolution():
    net = Net(
        parse_net(
            """layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape {
                       dim: 1 dim: 2 dim: 2 dim: 2 } } }
               layer { name: "d" type: "Deconvolution" bottom: "x" top: "y"
                       connectivity_mode: DISCONNECTED_ELTWISE
                       convolution_param { num_output: 1 kernel_size: 2 } }"""
        ),
        phase="TRAIN",
    )
    w = np.ones((2, 1, 2, 2))
    w[0, 0, 1, 1] = 0
    net.load({"d": [w, np.zeros(1)]})
    np.testing.assert_array_equal(net.layer("d").parameters[0].mask, w)


def test_embed_looks_words_up(every_kernels):
    text = 'type: "Embed" embed_param { input_dim: 3 num_output: 2 }'
    layer, bottom, top = set_up(text, every_kernels, [[2, 0]])
    layer.fill_parameters()
    layer.parameters[0].data[...] = every_kernels.xp.asarray([[1.0, 2], [3, 4], [5, 6]])
    layer.parameters[1].data[...] = 10
    layer.forward(bottom, top)
    np.testing.assert_array_equal(to_host(top[0].data), [[[15, 16], [11, 12]]])


def test_dummy_data(every_kernels):
    text = """type: "DummyData" top: "a" top: "b" dummy_data_param {
        shape { dim: 2 dim: 3 } shape { dim: 2 }
        data_filler { type: "gaussian" std: 2 } data_filler { value: 7 } }"""
    layer, bottom, top = set_up(text, every_kernels)
    layer.forward(bottom, top)
    first = to_host(top[0].data).copy()
    layer.forward(bottom, top)
    second = to_host(top[0].data)
    assert first.shape == (2, 3) and not np.array_equal(first, second)
    assert np.ptp(first) > 0.5
    np.testing.assert_array_equal(to_host(top[1].data), [7, 7])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("num: 2 channels: 1 height: 3 width: 4", None),
        ("shape { dim: 2 } shape { dim: 2 } shape { dim: 2 }", "3 shapes for 2 tops"),
        ("shape { dim: 2 } data_filler {} data_filler {} data_filler {}", "3 fillers for 2 tops"),
        ("num: 2 channels: 1", "num, channels, height and width equally often"),
        ("shape { dim: 2 } num: 1", "keep shape"),
        ("shape { dim: 0 }", "use 1 or more"),
    ],
)
def test_shapes_of_dummy_data(options, words, kernels):
    text = f'type: "DummyData" top: "a" top: "b" dummy_data_param {{ {options} }}'
    if words:
        with pytest.raises(ConfigError, match=words):
            set_up(text, kernels)
        return
    _, _, top = set_up(text, kernels)
    assert [blob.shape for blob in top] == [(2, 1, 3, 4)] * 2
