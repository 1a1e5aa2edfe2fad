"""An experiment that narrows the blocks of a residual network: its table and its pictures.

The layers of the table are the second convolutions of the blocks. Their channels lie inside a
block: only the block's first convolution writes them, so each that dies takes a filter with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minissl.report import depth, pictures
from minissl.report.pictures import figure_of, legend_below, styled
from minissl.report.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def headings(result: Mapping[str, Any]) -> list[str]:
    """Return the headings of :func:`cells`."""
    sizes = depth.sizes_in_words(result)
    return ["network", "error %", f"channels inside the blocks at {sizes}", "FLOP %", "fewer FLOP"]


def cells(name: str, row: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """Return a row of the table; what is not known of a published one is blank."""
    inside, flop, fewer = "", "", ""
    if depth.is_known(row, result["layers"], "channels"):
        by_size = dict.fromkeys(depth.sizes(result), 0)
        for layer, channels in channels_inside(row, result).items():
            by_size[result["dense_sizes"][layer]["pixels"]] += channels
        inside = depth.in_sizes(by_size.values())
    if depth.is_known(row, result["dense_flop"], "flops_percent"):
        percent = depth.flops_percent(row, result)
        flop, fewer = f"{percent:.1f}", f"{100 / percent:.2f} times" if percent else ""
    return [name, f"{100 * row['error']:.2f}", inside, flop, fewer]


def channels_inside(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, int]:
    """Return how many channels each layer of the table reads; none of a layer that is gone."""
    left = {layer["name"]: layer["channels"] for layer in row["layers"]}
    return {name: left.get(name, 0) for name in result["layers"]}


def draw(result: Mapping[str, Any], courses: Mapping[str, Sequence[Run]]) -> dict[str, Figure]:
    """Return the pictures by name.

    Parameters
    ----------
    result : dict
    courses : dict
        Key of a row -> what its median run went through.
    """
    points = [
        (row["name"], run["flops_percent"], 100 * run["error"])
        for row in result["rows"]
        for run in row["runs"]
    ]
    inside = {row["name"]: channels_inside(row, result) for row in result["rows"]}
    figures = {
        "error-and-flop": pictures.error_over_flops(points, []),
        "channels-left": channels_left(inside),
    }
    return {**figures, **depth.errors_of_rows(result, courses)}


@styled
def channels_left(networks: Mapping[str, Mapping[str, int]]) -> Figure:
    """Draw the channels of each layer as bars, those of the networks in front of each other.

    Parameters
    ----------
    networks : dict
        Title -> {layer: channels}, the widest first.
    """
    different: dict[tuple[int, ...], str] = {}
    for title, channels in networks.items():
        different.setdefault(tuple(channels.values()), title)
    layers = list(next(iter(networks.values())))
    figure, (axes,) = figure_of(1, height=3.8)
    for number, (widths, title) in enumerate(different.items()):
        thickness = 0.8 * (1 - number / len(different))
        axes.bar(range(len(layers)), widths, thickness, label=title)
    axes.set_xticks(range(len(layers)), layers, rotation=30, ha="right", fontsize=7.5)
    axes.set(title="Channels inside the blocks", ylabel="channels")
    legend_below(figure, axes)
    return figure
