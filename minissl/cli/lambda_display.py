"""What a search for a decay shows: a row for each trial as it comes, a bar while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, Any

import click

from minissl.cli.demo_display import DemoDisplay
from minissl.recipes.stages import Finished, Stage

FIGURES = ("FLOP %", "of layers\nwith groups", "error %", "s")


class TrialBar(DemoDisplay):
    """Shows a bar on a terminal while a trial trains; the rows of the table say everything else."""

    def __enter__(self) -> TrialBar:
        if self.bar:
            self.bar.live.transient = True
        return self

    def skipped(self, stage: Stage) -> None:
        """Say nothing."""

    def started(self, stage: Stage) -> None:
        """Open the bar, where there is a terminal."""
        if self.bar:
            super().started(stage)
            self.bar.start()

    def finished(self, stage: Stage, result: Finished) -> None:
        """Take it away again: rows are printed where it was."""
        if self.bar:
            self.bar.stop()
            self.bar.remove_task(self._tasks.pop(stage.title))


class TrialTable:
    """Prints a table whose rows come one by one.

    Parameters
    ----------
    decays : sequence of str
        Those that are searched; each has a column.
    stream : file
        Where to print.
    """

    def __init__(self, decays: Sequence[str], stream: IO[str]):
        self.decays = list(decays)
        self.stream = stream
        self.widths: list[int] = []

    def row(self, record: Mapping[str, Any]) -> None:
        """Print a trial, below the headings if it is the first."""
        cells = [
            *(f"{record['decays'][decay]:.4g}" for decay in self.decays),
            _number(record["flops_percent"], 1),
            _number(record["grouped_flops_percent"], 1),
            _number(record["error"] and 100 * record["error"], 2),
            "kept" if record["kept"] else f"{record['seconds']:.0f}",
        ]
        if not self.widths:
            self._headings()
        numbers = "  ".join(
            cell.rjust(width) for cell, width in zip(cells, self.widths, strict=True)
        )
        click.echo(f"{numbers}  {verdict(record)}", file=self.stream)

    def _headings(self) -> None:
        columns = [heading.split("\n") for heading in (*self.decays, *FIGURES)]
        self.widths = [max(6, *map(len, lines)) for lines in columns]
        for number in range(max(map(len, columns))):
            line = [lines[number] if number < len(lines) else "" for lines in columns]
            last = "the decay is; groups left" if number == 0 else ""
            cells = [text.rjust(width) for text, width in zip(line, self.widths, strict=True)]
            click.echo("  ".join([*cells, last]).rstrip(), file=self.stream)


def verdict(record: Mapping[str, Any]) -> str:
    """Say what a trial means, and what it left: ``too small; conv2 19/50 rows ...``."""
    lost = record["lost"]
    why = f": {lost['layer']} is lost by iteration {lost['iteration']}" if lost else ""
    left = groups(record["groups"])
    return f"{record['verdict']}{why}" + (f"; {left}" if left else "")


def groups(counted: Sequence[Mapping[str, Any]]) -> str:
    """Write the groups that are left by layer: ``conv1 5/20, conv2 19/50 and 4/20``."""
    by_layer: dict[str, list[str]] = {}
    for one in counted:
        by_layer.setdefault(one["layer"], []).append(f"{one['left']}/{one['groups']}")
    return ", ".join(f"{layer} {' and '.join(left)}" for layer, left in by_layer.items())


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
