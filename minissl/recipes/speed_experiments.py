"""Experiments that train nothing: how many times faster layers are with sparse weights.

A row is a set of weight matrices, in the pattern that a training left or with zeros at random, and
the mode they are executed in; what it is compared with is the dense product. Such an experiment is
a TOML file with ``measure = "speed"``; :mod:`minissl.recipes.speed_files` reads them, and
:mod:`minissl.recipes.speed` measures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: those that come with minissl
NAMES = ("table4", "fig1", "fig8")
#: what ``measure`` says in their files, and ``result.json``
SPEED = "speed"


@dataclass(frozen=True)
class SpeedRow:
    """One row of a table of speed-ups.

    Attributes
    ----------
    key : str
    name : str
        In tables and pictures.
    mode : str
        The ``conv_mode``.
    matrices : str, optional
        The folder of its matrices, within that of all published ones.
    sparsity : tuple of float, optional
        In place of it: percentage of zeros of each layer, at random places.
    optional : bool
        Left out where the matrices are missing.
    paper : dict, optional
        The published row.
    about : str
    """

    key: str
    name: str
    mode: str
    matrices: str | None = None
    sparsity: tuple[float, ...] | None = None
    optional: bool = False
    paper: Mapping[str, Any] | None = None
    about: str = ""


@dataclass(frozen=True)
class SpeedExperiment:
    """A table of speed-ups, and how they are measured.

    Attributes
    ----------
    key : str
        In names of folders.
    title : str
    net : str
        Whose layers they are, of :data:`minissl.timing.known_layers.LAYERS`.
    layers : tuple of str
    rows : tuple of SpeedRow
    batch_sizes, threads : tuple of int
        Every row is measured with each of them.
    file : Path
        The TOML file.
    about : str
    """

    key: str
    title: str
    net: str
    layers: tuple[str, ...]
    rows: tuple[SpeedRow, ...]
    file: Path
    batch_sizes: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1,)
    about: str = ""
