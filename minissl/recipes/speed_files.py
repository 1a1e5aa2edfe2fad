"""Experiments of speed-ups as TOML files: the form, and everything that may be wrong with one.

===========  ======================================================================================
measure      ``"speed"``
title        of the table
net          whose layers they are: ``"AlexNet"``, which is meant where it is left out, or
             ``"LeNet"``
layers       convolutions that are measured, by their names in that net
batch_sizes  lists; 1 where they are left out
threads
about        for readers of the table, like the ``about`` of each row
[[rows]]     ``key``, ``name``, ``mode``; ``matrices`` or ``sparsity``; ``optional``, ``paper``,
             ``about``, as :class:`minissl.recipes.speed_experiments.SpeedRow` has them
===========  ======================================================================================

``sparsity`` is a percentage for all layers, or a list of one for each. ``paper`` names a published
row of :mod:`minissl.recipes.paper_speeds`, such as ``"table4/AlexNet 1"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minissl.errors import ConfigError
from minissl.formats import proto
from minissl.formats.toml import read_toml
from minissl.recipes.paper_speeds import FIGURES
from minissl.recipes.speed_experiments import SPEED, SpeedExperiment, SpeedRow
from minissl.recipes.toml_tables import KEY, Table
from minissl.timing.known_layers import LAYERS, in_words


def measures_speed(file: Path) -> bool:
    """Whether a TOML file is an experiment of this kind."""
    return read_toml(file, "experiment file").get("measure") == SPEED


def read(file: Path) -> SpeedExperiment:
    """Read an experiment.

    Raises
    ------
    ConfigError
        Names the file and the place in it.
    """
    table = Table(read_toml(file, "experiment file"), str(file))
    table.take("measure", str)
    net = table.one_of("net", list(dict.fromkeys(layer.net for layer in LAYERS)), "AlexNet")
    layers = table.texts("layers")
    known = [layer for layer in LAYERS if layer.net == net and layer.kernel]
    unknown = [name for name in layers if name not in {layer.name for layer in known}]
    if unknown:
        raise ConfigError(
            f"{file}: {net} has no convolution '{unknown[0]}'; known are {in_words(known)}"
        )
    experiment = SpeedExperiment(
        key=file.stem,
        title=table.take("title", str),
        net=net,
        layers=tuple(layers),
        rows=tuple(
            _row(Table(one, f"{file}, row {number}"), layers)
            for number, one in enumerate(table.take("rows", list), 1)
        ),
        file=file,
        batch_sizes=_counts(table, "batch_sizes"),
        threads=_counts(table, "threads"),
        about=table.take("about", str, ""),
    )
    table.end()
    _check_rows(experiment)
    return experiment


def _row(table: Table, layers: Sequence[str]) -> SpeedRow:
    key = table.take("key", str)
    if not KEY.fullmatch(key):
        raise table.wrong("key", key, "small letters, digits and _")
    table.where = table.where.rpartition(" ")[0] + f" '{key}'"
    mode, modes = table.take("mode", str), proto.ConvolutionParameter.ConvMode.keys()
    if mode not in modes:
        raise table.wrong("mode", mode, f"one of {', '.join(modes)}")
    matrices, sparsity = table.take("matrices", str, None), _sparsity(table, layers)
    if (matrices is None) == (sparsity is None):
        raise ConfigError(f"{table.where}: give it either 'matrices' or 'sparsity'")
    row = SpeedRow(
        key,
        table.take("name", str),
        mode,
        matrices,
        sparsity,
        table.flag("optional"),
        _paper(table),
        table.take("about", str, ""),
    )
    table.end()
    return row


def _sparsity(table: Table, layers: Sequence[str]) -> tuple[float, ...] | None:
    given = table.take("sparsity", (int, float, list), None)
    if given is None:
        return None
    values = given if isinstance(given, list) else [given] * len(layers)
    right = all(isinstance(one, (int, float)) and 0 <= one <= 100 for one in values)
    if not right or len(values) != len(layers):
        raise table.wrong("sparsity", given, f"a percentage, or {len(layers)} of them in a list")
    return tuple(float(one) for one in values)


def _counts(table: Table, key: str) -> tuple[int, ...]:
    values: list[Any] = table.take(key, list, [1])
    right = all(isinstance(one, int) and not isinstance(one, bool) and one > 0 for one in values)
    if not values or not right or len(set(values)) < len(values):
        raise table.wrong(key, values, "a list of different whole numbers from 1 on")
    return tuple(values)


def _paper(table: Table) -> dict[str, Any] | None:
    given = table.take("paper", str, None)
    if given is None:
        return None
    known = {f"{name}/{row['name']}": row for name, rows in FIGURES.items() for row in rows}
    if given not in known:
        raise table.wrong("paper", given, f"one of {', '.join(known)}")
    return known[given]


def _check_rows(experiment: SpeedExperiment) -> None:
    """Refuse rows that cannot stand beside each other."""
    if not experiment.rows:
        raise ConfigError(f"{experiment.file}: it has no [[rows]]; write at least one")
    for what in ("key", "name"):
        values = [getattr(row, what) for row in experiment.rows]
        twice = [one for one in values if values.count(one) > 1]
        if twice:
            raise ConfigError(
                f"{experiment.file}: two rows have the {what} '{twice[0]}'; give each its own"
            )
