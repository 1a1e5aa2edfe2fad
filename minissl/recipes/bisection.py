"""Bisection for a factor that is too small on one side and too large on the other.

Every trial is costly and says one of three things about a factor: too small, near enough, too
large. First the factor moves in strides of 4 until both sides are known, then the logarithm of the
interval is halved::

    factor   1/4        1         4
              |         |         |
    1st                 too small
    2nd                           too large      both sides are known
    3rd                      2: too small        2 < wanted < 4
    4th                         2.8 ...

Factors are powers of 4 whose exponents are halves of halves, so two searches that begin at the same
place ask for the same factors, and what one has tried need not be trained again for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

TOO_SMALL, NEAR, TOO_LARGE = -1, 0, 1

#: factor between two trials while one side is unknown
STRIDE = 4.0
#: how many strides to go in one direction: 4^5 is about 1000
MOST_STRIDES = 5


@dataclass(frozen=True)
class Interval:
    """Where a search has ended.

    Attributes
    ----------
    low, high : float or None
        The largest factor that was too small and the smallest that was too large.
    near : float or None
        A factor that is near enough.
    ended : {"near", "narrow", "trials", "one-sided"}
        Why: near enough; ``low`` and ``high`` hardly differ; no trials left; one side is out of
        reach.
    """

    low: float | None
    high: float | None
    near: float | None
    ended: str


def bisect(judge: Callable[[float], int], trials: int, narrow: float) -> Interval:
    """Search from factor 1 on.

    Parameters
    ----------
    judge : callable
        Says TOO_SMALL, NEAR or TOO_LARGE of a factor. It need not be right, nor consistent: ``low``
        and ``high`` are always factors that were judged so, with ``low`` below ``high``.
    trials : int
        How often to ask at most.
    narrow : float
        Stop when ``high / low`` is not above it; more than 1.
    """
    low: float | None = None  # exponents of the stride
    high: float | None = None
    exponent = 0.0
    for _ in range(trials):
        verdict = judge(STRIDE**exponent)
        if verdict == NEAR:
            return _interval(low, high, "near", exponent)
        if verdict == TOO_SMALL:
            low = exponent
        else:
            high = exponent
        if low is None or high is None:
            exponent += 1 if high is None else -1
            if abs(exponent) > MOST_STRIDES:
                return _interval(low, high, "one-sided")
        elif STRIDE ** (high - low) <= narrow:
            return _interval(low, high, "narrow")
        else:
            exponent = (low + high) / 2
    return _interval(low, high, "trials")


def _interval(
    low: float | None, high: float | None, ended: str, near: float | None = None
) -> Interval:
    return Interval(_factor(low), _factor(high), _factor(near), ended)


def _factor(exponent: float | None) -> float | None:
    return None if exponent is None else STRIDE**exponent
