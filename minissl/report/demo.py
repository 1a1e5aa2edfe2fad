"""Read what the demo left in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from minissl.errors import ConfigError
from minissl.recipes.demo import RESULT
from minissl.report.runs import Run, read_run

#: folder of a training stage -> its name in pictures
STAGES = {"baseline": "dense", "ssl": "SSL", "finetune": "fine-tuning"}
CONVOLUTIONS = ("conv1", "conv2")


def is_demo(folder: Path) -> bool:
    """Whether a folder holds a complete demo."""
    return (folder / RESULT).is_file()


def read_result(folder: Path) -> dict[str, Any]:
    """Return the demo's ``result.json``.

    Raises
    ------
    ConfigError
        When it is damaged.
    """
    path = folder / RESULT
    try:
        result = json.loads(path.read_text("utf-8"))
        if "experiment" in result:
            raise ConfigError(
                f"{folder} holds a result of reproduce, which has its pictures; name a folder that "
                "demo or train has written"
            )
        if result["recipe"] == "demo" and len(result["rows"]) == 4:
            return result
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ConfigError(f"{path} is damaged; run the demo again with the same folder")


def read_stages(folder: Path) -> list[Run]:
    """Return the training stages in order."""
    return [read_run(folder / stage, name) for stage, name in STAGES.items()]


def first_filters(stages: list[Run]) -> dict[str, np.ndarray]:
    """Return the filters of conv1 of the first and the last stage."""
    return {title: run.weights()["conv1"][0] for title, run in _ends(stages).items()}


def matrices(stages: list[Run]) -> dict[str, dict[str, np.ndarray]]:
    """Return the weight matrices of the first and the last stage, but for the classifier's."""
    return {
        title: {name: w for name, w in run.matrices().items() if name != "ip2"}
        for title, run in _ends(stages).items()
    }


def _ends(stages: list[Run]) -> dict[str, Run]:
    return {"dense": stages[0], "fine-tuned": stages[-1]}
