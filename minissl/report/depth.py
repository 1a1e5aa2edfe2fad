"""An experiment that removes layers: its table and its pictures.

The layers of the table are those that count as depth; shortcuts are not among them. A layer is left
while it has a weight that is not zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import isqrt
from typing import TYPE_CHECKING, Any

from minissl.recipes.experiments import BASELINE
from minissl.recipes.paper import DEPTH_TABLE
from minissl.report import pictures
from minissl.report.pictures import figure_of, legend_below, styled
from minissl.report.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEFT, GONE = "#1d4f7c", "#e8e4da"
#: of the networks that have all layers
LINES = (":", "--", "-.")

#: name, layers and error % of networks without SSL, and of those with SSL
Networks = tuple[Sequence[tuple[str, int, float]], Sequence[tuple[str, int, float]]]


def headings(result: Mapping[str, Any]) -> list[str]:
    """Return the headings of :func:`cells`."""
    convolutions = f"convolutions at {sizes_in_words(result)}"
    return ["network", "error %", "layers", convolutions, "FLOP %"]


def cells(name: str, row: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """Return a row of the table, of ours or of the paper's; what is not known of it is blank."""
    layers, by_size, flop = "", "", ""
    if "depth" in row:
        layers, by_size = str(row["depth"]), in_sizes(row["convolutions"])
    elif is_known(row, result["layers"], "filters"):
        left = layers_left(row, result)
        pixels = [result["dense_sizes"][one]["pixels"] for one in left]
        layers, by_size = str(len(left)), in_sizes(map(pixels.count, sizes(result)))
    if is_known(row, result["dense_flop"], "flops_percent"):
        flop = f"{flops_percent(row, result):.1f}"
    return [name, f"{100 * row['error']:.2f}", layers, by_size, flop]


def in_sizes(counts: Iterable[int]) -> str:
    """Return a cell with a number for each of :func:`sizes`."""
    return " - ".join(map(str, counts))


def is_known(row: Mapping[str, Any], layers: Iterable[str], figure: str) -> bool:
    """Whether a row tells this figure of these layers.

    A network of ours tells all that it has; a layer that it does not tell of is gone. A published
    one may tell of some of its layers only.
    """
    told = {layer["name"]: layer.get(figure) for layer in row["layers"]}
    return "runs" in row or all(told.get(name) is not None for name in layers)


def flops_percent(row: Mapping[str, Any], result: Mapping[str, Any]) -> float:
    """Return the FLOP of all layers that a row tells of, in % of the dense network's."""
    dense = result["dense_flop"]
    percent = {layer["name"]: layer["flops_percent"] for layer in row["layers"]}
    left = sum(flop * percent.get(name, 0.0) for name, flop in dense.items())
    return float(left / sum(dense.values()))


def layers_left(row: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """Return the layers of the table that a row still has."""
    alive = {layer["name"] for layer in row["layers"] if layer["filters"]}
    return [name for name in result["layers"] if name in alive]


def sizes(result: Mapping[str, Any]) -> list[int]:
    """Return the pixels of the convolutions' outputs, in net order; an inner product has one."""
    pixels = [result["dense_sizes"][name]["pixels"] for name in result["layers"]]
    return [size for size in dict.fromkeys(pixels) if size > 1]


def sizes_in_words(result: Mapping[str, Any]) -> str:
    """Return the same as a heading: ``32x32 - 16x16 - 8x8``."""
    return " - ".join(f"{isqrt(pixels)}x{isqrt(pixels)}" for pixels in sizes(result))


def draw(result: Mapping[str, Any], courses: Mapping[str, Sequence[Run]]) -> dict[str, Figure]:
    """Return the pictures by name.

    Parameters
    ----------
    result : dict
    courses : dict
        Key of a row -> what its median run went through.
    """
    ours: list[tuple[str, int, float]] = []
    dense: list[tuple[str, int, float]] = []
    for row in result["rows"]:
        is_dense = not any(what.startswith("ssl") for what in row["trainings"])
        for run in row["runs"]:
            point = (row["name"], len(layers_left(run, result)), 100 * run["error"])
            (dense if is_dense else ours).append(point)
    (theirs, *paper) = [(row["name"], row["depth"], 100 * row["error"]) for row in DEPTH_TABLE]
    figures = {
        "error-and-layers": error_over_layers((dense, ours), ([theirs], paper)),
        "layers-left": which_layers(
            {row["name"]: layers_left(row, result) for row in result["rows"]}, result["layers"]
        ),
    }
    return {**figures, **errors_of_rows(result, courses)}


def errors_of_rows(
    result: Mapping[str, Any], courses: Mapping[str, Sequence[Run]]
) -> dict[str, Figure]:
    """Return the pictures of the error on the way, of each row that was trained."""
    figures = {}
    for row in result["rows"]:
        runs = [run for run in courses[row["key"]] if run.displays or run.tests]
        if row["key"] != BASELINE and row["trainings"]:
            title = f"{row['name']}: error on the test images"
            figures[f"{row['key']}-error"] = pictures.test_error(runs, title)
    return figures


@styled
def error_over_layers(ours: Networks, paper: Networks) -> Figure:
    """Draw the error of networks over the layers that they have.

    Parameters
    ----------
    ours, paper : pair of sequences of (str, int, float)
        Name, layers and error %: of networks without SSL, which are lines, and of those with SSL,
        which are points; the paper's are joined.
    """
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = figure_of(1, height=3.8)
    for networks, color, whose in ((paper, "#777777", "the paper's"), (ours, "C0", "our")):
        dense, others = networks
        for (name, _, error), style in zip(dense, LINES, strict=False):
            axes.axhline(error, color=color, linestyle=style, label=f"{whose} {name}")
        others = sorted(others, key=lambda point: point[1])
        axes.plot(
            [layers for _, layers, _ in others],
            [error for _, _, error in others],
            "o-" if networks is paper else "o",
            color=color,
            label=f"{whose} networks after SSL",
        )
        for name, layers, error in others if networks is ours else ():
            axes.annotate(
                name,
                (layers, error),
                xytext=(-7, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=8,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title="Error and depth", xlabel="layers", ylabel="test error, %")
    legend_below(figure, axes)
    return figure


@styled
def which_layers(networks: Mapping[str, Sequence[str]], layers: Sequence[str]) -> Figure:
    """Draw which layers are left, one row for each network.

    Parameters
    ----------
    networks : dict
        Title -> names of the layers that are left.
    layers : sequence of str
        All of them, in order.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    figure, (axes,) = figure_of(1, height=0.4 * len(networks) + 2.6)
    grid = [[int(layer in left) for layer in layers] for left in networks.values()]
    axes.imshow(grid, cmap=ListedColormap([GONE, LEFT]), vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(layers)), layers, rotation=90, fontsize=7.5)
    titles = [f"{title}: {len(left)}" for title, left in networks.items()]
    axes.set_yticks(range(len(titles)), titles)
    axes.set_xticks([x + 0.5 for x in range(len(layers) - 1)], minor=True)
    axes.set_yticks([y + 0.5 for y in range(len(titles) - 1)], minor=True)
    axes.grid(False)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    axes.set_title("Layers that are left")
    handles = [
        Patch(facecolor=color, label=text) for color, text in ((LEFT, "left"), (GONE, "gone"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure
