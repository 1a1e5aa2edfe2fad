"""What a search for a decay aims at: so many FLOP, or at most so large an error.

A target judges trials (:mod:`minissl.recipes.trials`), chooses one of them, and says what was
missing where none will do. A decay that takes a whole layer is too large for either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from minissl.recipes.bisection import NEAR, TOO_LARGE, TOO_SMALL, Interval

TOLERANCE = 0.1
#: decays closer than this factor say nothing new about FLOP
NARROW = 1.02

#: a trial: its decays, its factor and what was measured
Record = dict[str, Any]


@dataclass(frozen=True)
class FlopsTarget:
    """Come near so many FLOP.

    They are those of the whole network by the rule ``propagated`` (:mod:`minissl.sparsity.flops`),
    as a part of the dense network's. Every Convolution and InnerProduct counts, with groups or
    without: a dead filter makes its readers smaller as well.

    Attributes
    ----------
    value : float
        Between 0 and 1.
    tolerance : float
        FLOP within this part of the value are near enough.
    """

    kind: ClassVar[str] = "flops"
    value: float
    tolerance: float = TOLERANCE

    @property
    def narrow(self) -> float:
        """Decays whose ratio is not above it need not be told apart."""
        return NARROW

    def judge(self, record: Record) -> int:
        """Say whether the decay of a trial is too small, near or too large."""
        if record["lost"]:
            return TOO_LARGE
        beyond = self.measure(record) / self.value - 1
        if abs(beyond) <= self.tolerance:
            return NEAR
        return TOO_SMALL if beyond > 0 else TOO_LARGE

    def choose(self, made: Mapping[float, Record], interval: Interval) -> Record | None:
        """Return the trial that came near enough."""
        return None if interval.near is None else made[interval.near]

    def nearest(self, made: Mapping[float, Record]) -> Record | None:
        """Return the trial whose FLOP are nearest, of those that did not lose a layer."""
        whole = [record for record in made.values() if not record["lost"]]
        return min(whole, key=lambda one: abs(self.measure(one) - self.value), default=None)

    def measure(self, record: Record) -> float:
        """Return the FLOP of a trial, as the value is given."""
        return record["flops_percent"] / 100

    def is_unsteady(self, smaller: Record, larger: Record) -> bool:
        """Whether the larger decay left more FLOP, by more than the tolerance."""
        return self.measure(larger) - self.measure(smaller) > self.tolerance * self.value

    def found(self, low: str | None, high: str | None, ended: str) -> str:
        """Say what is to be known beside the trial that was chosen."""
        return ""

    def missing(self, low: str | None, high: str | None, ended: str) -> str:
        """Say why no trial will do, between which decays."""
        wanted = f"{100 * self.value:g} % of the FLOP"
        if ended == "narrow":
            return (
                f"no trial comes near {wanted}: {low} leaves more and {high} leaves less or takes "
                "a whole layer; try longer --iterations or a larger --tolerance"
            )
        if low is None:
            return f"every trial left less than {wanted}, down to {high}"
        if high is None:
            return f"every trial left more than {wanted}, up to {low}"
        return f"{wanted} lie between {low} and {high}, but no trial is left; allow more --trials"


@dataclass(frozen=True)
class ErrorTarget:
    """Find the largest decay whose error is at or below a value.

    Attributes
    ----------
    value : float
        A fraction.
    tolerance : float
        The decay is known well enough when one larger by this part of it is too large.
    """

    kind: ClassVar[str] = "error"
    value: float
    tolerance: float = TOLERANCE

    @property
    def narrow(self) -> float:
        """Decays whose ratio is not above it need not be told apart."""
        return 1 + self.tolerance

    def judge(self, record: Record) -> int:
        """Say whether a larger decay may do as well, or this one is too large."""
        fits = not record["lost"] and self.measure(record) <= self.value
        return TOO_SMALL if fits else TOO_LARGE

    def choose(self, made: Mapping[float, Record], interval: Interval) -> Record | None:
        """Return the largest decay that is not too large."""
        return None if interval.low is None else made[interval.low]

    def nearest(self, made: Mapping[float, Record]) -> Record | None:
        """Return the trial of the smallest error, of those that did not lose a layer."""
        whole = [record for record in made.values() if not record["lost"]]
        return min(whole, key=self.measure, default=None)

    def measure(self, record: Record) -> float:
        """Return the error of a trial."""
        return record["error"]

    def is_unsteady(self, smaller: Record, larger: Record) -> bool:
        """Whether the larger decay has the smaller error, by more than the tolerance."""
        return self.measure(smaller) - self.measure(larger) > self.tolerance * self.value

    def found(self, low: str | None, high: str | None, ended: str) -> str:
        """Say what is to be known beside the trial that was chosen."""
        if ended == "narrow":
            return ""
        if high is None:
            return "; no trial was above the target, so a larger decay may do as well"
        return f"; {high} is too large, and no trial is left for what lies between"

    def missing(self, low: str | None, high: str | None, ended: str) -> str:
        """Say why no trial will do, between which decays."""
        return (
            f"no trial has an error at or below {100 * self.value:g} %, down to {high}; allow a "
            "larger error or longer --iterations, or start from better weights"
        )


Target = FlopsTarget | ErrorTarget


def unsteady(target: Target, made: Mapping[float, Record]) -> tuple[Record, Record] | None:
    """Return two trials, by decay, that contradict the idea of a bisection; None without any."""
    whole = [record for _, record in sorted(made.items()) if not record["lost"]]
    pairs = [
        (smaller, larger)
        for number, smaller in enumerate(whole)
        for larger in whole[number + 1 :]
        if target.is_unsteady(smaller, larger)
    ]
    return max(pairs, key=lambda pair: _difference(target, pair), default=None)


def _difference(target: Target, pair: Sequence[Record]) -> float:
    smaller, larger = map(target.measure, pair)
    return abs(larger - smaller)
