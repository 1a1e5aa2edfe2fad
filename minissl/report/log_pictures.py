"""A run of ours beside a published log: error and sparsity in the course of SSL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minissl.report.pictures import figure_of, in_sequence, legend_below, mark_boundaries, styled
from minissl.report.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: what a log tells about layers -> label
PANELS = {"column": "zero columns, %", "row": "zero rows, %"}


@styled
def beside_log(stages: Sequence[Run], log: Mapping[str, Any], layers: Sequence[str]) -> Figure:
    """Draw error, zero columns and zero rows in the course of SSL, and those of a published log.

    Runs differ in length, so that the x axis is the part of each that has passed.

    Parameters
    ----------
    stages : sequence of Run
        Ours: runs of SSL that follow each other.
    log : dict
        Of :data:`minissl.recipes.paper.LOGS`.
    layers : sequence of str
        In the order of the log.
    """
    figure, all_axes = figure_of(1 + len(PANELS), height=6.4, share_x=True)
    errors, *others = all_axes
    length = sum(run.last_iteration for run in stages)
    ours = [
        (start + line["iteration"], 1.0 - line["test"]["accuracy"])
        for run, start in in_sequence(stages)
        for line in run.tests
        if "accuracy" in line["test"]
    ]
    theirs = [(point["iteration"], point["error"]) for point in log["points"]]
    _draw(errors, ours, length, "-", "#555555", "error")
    _draw(errors, theirs, log["iterations"], "s--", "#555555", "error, published")
    errors.set_ylabel("test error, %")
    for axes, (key, label) in zip(others, PANELS.items(), strict=True):
        for number, layer in enumerate(layers):
            ours = [
                (start + line["iteration"], line["sparsity"][layer].get(key, np.nan) / 100)
                for run, start in in_sequence(stages)
                for line in run.displays
                if layer in line.get("sparsity", {})
            ]
            theirs = [
                (point["iteration"], point[key][number] / 100)
                for point in log["points"]
                if point[key] is not None
            ]
            _draw(axes, ours, length, "-", f"C{number}", layer)
            _draw(axes, theirs, log["iterations"], "s--", f"C{number}", f"{layer}, published")
        axes.set_ylabel(label)
    for axes in all_axes:
        mark_boundaries(axes, stages, scale=100 / max(length, 1))
    errors.set_title(
        f"SSL, {length:,} iterations, beside the published log, "
        f"{log['iterations']:,}\n(theirs: {log['about']})"
    )
    all_axes[-1].set_xlabel("part of the iterations, %")
    legend_below(figure, all_axes[-1])
    return figure


def _draw(
    axes: Axes,
    points: Sequence[tuple[int, float]],
    iterations: int,
    style: str,
    color: str,
    label: str,
) -> None:
    """Draw fractions as per cent over the part of the iterations; two points make no course."""
    if len(points) <= 2:
        style = style.rstrip("-") or "."
    x = [100 * iteration / max(iterations, 1) for iteration, _ in points]
    y = [100 * value for _, value in points]
    axes.plot(x, y, style, color=color, mfc="none", markersize=5, label=label)
