"""Whether a result may be written where it is to be written; asked before anything runs."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

from minissl.errors import ConfigError

RESULT = "result.json"


def check(out: Path, experiment: str, fast: bool, file: Path | None = None) -> None:
    """See that a result folder can be written, and that no other result would be lost.

    Parameters
    ----------
    out : Path
        The folder; need not be there.
    experiment : str
        Whose result is to be written.
    fast : bool
        Whether it is of a trial.
    file : Path, optional
        The experiment's file. One that has changed since, or has moved, is still the same.

    Raises
    ------
    ConfigError
        When the folder cannot be written, holds another experiment's result, or a whole one that a
        trial would replace.
    """
    there = next(place for place in (out, *out.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"{out} cannot be written; name another folder with --out")
    kept = _kept(out / RESULT)
    if kept is None:
        return
    if kept.get("experiment", experiment) != experiment:
        raise ConfigError(
            f"{out} holds a result of {kept['experiment']}, which one of {experiment} would "
            "replace; choose another folder with --out"
        )
    other = _file_of(kept)
    if file is not None and other is not None and not other.samefile(file):
        raise ConfigError(
            f"{out} holds a result of {other}, which one of {file} would replace; choose other "
            "folders with --out and --work"
        )
    if fast and not kept.get("fast", fast):
        raise ConfigError(
            f"{out} holds a whole result, which a trial with --fast would replace; choose another "
            "folder with --out"
        )


def _kept(path: Path) -> dict[str, Any] | None:
    """Return a result that is there and can be read."""
    try:
        kept = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) else None


def _file_of(kept: dict[str, Any]) -> Path | None:
    """Return the file of a kept result's experiment, if its command names one that is there."""
    try:
        words = shlex.split(str(kept.get("command", "")))
    except ValueError:
        return None
    files = (Path(word) for word in words if Path(word).suffix == ".toml")
    return next((file for file in files if file.is_file()), None)
