"""Results as rows of text, for the screen and for the page.

A row holds strings, numbers or None; whoever prints it decides how. Values of several layers stand
in one cell as the paper writes them, ``5-19`` for conv1 - conv2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minissl.report.runs import Run

#: layers whose figures are put in one cell
LAYERS = ("conv1", "conv2")


def demo_headings(result: Mapping[str, Any]) -> list[str]:
    """Return the headings of :func:`demo_rows`."""
    batches = [f"batch {size}\nms" for size in result["times"]]
    of_layers = [f"{what}\nconv1-2" for what in ("filters", "channels", "columns", "FLOP %")]
    return ["LeNet", "error\n%", *of_layers, "FLOP %\nall", *batches, "file"]


def demo_rows(result: Mapping[str, Any]) -> list[list[Any]]:
    """Return our rows: dense, after SSL, fine-tuned, compacted."""
    return [_row(row, list(result["times"])) for row in result["rows"]]


def paper_rows(result: Mapping[str, Any]) -> list[list[Any]]:
    """Return the paper's rows, labelled as such; what the paper does not give is None."""
    return [
        _row({**row, "name": f"paper's {row['name']}"}, list(result["times"]))
        for row in result["paper"]
    ]


def speed_ups(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return how many times faster the last row is than the first, by batch size and layer.

    The key ``all`` holds the whole network.
    """
    ratios: dict[str, dict[str, float]] = {}
    first, last = result["rows"][0]["name"], result["rows"][-1]["name"]
    for size, times in result["times"].items():
        before, after = times[first], times[last]
        ratios[size] = {
            name: before["layers"][name] / after["layers"][name]
            for name in before["layers"]
            if after["layers"].get(name)
        }
        ratios[size]["all"] = before["total_ms"] / after["total_ms"]
    return ratios


def time_headings(result: Mapping[str, Any]) -> list[str]:
    """Return the headings of :func:`time_rows`."""
    headings = ["layer"]
    for size in result["times"]:
        headings += [f"dense, batch {size}", "compacted", "times faster"]
    return headings


def time_rows(result: Mapping[str, Any]) -> list[list[Any]]:
    """Return one row for each layer, and one for the whole network; milliseconds."""
    first, last = result["rows"][0]["name"], result["rows"][-1]["name"]
    ratios = speed_ups(result)
    layers = list(next(iter(result["times"].values()))[first]["layers"])
    rows = []
    for name in [*layers, "all"]:
        row: list[Any] = ["whole network" if name == "all" else name]
        for size, times in result["times"].items():
            for which in (first, last):
                one = times[which]
                row.append(one["total_ms"] if name == "all" else one["layers"].get(name))
            row.append(ratios[size].get(name))
        rows.append(row)
    return rows


def run_headings() -> list[str]:
    """Return the headings of :func:`run_rows`."""
    return ["layer", "weights zero %", "rows zero %", "columns zero %", "channels zero %"]


def run_rows(run: Run) -> list[list[Any]]:
    """Return the sparsity of every layer at the last display of a run."""
    last = run.displays[-1].get("sparsity", {}) if run.displays else {}
    keys = ("element", "row", "column", "channel")
    return [[name, *(values.get(key) for key in keys)] for name, values in last.items()]


def _row(row: Mapping[str, Any], batches: Sequence[str]) -> list[Any]:
    layers = {layer["name"]: layer for layer in row["layers"]}
    chosen = [layers[name] for name in LAYERS if name in layers]
    ms = row.get("ms", {})
    size = row.get("bytes")
    return [
        row["name"],
        f"{100 * row['error']:.1f}",
        _joined(chosen, "filters"),
        _joined(chosen, "channels"),
        _joined(chosen, "columns"),
        _joined(chosen, "flops_percent"),
        None if "flops_percent" not in row else _short(row["flops_percent"]),
        *(f"{ms[batch]:.3g}" if batch in ms else None for batch in batches),
        None if size is None else f"{size / 1e3:,.0f} kB",
    ]


def _joined(layers: Sequence[Mapping[str, Any]], key: str) -> str | None:
    values = [layer[key] for layer in layers]
    return None if None in values else "-".join(_short(value) for value in values)


def _short(value: float) -> str:
    """Write a count in full and a percentage with two digits or none behind the point."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
