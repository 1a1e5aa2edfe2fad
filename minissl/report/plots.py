"""The pictures of a folder as files: of a demo, of one training run, of several overlaid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minissl.errors import ConfigError
from minissl.formats.folders import make_folder
from minissl.report import pictures, weight_pictures
from minissl.report.demo import (
    CONVOLUTIONS,
    first_filters,
    is_demo,
    matrices,
    read_result,
    read_stages,
)
from minissl.report.runs import Run, read_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "pictures"


def plot(
    folders: Sequence[str | Path], out: str | Path | None = None, kind: str = "png"
) -> list[Path]:
    """Write the pictures of a demo folder, of a run folder, or of several runs overlaid.

    Parameters
    ----------
    folders : sequence of path
        One demo, or one or more runs.
    out : path, optional
        Where to; by default the folder ``pictures`` in the only folder given, else in this one.
    kind : {"png", "svg", "pdf"}

    Returns
    -------
    list of Path

    Raises
    ------
    ConfigError
        When a folder is no run, two of them would have the same name, or one of several is a demo.
    MinisslError
        When a file cannot be read or written.
    """
    paths = [Path(folder) for folder in folders]
    if len(paths) == 1:
        figures = demo_figures(paths[0]) if is_demo(paths[0]) else run_figures(read_run(paths[0]))
    else:
        figures = overlaid_figures([read_run(path, name) for path, name in _named(paths)])
    target = Path(out) if out is not None else (paths[0] if len(paths) == 1 else Path()) / FOLDER
    make_folder(target, "choose another with --out")
    return [pictures.save(figure, target / f"{name}.{kind}") for name, figure in figures.items()]


def demo_figures(folder: Path) -> dict[str, Figure]:
    """Return the pictures of a demo by name."""
    result, stages = read_result(folder), read_stages(folder)
    figures = {
        "filters": weight_pictures.first_filters(first_filters(stages)),
        "zero-maps": weight_pictures.zero_maps(matrices(stages)),
        "loss": pictures.losses(stages),
        "sparsity": pictures.sparsity(stages, CONVOLUTIONS),
        "test-error": pictures.test_error(stages),
    }
    for size, times in result["times"].items():
        figures[f"time-batch-{size}"] = pictures.layer_times(times, int(size))
    return figures


def run_figures(run: Run) -> dict[str, Figure]:
    """Return the pictures of one run by name; those of its weights only where it saved some."""
    figures = {}
    if run.displays:
        figures["loss"] = pictures.losses([run])
        figures["sparsity"] = pictures.sparsity([run])
    if run.tests:
        figures["test"] = pictures.overlaid_tests([run])
    weights, matrices_of_run = run.weights(), run.matrices()
    if matrices_of_run:
        figures["zero-maps"] = weight_pictures.zero_maps({"at the end": matrices_of_run})
    for name, blobs in weights.items():
        if blobs and blobs[0].ndim == 4:
            figures["filters"] = weight_pictures.first_filters({"at the end": blobs[0]}, name)
            break
    return figures


def overlaid_figures(runs: Sequence[Run]) -> dict[str, Figure]:
    """Return the pictures in which several runs are compared."""
    figures = {}
    if any(run.displays for run in runs):
        figures["loss"] = pictures.overlaid_losses(runs)
        for key, what in pictures.GROUPS.items():
            figures[f"sparsity-{what}"] = pictures.overlaid_sparsity(runs, key)
    if any(run.tests for run in runs):
        figures["test"] = pictures.overlaid_tests(runs)
    return figures


def _named(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Name each run by the last part of its path, or by all of it where that is not enough."""
    short = [path.resolve().name for path in paths]
    for path in paths:
        if is_demo(path):
            raise ConfigError(
                f"{path} is a demo, whose pictures stand alone; to draw it beside others, name its "
                f"trainings, such as {path / 'finetune'}"
            )
    names = short if len(set(short)) == len(short) else [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise ConfigError("the same run is given twice; name each one once")
    return list(zip(paths, names, strict=True))
