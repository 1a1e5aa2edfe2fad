"""Experiments as TOML files: the form, and everything that may be wrong with one.

===========  ======================================================================================
title        of the table
layers       layers that the table tells about, by their names in the net
data         the data set; ``mnist`` where it is left out
about        for readers of the table, like the ``about`` of each row
shown        what the table tells about its layers: ``structure``, the filters, channels and
             columns that are left, where it is left out; ``sparsity``, rows and columns that are
             zero in per cent; ``depth``, how many of the layers are left; or ``width``, how many
             channels inside the blocks, if the layers are the blocks' second convolutions
[baseline]   the dense network: ``solver``, ``name``, ``shuffle``, ``paper``
[[rows]]     the other rows in order: ``key``, ``name``, ``ssl``, ``finetune``, ``rescale``,
             ``shuffle``, ``start``, ``prune_like``, ``paper``, as
             :class:`minissl.recipes.experiments.Row` has them
===========  ======================================================================================

``paper`` names a published row (``"table1/LeNet 2"``, :mod:`minissl.recipes.paper`) or gives its
figures: ``error`` as a fraction, and ``layers``, each with its ``name`` and those that are known of
``filters``, ``channels``, ``columns`` and ``flops_percent``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minissl import models
from minissl.channels import WITH_WEIGHTS
from minissl.data.catalogue import SOURCES
from minissl.errors import ConfigError
from minissl.formats.prototxt import read_solver, read_solver_net
from minissl.formats.toml import read_toml
from minissl.recipes import speed_files
from minissl.recipes.experiments import (
    BASELINE,
    NAMES,
    SHOWN,
    STARTS,
    STRUCTURE,
    WIDTH,
    Experiment,
    Row,
)
from minissl.recipes.paper import DATA, TABLES
from minissl.recipes.speed_experiments import NAMES as SPEED_NAMES
from minissl.recipes.speed_experiments import SpeedExperiment
from minissl.recipes.toml_tables import KEY, Table

#: names that mean something else: what a row starts from, a folder of a result
TAKEN = (*STARTS, "pictures")
COUNTS = ("filters", "channels", "columns")


def find(name: str | Path) -> Experiment | SpeedExperiment:
    """Return an experiment that comes with minissl, or the one in a TOML file.

    One that measures speed is read by :mod:`minissl.recipes.speed_files`.

    Raises
    ------
    ConfigError
        When there is none of this name, or its file is wrong.
    """
    known = (*NAMES, *SPEED_NAMES)
    if str(name) not in known and Path(name).suffix != ".toml":
        raise ConfigError(
            f"unknown experiment '{name}'; use one of {', '.join(known)}, or a TOML file"
        )
    file = models.path(f"{name}.toml") if str(name) in known else Path(name)
    return speed_files.read(file) if speed_files.measures_speed(file) else read(file)


def read(file: Path) -> Experiment:
    """Read an experiment, and see that all its solvers and nets can be read.

    Raises
    ------
    ConfigError
        Names the file and the place in it.
    """
    table = Table(read_toml(file, "experiment file"), str(file))
    layers = table.texts("layers")
    base = Table(table.take("baseline", dict), f"{file}, [baseline]")
    solver = base.take("solver", str)
    experiment = Experiment(
        key=file.stem,
        title=table.take("title", str),
        solver=solver,
        baseline=_row(base, BASELINE),
        rows=tuple(
            _row(Table(one, f"{file}, row {number}"))
            for number, one in enumerate(table.take("rows", list), 1)
        ),
        layers=tuple(layers),
        data=table.one_of("data", SOURCES, "mnist"),
        about=table.take("about", str, ""),
        shown=table.one_of("shown", SHOWN, STRUCTURE),
        file=file,
    )
    table.end()
    _check_rows(experiment)
    _check_solvers(experiment)
    return experiment


def _row(table: Table, key: str = "") -> Row:
    """Read a row, or the baseline, whose key is given and which has no stages."""
    options: dict[str, Any] = {}
    if not key:
        key = table.take("key", str)
        if not KEY.fullmatch(key) or key in TAKEN:
            taken = ", ".join(TAKEN)
            raise table.wrong("key", key, f"small letters, digits and _, and none of {taken}")
        table.where = table.where.rpartition(" ")[0] + f" '{key}'"
        options = {
            "ssl": _one_or_more(table, "ssl"),
            "finetune": _one_or_more(table, "finetune"),
            "rescale": table.flag("rescale"),
            "start": table.take("start", str, BASELINE),
            "prune_like": table.take("prune_like", str, None),
        }
    row = Row(
        key,
        name=table.take("name", str),
        about=table.take("about", str, ""),
        shuffle=table.flag("shuffle"),
        paper=_paper(table),
        **options,
    )
    table.end()
    return row


def _one_or_more(table: Table, key: str) -> tuple[str, ...]:
    """Return the names of solvers, of which a single one may stand without a list."""
    if isinstance(table.left.get(key), str):
        return (table.take(key, str),)
    return tuple(table.texts(key, []))


def _paper(table: Table) -> dict[str, Any] | None:
    """Return the published row that a row refers to, or whose figures it gives."""
    given = table.take("paper", (str, dict), None)
    if isinstance(given, str):
        name, _, row = given.partition("/")
        rows = {one["name"]: one for one in TABLES.get(name, [])}
        if row not in rows:
            known = [f"{table}/{one['name']}" for table, rows in TABLES.items() for one in rows]
            raise table.wrong("paper", given, f"one of {', '.join(known)}, or a table of figures")
        return rows[row]
    return given and _figures(Table(given, f"{table.where}, paper"), table)


def _figures(table: Table, row: Table) -> dict[str, Any]:
    """Read published figures; what is left out is None."""
    layers = []
    for number, one in enumerate(table.take("layers", list), 1):
        layer = Table(one, f"{table.where}, layer {number}")
        counts: dict[str, Any] = {key: layer.take(key, int, None) for key in COUNTS}
        percent = layer.take("flops_percent", (int, float), None)
        name = layer.take("name", str)
        layers.append({"name": name, **counts, "flops_percent": percent and float(percent)})
        layer.end()
    error = table.take("error", (int, float))
    if not 0 <= error <= 1:
        raise table.wrong("error", error, "a fraction between 0 and 1")
    found = {
        "name": table.take("name", str, None),
        "error": float(error),
        "layers": layers,
        "data": table.take("data", str, DATA),
    }
    table.end()
    return found


def _check_rows(experiment: Experiment) -> None:
    """Refuse rows that cannot stand beside each other, or do nothing."""
    where = experiment.file
    earlier: dict[str, Row] = {}
    names = [experiment.baseline.name]
    for row in experiment.rows:
        if row.key in earlier:
            raise ConfigError(f"{where}: two rows have the key '{row.key}'; give each its own")
        if row.name in names:
            raise ConfigError(f"{where}: two rows have the name '{row.name}'; give each its own")
        _check_stages(row, earlier, f"{where}, row '{row.key}'")
        earlier[row.key] = row
        names.append(row.name)


def _check_stages(row: Row, earlier: Mapping[str, Row], where: str) -> None:
    if not row.trainings and not row.prune_like:
        raise ConfigError(f"{where} does nothing; give it 'ssl', 'finetune' or 'prune_like'")
    trained = [key for key, one in earlier.items() if one.trainings]
    if row.start not in (*STARTS, *trained):
        raise ConfigError(
            f"{where}: 'start' is '{row.start}'; make it {', '.join(STARTS)} or the key of a "
            "trained row above it"
        )
    if row.shuffle and not row.trainings:
        raise ConfigError(f"{where}: 'shuffle' is for rows that are trained; leave it out")
    if row.rescale and not (row.ssl and row.finetune):
        raise ConfigError(f"{where}: 'rescale' comes between 'ssl' and 'finetune'; leave it out")
    if row.prune_like is None:
        return
    if row.ssl or row.start != BASELINE:
        raise ConfigError(
            f"{where}: 'prune_like' prunes the dense network; leave out 'ssl' and 'start'"
        )
    if row.prune_like not in earlier or earlier[row.prune_like].prune_like:
        raise ConfigError(
            f"{where}: 'prune_like' is '{row.prune_like}', which is no trained row above it"
        )


def _check_solvers(experiment: Experiment) -> None:
    """Read every solver with its net now, rather than hours later."""
    for row in (experiment.baseline, *experiment.rows):
        for name in experiment.trainings(row.key).values():
            path = experiment.path(name)
            if not path.is_file():
                raise ConfigError(
                    f"{experiment.file}, row '{row.key}': there is no solver '{name}', neither in "
                    f"the folder {experiment.file.parent} nor among those that come with minissl"
                )
            net: Any = read_solver_net(read_solver(path), path)
            if row is experiment.baseline:
                _check_layers(experiment, net)


def _check_layers(experiment: Experiment, net: Any) -> None:
    types = {one.name: one.type for one in net.layer if one.type in WITH_WEIGHTS}
    there = list(types)
    for name in experiment.layers:
        if name not in there:
            raise ConfigError(
                f"{experiment.file}: 'layers' names '{name}', but the layers with weights of "
                f"{experiment.solver} are {', '.join(there)}"
            )
        if experiment.shown == WIDTH and types[name] != "Convolution":
            raise ConfigError(
                f"{experiment.file}: 'layers' names '{name}', but shown = \"width\" tells of "
                "convolutions; leave it out"
            )
