"""Whatever a judge says: the interval holds what was said, and an honest judge is satisfied."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl.recipes.bisection import MOST_STRIDES, NEAR, STRIDE, TOO_LARGE, TOO_SMALL, bisect


class Judge:
    """Says of a factor on which side of ``wanted`` it is; remembers what it was asked."""

    def __init__(self, wanted, tolerance=0.0):
        self.wanted, self.tolerance, self.asked = wanted, tolerance, []

    def __call__(self, factor):
        self.asked.append(factor)
        if abs(math.log(factor / self.wanted)) <= self.tolerance:
            return NEAR
        return TOO_SMALL if factor < self.wanted else TOO_LARGE


@settings(deadline=None)
@given(wanted=st.floats(STRIDE**-4.9, STRIDE**4.9), narrow=st.floats(1.01, 2))
def test_a_threshold_is_bracketed_closely(wanted, narrow):
    judge = Judge(wanted)
    found = bisect(judge, 30, narrow)
    if found.ended == "near":  # met exactly
        assert found.near == wanted
        return
    assert found.ended == "narrow" and found.near is None
    assert found.low < wanted < found.high <= narrow * found.low
    assert len(set(judge.asked)) == len(judge.asked)
    # strides to the other side, then halvings of one stride
    halvings = math.ceil(math.log2(math.log(STRIDE) / math.log(narrow)))
    assert len(judge.asked) <= MOST_STRIDES + 1 + max(0, halvings)


@settings(deadline=None)
@given(wanted=st.floats(0.01, 100), tolerance=st.floats(0.02, 0.5))
def test_near_enough_ends_the_search(wanted, tolerance):
    judge = Judge(wanted, tolerance)
    found = bisect(judge, 30, 1.001)
    assert found.ended == "near" and found.near == judge.asked[-1]
    assert abs(math.log(found.near / wanted)) <= tolerance


@settings(max_examples=200, deadline=None)
@given(
    verdicts=st.lists(st.sampled_from([TOO_SMALL, NEAR, TOO_LARGE]), min_size=20, max_size=20),
    trials=st.integers(1, 20),
)
def test_any_judge_is_quoted_rightly(verdicts, trials):
    said = {}

    def judge(factor):
        assert factor not in said
        said[factor] = verdicts[len(said)]
        return said[factor]

    found = bisect(judge, trials, 1.1)
    assert len(said) <= trials
    small = [factor for factor, verdict in said.items() if verdict == TOO_SMALL]
    large = [factor for factor, verdict in said.items() if verdict == TOO_LARGE]
    assert found.low == max(small, default=None) and found.high == min(large, default=None)
    if small and large:
        assert found.low < found.high
    if found.ended == "near":
        assert said[found.near] == NEAR
    else:
        assert NEAR not in said.values()
    if found.ended == "trials":
        assert len(said) == trials
    if found.ended == "one-sided":
        assert not (small and large) and len(said) == MOST_STRIDES + 1


@pytest.mark.parametrize(("wanted", "side"), [(1e9, "low"), (1e-9, "high")])
def test_out_of_reach(wanted, side):
    judge = Judge(wanted)
    found = bisect(judge, 30, 1.1)
    assert found.ended == "one-sided" and len(judge.asked) == MOST_STRIDES + 1
    reached = STRIDE**MOST_STRIDES
    assert (found.low, found.high) == ((reached, None) if side == "low" else (None, 1 / reached))


def test_two_searches_ask_for_the_same_factors():
    one, other = Judge(2.5), Judge(3.1)
    bisect(one, 8, 1.01)
    bisect(other, 8, 1.01)
    assert one.asked[:4] == other.asked[:4] == [1, 4, 2, STRIDE**0.75]
    assert one.asked[4] != other.asked[4]
