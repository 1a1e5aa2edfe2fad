"""Does a result still say what its weights do? The kept networks are tested again.

What was measured of networks that are not kept can only be held against other figures:
:mod:`minissl.recipes.figure_checking`. Times cannot be repeated at all, and some of what a result
tells is compared with nothing: how long trainings took, on which machine, how many groups of other
seeds came back to life, and the paper's rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minissl.compaction import prove
from minissl.compaction.proof import ROUNDING
from minissl.errors import ConfigError
from minissl.net import Net
from minissl.recipes import figure_checking, speed_checking
from minissl.recipes.measuring import COMPACT_WEIGHTS, NET, Network, dense_flop, sizes_of
from minissl.recipes.reproduce import BASELINE, RESULT
from minissl.recipes.row_stages import figures_of_test
from minissl.recipes.speed_experiments import SPEED
from minissl.recipes.training import WEIGHTS

#: images of 10,000 that may change sides on a machine that rounds otherwise
ERROR_TOLERANCE = 3e-4
PERCENT_TOLERANCE = 1e-6
#: what each run of a result of trainings has, each row as well, and each row but the first
RUN = {"seed", "error", "bytes", "flops_percent", "layers"}
FIGURES = {*RUN, "key", "name", "trainings", "runs", "spread"}
COMPACTED = {
    *FIGURES,
    "times",
    "speed_ups",
    "bytes_dense",
    "max_abs_difference",
    "layers_before_compaction",
}


def read_result(folder: Path) -> dict[str, Any]:
    """Return the ``result.json`` of an experiment.

    Raises
    ------
    ConfigError
        When it is missing or damaged.
    """
    path = folder / RESULT
    try:
        result: dict[str, Any] = json.loads(path.read_text("utf-8"))
        first = result["rows"][0]["key"]
        if result["experiment"] and result.get("measure") == SPEED:
            return result
        is_whole = result["experiment"] and result.keys() >= {"seeds", "dense_flop"}
        if is_whole and first == BASELINE and all(map(_is_whole, result["rows"])):
            return result
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing; run the experiment first, or name its --out"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        pass
    raise ConfigError(f"{path} is damaged; run the experiment again")


def _is_whole(row: Mapping[str, Any]) -> bool:
    figures = FIGURES if row["key"] == BASELINE else COMPACTED
    runs = row["runs"]
    return row.keys() >= figures and bool(runs) and all(run.keys() >= RUN for run in runs)


def check(
    folder: Path,
    backend: str = "auto",
    data: str | None = None,
    matrices: Path | None = None,
    experiment: str | None = None,
) -> list[dict[str, Any]]:
    """Test the kept networks of a result again, and compare what its figures follow from.

    Of what is not kept only that is compared which follows from something that is
    (:mod:`minissl.recipes.figure_checking`), and of speed-ups what does not depend on the machine
    (:mod:`minissl.recipes.speed_checking`).

    Parameters
    ----------
    folder : Path
        The result folder.
    backend : str
    data : str, optional
        Another data set to test on; errors are then told and not compared.
    matrices : Path, optional
        Folder of the published matrices, where speed-ups were measured with some.
    experiment : str, optional
        Whose result it must be.

    Returns
    -------
    list of dict
        For each kept network ``name``, ``ok``, ``wrong`` (sentences), ``error``,
        ``recorded_error``, ``data``. For a dense network that is not kept, and for each row of
        speed-ups, ``name``, ``ok``, ``wrong``, ``compared`` (in words).

    Raises
    ------
    ConfigError, WeightsError
        When a file is missing or damaged, or the result is another experiment's.
    """
    result = read_result(folder)
    if experiment not in (None, result["experiment"]):
        raise ConfigError(
            f"{folder} holds a result of {result['experiment']}, not of {experiment}; name the one "
            "or the other"
        )
    if result.get("measure") == SPEED:
        return speed_checking.check(result, matrices)
    source = data or result["data"]
    options: dict[str, Any] = {"backend": backend, "data": {"source": source}}
    model = folder / BASELINE / f"{BASELINE}_net.prototxt"
    net = Net(model, "TEST", **options)
    dense = {"dense_flop": dense_flop(net), "dense_sizes": sizes_of(net)}
    checked = []
    for row in result["rows"]:
        network = _kept(row, folder / row["key"], model, options)
        wrong = figure_checking.of_row(row, result, dense, folder / row["key"])
        if row["key"] == BASELINE:
            wrong += figure_checking.of_result(result, dense)
        told: dict[str, Any] = {"compared": "its runs only, for its weights are not kept"}
        if network is not None:
            found = figures_of_test(network, model, result["fast"])
            wrong += _structure(row, found)
            if not data:
                wrong += [*_error(row, found), *_difference(row, network)]
            told = {"error": found["error"], "recorded_error": row["error"], "data": source}
        checked.append({"name": row["name"], "ok": not wrong, "wrong": wrong, **told})
    return checked


def _kept(
    row: Mapping[str, Any], folder: Path, dense: Path, options: Mapping[str, Any]
) -> Network | None:
    """Return the network of a row; large weights of the dense one are not kept."""
    if row["key"] != BASELINE:
        return Network(row["name"], folder / NET, folder / COMPACT_WEIGHTS, options)
    weights = folder / WEIGHTS
    return Network(row["name"], dense, weights, options) if weights.exists() else None


def _error(row: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    if abs(found["error"] - row["error"]) <= ERROR_TOLERANCE:
        return []
    return [f"the error is {found['error']:.4f}, recorded is {row['error']:.4f}"]


def _difference(row: Mapping[str, Any], network: Network) -> list[str]:
    """See that compaction changed no output by more than rounding explains, as it demands."""
    if row["key"] == BASELINE:
        return []
    net = network.open()
    largest = max(1.0, prove(net, net).largest_output)
    limit = ROUNDING * largest / (1 - ROUNDING)  # the dense outputs may be as much larger
    if 0 <= row["max_abs_difference"] <= limit:
        return []
    return [
        f"max_abs_difference is at most {limit:.2g}, or compaction would have been refused; "
        f"recorded is {row['max_abs_difference']}"
    ]


def _structure(row: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    wrong = []
    if found["bytes"] != row["bytes"]:
        wrong.append(f"the weights have {found['bytes']} bytes, recorded are {row['bytes']}")
    if abs(found["flops_percent"] - row["flops_percent"]) > PERCENT_TOLERANCE:
        wrong.append(f"FLOP are {found['flops_percent']} %, recorded {row['flops_percent']} %")
    if [one["name"] for one in found["layers"]] != [one["name"] for one in row["layers"]]:
        return [*wrong, "its layers are others than recorded"]
    for now, then in zip(found["layers"], row["layers"], strict=True):
        for key, value in now.items():
            if key not in then:
                wrong.append(f"{now['name']}: {key} is {value}, nothing is recorded")
                continue
            same = value == then[key]
            if key == "flops_percent":
                same = abs(value - then[key]) <= PERCENT_TOLERANCE
            if not same:
                wrong.append(f"{now['name']}: {key} is {value}, recorded is {then[key]}")
    return wrong
