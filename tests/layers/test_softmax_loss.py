from __future__ import annotations

import math

import numpy as np
import pytest

from minissl.errors import ConfigError, DataError, ShapeError
from tests.gradient_cases import make_layer
from tests.layers.running import forward, set_up

# (2, 3, 2, 2) scores and (2, 2, 2) labels, of which 3 of 8 are ignored: the four normalisers are
# 5 (VALID), 8 (FULL), 2 (BATCH_SIZE) and 1 (NONE)
SCORES = np.random.default_rng(3).normal(scale=2, size=(2, 3, 2, 2))
LABELS = np.array([[[0, 2], [1, -1]], [[2, 2], [-1, -1]]])


def text(options: str = "", tops: str = 'top: "loss"') -> str:
    return f'name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" {tops} {options}'


def naive_sum(scores, labels, ignore=None) -> float:
    """Sum of -log p over the positions that count, class axis 1."""
    total = []
    for position in np.ndindex(labels.shape):
        label = labels[position]
        if label != ignore:
            line = scores[(position[0], slice(None), *position[1:])]
            total.append(math.log(math.fsum(math.exp(s) for s in line)) - line[label])
    return math.fsum(total)


@pytest.mark.parametrize(
    ("options", "n"),
    [
        ("", 5),
        ("normalization: VALID", 5),
        ("normalization: FULL", 8),
        ("normalization: BATCH_SIZE", 2),
        ("normalization: NONE", 1),
        ("normalize: true", 5),
        ("normalize: false", 2),
        ("normalize: false normalization: FULL", 8),  # the newer field wins
    ],
)
def test_normalization(options, n, kernels):
    (loss,) = forward(text(f"loss_param {{ ignore_label: -1 {options} }}"), kernels, SCORES, LABELS)
    assert loss.shape == ()
    assert loss == pytest.approx(naive_sum(SCORES, LABELS, -1) / n, rel=1e-13)


def test_without_ignore_label_every_position_counts(kernels):
    labels = np.where(LABELS < 0, 1, LABELS)
    (loss,) = forward(text(), kernels, SCORES, labels)
    assert loss == pytest.approx(naive_sum(SCORES, labels) / 8, rel=1e-13)


def test_gradient_is_probability_minus_one_at_the_label_times_the_loss_weight(kernels):
    layer, bottom, top = set_up(text(), kernels, [[0.0, 0, 0, 0], [0, 0, 0, 0]], [3, 1])
    layer.forward(bottom, top)
    top[0].diff[...] = 10  # the loss weight
    layer.backward(top, [True, False], bottom)
    assert np.allclose(bottom[0].diff, [[1.25, 1.25, 1.25, -3.75], [1.25, -3.75, 1.25, 1.25]])


def test_ignored_positions_get_no_gradient(kernels):
    layer, bottom, top = set_up(text("loss_param { ignore_label: -1 }"), kernels, SCORES, LABELS)
    layer.forward(bottom, top)
    top[0].diff[...] = 1
    bottom[1].diff[...] = 7
    layer.backward(top, [True, False], bottom)
    ignored = np.broadcast_to((LABELS == -1)[:, None], SCORES.shape)
    assert (bottom[0].diff[ignored] == 0).all()
    assert (bottom[0].diff[~ignored] != 0).all()
    assert (bottom[1].diff == 7).all()


def test_batch_without_valid_labels_has_loss_zero(kernels):
    layer, bottom, top = set_up(text("loss_param { ignore_label: 1 }"), kernels, [[1.0, 2]], [1])
    layer.forward(bottom, top)
    assert top[0].data == 0
    top[0].diff[...] = 1
    layer.backward(top, [True, False], bottom)
    assert (bottom[0].diff == 0).all()


def test_second_top_holds_the_probabilities(kernels):
    tops = 'top: "loss" top: "p"'
    _, p = forward(text(tops=tops), kernels, [[0.0, math.log(3)]], [0])
    assert np.allclose(p, [[0.25, 0.75]], rtol=1e-15)


def test_class_axis(kernels):
    moved = np.moveaxis(SCORES, 1, -1)
    options = "softmax_param { axis: -1 } loss_param { ignore_label: -1 }"
    (loss,) = forward(text(options), kernels, moved, LABELS)
    assert loss == pytest.approx(naive_sum(SCORES, LABELS, -1) / 5, rel=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hopeless_probability_is_floored(dtype, kernels):
    (loss,) = forward(text(), kernels, [[0.0, 1e4]], [0], dtype=dtype)
    assert loss == pytest.approx(126 * math.log(2), rel=1e-6)


@pytest.mark.parametrize(("label", "shown"), [(3, "3"), (-1, "-1"), (0.5, "0.5"), (np.nan, "nan")])
def test_label_that_is_no_class(label, shown, kernels):
    layer, bottom, top = set_up(text(), kernels, np.zeros((3, 3)), [0, label, 2])
    with pytest.raises(
        DataError, match=rf"layer 'loss' .*label {shown} is not one of the 3 classes"
    ):
        layer.forward(bottom, top)


def test_ignored_label_elsewhere_does_not_hide_a_wrong_one(kernels):
    options = "loss_param { ignore_label: 255 }"
    layer, bottom, top = set_up(text(options), kernels, np.zeros((2, 3)), [255, 254])
    with pytest.raises(DataError, match="label 254"):
        layer.forward(bottom, top)


@pytest.mark.parametrize("labels", [(3,), (2, 2), (2, 2, 2, 2)])
def test_number_of_labels(labels, kernels):
    with pytest.raises(ShapeError, match=r"need 8 labels but the label blob has shape"):
        make_layer(text(), kernels).setup([SCORES.shape, labels])


def test_axis_that_does_not_exist(kernels):
    with pytest.raises(ConfigError, match="axis 4 does not exist"):
        make_layer(text("softmax_param { axis: 4 }"), kernels).setup([SCORES.shape, LABELS.shape])


def test_labels_have_no_gradient(kernels):
    layer, bottom, top = set_up(text(), kernels, [[1.0, 2]], [1])
    layer.forward(bottom, top)
    with pytest.raises(ConfigError, match="labels have no gradient"):
        layer.backward(top, [True, True], bottom)


def test_backward_does_nothing_unless_asked(kernels):
    layer, bottom, top = set_up(text(), kernels, [[1.0, 2.0]], [0])
    layer.forward(bottom, top)
    bottom[0].diff[...] = 3
    layer.backward(top, [False, False], bottom)
    assert (bottom[0].diff == 3).all()


def test_workspace_are_the_probabilities(kernels):
    layer = make_layer(text(), kernels)
    layer.setup([SCORES.shape, LABELS.shape])
    assert layer.workspace_bytes() == SCORES.nbytes
