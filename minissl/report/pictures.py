"""Pictures of runs. Every function returns a matplotlib Figure; :func:`save` writes it.

Figures are made without a display and without touching matplotlib's global state. Those of weights
are in :mod:`minissl.report.weight_pictures`.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minissl.errors import ConfigError
from minissl.formats.atomic import atomic_write
from minissl.report.runs import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("minissl.mplstyle")
FORMATS = ("png", "svg", "pdf")
#: what a log says about a layer -> how it is called in a legend
GROUPS = {"filter": "filters", "channel": "channels", "column": "columns"}
#: letters side by side in a legend
_LEGEND_WIDTH = 90
BEFORE, AFTER = "#8a8a8a", "#0072b2"


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Let a function draw in this project's style."""

    @wraps(draw)
    def wrapper(*arguments: Any, **options: Any) -> Figure:
        from matplotlib import style

        with style.context(STYLE):
            return draw(*arguments, **options)

    return wrapper


# --- over iterations ---


@styled
def losses(stages: Sequence[Run], title: str = "Loss while training") -> Figure:
    """Draw data loss and regularization over the iterations of stages that follow each other."""
    figure, (axes,) = figure_of(1, height=3.4)
    for run, start in in_sequence(stages):
        x = [start + line["iteration"] for line in run.displays]
        axes.plot(x, [line["loss"] for line in run.displays], color="C0", label="loss of the data")
        penalty = [line.get("regularization") or np.nan for line in run.displays]
        axes.plot(x, penalty, color="C1", linestyle="--", label="regularization R(W)")
    axes.set_yscale("log")
    axes.set(xlabel="iteration", ylabel="loss")
    _title(axes, title, stages)
    _mark_stages(axes, stages)
    legend_below(figure, axes)
    return figure


@styled
def sparsity(
    stages: Sequence[Run],
    layers: Sequence[str] = (),
    title: str = "Groups of weights that are zero",
) -> Figure:
    """Draw, for each layer, the percentage of filters, channels and columns that are zero.

    Parameters
    ----------
    stages : sequence of Run
        Runs that follow each other.
    layers : sequence of str
        Layers to draw; all that the logs name when empty.
    title : str
    """
    logged = _logged_layers(stages)
    names = [name for name in layers if name in logged] or logged or ["no layer"]
    figure, all_axes = figure_of(len(names), height=2.2 * len(names) + 0.8, share_x=True)
    for axes, name in zip(all_axes, names, strict=True):
        for run, start in in_sequence(stages):
            lines = [line for line in run.displays if name in line.get("sparsity", {})]
            x = [start + line["iteration"] for line in lines]
            for number, (key, label) in enumerate(GROUPS.items()):
                y = [line["sparsity"][name].get(key, np.nan) for line in lines]
                style = ("-", "--", ":")[number]
                axes.plot(x, y, color=f"C{number}", linestyle=style, label=label)
        axes.set(ylim=(-4, 104), ylabel=f"{name}\nzero, %")
        _mark_stages(axes, stages, names=axes is all_axes[0])
    _title(all_axes[0], title, stages)
    all_axes[-1].set_xlabel("iteration")
    legend_below(figure, all_axes[0])
    return figure


@styled
def test_error(stages: Sequence[Run], title: str = "Error on the test images") -> Figure:
    """Draw the test error, 100 * (1 - accuracy), over the iterations of consecutive stages."""
    figure, (axes,) = figure_of(1, height=3.0)
    highest = 1.0
    for run, start in in_sequence(stages):
        lines = [line for line in run.tests if "accuracy" in line["test"]]
        x = [start + line["iteration"] for line in lines]
        y = [100 * (1 - line["test"]["accuracy"]) for line in lines]
        axes.plot(x, y, color="C0", marker="o", markersize=3.5)
        # the untrained network would squeeze everything else to the bottom
        highest = max([highest, *(value for value in y if value < 50)])
    axes.set(xlabel="iteration", ylabel="test error, %", ylim=(0, 1.15 * highest))
    _title(axes, title, stages)
    _mark_stages(axes, stages)
    return figure


@styled
def overlaid_losses(runs: Sequence[Run]) -> Figure:
    """Draw the loss of several independent runs in one picture."""
    figure, (axes,) = figure_of(1, height=3.6)
    for run in runs:
        x = [line["iteration"] for line in run.displays]
        axes.plot(x, [line["loss"] for line in run.displays], label=run.name)
    axes.set_yscale("log")
    axes.set(title="Loss while training", xlabel="iteration", ylabel="loss of the data")
    legend_below(figure, axes)
    return figure


@styled
def overlaid_tests(runs: Sequence[Run]) -> Figure:
    """Draw every test output of several independent runs, one panel for each output."""
    outputs = list(
        dict.fromkeys(name for run in runs for line in run.tests for name in line["test"])
    )
    outputs = outputs or ["no test"]
    figure, all_axes = figure_of(len(outputs), height=2.4 * len(outputs) + 0.6, share_x=True)
    for axes, output in zip(all_axes, outputs, strict=True):
        for run in runs:
            lines = [line for line in run.tests if output in line["test"]]
            x = [line["iteration"] for line in lines]
            y = [line["test"][output] for line in lines]
            axes.plot(x, y, marker="o", markersize=3.5, label=run.name)
        axes.set_ylabel(output)
    all_axes[0].set_title("Outputs of the test network")
    all_axes[-1].set_xlabel("iteration")
    legend_below(figure, all_axes[0])
    return figure


@styled
def overlaid_sparsity(runs: Sequence[Run], key: str = "column") -> Figure:
    """Draw one kind of sparsity of several independent runs, one panel for each layer."""
    names = _logged_layers(runs) or ["no layer"]
    figure, all_axes = figure_of(len(names), height=2.0 * len(names) + 0.8, share_x=True)
    for axes, name in zip(all_axes, names, strict=True):
        for run in runs:
            lines = [line for line in run.displays if name in line.get("sparsity", {})]
            x = [line["iteration"] for line in lines]
            y = [line["sparsity"][name].get(key, np.nan) for line in lines]
            axes.plot(x, y, label=run.name)
        axes.set(ylim=(-4, 104), ylabel=f"{name}\nzero, %")
    all_axes[0].set_title(f"{GROUPS.get(key, key).capitalize()} that are zero")
    all_axes[-1].set_xlabel("iteration")
    legend_below(figure, all_axes[0])
    return figure


# --- error and cost ---

Point = tuple[str, float, float]


def _round_below(value: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20 ... (and 0.5, 0.2 ...) that is not above a value."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(first * power for first in (1, 2, 5) if first * power <= value)


@styled
def error_over_flops(ours: Sequence[Point], paper: Sequence[Point]) -> Figure:
    """Draw the error of networks over their FLOP.

    Parameters
    ----------
    ours, paper : sequence of (str, float, float)
        Name, FLOP % and error %; the paper's have names of ours.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure, (axes,) = figure_of(1, height=3.8)
    names = dict.fromkeys(name for name, _, _ in ours)
    colors = {name: f"C{number}" for number, name in enumerate(names)}
    for name, flop, error in paper:
        label = f"the paper's {name}"
        axes.plot(flop, error, "s", color=colors[name], mfc="none", markersize=9, label=label)
    seeds = ", every seed" if len(ours) > len(names) else ""
    for name, flop, error in ours:
        label = f"our {name}{seeds}" if paper else f"{name}{seeds}"
        axes.plot(flop, error, "o", color=colors[name], label=label)
    axes.set_xscale("log")
    shares = [flop for _, flop, _ in [*ours, *paper] if flop > 0]
    axes.set_xlim(left=0.95 * _round_below(min(shares, default=1)))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="FLOP, % of the dense layers", ylabel="test error, %")
    axes.set_title("Error and operations")
    legend_below(figure, axes)
    return figure


# --- time ---


@styled
def layer_times(times: Mapping[str, Mapping[str, Any]], batch_size: int) -> Figure:
    """Draw the time of every layer before and after, as bars.

    Parameters
    ----------
    times : dict
        Title -> ``total_ms`` and ``layers`` {name: ms}, the original first.
    batch_size : int
        For the title.
    """
    names = list(dict.fromkeys(name for one in times.values() for name in one["layers"]))
    figure, (axes,) = figure_of(1, height=0.34 * len(names) * len(times) / 2 + 1.6)
    thickness = 0.8 / len(times)
    longest = max(one["total_ms"] for one in times.values())
    unit, factor = ("milliseconds", 1.0) if longest >= 1 else ("microseconds", 1e3)
    for number, (title, one) in enumerate(times.items()):
        y = np.arange(len(names)) + (number - (len(times) - 1) / 2) * thickness
        durations = [factor * one["layers"].get(name, 0.0) for name in names]
        color = (BEFORE, AFTER, "C1", "C2")[number % 4]
        label = f"{title}: {one['total_ms']:.3g} ms in all"
        bars = axes.barh(y, durations, height=thickness, color=color, label=label)
        axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.grid(axis="y", visible=False)
    images = "1 image" if batch_size == 1 else f"{batch_size} images"
    axes.set(title=f"Time by layer for {images}", xlabel=unit)
    axes.legend(loc="best")
    return figure


# --- writing ---


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure; the suffix chooses .png, .svg or .pdf.

    Raises
    ------
    ConfigError
        For another suffix.
    MinisslError
        When the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise ConfigError(f"{path}: pictures are written as {', '.join(FORMATS)}")
    buffer = io.BytesIO()
    _render(figure, buffer, kind)
    with atomic_write(path) as file:
        file.write(buffer.getvalue())
    return path


def to_svg(figure: Figure) -> str:
    """Return a figure as an ``<svg>`` element to put into a page, its ids made unlike others'."""
    buffer = io.BytesIO()
    _render(figure, buffer, "svg")
    svg = buffer.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)


def _render(figure: Figure, buffer: io.BytesIO, kind: str) -> None:
    from matplotlib import style

    # no date, so that the same run gives the same file
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    with style.context(STYLE):
        figure.savefig(buffer, format=kind, metadata=metadata)


def empty_figure(width: float, height: float) -> Figure:
    """Return a figure without axes, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def figure_of(panels: int, height: float, share_x: bool = False) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels, one below the other, all of the usual width."""
    figure = empty_figure(7.2, height)
    axes = figure.subplots(panels, 1, sharex=share_x, squeeze=False)
    return figure, list(axes.ravel())


def in_sequence(stages: Sequence[Run]) -> list[tuple[Run, int]]:
    """Return each stage with the number of iterations before it."""
    starts, passed = [], 0
    for run in stages:
        starts.append((run, passed))
        passed += run.last_iteration
    return starts


def mark_boundaries(axes: Axes, stages: Sequence[Run], scale: float = 1.0) -> None:
    """Draw a line where each stage but the first begins, at ``scale`` times its iteration."""
    for _, start in in_sequence(stages):
        if start:
            axes.axvline(scale * start, color="#777777", linewidth=0.9)


def _title(axes: Axes, title: str, stages: Sequence[Run]) -> None:
    """Set the title, with room for the names of stages between it and the frame."""
    axes.set_title(title, pad=20 if len(stages) > 1 else 6)


def _mark_stages(axes: Axes, stages: Sequence[Run], names: bool = True) -> None:
    """Draw a line where a stage begins, and its name above the frame."""
    if len(stages) < 2:
        return
    mark_boundaries(axes, stages)
    for text, middle in _names_with_room(stages) if names else ():
        axes.annotate(
            text,
            (middle, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color="#555555",
        )
    end = sum(run.last_iteration for run in stages)
    axes.set_xlim(0, 1.01 * max(end, 1))


#: width of a letter above the frame, as a part of the frame's
_LETTER = 0.012


def _names_with_room(stages: Sequence[Run]) -> list[tuple[str, float]]:
    """Return names and where their middle is; a stage too short for its name shares a place."""
    whole = sum(run.last_iteration for run in stages)
    places: list[tuple[str, int, int]] = []
    for run, start in in_sequence(stages):
        place = run.name, start, start + run.last_iteration
        while places and (_lacks_room(places[-1], whole) or _lacks_room(place, whole)):
            name, begin, _ = places.pop()
            place = f"{name}, {place[0]}", begin, place[2]
        places.append(place)
    return [(name, (begin + end) / 2) for name, begin, end in places]


def _lacks_room(place: tuple[str, int, int], whole: int) -> bool:
    name, begin, end = place
    return end - begin < _LETTER * len(name) * whole


def legend_below(figure: Figure, axes: Axes) -> None:
    """Draw a legend below everything, with every label once."""
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        longest = max(map(len, unique))
        columns = max(1, min(len(unique), 3, _LEGEND_WIDTH // (longest + 6)))
        figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=columns)


def _logged_layers(runs: Sequence[Run]) -> list[str]:
    return list(
        dict.fromkeys(
            name for run in runs for line in run.displays for name in line.get("sparsity", {})
        )
    )
