"""Check that the figures of a result follow from each other, and from the logs kept beside them.

Most of what a result says is of networks that are not kept: those of the other seeds, and each
network before it was compacted. What was measured of them cannot be measured again, but much of it
follows from something else. :mod:`minissl.recipes.checking` tests what is kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minissl.errors import ConfigError
from minissl.formats.prototxt import read_net
from minissl.recipes.experiments import BASELINE
from minissl.recipes.reproduce import median_of, speed_ups, spread_of
from minissl.recipes.training import LOG

#: relative difference of two computations of the same figure
TOLERANCE = 1e-9
#: what a log says of zeros in %: what a layer's entry holds
ZEROS = {"row": "filters", "column": "columns"}


def of_result(result: Mapping[str, Any], dense: Mapping[str, Any]) -> list[str]:
    """Compare what a result says of the dense net.

    Parameters
    ----------
    result : dict
        ``result.json``.
    dense : dict
        ``dense_flop`` and ``dense_sizes``, worked out again; older results lack the second.

    Returns
    -------
    list of str
        A sentence for each figure that is wrong.
    """
    return [
        sentence
        for key, value in dense.items()
        if key in result
        for sentence in _differences(value, result[key], key)
    ]


def of_row(
    row: Mapping[str, Any], result: Mapping[str, Any], dense: Mapping[str, Any], folder: Path
) -> list[str]:
    """Compare what a row says of its runs, and of its network before compaction.

    Parameters
    ----------
    row : dict
        One of the result's.
    result, dense : dict
        See :func:`of_result`.
    folder : Path
        Of the row, with its logs.

    Returns
    -------
    list of str
        A sentence for each figure that is wrong.
    """
    wrong = [*_runs(row, result["seeds"]), *_after_ssl(row, folder)]
    wrong += [sentence for run in row["runs"] for sentence in _layers(run, dense)]
    if row["key"] == BASELINE:
        return wrong
    wrong += _differences(speed_ups(row["times"]), row["speed_ups"], "speed_ups")
    dense_bytes = [run["bytes"] for run in result["rows"][0]["runs"] if run["seed"] == row["seed"]]
    wrong += _differences(dense_bytes, [row["bytes_dense"]], "bytes_dense")
    return [*wrong, *_before_compaction(row, dense, _frozen(row, folder))]


def _runs(row: Mapping[str, Any], seeds: list[int]) -> list[str]:
    """Compare the row with the run that was kept, and the runs with each other."""
    runs = {run["seed"]: run for run in row["runs"]}
    wrong = _differences(list(runs), seeds, "the list of seeds")
    middle = median_of(row["runs"])
    if row["seed"] != middle:
        errors = sorted(run["error"] for run in row["runs"])
        wrong.append(f"of {errors} the run of seed {middle} is the median, not {row['seed']}")
    kept = runs.get(row["seed"], {})
    own = {key: row.get(key) for key in kept}
    wrong += _differences(kept, own, f"in the run of seed {row['seed']},")
    return [*wrong, *_differences(spread_of(row["runs"]), row["spread"], "spread")]


def _layers(run: Mapping[str, Any], dense: Mapping[str, Any]) -> list[str]:
    """See that a run's layers are the dense one's or smaller, and make up its FLOP."""
    flop, sizes = dense["dense_flop"], dense["dense_sizes"]
    where = f"in the run of seed {run['seed']},"
    layers = {one["name"]: one for one in run["layers"]}
    if unknown := layers.keys() - sizes.keys():
        return [f"{where} {', '.join(sorted(unknown))} is no layer of the dense net"]
    wrong = []
    for name, layer in layers.items():
        most = {what: sizes[name][what] for what in ZEROS.values()}
        percent = _structured_percent(layer, dense)
        if percent is not None:
            most["flops_percent"] = percent * (1 + TOLERANCE)
        wrong += [
            f"{where} {what} of {name} is at most {limit:g}, recorded is {layer[what]}"
            for what, limit in most.items()
            if layer[what] > limit
        ]
    left = sum(flop[name] * layer["flops_percent"] for name, layer in layers.items())
    percent = left / sum(flop.values())
    return [*wrong, *_differences(percent, run["flops_percent"], f"{where} flops_percent")]


def _structured_percent(layer: Mapping[str, Any], dense: Mapping[str, Any]) -> float | None:
    """Return the FLOP by a layer's own filters and columns; None of one that has conv groups."""
    flop, sizes = dense["dense_flop"][layer["name"]], dense["dense_sizes"][layer["name"]]
    whole = sizes["filters"] * sizes["columns"]
    if flop != 2 * whole * sizes["pixels"]:
        return None
    return float(100 * layer["filters"] * layer["columns"] / whole)


def _after_ssl(row: Mapping[str, Any], folder: Path) -> list[str]:
    """Compare the error after SSL with the last test in the log of SSL."""
    ssl = [what for what in row["trainings"] if "ssl" in what]
    if not ssl:
        return []
    tests = [
        record["test"]
        for record in _log(folder, ssl[-1])
        if "test" in record and record.get("net", 0) == 0
    ]
    if not tests:
        return []
    return _differences(1.0 - tests[-1]["accuracy"], row.get("error_after_ssl"), "error_after_ssl")


def _before_compaction(
    row: Mapping[str, Any], dense: Mapping[str, Any], frozen: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """See that a network that is not kept lies between the dense and the compacted one.

    What was frozen at zero is zero in it, too. Its FLOP follow from its filters and columns, where
    the layer has no conv groups.
    """
    after = {one["name"]: one for one in row["layers"]}
    before = {one["name"]: one for one in row["layers_before_compaction"]}
    sizes = dense["dense_sizes"]
    if list(before) != list(sizes):
        return ["the layers before compaction are others than those of the dense net"]
    wrong = []
    for name, layer in before.items():
        percent = _structured_percent(layer, dense)
        most = {"filters": sizes[name]["filters"], "columns": sizes[name]["columns"]}
        if name in frozen and percent is not None:  # of conv groups a log tells no columns
            for zeros, what in ZEROS.items():
                most[what] = round(most[what] * (1 - frozen[name][zeros] / 100))
        for what, limit in {**most, "channels": layer["columns"]}.items():
            least = after.get(name, {}).get(what, 0)
            if not least <= layer[what] <= limit:
                wrong.append(
                    f"{name} had {layer[what]} {what} before compaction, which is not between "
                    f"{least} and {limit}"
                )
        if percent is not None:
            where = f"before compaction, flops_percent of {name}"
            wrong += _differences(percent, layer["flops_percent"], where)
    return wrong


def _frozen(row: Mapping[str, Any], folder: Path) -> dict[str, dict[str, float]]:
    """Return what the last training had frozen at zero, by layer: the zeros at its first display.

    Empty for layers whose zeros were not frozen, and where no log is kept.
    """
    if not row["trainings"]:
        return {}
    last = row["trainings"][-1]
    shown = (one["sparsity"] for one in _log(folder, last) if "sparsity" in one)
    first: dict[str, Any] = next(shown, {})
    if not first:
        return {}
    layers = read_net(folder / f"{last}_net.prototxt").layer
    return {
        one.name: first[one.name] for one in layers if one.connectivity_mode and one.name in first
    }


def _log(folder: Path, training: str) -> Iterator[dict[str, Any]]:
    """Read the log of a training; nothing where it is not kept."""
    path = folder / f"{training}_{LOG}"
    try:
        for line in path.read_text("utf-8").splitlines():
            yield json.loads(line)
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        raise ConfigError(f"{path} is damaged; run the experiment again") from None


def _differences(found: Any, recorded: Any, where: str) -> list[str]:
    """Return a sentence for each value, at any depth, that is recorded as another one."""
    if isinstance(found, Mapping) and isinstance(recorded, Mapping):
        return [
            sentence
            for key in dict.fromkeys((*found, *recorded))
            for sentence in _differences(found.get(key), recorded.get(key), f"{where} {key}")
        ]
    if isinstance(found, list) and isinstance(recorded, list) and len(found) == len(recorded):
        return [
            sentence
            for n, both in enumerate(zip(found, recorded, strict=True), 1)
            for sentence in _differences(*both, f"{where} {n}")
        ]
    return [] if _same(found, recorded) else [f"{where} is {found}, recorded is {recorded}"]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=TOLERANCE)
    return bool(one == other)
