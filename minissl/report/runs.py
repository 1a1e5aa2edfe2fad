"""Read what a training run left in its folder: the log, the settings, the final weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minissl.errors import ConfigError
from minissl.formats.weights import read_weights
from minissl.recipes.training import LOG, WEIGHTS
from minissl.solvers.run_folder import newest_weights
from minissl.solvers.snapshot import PREFIX


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes
    ----------
    name : str
        For legends.
    folder : Path
    displays : list of dict
        Display lines of ``log.jsonl``: iteration, loss, regularization, lr, sparsity.
    tests : list of dict
        Test lines: iteration, test {output: mean}.
    settings : dict
        File name -> text of the solver and the net, where they are in the folder.
    """

    name: str
    folder: Path
    displays: list[dict[str, Any]] = field(default_factory=list)
    tests: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def last_iteration(self) -> int:
        """The largest iteration in the log."""
        return max((line["iteration"] for line in [*self.displays, *self.tests]), default=0)

    def weights(self) -> dict[str, list[np.ndarray]]:
        """Return the final weights by layer, or the newest that are there; empty without any.

        Raises
        ------
        WeightsError
            When the file is damaged.
        """
        final = self.folder / WEIGHTS
        path = final if final.is_file() else newest_weights(self.folder)
        if path is None:
            return {}
        found = read_weights(path)
        return {name: blobs for name, blobs in found.items() if not name.startswith(PREFIX)}

    def matrices(self) -> dict[str, np.ndarray]:
        """Return the weight matrix (R, C) of every layer."""
        return {
            name: blobs[0].reshape(len(blobs[0]), -1)
            for name, blobs in self.weights().items()
            if blobs and blobs[0].ndim >= 2
        }


def read_run(folder: str | Path, name: str | None = None) -> Run:
    """Read a run folder.

    Raises
    ------
    ConfigError
        When there is no ``log.jsonl``, it is empty, or a line of it is no log line.
    """
    folder = Path(folder)
    path = folder / LOG
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); name the folder of a training run"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text; name the folder of a training run") from None
    run = Run(name or folder.resolve().name, folder, settings=_settings(folder))
    for number, line in enumerate(lines, 1):
        _take_line(run, line, f"{path}:{number}", is_last=number == len(lines))
    if not run.displays and not run.tests:
        raise ConfigError(f"{path} is empty; let the run get to its first display")
    return run


def _take_line(run: Run, line: str, where: str, is_last: bool) -> None:
    try:
        record = json.loads(line)
        if not isinstance(record["iteration"], int):
            raise ValueError
        if "test" in record:
            if not isinstance(record["test"], dict):
                raise ValueError
            if not record.get("net"):  # of several test nets the first
                run.tests.append(record)
        else:
            record["loss"] = float(record["loss"])
            run.displays.append(record)
    except (ValueError, KeyError, TypeError, RecursionError):
        if not is_last:  # a killed run may leave half a line at the end
            raise ConfigError(f"{where}: this is no line of a training log") from None


def _settings(folder: Path) -> dict[str, str]:
    """Return the texts of the prototxt files, the solver's first."""
    texts = {}
    for path in sorted(folder.glob("*.prototxt"), key=lambda p: ("solver" not in p.name, p.name)):
        try:
            texts[path.name] = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
    return texts
