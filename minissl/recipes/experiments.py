"""Experiments: which files train which row of a table.

A row is SSL from the weights of the dense network, in one or more stages that differ in their
decays, then fine-tuning with the zeros frozen. It may leave out either, start from another row or
from random weights, or prune at random in place of SSL. An experiment is a TOML file; those that
come with minissl are in ``minissl/models``, beside the solvers they name, which say how their
numbers were chosen.
:mod:`minissl.recipes.experiment_files` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minissl import models

#: the experiments that come with minissl
NAMES = ("table1", "table2", "table3", "mlp", "depth", "channels", "variants")
#: where their results are kept, by name
RESULTS = Path("reference_results")
#: key of the dense network, the table's first row
BASELINE = "baseline"
#: random weights, of the net's fillers
FILLERS = "fillers"
#: what a row starts from, if not another row: the dense weights, or random ones
STARTS = (BASELINE, FILLERS)
#: what a table tells about layers: how many filters, channels and columns are left, or how many
#: per cent of the rows and columns of their weight matrices are zero; or how many layers are left,
#: or how many channels inside the blocks of a residual network
STRUCTURE, SPARSITY, DEPTH, WIDTH = SHOWN = ("structure", "sparsity", "depth", "width")


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes
    ----------
    key : str
        In names of files and stages.
    name : str
        In tables and pictures.
    ssl : tuple of str
        Solvers of SSL, each from the weights of the one before.
    finetune : tuple of str
        Solvers of fine-tuning, likewise.
    rescale : bool
        Between SSL and fine-tuning, each layer that BatchNorm follows gets the norm that it has in
        the dense network (:mod:`minissl.solvers.rescaling`).
    shuffle : bool
        Its trainings read the data in another order in each epoch.
    start : str
        What the first of them starts from: ``baseline``, ``fillers``, or the key of an earlier row,
        whose last training it goes on from.
    prune_like : str, optional
        Key of an earlier row. In place of SSL, filters and columns of the dense network are
        removed at random, as many as that row has lost.
    paper : dict, optional
        The published row.
    about : str
        What is special about it, for readers of the table.
    """

    key: str
    name: str
    ssl: tuple[str, ...] = ()
    finetune: tuple[str, ...] = ()
    rescale: bool = False
    shuffle: bool = False
    start: str = BASELINE
    prune_like: str | None = None
    paper: Mapping[str, Any] | None = None
    about: str = ""

    @property
    def trainings(self) -> dict[str, str]:
        """The solvers in order: of ``ssl``, ``ssl2`` ..., ``finetune``, ``finetune2`` ..."""
        stages = {"ssl": self.ssl, "finetune": self.finetune}
        return {
            what if n == 1 else f"{what}{n}": name
            for what, solvers in stages.items()
            for n, name in enumerate(solvers, 1)
        }


@dataclass(frozen=True)
class Experiment:
    """A table, and how it is made.

    Attributes
    ----------
    key : str
        In names of folders.
    title : str
    solver : str
        Of the dense network.
    baseline : Row
        The dense network as the table's first row.
    rows : tuple of Row
        The others.
    layers : tuple of str
        Layers that the table tells about.
    file : Path
        The TOML file; solvers are named relative to its folder.
    data : str
        The data set.
    about : str
        For readers of the table.
    shown : {"structure", "sparsity", "depth", "width"}
        What the table tells about its layers.
    """

    key: str
    title: str
    solver: str
    baseline: Row
    rows: tuple[Row, ...]
    layers: tuple[str, ...]
    file: Path
    data: str = "mnist"
    about: str = ""
    shown: str = STRUCTURE

    def path(self, name: str) -> Path:
        """Return a solver: beside the experiment's file, else among those that come with minissl.

        It is looked for when it is needed, on the machine that needs it.
        """
        own = self.file.parent / name
        return own if own.is_file() else models.path(name)

    def trainings(self, key: str) -> dict[str, str]:
        """Return what trains a row, of its own or of the baseline, each with its solver."""
        return {BASELINE: self.solver} if key == BASELINE else self.row(key).trainings

    def before(self, key: str) -> list[str]:
        """Return the rows whose files a row reads, in the order in which they can be made."""
        if key == BASELINE:
            return []
        row = self.row(key)
        named = row.prune_like or row.start
        if named in STARTS:
            return [BASELINE]
        return [*self.before(named), named]

    def row(self, key: str) -> Row:
        """Return a row by its key."""
        return next(row for row in (self.baseline, *self.rows) if row.key == key)
