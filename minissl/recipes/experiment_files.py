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

Whether the solvers can train what the rows ask for is seen by
:mod:`minissl.recipes.experiment_nets`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minissl import models
from minissl.data.catalogue import SOURCES
from minissl.errors import ConfigError
from minissl.formats.toml import read_toml
from minissl.recipes import experiment_nets, speed_files
from minissl.recipes.experiments import (
    BASELINE,
    NAMES,
    SHOWN,
    STARTS,
    STRUCTURE,
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
    """Read an experiment, and see that its solvers can train what it asks for.

    Raises
    ------
    ConfigError
        Names the file and the place in it.
    """
    table = Table(read_toml(file, "experiment file"), str(file))
    layers = table.texts("layers")
    _once(layers, f"{file}: 'layers'")
    base = Table(table.take("baseline", dict), f"{file}, [baseline]")
    solver = base.take("solver", str)
    experiment = Experiment(
        key=file.stem,
        title=table.take("title", str),
        solver=solver,
        baseline=_row(base, layers, BASELINE),
        rows=tuple(
            _row(Table(one, f"{file}, row {number}"), layers)
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
    experiment_nets.check(experiment)
    return experiment


def _once(names: Sequence[str], where: str) -> None:
    """Refuse a name that is there twice."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"{where} names '{twice[0]}' twice; name each layer once")


def _row(table: Table, layers: Sequence[str], key: str = "") -> Row:
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
        paper=_paper(table, layers),
        **options,
    )
    table.end()
    return row


def _one_or_more(table: Table, key: str) -> tuple[str, ...]:
    """Return the names of solvers, of which a single one may stand without a list."""
    if isinstance(table.left.get(key), str):
        return (table.take(key, str),)
    return tuple(table.texts(key, []))


def _paper(table: Table, layers: Sequence[str]) -> dict[str, Any] | None:
    """Return the published row that a row refers to, or whose figures it gives."""
    given = table.take("paper", (str, dict), None)
    if isinstance(given, str):
        name, _, row = given.partition("/")
        rows = {one["name"]: one for one in TABLES.get(name, [])}
        if row not in rows:
            known = [f"{table}/{one['name']}" for table, rows in TABLES.items() for one in rows]
            raise table.wrong("paper", given, f"one of {', '.join(known)}, or a table of figures")
        return rows[row]
    return None if given is None else _figures(Table(given, f"{table.where}, paper"), layers)


def _figures(table: Table, layers: Sequence[str]) -> dict[str, Any]:
    """Read published figures of some layers of the table; what is left out is None."""
    told = [
        _figures_of_layer(Table(one, f"{table.where}, layer {number}"), layers)
        for number, one in enumerate(table.take("layers", list), 1)
    ]
    _once([layer["name"] for layer in told], f"{table.where}: 'layers'")
    error = table.take("error", (int, float))
    if not 0 <= error <= 1:
        raise table.wrong("error", error, "a fraction between 0 and 1")
    found = {
        "name": table.take("name", str, None),
        "error": float(error),
        "layers": told,
        "data": table.take("data", str, DATA),
    }
    table.end()
    return found


def _figures_of_layer(table: Table, layers: Sequence[str]) -> dict[str, Any]:
    counts = {key: _figure(table, key, int) for key in COUNTS}
    percent = _figure(table, "flops_percent", (int, float))
    name = table.take("name", str)
    if name not in layers:
        raise table.wrong("name", name, f"one of the table's layers, {', '.join(layers)}")
    table.end()
    return {"name": name, **counts, "flops_percent": None if percent is None else float(percent)}


def _figure(table: Table, key: str, kind: type | tuple[type, ...]) -> Any:
    """Return a number that may be left out."""
    value = table.take(key, kind, None)
    if value is not None and not 0 <= value <= sys.float_info.max:
        wanted = "a whole number" if kind is int else "a finite number"
        raise table.wrong(key, value, f"{wanted} from 0 on")
    return value


def _check_rows(experiment: Experiment) -> None:
    """Refuse rows that cannot stand beside each other, or do nothing."""
    where = experiment.file
    if not experiment.rows:
        raise ConfigError(f"{where}: it has no [[rows]]; write at least one")
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
