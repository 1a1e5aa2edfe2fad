from __future__ import annotations

import numpy as np
import pytest

from minissl.errors import ConfigError, ShapeError
from tests.gradient_cases import make_layer
from tests.layers.running import forward, set_up
from tests.tiny_nets import make_net


def text(options: str = "", top: str = "y", more: str = "") -> str:
    return (
        f'name: "bn1" type: "BatchNorm" bottom: "x" top: "{top}" {more} '
        f"batch_norm_param {{ {options} }}"
    )


def statistics(layer, *values):
    for parameter, value in zip(layer.parameters, values, strict=True):
        parameter.data = np.array(value, layer.dtype)


def test_a_batch_by_hand(kernels):
    x = np.array([[[1.0, 3]], [[5, 7]]])  # one channel: mean 4, variance (9 + 1 + 1 + 9) / 4
    (y,) = forward(text("eps: 4"), kernels, x)
    assert y.ravel() == pytest.approx([-1, -1 / 3, 1 / 3, 1], rel=1e-12)


def test_every_channel_has_mean_0_and_variance_1(kernels):
    rng = np.random.default_rng(0)
    x = rng.normal(loc=[[[5.0]], [[-900]]], scale=[[[3.0]], [[20]]], size=(6, 2, 4, 4))
    (y,) = forward(text("eps: 1e-12"), kernels, x)
    assert np.allclose(y.mean(axis=(0, 2, 3)), 0, atol=1e-12)
    assert np.allclose(y.var(axis=(0, 2, 3)), 1, rtol=1e-9)


def test_float32_far_from_zero_loses_little(kernels):
    """Sums of squares would cancel here: the deviation is a 10,000th of the mean."""
    rng = np.random.default_rng(0)
    x = rng.normal(loc=1000, scale=0.1, size=(8, 2, 16, 16)).astype("float32")
    (y,) = forward(text(), kernels, x, dtype="float32")
    exact = x.astype("float64")
    exact -= exact.mean(axis=(0, 2, 3), keepdims=True)
    exact /= np.sqrt(exact.var(axis=(0, 2, 3), keepdims=True) + 1e-5)
    assert np.abs(y - exact).max() < 2e-3


def test_running_statistics(kernels):
    layer, bottom, top = set_up(
        text("moving_average_fraction: 0.75"), kernels, [[[1.0, 3]], [[5, 7]]]
    )
    statistics(layer, [8], [2], [4])
    layer.forward(bottom, top)
    mean, variance, factor = (parameter.data[0] for parameter in layer.parameters)
    assert mean == 0.75 * 8 + 4
    assert variance == pytest.approx(0.75 * 2 + 4 / 3 * 5, rel=1e-12)  # m = 4: 5 * m / (m - 1)
    assert factor == 0.75 * 4 + 1
    bottom[0].data[...] = 0
    layer.forward(bottom, top)
    assert layer.parameters[0].data[0] == 0.75 * mean


def test_a_channel_of_a_single_value_has_no_correction(kernels):
    layer, bottom, top = set_up(text(), kernels, [[3.0]])
    statistics(layer, [0], [0], [0])
    layer.forward(bottom, top)
    assert [parameter.data[0] for parameter in layer.parameters] == [3, 0, 1]
    assert top[0].data == 0


@pytest.mark.parametrize(("phase", "options"), [("TEST", ""), ("TRAIN", "use_global_stats: true")])
def test_global_statistics(phase, options, kernels):
    layer, bottom, top = set_up(text(f"eps: 1 {options}"), kernels, [[6.0, 1]], phase=phase)
    statistics(layer, [8, 4], [12, 0], [4])
    layer.forward(bottom, top)
    assert top[0].data.tolist() == [[(6 - 2) / (3 + 1) ** 0.5, 0]]
    assert layer.parameters[2].data == 4  # nothing is added to them
    statistics(layer, [8, 4], [12, 0], [0])
    layer.forward(bottom, top)
    assert top[0].data.tolist() == [[6, 1]]  # before any batch: mean 0, variance 0


def test_only_a_layer_in_place_copies_its_bottom(kernels):
    x = np.random.default_rng(0).normal(size=(3, 2, 2, 2))
    for options, top, expected in (
        ("", "y", 0),
        ("", "x", 8 * x.size),
        ("use_global_stats: true", "x", 0),
    ):
        layer, _, _ = set_up(text(options, top), kernels, x)
        assert layer.workspace_bytes() == expected


@pytest.mark.parametrize(
    ("options", "more", "words"),
    [
        ("eps: 0", "", "eps 0 must be greater than 0"),
        ("moving_average_fraction: 1.5", "", "moving_average_fraction 1.5 from 0 to 1"),
        ("use_weight_bias: true", "", "put a Scale layer with bias_term: true behind"),
        (
            "",
            "param { lr_mult: 0 } param { lr_mult: 1 }",
            "lr_mult of param 1 is 1; write lr_mult: 0",
        ),
    ],
)
def test_options_that_are_refused(options, more, words, kernels):
    with pytest.raises(ConfigError, match=words) as error:
        make_layer(text(options, more=more), kernels).setup([(2, 3, 2, 2)])
    assert "layer 'bn1' (BatchNorm): " in str(error.value)


def test_a_single_number_is_refused(kernels):
    with pytest.raises(ShapeError, match="no channels"):
        make_layer(text(), kernels).setup([()])


def test_published_files_keep_their_param_blocks(kernels):
    blocks = "param { lr_mult: 0 } " * 3
    layer = make_layer(text(more=blocks), kernels)
    layer.setup([(2, 3, 2, 2)])
    assert [p.shape for p in layer.parameters] == [(3,), (3,), (1,)]
    assert {p.role for p in layer.parameters} == {"statistic"}


def test_a_layer_without_anything_to_learn_behind_it_does_not_run_backward():
    net = make_net(
        """layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "bn" type: "BatchNorm" bottom: "x" top: "bn" }
        layer { name: "s" type: "Scale" bottom: "bn" top: "s" loss_weight: 1 }""",
        phase="TRAIN",
    )
    assert [net.runs_backward(layer) for layer in net.layers] == [False, False, True]


def test_the_blobs_of_a_caffemodel_come_back(tmp_path, kernels):
    words = """layer { name: "data" type: "Input" top: "x"
          input_param { shape { dim: 4 dim: 2 dim: 3 dim: 3 } } }
        layer { name: "bn" type: "BatchNorm" bottom: "x" top: "x" }
        layer { name: "scale" type: "Scale" bottom: "x" top: "x"
          scale_param { bias_term: true } }"""
    trained = make_net(words, phase="TRAIN")
    rng = np.random.default_rng(0)
    for _ in range(3):
        trained.forward({"x": rng.normal(loc=3, size=(4, 2, 3, 3))})
    trained.layer("scale").parameters[0].data[...] = [2, -1]
    for name in ("net.caffemodel", "net.safetensors"):
        trained.save(tmp_path / name)
        tested = make_net(words, phase="TEST")
        tested.load(tmp_path / name)
        for one, other in zip(trained.parameters, tested.parameters, strict=True):
            assert np.array_equal(one.data, other.data)
        x = rng.normal(size=(4, 2, 3, 3))
        share = trained.layer("bn").parameters[2].data
        mean, variance = (trained.layer("bn").parameters[i].data / share for i in range(2))
        expected = (x - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
        expected *= np.array([2, -1])[:, None, None]
        assert np.allclose(tested.forward({"x": x})["x"], expected, rtol=1e-5, atol=1e-5)
