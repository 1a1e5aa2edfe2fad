from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl import backend
from minissl.errors import ConfigError, DataError, ShapeError
from tests.gradient_cases import make_layer
from tests.layers.running import forward, set_up


def text(options: str = "", tops: str = 'top: "accuracy"') -> str:
    return f'name: "accuracy" type: "Accuracy" {tops} accuracy_param {{ {options} }}'


def naive_hit(line, label, top_k) -> bool:
    """Sort (score, class) descending, as Caffe does, and look for the label."""
    order = sorted(((score, k) for k, score in enumerate(line)), reverse=True)
    return label in [k for _, k in order[:top_k]]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), classes=st.integers(1, 5), n=st.integers(1, 6))
def test_equals_sorting_with_many_ties(data, classes, n):
    top_k = data.draw(st.integers(1, classes))
    scores = data.draw(
        st.lists(
            st.lists(st.integers(0, 2), min_size=classes, max_size=classes), min_size=n, max_size=n
        )
    )
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    (accuracy,) = forward(text(f"top_k: {top_k}"), backend.get("numpy"), scores, labels)
    hits = [naive_hit(line, label, top_k) for line, label in zip(scores, labels, strict=True)]
    assert accuracy.shape == ()
    assert accuracy == pytest.approx(sum(hits) / n, rel=1e-15)


def test_tie_goes_to_the_higher_index(kernels):
    scores = [[1.0, 5, 5, 5]] * 4
    assert forward(text(), kernels, scores, [1, 1, 1, 1])[0] == 0
    assert forward(text(), kernels, scores, [3, 3, 3, 3])[0] == 1
    assert forward(text("top_k: 2"), kernels, scores, [1, 2, 3, 0])[0] == 0.5


def test_ignored_positions_do_not_count(kernels):
    scores = [[0.0, 1], [1, 0], [0, 1], [0, 1]]
    (accuracy,) = forward(text("ignore_label: 9"), kernels, scores, [1, 9, 0, 9])
    assert accuracy == 0.5
    (accuracy,) = forward(text("ignore_label: 0"), kernels, scores, [1, 0, 0, 0])
    assert accuracy == 1


def test_nothing_left_to_count(kernels):
    accuracy, by_class = forward(
        text("ignore_label: 9", 'top: "a" top: "b"'), kernels, [[0.0, 1]], [9]
    )
    assert accuracy == 0
    assert by_class.tolist() == [0, 0]


def test_second_top_is_the_accuracy_of_each_class(kernels):
    scores = np.eye(4)[[0, 0, 1, 0, 2]]
    tops = 'top: "accuracy" top: "by_class"'
    accuracy, by_class = forward(text(tops=tops), kernels, scores, [0, 0, 1, 1, 1])
    assert accuracy == 0.6
    assert np.allclose(by_class, [1, 1 / 3, 0, 0], rtol=1e-15)


@pytest.mark.parametrize(("axis", "top_k"), [(1, 1), (1, 2), (-1, 2)])
def test_spatial_labels_and_axis(axis, top_k, kernels):
    rng = np.random.default_rng(5)
    scores, labels = rng.normal(size=(2, 4, 3, 2)), rng.integers(0, 4, (2, 3, 2))
    hits = [
        naive_hit(scores[n, :, h, w], labels[n, h, w], top_k) for n, h, w in np.ndindex(2, 3, 2)
    ]
    options = f"top_k: {top_k} axis: {axis}"
    (accuracy,) = forward(text(options), kernels, np.moveaxis(scores, 1, axis), labels)
    assert 0 < sum(hits) < 12
    assert accuracy == pytest.approx(sum(hits) / 12, rel=1e-15)


def test_nan_scores_count_as_wrong(kernels):
    nan = np.nan
    scores = [[nan, nan, nan], [nan, 0, 1], [0, 1, nan], [0, 0, 1]]
    assert forward(text(), kernels, scores, [0, 0, 1, 2])[0] == 0.25


def test_no_gradient(kernels):
    layer, bottom, top = set_up(text(), kernels, [[0.0, 1]], [1])
    bottom[0].diff[...] = bottom[1].diff[...] = 3
    layer.backward(top, [True, False], bottom)
    assert (bottom[0].diff == 0).all()
    assert (bottom[1].diff == 3).all()


@pytest.mark.parametrize("top_k", [0, 4])
def test_top_k_beyond_the_classes(top_k, kernels):
    with pytest.raises(ConfigError, match=rf"top_k {top_k} must lie between 1 and .* 3"):
        make_layer(text(f"top_k: {top_k}"), kernels).setup([(2, 3), (2,)])


def test_label_that_is_no_class(kernels):
    layer, bottom, top = set_up(text(), kernels, np.zeros((2, 3)), [0, 3])
    with pytest.raises(DataError, match="label 3 is not one of the 3 classes 0 to 2"):
        layer.forward(bottom, top)


def test_number_of_labels(kernels):
    with pytest.raises(ShapeError, match="need 2 labels"):
        make_layer(text(), kernels).setup([(2, 3), (3,)])


def test_axis_that_does_not_exist(kernels):
    with pytest.raises(ConfigError, match="axis 2 does not exist"):
        make_layer(text("axis: 2"), kernels).setup([(2, 3), (2,)])
