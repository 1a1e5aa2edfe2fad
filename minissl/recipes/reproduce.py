"""A table of the paper, earned again: every row with several seeds, the median one kept.

The work goes into one folder, which can be deleted, and what is worth keeping into another::

    runs/table1/seed1/baseline/          the dense network
                      lenet2-ssl/        SSL from its weights, and ssl2 ... where it has more stages
                      lenet2-finetune/   zeros frozen
                      lenet2-compact/    what is dead has left
                      lenet2-measure/    error, structure, FLOP, size of the compacted network
                      lenet2-time/       only of the median seed: dense and compacted by turns
                      ...
    reference_results/table1/result.json all figures, the paper's beside ours
                             lenet2/     the median run: compacted net and weights, solvers, logs

The median of a row is the run whose error is in the middle; of two in the middle, the worse.
Stages that are complete are not repeated (:mod:`minissl.recipes.stages`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from minissl import backend as backends
from minissl import doctor, models
from minissl.data.datasets import load
from minissl.errors import ConfigError, MinisslError
from minissl.formats.atomic import atomic_write
from minissl.formats.prototxt import read_solver, write_prototxt
from minissl.net import Net
from minissl.recipes import stages
from minissl.recipes.experiments import Experiment, Row
from minissl.recipes.measuring import (
    COMPACT_WEIGHTS,
    NET,
    Network,
    dense_flop,
    error_of,
    structure_of,
    structured_percent,
    time_side_by_side,
    total_flops_percent,
    write_compacted,
)
from minissl.recipes.stages import Done, Finished, Stage, Watcher, Work
from minissl.recipes.training import LOG, WEIGHTS, Training

RESULT = "result.json"
TEST_BATCH = 100
BATCH_SIZES = (1, 64)
BASELINE = "baseline"
#: a run that only shows that everything works
FAST = ("max_iter=20", "display=5", "test_interval=10", "test_iter=2")
FAST_BATCHES = 2


@dataclass(frozen=True)
class Reproduction:
    """What can be chosen about an experiment.

    Attributes
    ----------
    experiment : Experiment
    out : Path
        For the results.
    work : Path
        For everything that training writes.
    seeds : tuple of int
        Of the initial weights; every row is trained with each of them.
    data : str
        The data set; ``mnist/validation`` to choose settings by.
    backend : str
        See :func:`minissl.backend.get`.
    fast : bool
        Train for a few iterations only; the figures then mean nothing.
    """

    experiment: Experiment
    out: Path
    work: Path
    seeds: tuple[int, ...] = (1, 2, 3)
    data: str = "mnist"
    backend: str = "auto"
    fast: bool = False

    def run(self, command: str, watcher: Watcher | None = None) -> dict[str, Any]:
        """Run all stages that are not complete; write the result folder; return the result.

        Parameters
        ----------
        command : str
            As it was typed, for the record.
        watcher : Watcher, optional

        Raises
        ------
        Stopped
            After a signal; the next run goes on from there.
        MinisslError
            Whatever a stage raises.
        """
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError("name at least one seed, and each one once")
        if not (self.out / RESULT).exists() and any((self.out / k).exists() for k in self._keys()):
            raise ConfigError(
                f"{self.out} holds folders that are no results of an experiment; choose another "
                "with --out"
            )
        done = {
            seed: stages.run(self.stages(seed), self._folder(seed), watcher) for seed in self.seeds
        }
        medians = {key: self._median(key, done) for key in self._keys()}
        for seed in sorted({medians[row.key] for row in self.experiment.rows}):
            timed = [row for row in self.experiment.rows if medians[row.key] == seed]
            every = [*self.stages(seed), *map(self._timing, timed)]
            done[seed] = stages.run(every, self._folder(seed), _Anew(watcher))
        result = self._result(command, done, medians)
        self._keep(done, medians)
        with atomic_write(self.out / RESULT) as file:
            file.write(json.dumps(result, indent=1).encode() + b"\n")
        return result

    def stages(self, seed: int) -> list[Stage]:
        """Return the stages of one seed in order, without the timing."""
        training: dict[str, Any] = {
            "changes": [f"random_seed={seed}", *(FAST if self.fast else ())],
            "data": self.data,
            "backend": self.backend,
        }
        title = f"seed {seed}, {self.experiment.paper['name']}"
        found: list[Stage] = [
            Training(BASELINE, title, models.path(self.experiment.baseline), **training),
            self._measuring(f"{title}: measure", BASELINE, (BASELINE, NET), (BASELINE, WEIGHTS)),
        ]
        for row in self.experiment.rows:
            title = f"seed {seed}, {row.name}"
            start, compact = BASELINE, f"{row.key}-compact"
            for what, solver in row.trainings.items():
                stage = f"{row.key}-{what}"
                found.append(
                    Training(stage, f"{title}: {what}", models.path(solver), start, **training)
                )
                start = stage
            found += [
                self._compacting(f"{title}: compact", compact, start),
                self._measuring(
                    f"{title}: measure", row.key, (compact, NET), (compact, COMPACT_WEIGHTS)
                ),
            ]
        return found

    def _folder(self, seed: int) -> Path:
        return self.work / f"seed{seed}"

    def _keys(self) -> list[str]:
        return [BASELINE, *(row.key for row in self.experiment.rows)]

    def _trainings(self, key: str) -> list[str]:
        """Return what a row trains, in order."""
        rows = {row.key: list(row.trainings) for row in self.experiment.rows}
        return rows.get(key, [BASELINE])

    def _options(self) -> dict[str, Any]:
        return {"backend": self.backend, "data": {"source": self.data}}

    def _settings(self) -> dict[str, str]:
        """What the figures of a stage depend on beside its files."""
        name = backends.name_of(backends.get(self.backend))
        return {"backend": name, "data": self.data, "fast": str(self.fast)}

    def _compacting(self, title: str, stage: str, finetune: str) -> Work:
        def work(folder: Path, done: Done) -> dict[str, Any]:
            weights = done[finetune].folder / WEIGHTS
            model = done[BASELINE].folder / NET
            before = Network("fine-tuned", model, weights, self._options()).open()
            dense = dense_flop(before)
            by_itself = structured_percent(before, dense)
            layers = [
                {**layer, "flops_percent": by_itself[layer["name"]]}
                for layer in structure_of(before, dense)
            ]
            return {"before": layers, **write_compacted(before, folder, self._options())}

        reads = [(BASELINE, NET), (finetune, WEIGHTS)]
        return Work(stage, title, work, reads, self._settings())

    def _measuring(
        self, title: str, key: str, model: tuple[str, str], weights: tuple[str, str]
    ) -> Work:
        def work(folder: Path, done: Done) -> dict[str, Any]:
            net, values = (done[stage].folder / file for stage, file in (model, weights))
            network = Network(key, net, values, self._options())
            return figures_of(network, done[BASELINE].folder / NET, self.fast)

        reads = list(dict.fromkeys([(BASELINE, NET), model, weights]))
        return Work(f"{key}-measure", title, work, reads, self._settings())

    def _timing(self, row: Row) -> Work:
        compact = f"{row.key}-compact"

        def work(folder: Path, done: Done) -> dict[str, Any]:
            options = self._options()
            dense = done[BASELINE].folder
            small = done[compact].folder
            networks = [
                Network("dense", dense / NET, dense / WEIGHTS, options),
                Network("compacted", small / NET, small / COMPACT_WEIGHTS, options),
            ]
            blocks, iterations = (1, 2) if self.fast else (7, 30)
            return {
                str(size): time_side_by_side(networks, size, blocks, iterations)
                for size in BATCH_SIZES
            }

        reads = [(BASELINE, WEIGHTS), (compact, NET), (compact, COMPACT_WEIGHTS)]
        settings = {**self._settings(), "threads": str(backends.threads())}
        return Work(f"{row.key}-time", f"{row.name}: time", work, reads, settings)

    def _median(self, key: str, done: Mapping[int, Done]) -> int:
        """Return the seed whose error is in the middle; of two in the middle, the worse."""

        def order(seed: int) -> tuple[float, float, int]:
            figures = done[seed][f"{key}-measure"].figures
            return figures["error"], figures["flops_percent"], seed

        return sorted(self.seeds, key=order)[len(self.seeds) // 2]

    def _result(
        self, command: str, done: Mapping[int, Done], medians: Mapping[str, int]
    ) -> dict[str, Any]:
        papers = {BASELINE: self.experiment.paper, **{r.key: r.paper for r in self.experiment.rows}}
        rows = [self._row(key, papers[key], done, medians[key]) for key in self._keys()]
        seconds = sum(one.seconds for of_seed in done.values() for one in of_seed.values())
        model = done[medians[BASELINE]][BASELINE].folder / NET
        dense = dense_flop(Net(model, "TEST", **self._options()))
        return {
            "experiment": self.experiment.key,
            "title": self.experiment.title,
            "data": self.data,
            "fast": self.fast,
            "seeds": list(self.seeds),
            "layers": list(self.experiment.layers),
            "dense_flop": dense,
            "rows": rows,
            "seconds": seconds,
            "command": command,
            "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
            "backend": backends.name_of(backends.get(self.backend)),
            "threads": backends.threads(),
            "machine": doctor.machine_in_words(),
            "versions": doctor.versions(),
        }

    def _row(
        self, key: str, paper: Mapping[str, Any], done: Mapping[int, Done], median: int
    ) -> dict[str, Any]:
        runs = [
            {"seed": seed, **done[seed][f"{key}-measure"].figures, **self._course(key, done[seed])}
            for seed in self.seeds
        ]
        kept = next(run for run in runs if run["seed"] == median)
        row = {
            **kept,
            "key": key,
            "name": paper["name"],
            "trainings": self._trainings(key),
            "paper": dict(paper),
            "runs": runs,
            "spread": {
                name: [min(run[name] for run in runs), max(run[name] for run in runs)]
                for name in ("error", "flops_percent", "bytes")
            },
        }
        if key != BASELINE:
            row["times"] = done[median][f"{key}-time"].figures
            row["speed_ups"] = speed_ups(row["times"])
            row["bytes_dense"] = done[median][f"{BASELINE}-measure"].figures["bytes"]
            compaction = done[median][f"{key}-compact"].figures
            row["max_abs_difference"] = compaction["max_abs_difference"]
            row["layers_before_compaction"] = compaction["before"]
        return row

    def _course(self, key: str, done: Done) -> dict[str, Any]:
        """What happened on the way: the error after SSL, and the wall time of the row's stages."""
        own = [one for one in done.values() if one.name == key or one.name.startswith(f"{key}-")]
        course: dict[str, Any] = {"seconds": sum(one.seconds for one in own)}
        if key != BASELINE:
            *_, last_ssl, _ = self._trainings(key)
            course["error_after_ssl"] = _last_error(done[f"{key}-{last_ssl}"])
        return course

    def _keep(self, done: Mapping[int, Done], medians: Mapping[str, int]) -> None:
        """Copy what belongs to the median runs into the result folder."""
        for key in self._keys():
            stage = done[medians[key]]
            target = self.out / key
            _make_empty(target)
            for what in self._trainings(key):
                folder = stage[what if key == BASELINE else f"{key}-{what}"].folder
                shutil.copy(folder / NET, target / f"{what}_net.prototxt")
                shutil.copy(folder / LOG, target / f"{what}_{LOG}")
                solver = read_solver(folder / "solver.prototxt")
                solver.net = f"{what}_net.prototxt"
                write_prototxt(solver, target / f"{what}_solver.prototxt")
            if key != BASELINE:
                for name in (NET, COMPACT_WEIGHTS):
                    shutil.copy(stage[f"{key}-compact"].folder / name, target / name)


class _Anew(Watcher):
    """Passes on what is told, but for stages that are complete: they were told of already."""

    def __init__(self, watcher: Watcher | None):
        self.watcher = watcher or Watcher()

    def anew(self, stage: Stage, changed: Sequence[str]) -> None:
        """Pass on."""
        self.watcher.anew(stage, changed)

    def started(self, stage: Stage) -> None:
        """Pass on."""
        self.watcher.started(stage)

    def finished(self, stage: Stage, result: Finished) -> None:
        """Pass on."""
        self.watcher.finished(stage, result)


def figures_of(network: Network, dense: Path, fast: bool = False) -> dict[str, Any]:
    """Return ``error``, ``layers``, ``flops_percent`` and ``bytes`` of a network.

    Parameters
    ----------
    network : Network
        Whose options name the data set.
    dense : Path
        The dense net's prototxt, whose FLOP are 100 %.
    fast : bool
        Test on a few images only, instead of all.
    """
    net = network.open(TEST_BATCH)
    of_dense = dense_flop(Net(dense, "TEST", **network.options))
    images = len(load(network.options["data"]["source"], "test"))
    return {
        "error": error_of(net, FAST_BATCHES if fast else images // TEST_BATCH),
        "layers": structure_of(net, of_dense),
        "flops_percent": total_flops_percent(net, of_dense),
        "bytes": network.weights.stat().st_size,
    }


def speed_ups(times: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many times faster the compacted network is, by batch size.

    Returns
    -------
    dict
        Batch size -> ``all``, ``layers`` {name: ratio}, ``products`` {name: ratio}.
    """
    ratios: dict[str, Any] = {}
    for size, both in times.items():
        dense, small = both["dense"], both["compacted"]
        ratios[size] = {"all": dense["total_ms"] / small["total_ms"]}
        for what in ("layers", "products"):
            ratios[size][what] = {
                name: ms / small[what][name]
                for name, ms in dense[what].items()
                if small[what].get(name)
            }
    return ratios


def _last_error(stage: Finished) -> float | None:
    outputs = stage.figures["outputs"]
    return 1.0 - outputs[0]["accuracy"] if outputs else None


def _make_empty(folder: Path) -> None:
    """Make a folder of the result; what an earlier run left in it leaves."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise MinisslError(
            f"the result folder {folder} cannot be written ({error.strerror}); choose another "
            "with --out"
        ) from None
