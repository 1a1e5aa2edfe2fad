"""The readable side of a reproduced table: its README.md and its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minissl.formats.atomic import atomic_write
from minissl.recipes.experiments import BASELINE, DEPTH, FILLERS, SPARSITY, STRUCTURE, WIDTH
from minissl.recipes.paper import LOGS
from minissl.recipes.row_stages import stage_name
from minissl.report import depth, log_pictures, pictures, weight_pictures, width
from minissl.report.results import (
    README,
    about_rows,
    command_for,
    drawn_in,
    opening,
    shown,
    table,
    versions,
    write_page,
)
from minissl.report.runs import Run, read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: stages of a row that pictures call by other names
TRAININGS = {"ssl": "SSL", "finetune": "fine-tuning"}
#: explains a column of :func:`seed_rows`
REVIVED = (
    "Came back: groups of weights that were zero and got weights again while SSL went on; each "
    "group counts once."
)
#: what a table shows -> {what a layer's entry holds: heading}
COLUMNS = {
    STRUCTURE: {
        "filters": "filters",
        "channels": "channels",
        "columns": "columns",
        "flops_percent": "FLOP %",
    },
    SPARSITY: {
        "zero_filters": "zero rows %",
        "zero_columns": "zero columns %",
        "flops_percent": "FLOP %",
    },
}
#: what a table of a residual network shows -> the module that tells about the network as a whole
WHOLE = {DEPTH: depth, WIDTH: width}


def headings(result: Mapping[str, Any]) -> list[str]:
    """Return the headings of :func:`rows`."""
    if whole := _whole(result):
        return whole.headings(result)
    span = _span(result)
    return ["network", "error %", *(f"{what} {span}" for what in _columns(result).values())]


def _whole(result: Mapping[str, Any]) -> Any:
    return WHOLE.get(result.get("shown", STRUCTURE))


def _columns(result: Mapping[str, Any]) -> dict[str, str]:
    return COLUMNS[result.get("shown", STRUCTURE)]


def _span(result: Mapping[str, Any]) -> str:
    """Name the layers whose values stand in one cell: ``conv1-2``, or all of them."""
    layers = result["layers"]
    stems = {layer.rstrip("0123456789") for layer in layers}
    short = len(layers) > 1 and len(stems) == 1
    return f"{layers[0]}-{layers[-1].removeprefix(stems.pop())}" if short else " - ".join(layers)


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return our rows, each below the paper's where there is one."""
    found = []
    our = "our " if any(row["paper"] for row in result["rows"]) else ""
    for row in result["rows"]:
        if row["paper"]:
            name = row["paper"]["name"] or row["name"]
            found.append(_cells(f"paper's {name}", row["paper"], result))
        if "layers_before_compaction" in row:
            before = {**row, "layers": row["layers_before_compaction"]}
            trained = "fine-tuned" if "finetune" in row["trainings"] else "trained"
            found.append(_cells(f"{our}{row['name']}, {trained}", before, result))
            found.append(_cells(f"{our}{row['name']}, compacted", row, result))
        else:
            found.append(_cells(f"{our}{row['name']}", row, result))
    return found


def _cells(name: str, row: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    if whole := _whole(result):
        cells: list[str] = whole.cells(name, row, result)
        return cells
    by_name = {layer["name"]: layer for layer in row["layers"]}
    cells = [name, f"{100 * row['error']:.2f}"]
    for key in _columns(result):
        values = [_value(by_name.get(layer, {}), key, result) for layer in result["layers"]]
        known = [value for value in values if value is not None]
        cells.append(" - ".join(map(_number, known)) if len(known) == len(values) else "")
    return cells


def _value(layer: Mapping[str, Any], key: str, result: Mapping[str, Any]) -> float | None:
    """Return what a layer's entry holds, or the part of its rows or columns that is zero, in %."""
    counted = key.removeprefix("zero_")
    value: float | None = layer.get(counted)
    if counted == key or value is None:
        return value
    size = result["dense_sizes"][layer["name"]][counted]
    return 100.0 * (size - value) / size


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if value == 100:
        return "100"
    if value < 1:
        return f"{value:.2g}"
    return f"{value + 1e-9:.1f}"  # halves go up, as in the paper: 31.25 is 31.3


def seed_headings(result: Mapping[str, Any]) -> list[str]:
    """Return the headings of :func:`seed_rows`."""
    span = "" if _whole(result) else f" {_span(result)}"
    revived = [f"came back{span}"] if _counts_revived(result) else []
    return [
        "network",
        "seed",
        "error % after SSL",
        "error %",
        "FLOP %" if _whole(result) else "FLOP % by layer",
        "weights, kB",
        *revived,
        "minutes",
    ]


def seed_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return one row for every run: errors, FLOP, size, groups that came back to life, time."""
    found = []
    for row in result["rows"]:
        for run in row["runs"]:
            after_ssl = run.get("error_after_ssl")
            kept = " (kept)" if run["seed"] == row["seed"] else ""
            revived = [_revived(run, result)] if _counts_revived(result) else []
            found.append(
                [
                    row["name"],
                    f"{run['seed']}{kept}",
                    "" if after_ssl is None else f"{100 * after_ssl:.2f}",
                    f"{100 * run['error']:.2f}",
                    _number(run["flops_percent"])
                    if _whole(result)
                    else " - ".join(_number(one["flops_percent"]) for one in run["layers"]),
                    f"{run['bytes'] / 1e3:,.0f}",
                    *revived,
                    f"{run['seconds'] / 60:.1f}",
                ]
            )
    return found


def _counts_revived(result: Mapping[str, Any]) -> bool:
    return any("revived" in run for row in result["rows"] for run in row["runs"])


def _revived(run: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Add up the groups of each layer, or all; a key is the layer and the tile of its groups."""
    counts = run.get("revived")
    if counts is None:
        return ""
    of_layer = [
        sum(count for key, count in counts.items() if key.split()[0] == layer)
        for layer in result["layers"]
    ]
    return str(sum(of_layer)) if _whole(result) else " - ".join(map(str, of_layer))


def speed_headings(result: Mapping[str, Any]) -> list[str]:
    """Return the headings of :func:`speed_rows`."""
    by_layer = [] if _whole(result) else ["products alone, batch 1", "layers, batch 1"]
    sizes = "1", "64"
    fastest = [f"fastest modes, batch {size}" for size in sizes] if _has_fastest(result) else []
    networks = [f"network, batch {size}" for size in sizes]
    return ["network", *by_layer, *networks, *fastest, "weights, kB"]


def _has_fastest(result: Mapping[str, Any]) -> bool:
    """Whether networks were timed in their fastest modes too; older results were not."""
    ratios = [row["speed_ups"] for row in result["rows"] if "speed_ups" in row]
    return all("fastest" in one for of_row in ratios for one in of_row.values())


def speed_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Return one row for every compacted network: how many times faster it is, and its size."""
    found = []
    width, by_layer = len(speed_headings(result)), not _whole(result)
    for row in result["rows"]:
        if "speed_ups" not in row:
            continue
        published = (row["paper"] or {}).get("products")
        if published:
            products = _ratios(published, result["layers"])
            cells = [f"paper's {row['paper']['name']}", products]
            found.append([*cells, *[""] * (width - len(cells))])
        sizes = [row["speed_ups"][size] for size in ("1", "64")]
        layers = [_ratios(sizes[0][what], result["layers"]) for what in ("products", "layers")]
        kinds = ["all", *(["fastest"] if _has_fastest(result) else [])]
        found.append(
            [
                row["name"],
                *(layers if by_layer else []),
                *(f"{of_size[kind]:.2f}" for kind in kinds for of_size in sizes),
                f"{row['bytes_dense'] / 1e3:,.0f} -> {row['bytes'] / 1e3:,.0f}",
            ]
        )
    return found


def _about_speed(result: Mapping[str, Any], folder: Path) -> str:
    """Say how times were taken, and against what."""
    told = (
        "Medians, dense and compacted by turns in one process, each layer by itself: dense ones by "
        "LOWERED_GEMM, the paper's way, compacted ones by LOWERED_CCNMM."
    )
    if not _whole(result):
        told += " The paper times the products alone."
    if _has_fastest(result):
        told += (
            " *Fastest modes*: both networks as fast as they run, by AUTO, chains of layers as one "
            "step."
        )
    if "timed" in result:
        timed = result["timed"]
        told += (
            f" Taken on {timed['date']} by `{command_for('--time', result, folder)}`: "
            f"{timed['machine']}, backend {timed['backend']}, threads: {timed['threads']}, "
            f"{versions(timed)}."
        )
    return told


def _ratios(ratios: Mapping[str, float], layers: Sequence[str]) -> str:
    return " - ".join(f"{ratios[layer]:.2f}" for layer in layers if layer in ratios)


def readme(result: Mapping[str, Any], drawn: Sequence[str] = (), folder: Path = Path()) -> str:
    """Return README.md: every figure of ``result.json`` that people want, the paper's beside ours.

    Parameters
    ----------
    result : dict
    drawn : sequence of str
        Names of the pictures in the folder ``pictures``, without suffix.
    folder : Path
        Where the result lies.
    """
    count = len(result["seeds"])
    seeds = f"{count} seeds" if count > 1 else "1 seed"
    parts = opening(result)
    parts += [
        f"Data: {result['data']}. Each row was trained with {seeds}; shown is the run with the "
        "median error. FLOP of the fine-tuned network count each layer by its own zero rows and "
        "columns; compaction removes filters that nothing reads as well, and what reads dead ones.",
        table(headings(result), rows(result)),
        *about_rows(result),
        *_about_trainings(result),
        "## All seeds",
        table(seed_headings(result), seed_rows(result)),
        *([REVIVED] if _counts_revived(result) else []),
        "## Times faster than the dense network",
        _about_speed(result, folder),
        table(speed_headings(result), speed_rows(result)),
    ]
    parts += [
        *shown(drawn),
        "## How",
        f"Machine: {result['machine']}. Backend {result['backend']}, threads: {result['threads']}. "
        f"{versions(result)}. Time of all stages together: {result['seconds'] / 60:.0f} minutes.",
        *_trained_by(result),
        "The folder of each row holds the solvers and nets as they ran, their logs, and the "
        f"compacted network. `{command_for('--check', result, folder)}` tests it again.",
    ]
    return "\n\n".join(parts) + "\n"


def _trained_by(result: Mapping[str, Any]) -> list[str]:
    """Name what trained which seeds; older results lack it."""
    seeds: dict[str, set[int]] = {}
    for row in result["rows"]:
        for run in row["runs"]:
            for one in run.get("trained_by", ()):
                seeds.setdefault(one, set()).add(run["seed"])
    if not seeds:
        return []
    told = (f"{one} (seed {', '.join(map(str, sorted(of)))})" for one, of in seeds.items())
    return [f"Trained by: {'. '.join(told)}."]


def _about_trainings(result: Mapping[str, Any]) -> list[str]:
    """Say which rows were rescaled or shuffled; older results lack either."""
    told = {
        "rescaled": "Between SSL and fine-tuning of {}, each layer that BatchNorm follows got the "
        "norm that it has in the dense network (`minissl train --rescale-like`).",
        "shuffled": "The trainings of {} read the images in another order in each epoch.",
    }
    names = {key: ", ".join(row["name"] for row in result["rows"] if row.get(key)) for key in told}
    return [sentence.format(names[key]) for key, sentence in told.items() if names[key]]


def write(result: Mapping[str, Any], work: Path, out: Path) -> list[Path]:
    """Draw the pictures from the work folder and write them and README.md; return the paths."""
    figures = draw(result, work)
    return write_page(out, figures, readme(result, list(figures), out))


def write_times(result: Mapping[str, Any], out: Path) -> None:
    """Write README.md anew after networks were timed again; its pictures stay as they are."""
    page = out / README
    drawn = drawn_in(page.read_text("utf-8")) if page.exists() else []
    with atomic_write(page) as file:
        file.write(readme(result, drawn, out).encode())


def draw(result: Mapping[str, Any], work: Path) -> dict[str, Figure]:
    """Return the pictures by name, of the median runs."""
    rows = {row["key"]: row for row in result["rows"]}
    courses = {row["name"]: _course(row["key"], rows, work) for row in result["rows"]}
    last = {name: runs[-1] for name, runs in courses.items()}
    if whole := _whole(result):
        of_rows = {row["key"]: courses[row["name"]] for row in result["rows"]}
        drawn: dict[str, Figure] = whole.draw(result, of_rows)
        return drawn
    figures = {"error-and-flop": pictures.error_over_flops(*_points(result))}
    layer = result["layers"][0]
    first = {name: run.weights()[layer][0] for name, run in last.items()}  # (F, C, kh, kw), (F, K)
    if next(iter(first.values())).ndim == 4:
        figures["filters"] = weight_pictures.first_filters(first, layer)
        figures["shapes"] = weight_pictures.filter_shapes(
            {name: _filters(run, result["layers"]) for name, run in list(last.items())[1:]}
        )
    elif all(isqrt(w.shape[1]) ** 2 == w.shape[1] for w in first.values()):
        figures["inputs"] = weight_pictures.connections_per_input(first)
    maps = {
        name: {key: w for key, w in run.matrices().items() if key in result["layers"]}
        for name, run in last.items()
    }
    figures["zero-maps"] = weight_pictures.zero_maps(maps)
    for row in result["rows"]:
        runs = [run for run in courses[row["name"]] if run.displays or run.tests]
        if row["key"] != BASELINE and row["trainings"]:
            name = row["name"]
            figures[f"{row['key']}-sparsity"] = pictures.sparsity(
                runs, result["layers"], f"{name}: groups of weights that are zero"
            )
            figures[f"{row['key']}-error"] = pictures.test_error(
                runs, f"{name}: error on the test images"
            )
        log = LOGS.get(row["paper"]["name"]) if row["paper"] else None
        ssl = [run for run in runs if run.name.startswith(TRAININGS["ssl"])]
        if log and ssl:
            figures[f"{row['key']}-log"] = log_pictures.beside_log(ssl, log, result["layers"])
    return figures


def _filters(run: Run, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the filters (F, C, kh, kw) of those layers that are convolutions."""
    weights = run.weights()
    return {name: weights[name][0] for name in layers if weights[name][0].ndim == 4}


def _course(key: str, rows: Mapping[str, Mapping[str, Any]], work: Path) -> list[Run]:
    """Return what a row's median run went through, from the dense network or the fillers on."""
    folder = work / f"seed{rows[key]['seed']}"

    def until(key: str) -> list[Run]:
        if key == FILLERS:
            return []
        if key == BASELINE:
            return [read_run(folder / BASELINE, "dense")]
        row = rows[key]
        runs = until(row.get("start", BASELINE))
        pruned = folder / stage_name(key, "prune")
        if pruned.exists() and not row["trainings"]:
            return [*runs, Run("pruned", pruned)]
        for what in row["trainings"]:
            name = TRAININGS[what.rstrip("0123456789")]
            earlier = sum(run.name.startswith(name) for run in runs)
            if earlier:
                name += f" {earlier + 1}"
            runs.append(read_run(folder / stage_name(key, what), name))
        return runs

    return until(key)


def _points(result: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """Return all our runs and the paper's: name, FLOP % of the table's layers together, error %."""
    dense = result["dense_flop"]
    whole = sum(dense[layer] for layer in result["layers"])

    def points(name: str, row: Mapping[str, Any]) -> list[tuple[str, float, float]]:
        percent = {one["name"]: one["flops_percent"] for one in row["layers"]}
        shares = [(dense[layer], percent.get(layer)) for layer in result["layers"]]
        if any(share is None for _, share in shares):
            return []
        flop = sum(operations * share for operations, share in shares)
        return [(name, flop / whole, 100 * row["error"])]

    rows = result["rows"]
    ours = [point for row in rows for run in row["runs"] for point in points(row["name"], run)]
    papers = [row for row in rows if row["paper"]]
    return ours, [point for row in papers for point in points(row["name"], row["paper"])]
