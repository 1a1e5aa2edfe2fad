"""The readable side of measured speed-ups: tables, README.md and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minissl.recipes.paper_speeds import ratios_of
from minissl.recipes.published_matrices import UPSTREAM, VARIABLE
from minissl.recipes.speed_timing import PACKED, fastest_product
from minissl.report import speed_pictures
from minissl.report.results import (
    about_rows,
    command_for,
    opening,
    shown,
    table,
    versions,
    write_page,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: what a layer's entry holds -> how a table calls it
PERCENTS = {"element": "zeros %", "column": "zero columns %", "row": "zero rows %"}
#: quartiles that are further apart than this tell of a disturbance; in quiet it is 1.01 to 1.06
SCATTER = 1.2
HOW = (
    "`x product` is the time of the dense product divided by that of the row's product, as the "
    "paper measures it: lowering and bias do not count. `x layer` compares the whole layers, "
    "LOWERED_GEMM with the row's mode. A mode without lowering has no product of its own; the "
    "whole of it is compared with the dense product. `x ideal` is how many times fewer "
    "multiplications are left. Means are over the layers, percentages means over conv groups."
)
MEASURED = (
    "Dense and sparse layers were timed by turns in one process; each figure is the median of "
    "several blocks' medians. With no more images than threads, dense products were measured by "
    "BLAS alone as well, with all the threads; the faster one counts, and of BLAS the fastest "
    "round."
)


def headings(result: Mapping[str, Any]) -> list[str]:
    """Return the headings of :func:`rows`."""
    return ["weights and mode", "what", *result["layers"], "mean"]


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return what is zero and how many times faster it is, the paper's rows above ours."""
    found = []
    told: set[str] = set()
    for row in result["rows"]:
        paper = row["paper"]
        if paper and paper["name"] not in told:
            told.add(paper["name"])
            lines = list(_paper_lines(paper, result))
            found += [[f"paper's {paper['name']}", *line] for line in lines]
        found += [[row["name"], *line] for line in _our_lines(row, result)]
    return found


def _paper_lines(paper: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[list[str]]:
    if paper["error"] is not None:
        yield ["top-1 error %", *[""] * len(result["layers"]), f"{100 * paper['error']:.2f}"]
    by_name = {layer["name"]: layer for layer in paper["layers"]}
    for key, what in PERCENTS.items():
        values = [by_name.get(name, {}).get(key) for name in result["layers"]]
        if None not in values:
            yield [what, *(f"{value:.1f}" for value in values), ""]
    for platform, mean in paper["means"].items():
        ratios = ratios_of(paper, platform, result["layers"])
        yield [f"x product, {platform}", *map(_ratio, ratios), _ratio(mean)]


def _our_lines(row: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[list[str]]:
    shown_percents = ("column", "row") if row["mode"] == PACKED else ("element",)
    for key in shown_percents if len(set(row["sparsity"] or (0, 1))) > 1 else ():
        yield [PERCENTS[key], *(f"{layer[key]:.1f}" for layer in row["layers"]), ""]
    if row["mode"] == PACKED:
        ideal = [layer["ideal"] for layer in row["layers"]]
        known = [value for value in ideal if value is not None]
        yield ["x ideal", *map(_ratio, ideal), _ratio(sum(known) / len(known) if known else None)]
    for run in row["runs"]:
        where = _where(run, result)
        for key, what in (("speed_up", "x product"), ("layer_speed_up", "x layer")):
            ratios = [layer[key] for layer in run["layers"]]
            yield [what + where, *map(_ratio, ratios), _ratio(run[f"mean_{key}"])]


def _where(run: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Say which batch size and threads a run had, where there were several."""
    parts = []
    if len(result["batch_sizes"]) > 1:
        parts.append(f"batch {run['batch_size']}")
    if len(result["threads"]) > 1:
        parts.append(speed_pictures.threads_in_words(run["threads"]))
    return "".join(f", {part}" for part in parts)


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


TIME_HEADINGS = [
    "weights and mode",
    "batch, threads",
    "layer",
    "dense product",
    "product",
    "dense layer",
    "layer",
    "quartiles of layer",
]


def time_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return the times behind the ratios, in milliseconds."""
    found = []
    for row in result["rows"]:
        for run in row["runs"]:
            for layer in run["layers"]:
                dense, sparse = layer["dense"], layer["sparse"]
                low, high = sparse["quartiles_ms"]["total"]
                times = [
                    fastest_product(dense),
                    fastest_product(sparse),
                    dense["total_ms"],
                    sparse["total_ms"],
                ]
                found.append(
                    [
                        row["name"],
                        f"{run['batch_size']}, {run['threads']}",
                        layer["name"],
                        *("" if ms is None else f"{ms:.3f}" for ms in times),
                        f"{low:.3f} - {high:.3f}",
                    ]
                )
    return found


def notes(result: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know before believing the figures."""
    found = [f"Left out: {sentence}." for sentence in result["left_out"]]
    if result["blas_overrides"]:
        found.append(
            f"**BLAS did not choose its kernels: {', '.join(result['blas_overrides'])} was set. "
            "The dense baseline may be slower than it could be.**"
        )
    scattered = [row["name"] for row in result["rows"] if any(map(_scatters, row["runs"]))]
    if scattered and not result["fast"]:
        found.append(
            f"**Something else ran on the machine while {', '.join(scattered)} was measured: the "
            "third quartile of some layer is more than a fifth above the first. Measure again.**"
        )
    strange = [row["name"] for row in result["rows"] if row["as_published"] is False]
    if strange:
        found.append(f"**Not the matrices that the authors published: {', '.join(strange)}.**")
    return found


def _scatters(run: Mapping[str, Any]) -> bool:
    """Whether the quartiles of a layer's time, dense or sparse, are far apart."""
    spreads = (
        layer[which]["quartiles_ms"]["total"]
        for layer in run["layers"]
        for which in ("dense", "sparse")
    )
    return any(high > SCATTER * low for low, high in spreads)


def readme(result: Mapping[str, Any], drawn: Sequence[str] = (), folder: Path = Path()) -> str:
    """Return README.md of a result in a folder, with pictures by their names without suffix."""
    peaks = [run["peak_gflops"] for row in result["rows"] for run in row["runs"]]
    uses_matrices = any(row["matrices"] for row in result["rows"])
    parts = [
        *opening(result),
        *notes(result),
        table(headings(result), rows(result)),
        *about_rows(result),
        HOW,
        *shown(drawn),
        "## Times",
        "Milliseconds for a batch. " + MEASURED,
        table(TIME_HEADINGS, time_rows(result)),
        "## How",
        f"Machine: {result['machine']}; dense products reach {max(peaks):.0f} GFLOP/s. Backend "
        f"{result['backend']}. {versions(result)}. It took {result['seconds']:.0f} seconds.",
        f"`{command_for('--check', result, folder)}` works out every ratio again from the times.",
    ]
    if uses_matrices:
        parts.append(
            f"The matrices are not part of minissl. They are in {UPSTREAM}; name a copy with "
            f"`--matrices` or `{VARIABLE}`. Their SHA-256 is in `result.json`."
        )
    return "\n\n".join(parts) + "\n"


def draw(result: Mapping[str, Any]) -> dict[str, Figure]:
    """Return the pictures by name, those for which there are rows."""
    figures = {}
    if any(row["paper"] and row["paper"]["speed_ups"] for row in result["rows"]):
        figures["by-layer"] = speed_pictures.by_layer(result)
    if sum(speed_pictures.is_even(row) for row in result["rows"]) > 1:
        figures["by-zeros"] = speed_pictures.by_zeros(result)
    if any(
        row["paper"] and speed_pictures.threads_in_words(1) in row["paper"]["means"]
        for row in result["rows"]
    ):
        figures["by-threads"] = speed_pictures.by_platform(result)
    return figures


def write(result: Mapping[str, Any], out: Path) -> list[Path]:
    """Write the pictures and README.md; return the paths."""
    figures = draw(result)
    return write_page(out, figures, readme(result, list(figures), out))
