"""What is done for a row of a table: the stages of one seed, from training to the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minissl import backend as backends
from minissl.data.datasets import load
from minissl.errors import ConfigError
from minissl.formats.weights import read_weights
from minissl.net import Net
from minissl.recipes.experiments import BASELINE, FILLERS, Experiment, Row
from minissl.recipes.measuring import (
    COMPACT_WEIGHTS,
    NET,
    TEST_BATCH,
    Network,
    dense_flop,
    figures_of,
    structure_of,
    structured_percent,
    time_side_by_side,
    write_compacted,
)
from minissl.recipes.pruning import prune_like
from minissl.recipes.stages import Done, Stage, Work
from minissl.recipes.training import WEIGHTS, Training
from minissl.solvers.rescaling import rescale

BATCH_SIZES = (1, 64)
#: what is timed; of another version, times are taken again
TIMING = "by layers, and as fast as it runs"
#: a run that only shows that everything works
FAST = ("max_iter=20", "display=5", "test_interval=10", "test_iter=2")
FAST_BATCHES = 2


def stage_name(key: str, what: str) -> str:
    """Return the stage that trains ``what`` of a row; the baseline is one stage."""
    return key if key == BASELINE else f"{key}-{what}"


def time_row(networks: Sequence[Network], fast: bool) -> dict[str, Any]:
    """Time a dense network and a compacted one by turns: batch size -> what each took."""
    blocks, iterations = (1, 2) if fast else (7, 30)
    return {
        str(size): time_side_by_side(networks, size, blocks, iterations) for size in BATCH_SIZES
    }


@dataclass(frozen=True)
class RowStages:
    """Makes the stages of one seed.

    Attributes
    ----------
    experiment : Experiment
    seed : int
        Of the initial weights.
    data, backend : str
    fast, collapse_check : bool
        See :class:`minissl.recipes.reproduce.Reproduction`.
    """

    experiment: Experiment
    seed: int
    data: str
    backend: str
    fast: bool
    collapse_check: bool = True

    def of(self, key: str) -> list[Stage]:
        """Return the stages of a row in order, without the timing."""
        row = self.experiment.row(key)
        if key == BASELINE:
            return [
                self._training(row, BASELINE, self.experiment.solver, None),
                self._measuring(row, (BASELINE, NET), (BASELINE, WEIGHTS)),
            ]
        found: list[Stage] = []
        start = None if row.start == FILLERS else self._last_training(row.start)
        if row.prune_like:
            found.append(self._pruning(row, self._last_training(row.prune_like)))
            start = found[-1].name
        for what, solver in row.trainings.items():
            if what == "finetune" and row.rescale:
                found.append(self._rescaling(row, found[-1].name))
                start = found[-1].name
            found.append(self._training(row, what, solver, start))
            start = found[-1].name
        compact = f"{key}-compact"
        return [
            *found,
            self._compacting(row, start or BASELINE),
            self._measuring(row, (compact, NET), (compact, COMPACT_WEIGHTS)),
        ]

    def timing(self, key: str) -> Work:
        """Return the stage that times the compacted network and the dense one by turns."""
        compact = f"{key}-compact"

        def work(folder: Path, done: Done) -> dict[str, Any]:
            options = self.options
            dense = done[BASELINE].folder
            small = done[compact].folder
            networks = [
                Network("dense", dense / NET, dense / WEIGHTS, options),
                Network("compacted", small / NET, small / COMPACT_WEIGHTS, options),
            ]
            return time_row(networks, self.fast)

        reads = [(BASELINE, WEIGHTS), (compact, NET), (compact, COMPACT_WEIGHTS)]
        settings = {**self._settings, "threads": str(backends.threads()), "timing": TIMING}
        title = f"{self.experiment.row(key).name}: time"
        return Work(f"{key}-time", title, work, reads, settings)

    @property
    def options(self) -> dict[str, Any]:
        """The options of every network."""
        return {"backend": self.backend, "data": {"source": self.data}}

    @property
    def _settings(self) -> dict[str, str]:
        """What the figures of a stage depend on beside its files."""
        name = backends.name_of(backends.get(self.backend))
        return {"backend": name, **self._settings_of_weights}

    @property
    def _settings_of_weights(self) -> dict[str, str]:
        """The same of a stage that makes weights; they are taken whichever backend made them."""
        return {"data": self.data, "fast": str(self.fast)}

    def _title(self, row: Row, what: str = "") -> str:
        return f"seed {self.seed}, {row.name}" + (f": {what}" if what else "")

    def _last_training(self, key: str) -> str:
        return stage_name(key, list(self.experiment.trainings(key))[-1])

    def _training(self, row: Row, what: str, solver: str, start: str | None) -> Training:
        return Training(
            stage_name(row.key, what),
            self._title(row, "" if row.key == BASELINE else what),
            self.experiment.path(solver),
            start,
            changes=[f"random_seed={self.seed}", *(FAST if self.fast else ())],
            data=self.data,
            backend=self.backend,
            collapse_check=self.collapse_check,
            shuffle=row.shuffle,
        )

    def _pruning(self, row: Row, like: str) -> Work:
        def work(folder: Path, done: Done) -> dict[str, Any]:
            model = done[BASELINE].folder / NET
            weights = [done[stage].folder / WEIGHTS for stage in (BASELINE, like)]
            net, pattern = (Network("", model, one, self.options).open() for one in weights)
            dense = dense_flop(net)
            prune_like(net, pattern, self.seed)
            net.save(folder / WEIGHTS)
            return {"layers": structure_of(net, dense)}

        reads = [(BASELINE, NET), (BASELINE, WEIGHTS), (like, WEIGHTS)]
        settings = {**self._settings_of_weights, "seed": str(self.seed)}
        return Work(f"{row.key}-prune", self._title(row, "prune"), work, reads, settings)

    def _rescaling(self, row: Row, trained: str) -> Work:
        def work(folder: Path, done: Done) -> dict[str, Any]:
            weights = done[trained].folder / WEIGHTS
            net = Network("", done[BASELINE].folder / NET, weights, self.options).open()
            factors = rescale(net, read_weights(done[BASELINE].folder / WEIGHTS))
            if not factors:
                raise ConfigError(
                    f"row '{row.key}': 'rescale' changes nothing, since BatchNorm follows no layer "
                    "that has weights of its own; leave it out"
                )
            net.save(folder / WEIGHTS)
            return {"factors": factors}

        reads = [(BASELINE, NET), (BASELINE, WEIGHTS), (trained, WEIGHTS)]
        title = self._title(row, "rescale")
        return Work(f"{row.key}-rescale", title, work, reads, self._settings_of_weights)

    def _compacting(self, row: Row, trained: str) -> Work:
        def work(folder: Path, done: Done) -> dict[str, Any]:
            weights = done[trained].folder / WEIGHTS
            before = Network("trained", done[BASELINE].folder / NET, weights, self.options).open()
            dense = dense_flop(before)
            by_itself = structured_percent(before, dense)
            layers = [
                {**layer, "flops_percent": by_itself[layer["name"]]}
                for layer in structure_of(before, dense)
            ]
            return {"before": layers, **write_compacted(before, folder, self.options)}

        reads = [(BASELINE, NET), (trained, WEIGHTS)]
        title = self._title(row, "compact")
        return Work(f"{row.key}-compact", title, work, reads, self._settings)

    def _measuring(self, row: Row, model: tuple[str, str], weights: tuple[str, str]) -> Work:
        def work(folder: Path, done: Done) -> dict[str, Any]:
            net, values = (done[stage].folder / file for stage, file in (model, weights))
            network = Network(row.key, net, values, self.options)
            return figures_of_test(network, done[BASELINE].folder / NET, self.fast)

        reads = list(dict.fromkeys([(BASELINE, NET), model, weights]))
        title = self._title(row, "measure")
        return Work(f"{row.key}-measure", title, work, reads, self._settings)


def figures_of_test(network: Network, dense: Path, fast: bool = False) -> dict[str, Any]:
    """Return :func:`minissl.recipes.measuring.figures_of` a network, over all test images.

    Parameters
    ----------
    network : Network
        Whose options name the data set.
    dense : Path
        The dense net's prototxt, whose FLOP are 100 %.
    fast : bool
        Test on a few images only.
    """
    of_dense = dense_flop(Net(dense, "TEST", **network.options))
    images = len(load(network.options["data"]["source"], "test"))
    return figures_of(network, of_dense, FAST_BATCHES if fast else images // TEST_BATCH)
