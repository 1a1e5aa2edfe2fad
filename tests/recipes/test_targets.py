"""Targets judge trials, choose one and say what was missing."""

from __future__ import annotations

import pytest

from minissl.recipes.bisection import NEAR, TOO_LARGE, TOO_SMALL, bisect
from minissl.recipes.targets import ErrorTarget, FlopsTarget, unsteady

LOST = {"layer": "conv1", "iteration": 6}


def trial(flops_percent=None, error=None, lost=None):
    return {"flops_percent": flops_percent, "error": error, "lost": lost}


@pytest.mark.parametrize(
    ("percent", "verdict"),
    [
        (100, TOO_SMALL),
        (5.6, TOO_SMALL),
        (5.4, NEAR),
        (4.6, NEAR),
        (4.4, TOO_LARGE),
        (0, TOO_LARGE),
    ],
)
def test_flop_within_the_tolerance_are_near(percent, verdict):
    target = FlopsTarget(0.05, tolerance=0.1)
    assert target.judge(trial(percent, 0.5)) == verdict
    assert target.judge(trial(percent, 0.5, LOST)) == TOO_LARGE


@pytest.mark.parametrize(
    ("error", "verdict"), [(0, TOO_SMALL), (0.01, TOO_SMALL), (0.0101, TOO_LARGE)]
)
def test_an_error_at_the_target_may_be_kept(error, verdict):
    target = ErrorTarget(0.01)
    assert target.judge(trial(50, error)) == verdict
    assert target.judge(trial(50, error, LOST)) == TOO_LARGE
    assert target.judge(trial(lost=LOST)) == TOO_LARGE


def search(target, measure, trials=12):
    """Bisect over made-up measurements; return what was made and the interval."""
    made = {}

    def judge(factor):
        made[factor] = measure(factor)
        return target.judge(made[factor])

    return made, bisect(judge, trials, target.narrow)


def falling(factor):
    """FLOP 50 % at factor 1, the error 1 % there and growing."""
    return trial(100 / (1 + factor), 0.01 * factor)


def test_flop_are_reached():
    target = FlopsTarget(0.1)
    made, interval = search(target, falling)
    assert target.choose(made, interval)["flops_percent"] == pytest.approx(10, rel=0.1)
    assert unsteady(target, made) is None


def test_the_largest_decay_of_an_error_is_found():
    target = ErrorTarget(0.03)
    made, interval = search(target, falling)
    chosen = target.choose(made, interval)
    assert 0.03 / 1.1 <= chosen["error"] <= 0.03
    assert interval.ended == "narrow" and target.found("a", "b", "narrow") == ""
    assert "no trial is left" in target.found("a 1", "b 2", "trials")
    assert "a larger decay may do" in target.found("a 1", None, "one-sided")


def test_flop_that_jump_over_the_target_are_missed():
    target = FlopsTarget(0.2)
    made, interval = search(target, lambda factor: trial(40 if factor < 3 else 10, 0.1), 30)
    assert interval.ended == "narrow" and target.choose(made, interval) is None
    assert target.nearest(made)["flops_percent"] == 10
    assert "no trial comes near 20 % of the FLOP: a leaves more" in target.missing(
        "a", "b", "narrow"
    )


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(None, "a 1", "left less"), ("a 1", None, "left more"), ("a 1", "a 2", "more --trials")],
)
def test_what_is_missing_is_said(low, high, words):
    told = FlopsTarget(0.2).missing(low, high, "trials")
    assert words in told and (low or high) in told


def test_an_error_that_is_never_low_enough():
    target = ErrorTarget(0.001)
    made, interval = search(target, lambda factor: trial(50, 0.02 + 0.01 * factor))
    assert target.choose(made, interval) is None
    assert target.nearest(made)["error"] == min(one["error"] for one in made.values())
    assert "no trial has an error at or below 0.1 %" in target.missing(None, "a 1", interval.ended)


def test_lost_layers_are_never_nearest():
    made = {1.0: trial(50, 0.5), 4.0: trial(10, 0.9, LOST)}
    assert FlopsTarget(0.1).nearest(made) is made[1.0]
    assert FlopsTarget(0.1).nearest({4.0: made[4.0]}) is None
    assert ErrorTarget(0.1).nearest({4.0: trial(lost=LOST)}) is None


def test_trials_that_are_not_steady_are_seen():
    """The worst pair, and only beyond the tolerance."""
    made = {
        4.0: trial(30, 0.02),
        1.0: trial(28, 0.05),
        2.0: trial(29, 0.04),
        8.0: trial(31, 0.9, LOST),
    }
    assert unsteady(FlopsTarget(0.1), made) == (made[1.0], made[4.0])
    assert unsteady(FlopsTarget(0.5), made) is None
    assert unsteady(ErrorTarget(0.02), made) == (made[1.0], made[4.0])
    assert unsteady(ErrorTarget(0.4), made) is None
