from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

from minissl.errors import ConfigError
from minissl.formats import proto
from minissl.layers.fillers import fan, fill

SHAPE = (40, 30, 5, 4)  # fan_in 600, fan_out 800, average 700


def filler(text: str):
    return text_format.Parse(text, proto.FillerParameter())


def draw(text: str, shape=SHAPE, seed=0) -> np.ndarray:
    values = fill(filler(text), shape, np.random.default_rng(seed), where="layer 'conv1'")
    assert values.shape == shape
    assert values.dtype == np.float64
    return values


def test_default_is_constant_zero():
    assert (draw("") == 0).all()
    assert (draw('type: "constant" value: 2.5', (3,)) == 2.5).all()


def test_constant_leaves_the_generator_alone():
    rng = np.random.default_rng(0)
    fill(filler('type: "constant"'), (3, 2), rng)
    assert rng.random() == np.random.default_rng(0).random()


def test_uniform():
    values = draw('type: "uniform" min: 3 max: 5')
    assert 3 <= values.min() < 3.01
    assert 4.99 < values.max() <= 5
    assert abs(values.mean() - 4) < 0.02


def test_gaussian():
    values = draw('type: "gaussian" mean: 10 std: 2')
    assert abs(values.mean() - 10) < 0.05  # standard error 0.013
    assert abs(values.std() - 2) < 0.04


def test_sparse_gaussian_keeps_sparse_over_outputs_of_the_values():
    values = draw('type: "gaussian" mean: 10 std: 2 sparse: 8')
    kept = values[values != 0]
    assert abs(kept.size / values.size - 8 / 40) < 0.02
    assert abs(kept.mean() - 10) < 0.1
    assert (draw('type: "gaussian" sparse: 0') == 0).all()
    assert (draw('type: "gaussian" sparse: 40') != 0).all()


NORMS = [("", 600), ("FAN_IN", 600), ("FAN_OUT", 800), ("AVERAGE", 700)]


@pytest.mark.parametrize(("norm", "n"), NORMS)
def test_fan(norm, n):
    text = f"variance_norm: {norm}" if norm else ""
    assert fan(filler(text), SHAPE) == n


@pytest.mark.parametrize(("norm", "n"), NORMS)
def test_xavier_is_uniform_within_root_three_over_n(norm, n):
    values = draw('type: "xavier"' + (f" variance_norm: {norm}" if norm else ""))
    limit = (3 / n) ** 0.5
    assert limit * 0.999 < values.max() <= limit
    assert -limit <= values.min() < -limit * 0.999
    assert values.var() == pytest.approx(1 / n, rel=0.02)


@pytest.mark.parametrize(("norm", "n"), NORMS)
def test_msra_has_variance_two_over_n(norm, n):
    values = draw('type: "msra"' + (f" variance_norm: {norm}" if norm else ""))
    assert values.var() == pytest.approx(2 / n, rel=0.03)
    assert abs(values).max() > 3.5 * (2 / n) ** 0.5  # normal, not uniform
    assert abs(values.mean()) < 0.001


def test_fan_of_a_bias():
    assert fan(filler(""), (10,)) == 1
    assert fan(filler("variance_norm: FAN_OUT"), (10,)) == 10


def test_positive_unitball_has_rows_that_sum_to_one():
    values = draw('type: "positive_unitball"', (6, 2, 3, 3))
    assert (values >= 0).all()
    assert np.allclose(values.reshape(6, -1).sum(axis=1), 1, rtol=1e-14)
    assert values.std() > 0.01


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "xavier", "msra", "positive_unitball"])
def test_same_seed_same_values(kind):
    text = f'type: "{kind}"'
    assert np.array_equal(draw(text, (4, 3), seed=1), draw(text, (4, 3), seed=1))
    assert not np.array_equal(draw(text, (4, 3), seed=1), draw(text, (4, 3), seed=2))


@pytest.mark.parametrize("kind", ["gaussian", "xavier", "msra", "positive_unitball"])
def test_a_single_number_is_filled_as_a_row_of_one(kind):
    assert draw(f'type: "{kind}" sparse: 1', ()).shape == ()
    assert draw(f'type: "{kind}"', (), seed=3) == draw(f'type: "{kind}"', (1,), seed=3)[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('type: "xaviar"', "unknown filler type 'xaviar'; use one of constant, .*xavier, msra"),
        ('type: "uniform" min: 2 max: 1', "min 2 above max 1"),
        ('type: "uniform" min: -inf max: inf', "from -inf to inf; use finite numbers"),
        ('type: "gaussian" std: -1', "std -1; it must be 0 or more"),
        ('type: "gaussian" sparse: 41', "sparse 41, more than the 40 outputs"),
    ],
)
def test_fillers_that_cannot_be_followed(text, words):
    with pytest.raises(ConfigError, match=words) as error:
        draw(text)
    assert str(error.value).startswith("layer 'conv1': ")
