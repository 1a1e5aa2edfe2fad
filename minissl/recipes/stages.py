"""A recipe is a list of stages; each has a folder of its own, and runs once.

A folder of a recipe looks like this::

    demo/
      baseline/
        stage.json    what the stage depended on, whether it is complete, its figures
        ...           whatever the stage writes
      ssl/
      ...

``stage.json`` decides what a second start does. A stage that is complete and whose settings are
the same is skipped; one that was interrupted goes on where it stopped; one whose settings have
changed is emptied and starts anew. Settings contain a digest of the weights a stage starts from,
so whatever follows a changed stage starts anew as well.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from minissl.errors import ConfigError
from minissl.formats.atomic import atomic_write
from minissl.formats.folders import make_folder
from minissl.solvers.display import Silent

MARKER = "stage.json"


class Stopped(Exception):
    """A signal ended the recipe; everything done so far is saved.

    Attributes
    ----------
    exit_code : int
        130 after SIGINT, 143 after SIGTERM.
    """

    def __init__(self, exit_code: int):
        super().__init__(f"stopped by a signal (exit code {exit_code})")
        self.exit_code = exit_code


@dataclass(frozen=True)
class Finished:
    """A stage that is complete.

    Attributes
    ----------
    folder : Path
        Where its files are.
    figures : dict
        What the stage measured, as its ``run`` returned it.
    seconds : float
        Time it took, over all its starts.
    skipped : bool
        Whether it was complete before this start.
    """

    name: str
    folder: Path
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    skipped: bool = False


Done = Mapping[str, Finished]


class Watcher:
    """Is told what a recipe does; the base says nothing."""

    def skipped(self, stage: Stage) -> None:
        """The stage is complete already."""

    def anew(self, stage: Stage, changed: Sequence[str]) -> None:
        """These settings have changed since the stage last ran; it starts from the beginning."""

    def started(self, stage: Stage) -> None:
        """The stage starts or goes on."""

    def finished(self, stage: Stage, result: Finished) -> None:
        """The stage is complete."""

    def reporter(self, stage: Stage) -> Silent:
        """Return who is told of each iteration of a training stage."""
        return Silent()


class Only(Watcher):
    """Passes on what is about some stages, and nothing else.

    Parameters
    ----------
    watcher : Watcher
        Who is told.
    names : collection of str
        Names of the stages.
    """

    def __init__(self, watcher: Watcher, names: Collection[str]):
        self.watcher = watcher
        self.names = names

    def _for(self, stage: Stage) -> Watcher:
        return self.watcher if stage.name in self.names else Watcher()

    def skipped(self, stage: Stage) -> None:
        """Pass on."""
        self._for(stage).skipped(stage)

    def anew(self, stage: Stage, changed: Sequence[str]) -> None:
        """Pass on."""
        self._for(stage).anew(stage, changed)

    def started(self, stage: Stage) -> None:
        """Pass on."""
        self._for(stage).started(stage)

    def finished(self, stage: Stage, result: Finished) -> None:
        """Pass on."""
        self._for(stage).finished(stage, result)

    def reporter(self, stage: Stage) -> Silent:
        """Pass on."""
        return self._for(stage).reporter(stage)


class Stage(Protocol):
    """One step of a recipe."""

    @property
    def name(self) -> str:
        """Name of its folder."""
        ...

    @property
    def title(self) -> str:
        """What it does, in a few words for the screen."""
        ...

    def settings(self, done: Done) -> dict[str, str]:
        """Return everything the result depends on, by name; long texts as digests."""
        ...

    def run(self, folder: Path, done: Done, watcher: Watcher) -> dict[str, Any]:
        """Do the work, or go on with it; return figures that JSON can hold.

        Raises
        ------
        Stopped
            After a signal, with the state saved.
        """
        ...


@dataclass(frozen=True)
class Work:
    """A stage that is one function, repeated as a whole when it was interrupted.

    Attributes
    ----------
    do : callable
        Takes the folder and what the earlier stages gave; returns figures.
    reads : sequence of (stage, file)
        Files of earlier stages that the result depends on.
    options : dict
        Whatever else it depends on.
    """

    name: str
    title: str
    do: Callable[[Path, Done], dict[str, Any]]
    reads: Sequence[tuple[str, str]] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    def settings(self, done: Done) -> dict[str, str]:
        """Digests of the files it reads, and its options."""
        files = {f"{stage}/{file}": digest(done[stage].folder / file) for stage, file in self.reads}
        return {**self.options, **files}

    def run(self, folder: Path, done: Done, watcher: Watcher) -> dict[str, Any]:
        """Call the function."""
        return self.do(folder, done)


def run(
    stages: Sequence[Stage], folder: str | Path, watcher: Watcher | None = None
) -> dict[str, Finished]:
    """Run the stages that are not complete, in order.

    Returns
    -------
    dict
        Name of the stage -> what it gave, for all stages.

    Raises
    ------
    Stopped
        After SIGINT or SIGTERM; a second start goes on from there.
    ConfigError
        When a stage's folder holds files that no recipe wrote, or two stages share a name.
    MinisslError
        Whatever a stage raises.
    """
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise ConfigError(f"the stages {', '.join(names)} need different names")
    watcher = watcher or Watcher()
    done: dict[str, Finished] = {}
    for stage in stages:
        done[stage.name] = _run_one(stage, Path(folder) / stage.name, done, watcher)
    return done


def _run_one(stage: Stage, folder: Path, done: Done, watcher: Watcher) -> Finished:
    settings = stage.settings(done)
    marker = read_marker(folder)
    if marker is not None and marker["settings"] != settings:
        watcher.anew(stage, _differences(marker["settings"], settings))
        _remove(folder)
        marker = None
    if marker is not None and marker["complete"]:
        watcher.skipped(stage)
        return Finished(stage.name, folder, marker["figures"], marker["seconds"], skipped=True)
    if marker is None:
        make_folder(folder)
    before = _seconds_before(folder, marker) if marker else 0.0
    state: dict[str, Any] = {"settings": settings, "complete": False, "seconds": before}
    _write_marker(folder, state)
    watcher.started(stage)
    clock = time.perf_counter()
    try:
        state["figures"] = stage.run(folder, done, watcher)
        state["complete"] = True
    finally:
        state["seconds"] = before + time.perf_counter() - clock
        _write_marker(folder, state)
    result = Finished(stage.name, folder, state["figures"], state["seconds"])
    watcher.finished(stage, result)
    return result


def _seconds_before(folder: Path, marker: Mapping[str, Any]) -> float:
    """Return how long earlier starts took; one that was killed could not write it down.

    Its last file tells: the marker is from its start, all else is newer. After a start that ended
    in order the marker is the newest.
    """
    last = max(path.stat().st_mtime for path in folder.iterdir())
    return marker["seconds"] + max(0.0, last - (folder / MARKER).stat().st_mtime)


def read_marker(folder: Path) -> dict[str, Any] | None:
    """Return what ``stage.json`` says, or None where a stage has not been.

    Raises
    ------
    ConfigError
        When the folder holds other files, or the marker is damaged.
    """
    path = folder / MARKER
    try:
        marker = json.loads(path.read_text("utf-8"))
        needed = {"settings", "complete", "seconds"}
        if needed <= marker.keys() and ("figures" in marker or not marker["complete"]):
            return marker
    except (FileNotFoundError, NotADirectoryError):
        if folder.is_dir() and any(folder.iterdir()):
            raise ConfigError(
                f"{folder} holds files that are not of this recipe; choose another folder"
            ) from None
        return None
    except (OSError, ValueError, AttributeError):
        pass
    raise ConfigError(f"{path} cannot be read; delete {folder} to start this stage anew") from None


def digest(content: str | bytes | Path) -> str:
    """Return a SHA-256 in hex, of a text, of bytes or of a file."""
    if isinstance(content, Path):
        content = content.read_bytes()
    if isinstance(content, str):
        content = content.encode()
    return hashlib.sha256(content).hexdigest()


def _differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    return [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]


def _remove(folder: Path) -> None:
    """Delete a stage, its marker last, so that it is still known as ours if this is interrupted."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != MARKER:
            path.unlink()
    shutil.rmtree(folder)


def _write_marker(folder: Path, state: Mapping[str, Any]) -> None:
    with atomic_write(folder / MARKER) as file:
        file.write(json.dumps(state, indent=1).encode())
