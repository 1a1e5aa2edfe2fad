"""What was measured of a layer, and of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minissl.conv_modes import MODES
from minissl.conv_modes.auto import AUTO, Choice
from minissl.timing.predictions import Pick

BASELINE = "LOWERED_GEMM"
#: name of the entry that stands for the update of all parameters
UPDATE = "(update)"
#: what may be asked for in place of a mode: every mode is timed, or the one that AUTO picks
ALL, PICKED = "all", "auto"
#: what is measured of a layer; keys of :attr:`LayerTime.quartiles_ms`
PARTS = ("lowering", "product", "total", "backward")


@dataclass(frozen=True)
class LayerTime:
    """Milliseconds of one layer for one batch, and what it computed in them.

    Attributes
    ----------
    name, type : str
    conv_mode : str or None
        Only of layers with modes.
    lowering_ms, product_ms : float or None
        Stages of a convolution, where the backend can run them alone.
    total_ms : float
        The forward pass of the layer.
    backward_ms : float or None
        Only where it was asked for and the layer takes part in it.
    dense_flop, executed_flop : int
        For the whole batch: of the dense layer, and what the mode really executes.
    timed : bool
        False for data layers, which are fed with random numbers instead.
    quartiles_ms : dict
        First and third quartile of what is measured (``PARTS``), in milliseconds.
    groups : tuple of LayerTime
        The same of every conv group by itself, where that was asked for and there are several.
    peak_gflops : float or None
        What the machine reached in dense products (:mod:`minissl.timing.peak`).
    fused : tuple of str
        Layers that run in the same step; their time is part of ``total_ms``.
    fused_into : str or None
        The layer in whose step this one runs; its own ``total_ms`` is then 0.
    passes : dict
        Of a convolution that is trained: how each pass runs, "direct", "winograd" or "lowered".
    """

    name: str
    type: str
    conv_mode: str | None
    lowering_ms: float | None
    product_ms: float | None
    total_ms: float
    backward_ms: float | None
    dense_flop: int
    executed_flop: int
    timed: bool = True
    quartiles_ms: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    groups: tuple[LayerTime, ...] = ()
    peak_gflops: float | None = None
    fused: tuple[str, ...] = ()
    fused_into: str | None = None
    passes: Mapping[str, str] = field(default_factory=dict)

    @property
    def effective_gflops(self) -> float | None:
        """Dense operations / time, in 1e9/s: what a dense program would need to keep up."""
        return _rate(self.dense_flop, self.total_ms)

    @property
    def real_gflops(self) -> float | None:
        """Executed operations / time, in 1e9/s."""
        return _rate(self.executed_flop, self.total_ms)

    @property
    def product_effective_gflops(self) -> float | None:
        """Dense operations / time of the product alone, in 1e9/s."""
        return _rate(self.dense_flop, self.product_ms)

    @property
    def product_real_gflops(self) -> float | None:
        """Executed operations / time of the product alone, in 1e9/s."""
        return _rate(self.executed_flop, self.product_ms)

    @property
    def percent_of_peak(self) -> float | None:
        """``real_gflops`` in percent of what the machine reaches in dense products."""
        real = self.real_gflops
        return 100 * real / self.peak_gflops if real and self.peak_gflops else None

    @property
    def rest_ms(self) -> float | None:
        """Whole layer less lowering and product; stages are timed apart, so at least 0."""
        if self.lowering_ms is None or self.product_ms is None:
            return None
        return max(0.0, self.total_ms - self.lowering_ms - self.product_ms)

    @property
    def groups_sum(self) -> dict[str, float | None]:
        """The conv groups' times added up: ``lowering_ms``, ``product_ms``, ``total_ms``."""
        return {
            key: _sum([getattr(one, key) for one in self.groups])
            for key in ("lowering_ms", "product_ms", "total_ms")
        }

    def to_json(self) -> dict[str, Any]:
        """Return the values as they are reported."""
        result: dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "conv_mode": self.conv_mode,
            "lowering_ms": self.lowering_ms,
            "product_ms": self.product_ms,
            "rest_ms": self.rest_ms,
            "total_ms": self.total_ms,
            "backward_ms": self.backward_ms,
            "effective_gflops": self.effective_gflops,
            "real_gflops": self.real_gflops,
            "product_effective_gflops": self.product_effective_gflops,
            "product_real_gflops": self.product_real_gflops,
            "percent_of_peak": self.percent_of_peak,
            "quartiles_ms": {part: list(both) for part, both in self.quartiles_ms.items()},
            "timed": self.timed,
            "fused": list(self.fused),
            "fused_into": self.fused_into,
        }
        if self.passes:
            result["passes"] = dict(self.passes)
        if self.groups:
            result["groups"] = [one.to_json() for one in self.groups]
            result["groups_sum"] = self.groups_sum
        return result


def _rate(flop: int, milliseconds: float | None) -> float | None:
    return flop / milliseconds / 1e6 if flop and milliseconds else None


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


@dataclass(frozen=True)
class NetTime:
    """The measurements of a network, as they were asked for.

    Attributes
    ----------
    measured : list of LayerTime
        All of them.
    asked : str or None
        A mode, ``all``, ``auto`` (what the performance model picks), or None for the net's own
        modes.
    chosen : dict
        For each layer with modes, the one that counts in ``total_ms``.
    choices : dict
        What the performance model says of layers, where it was asked.
    """

    measured: list[LayerTime]
    asked: str | None
    chosen: dict[str, str]
    choices: Mapping[str, Choice] = field(default_factory=dict)

    @property
    def layers(self) -> list[LayerTime]:
        """What is reported: one entry for each layer; with ``all``, for each layer and mode."""
        return [one for one in self.measured if self.asked == ALL or self.counts(one)]

    def counts(self, one: LayerTime) -> bool:
        """Whether a measurement is part of the network as it would run."""
        return one.conv_mode in (None, self.chosen.get(one.name))

    def share_percent(self, one: LayerTime) -> float | None:
        """Return the layer's part of the network's time, forward and what was timed backward."""

        def milliseconds(part: LayerTime) -> float:
            return part.total_ms + (part.backward_ms or 0.0)

        parts = [
            part
            for part in self.measured
            if part.timed and not part.fused_into and self.counts(part)
        ]
        whole = sum(map(milliseconds, parts))
        is_part = any(part is one for part in parts)
        return 100 * milliseconds(one) / whole if is_part and whole else None

    @property
    def total_ms(self) -> float:
        """Milliseconds of the forward pass of the network; data layers are left out."""
        return total_ms(self.measured, self.chosen)

    @property
    def totals(self) -> dict[str, float]:
        """``total_ms`` in every mode that was timed, in the fastest of each layer, and in AUTO's.

        Layers that do not have a mode count as dense.
        """
        if self.asked != ALL:
            return {}
        timed = {(one.name, one.conv_mode) for one in self.measured}
        result = {}
        for mode in MODES:
            used = {name: mode if (name, mode) in timed else BASELINE for name in self.chosen}
            result[mode] = total_ms(self.measured, used)
        result["fastest"] = total_ms(self.measured, fastest(self.measured))
        if self.choices:
            result["auto"] = total_ms(self.measured, {p.name: p.mode for p in self.picks})
        return result

    @property
    def picks(self) -> list[Pick]:
        """What AUTO picks for every layer, compared with the fastest mode that was measured."""
        times = {(one.name, one.conv_mode): one.total_ms for one in self.measured}
        best = fastest(self.measured)
        return [
            Pick(
                name,
                choice.mode,
                best[name],
                times[name, choice.mode] / times[name, best[name]] - 1,
            )
            for name, choice in self.choices.items()
            if (name, choice.mode) in times
        ]

    def predicted_ms(self, one: LayerTime) -> float | None:
        """Return what the performance model says of a measurement; None where it was not asked."""
        choice = self.choices.get(one.name)
        seconds = choice.seconds.get(one.conv_mode or "") if choice else None
        return None if seconds is None else 1e3 * seconds


def choose(
    measured: list[LayerTime],
    asked: str | None,
    own: dict[str, str],
    choices: Mapping[str, Choice] | None = None,
) -> NetTime:
    """Decide which measurements make up the network.

    With ``all`` these are the net's own modes, or the fastest where that was not timed.
    """
    choices = choices or {}
    chosen = fastest(measured)
    if asked == ALL:
        chosen.update({layer: mode for layer, mode in own.items() if mode in MODES})
        picked = {name: one.mode for name, one in choices.items() if own.get(name) == AUTO}
        chosen.update(picked)
    return NetTime(measured, asked, chosen, choices)


def fastest(measured: Sequence[LayerTime]) -> dict[str, str]:
    """Return for every layer with modes the one with the smallest ``total_ms``."""
    best: dict[str, LayerTime] = {}
    for one in measured:
        if one.conv_mode and (one.name not in best or one.total_ms < best[one.name].total_ms):
            best[one.name] = one
    return {name: str(one.conv_mode) for name, one in best.items()}


def total_ms(measured: Sequence[LayerTime], modes: Mapping[str, str] | None = None) -> float:
    """Sum the forward passes of a network, each layer in the mode named for it.

    Without ``modes`` every measurement counts. Data layers never do.
    """
    return sum(
        one.total_ms
        for one in measured
        if one.timed and (modes is None or one.conv_mode in (None, modes.get(one.name)))
    )
