"""Pictures of speed-ups: by layer, by the part of the weights that is zero, by threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from minissl.recipes.paper_speeds import ratios_of
from minissl.recipes.speed_timing import PACKED
from minissl.report.pictures import empty_figure, legend_below, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: the paper's bars; ours have the style's colors
PAPER = ("#bdbdbd", "#8a8a8a", "#5a5a5a")
OURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


@dataclass(frozen=True)
class Series:
    """Bars of one color, one in each group; None where there is none.

    ``ideals`` are heights to mark with a line, of the first groups.
    """

    label: str
    heights: Sequence[float | None]
    color: str
    hatched: bool = False
    ideals: Sequence[float] = ()


@styled
def by_layer(result: Mapping[str, Any]) -> Figure:
    """Draw the speed-ups of every layer and their mean, a panel for each of the paper's rows.

    Ours are those of the first batch size and number of threads: the products as full bars, the
    whole layers hatched. A black line on a bar is the ratio of multiplications.
    """
    papers: dict[str, list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        if row["paper"] and row["paper"]["speed_ups"]:
            papers.setdefault(row["paper"]["name"], []).append(row)
    figure = empty_figure(9.0, 3.3 * len(papers) + 0.4)
    panels = figure.subplots(len(papers), 1, squeeze=False).ravel()
    for axes, rows in zip(panels, papers.values(), strict=True):
        paper, names = rows[0]["paper"], result["layers"]
        series = [
            Series(f"paper, {name}", [*ratios_of(paper, name, names), paper["means"][name]], color)
            for name, color in zip(paper["speed_ups"], PAPER, strict=False)
        ]
        for row, color in zip(rows, OURS, strict=False):
            run = row["runs"][0]
            for key, hatched in (("speed_up", False), ("layer_speed_up", True)):
                what = "whole layer" if hatched else "product"
                heights = [*(layer[key] for layer in run["layers"]), run[f"mean_{key}"]]
                ideals = [] if hatched else _ideals(row)
                series.append(Series(f"{row['name']}: {what}", heights, color, hatched, ideals))
        _bars(axes, [*names, "mean"], series)
        axes.set_title(f"{paper['name']}: times faster than the dense product or layer")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    return figure


@styled
def by_zeros(result: Mapping[str, Any]) -> Figure:
    """Draw the speed-ups of products over the percentage of zeros, a line for each layer.

    Lines are rows with equally many zeros in all layers; marks are the others. The axis counts what
    is not zero on a logarithmic scale, which the time of a product follows.
    """
    figure = empty_figure(7.2, 4.4)
    axes = figure.subplots()
    even = [row for row in result["rows"] if is_even(row) and row["sparsity"][0] < 100]
    others = [row for row in result["rows"] if not is_even(row)]
    for number, name in enumerate(result["layers"]):
        points = sorted((_point(row, number) for row in even), reverse=True)
        axes.plot(*zip(*points, strict=True), color=f"C{number}", label=name)
        for row, marker in zip(others, "o^s", strict=False):
            left, ratio = _point(row, number)
            axes.plot(left, ratio, marker, color=f"C{number}", markersize=7)
    for row, marker in zip(others, "o^s", strict=False):
        axes.plot([], [], marker, color="#555555", linestyle="", label=row["name"])
    axes.axhline(1.0, color="#444444", linewidth=1.0, linestyle="--")
    axes.set(xscale="log", yscale="log")
    axes.invert_xaxis()
    zeros = (0, 50, 70, 80, 90, 95, 98, 99)
    axes.set_xticks([100 - one for one in zeros], [f"{one}" for one in zeros])
    ratios = [one for one in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if _is_seen(axes, one)]
    axes.set_yticks(ratios, [f"{one:g}" for one in ratios])
    axes.minorticks_off()
    axes.set(xlabel="zero weights, %", ylabel="times faster than the dense product")
    axes.set_title("Products with single zero weights left out")
    legend_below(figure, axes)
    return figure


def _is_seen(axes: Axes, y: float) -> bool:
    low, high = axes.get_ylim()
    return low <= y <= high


@styled
def by_platform(result: Mapping[str, Any]) -> Figure:
    """Draw the means over the layers for each number of threads, and the paper's platforms."""
    papers = {row["paper"]["name"]: row["paper"] for row in result["rows"] if row["paper"]}
    counts = [threads_in_words(count) for count in result["threads"]]
    platforms = dict.fromkeys(
        [*counts, *(name for one in papers.values() for name in one["means"])]
    )
    series = [
        Series(f"paper, {name}", [paper["means"].get(one) for one in platforms], color)
        for (name, paper), color in zip(papers.items(), PAPER, strict=False)
    ]
    size = result["batch_sizes"][0]
    for row, color in zip(result["rows"], OURS, strict=False):
        means = {
            threads_in_words(run["threads"]): run["mean_speed_up"]
            for run in row["runs"]
            if run["batch_size"] == size
        }
        series.append(Series(row["name"], [means.get(one) for one in platforms], color))
    figure = empty_figure(8.0, 3.8)
    axes = figure.subplots()
    _bars(axes, list(platforms), series)
    axes.set_title(f"Times faster than the dense product, mean of {len(result['layers'])} layers")
    legend_below(figure, axes)
    return figure


def is_even(row: Mapping[str, Any]) -> bool:
    """Whether a row has zeros at random, equally many in all layers."""
    return row["sparsity"] is not None and len(set(row["sparsity"])) == 1


def _ideals(row: Mapping[str, Any]) -> list[float]:
    """Return how many times fewer multiplications packed weights need, layer by layer."""
    if row["mode"] != PACKED:
        return []
    return [layer["ideal"] or 0.0 for layer in row["layers"]]


def threads_in_words(count: int) -> str:
    """Return ``1 thread`` or ``2 threads``; the paper's platforms are called the same."""
    return "1 thread" if count == 1 else f"{count} threads"


def _point(row: Mapping[str, Any], layer: int) -> tuple[float, float]:
    """Return the percentage of weights that are not zero and the speed-up of a layer."""
    return 100 - row["layers"][layer]["element"], row["runs"][0]["layers"][layer]["speed_up"]


def _bars(axes: Axes, groups: Sequence[str], series: Sequence[Series]) -> None:
    """Draw groups of bars, those there are side by side, with their heights above; a line at 1."""
    width = 0.84 / len(series)
    places: dict[int, list[float]] = {number: [] for number in range(len(series))}
    for group in range(len(groups)):
        there = [number for number, one in enumerate(series) if one.heights[group] is not None]
        for position, number in enumerate(there):
            places[number].append(group + (position - (len(there) - 1) / 2) * width)
    for number, one in enumerate(series):
        heights = [height for height in one.heights if height is not None]
        style: dict[str, Any] = {"color": one.color}
        if one.hatched:
            style = {"facecolor": "white", "edgecolor": one.color, "hatch": "////"}
        axes.bar(places[number], heights, 0.92 * width, label=one.label, linewidth=0.8, **style)
        for x, height, ideal in zip_longest(places[number], heights, one.ideals, fillvalue=0.0):
            _write(axes, x, max(height, ideal), f"{height:.2f}")
            if ideal:
                axes.plot([x - width / 2, x + width / 2], [ideal] * 2, color="black", linewidth=1.4)
    if any(one.ideals for one in series):
        axes.plot([], [], color="black", linewidth=1.4, label="times fewer multiplications")
    axes.axhline(1.0, color="#444444", linewidth=1.0, linestyle="--")
    axes.set_xticks(range(len(groups)), groups)
    axes.margins(y=0.16)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("times faster")


def _write(axes: Axes, x: float, y: float, text: str) -> None:
    """Write above a bar, so that lines behind it do not cross the digits."""
    axes.annotate(
        text, (x, y), xytext=(0, 3), textcoords="offset points", rotation=90,
        ha="center", va="bottom", fontsize=6.5, color="#333333",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
    )  # fmt: skip
