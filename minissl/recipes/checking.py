"""Does a result still say what its weights do? Every figure of it is worked out again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minissl.errors import ConfigError
from minissl.recipes import speed_checking
from minissl.recipes.measuring import COMPACT_WEIGHTS, NET, Network
from minissl.recipes.reproduce import BASELINE, RESULT
from minissl.recipes.row_stages import figures_of_test
from minissl.recipes.speed_experiments import SPEED
from minissl.recipes.training import WEIGHTS

#: images of 10,000 that may change sides on a machine that rounds otherwise
ERROR_TOLERANCE = 3e-4
PERCENT_TOLERANCE = 1e-6
#: what each row of a result of trainings has
FIGURES = {"key", "name", "error", "bytes", "flops_percent", "layers", "runs"}


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
        is_whole = first == BASELINE and all(row.keys() >= FIGURES for row in result["rows"])
        if result["experiment"] and (result.get("measure") == SPEED or is_whole):
            return result
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing; run the experiment first, or name its --out"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        pass
    raise ConfigError(f"{path} is damaged; run the experiment again")


def check(
    folder: Path,
    backend: str = "auto",
    data: str | None = None,
    matrices: Path | None = None,
    experiment: str | None = None,
) -> list[dict[str, Any]]:
    """Test the kept networks of a result again, and compare every figure.

    Of speed-ups what does not depend on the machine is compared
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
        ``recorded_error``, ``data``. For each row of speed-ups ``name``, ``ok``, ``wrong``,
        ``compared`` (in words).

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
    dense = folder / BASELINE / f"{BASELINE}_net.prototxt"
    checked = []
    for row in result["rows"]:
        own = folder / row["key"]
        net, weights = own / NET, own / COMPACT_WEIGHTS
        if row["key"] == BASELINE:
            net, weights = dense, own / WEIGHTS
            if not weights.exists():
                continue  # large ones are not kept
        options = {"backend": backend, "data": {"source": source}}
        network = Network(row["name"], net, weights, options)
        found = figures_of_test(network, dense, result["fast"])
        wrong = [*_structure(row, found), *([] if data else _error(row, found))]
        checked.append(
            {
                "name": row["name"],
                "ok": not wrong,
                "wrong": wrong,
                "error": found["error"],
                "recorded_error": row["error"],
                "data": source,
            }
        )
    return checked


def _error(row: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    wrong = []
    if abs(found["error"] - row["error"]) > ERROR_TOLERANCE:
        wrong.append(f"the error is {found['error']:.4f}, recorded is {row['error']:.4f}")
    errors = sorted(run["error"] for run in row["runs"])
    if row["error"] != errors[len(errors) // 2]:
        wrong.append(f"the error {row['error']:.4f} is not the median of {errors}")
    return wrong


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
