"""How fast are the kept networks on this machine? Times of a result, taken again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from minissl import backend as backends
from minissl import doctor
from minissl.errors import ConfigError
from minissl.formats.atomic import atomic_write
from minissl.recipes.checking import read_result
from minissl.recipes.measuring import COMPACT_WEIGHTS, NET, Network
from minissl.recipes.reproduce import BASELINE, RESULT, speed_ups
from minissl.recipes.row_stages import time_row
from minissl.recipes.speed_experiments import SPEED


def time_again(
    folder: Path, backend: str, tell: Callable[[str], Any] = lambda sentence: None
) -> dict[str, Any]:
    """Time the compacted networks of a result beside the dense one, and write the times into it.

    The dense network gets random weights where its own are not kept: its speed does not depend on
    them.

    Parameters
    ----------
    folder : Path
        The result folder.
    backend : str
    tell : callable, optional
        Is told what is timed.

    Returns
    -------
    dict
        The result, with the new times; ``timed`` says when, where, and on how many threads.

    Raises
    ------
    ConfigError
        When the result is missing, damaged, or one of speed-ups, which are measured by running it.
    """
    result = read_result(folder)
    if result.get("measure") == SPEED:
        raise ConfigError(
            f"{folder / RESULT} holds speed-ups and no networks; run the experiment again"
        )
    options = {"backend": backend, "data": {"source": result["data"]}}
    dense = Network("dense", folder / BASELINE / f"{BASELINE}_net.prototxt", None, options)
    for row in result["rows"]:
        if row["key"] == BASELINE:
            continue
        own = folder / row["key"]
        small = Network("compacted", own / NET, own / COMPACT_WEIGHTS, options)
        tell(f"{row['name']}: time ...")
        row["times"] = time_row([dense, small], result["fast"])
        row["speed_ups"] = speed_ups(row["times"])
    result["timed"] = {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "backend": backends.name_of(backends.get(backend)),
        "threads": backends.threads(),
        "machine": doctor.machine_in_words(),
        "versions": doctor.versions(),
    }
    with atomic_write(folder / RESULT) as file:
        file.write(json.dumps(result, indent=1).encode() + b"\n")
    return result
