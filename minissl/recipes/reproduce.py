"""A table of the paper, earned again: every row with several seeds, the median one kept.

The work goes into one folder, which can be deleted, and what is worth keeping into another::

    runs/table1/seed1/baseline/          the dense network
                      lenet2-ssl/        SSL from its weights, and ssl2 ... where it has more stages
                      lenet2-rescale/    where a row is rescaled; -prune where it is pruned
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
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from minissl import backend as backends
from minissl import doctor
from minissl.errors import ConfigError, MinisslError
from minissl.formats.atomic import atomic_write
from minissl.formats.prototxt import read_solver, write_prototxt
from minissl.net import Net
from minissl.recipes import parallel, result_folder, stages
from minissl.recipes.experiments import BASELINE, Experiment
from minissl.recipes.measuring import COMPACT_WEIGHTS, NET, dense_flop, sizes_of
from minissl.recipes.result_folder import RESULT
from minissl.recipes.row_stages import RowStages, stage_name
from minissl.recipes.stages import Done, Finished, Only, Stage, Watcher
from minissl.recipes.training import LOG, WEIGHTS

#: the experiment's file, as it was when it ran
FILE = "experiment.toml"
#: bytes of dense weights that are kept too: they can be tested, and others may start from them
SMALL = 1_200_000


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
    data : str, optional
        Another data set than the experiment's; ``mnist/validation`` to choose settings by.
    backend : str
        See :func:`minissl.backend.get`.
    fast : bool
        Train for a few iterations only; the figures then mean nothing.
    collapse_check : bool
        Stop a training whose layer loses all of its groups within the first epoch.
    """

    experiment: Experiment
    out: Path
    work: Path
    seeds: tuple[int, ...] = (1, 2, 3)
    data: str | None = None
    backend: str = "auto"
    fast: bool = False
    collapse_check: bool = True

    def run(
        self,
        command: str,
        watcher: Watcher | None = None,
        workers: parallel.Workers | None = None,
    ) -> dict[str, Any]:
        """Run all stages that are not complete; write the result folder; return the result.

        Parameters
        ----------
        command : str
            As it was typed, for the record.
        watcher : Watcher, optional
        workers : Workers, optional
            Who trains the rows and seeds side by side; without them one follows the other. The
            results are the same.

        Raises
        ------
        Stopped
            After a signal; the next run goes on from there.
        MinisslError
            Whatever a stage raises.
        """
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError("name at least one seed, and each one once")
        ours = any((self.out / name).exists() for name in (RESULT, FILE))
        if not ours and any((self.out / k).exists() for k in self._keys()):
            raise ConfigError(
                f"{self.out} holds folders that are no results of an experiment; choose another "
                "with --out"
            )
        result_folder.check(self.out, self.experiment.key, self.fast, self.experiment.file)
        watcher = watcher or Watcher()
        told = watcher
        if workers:
            parallel.run(self.jobs(), workers, self.work, watcher)
            told = Only(watcher, ())  # of what the workers have done it is told already
        done = {
            seed: stages.run(self.stages(seed), self._folder(seed), told) for seed in self.seeds
        }
        medians = {key: self._median(key, done) for key in self._keys()}
        for seed in sorted({medians[row.key] for row in self.experiment.rows}):
            make = self._row_stages(seed)
            timing = [make.timing(key) for key in self._keys()[1:] if medians[key] == seed]
            told = Only(watcher, [stage.name for stage in timing])
            done[seed] = stages.run([*self.stages(seed), *timing], self._folder(seed), told)
        result = self._result(command, done, medians)
        self._keep(done, medians)
        with atomic_write(self.out / RESULT) as file:
            file.write(json.dumps(result, indent=1).encode() + b"\n")
        return result

    def stages(self, seed: int) -> list[Stage]:
        """Return the stages of one seed in order, without the timing."""
        make = self._row_stages(seed)
        return [stage for key in self._keys() for stage in make.of(key)]

    def jobs(self) -> list[parallel.Job]:
        """Return what can be done side by side: each row of each seed, after what it starts from.

        Workers may run in another folder, and with another backend as their default.
        """
        there = replace(
            self,
            work=self.work.resolve(),
            experiment=replace(self.experiment, file=self.experiment.file.resolve()),
            backend=self._backend_name(),
        )
        return [
            parallel.Job(
                f"{key} of seed {seed}",
                partial(there.run_row, seed, key),
                tuple(f"{one} of seed {seed}" for one in self.experiment.before(key)),
            )
            for seed in self.seeds
            for key in self._keys()
        ]

    def run_row(self, seed: int, key: str, watcher: Watcher) -> None:
        """Run the stages of one row of one seed; what it needs must be complete."""
        make = self._row_stages(seed)
        before = [stage for one in self.experiment.before(key) for stage in make.of(one)]
        own = make.of(key)
        told = Only(watcher, [stage.name for stage in own])
        stages.run([*before, *own], self._folder(seed), told)

    def _row_stages(self, seed: int) -> RowStages:
        data = self.data or self.experiment.data
        return RowStages(self.experiment, seed, data, self.backend, self.fast, self.collapse_check)

    def _folder(self, seed: int) -> Path:
        return self.work / f"seed{seed}"

    def _keys(self) -> list[str]:
        return [BASELINE, *(row.key for row in self.experiment.rows)]

    def _backend_name(self) -> str:
        return backends.name_of(backends.get(self.backend))

    def _median(self, key: str, done: Mapping[int, Done]) -> int:
        return median_of(
            [{"seed": seed, **done[seed][f"{key}-measure"].figures} for seed in self.seeds]
        )

    def _result(
        self, command: str, done: Mapping[int, Done], medians: Mapping[str, int]
    ) -> dict[str, Any]:
        rows = [self._row(key, done, medians[key]) for key in self._keys()]
        seconds = sum(one.seconds for of_seed in done.values() for one in of_seed.values())
        model = done[medians[BASELINE]][BASELINE].folder / NET
        dense = Net(model, "TEST", **self._row_stages(self.seeds[0]).options)
        return {
            "experiment": self.experiment.key,
            "title": self.experiment.title,
            "about": self.experiment.about,
            "data": self.data or self.experiment.data,
            "fast": self.fast,
            "seeds": list(self.seeds),
            "layers": list(self.experiment.layers),
            "shown": self.experiment.shown,
            "dense_flop": dense_flop(dense),
            "dense_sizes": sizes_of(dense),
            "rows": rows,
            "seconds": seconds,
            "command": command,
            "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
            "backend": self._backend_name(),
            "threads": backends.threads(),
            "machine": doctor.machine_in_words(),
            "versions": doctor.versions(),
        }

    def _row(self, key: str, done: Mapping[int, Done], median: int) -> dict[str, Any]:
        row = self.experiment.row(key)
        runs = [
            {"seed": seed, **done[seed][f"{key}-measure"].figures, **self._course(key, done[seed])}
            for seed in self.seeds
        ]
        kept = next(run for run in runs if run["seed"] == median)
        result = {
            **kept,
            "key": key,
            "name": row.name,
            "about": row.about,
            "start": row.start,
            "trainings": list(self.experiment.trainings(key)),
            "rescaled": row.rescale,
            "shuffled": row.shuffle,
            "paper": row.paper and dict(row.paper),
            "runs": runs,
            "spread": spread_of(runs),
        }
        if key != BASELINE:
            result["times"] = done[median][f"{key}-time"].figures
            result["speed_ups"] = speed_ups(result["times"])
            result["bytes_dense"] = done[median][f"{BASELINE}-measure"].figures["bytes"]
            compaction = done[median][f"{key}-compact"].figures
            result["max_abs_difference"] = compaction["max_abs_difference"]
            result["layers_before_compaction"] = compaction["before"]
        return result

    def _course(self, key: str, done: Done) -> dict[str, Any]:
        """What happened on the way: the wall time of the row's stages, and what SSL did.

        ``trained_by`` names the backends and machines of its trainings, each once.
        ``error_after_ssl`` is that of the last SSL stage, ``revived`` the groups that came back to
        life in any of them (:mod:`minissl.solvers.revivals`); rows without SSL have neither.
        """
        own = [one for one in done.values() if one.name == key or one.name.startswith(f"{key}-")]
        course: dict[str, Any] = {"seconds": sum(one.seconds for one in own)}
        trainings = [done[stage_name(key, what)] for what in self.experiment.trainings(key)]
        by = [one.figures["trained_by"] for one in trainings if "trained_by" in one.figures]
        course["trained_by"] = list(dict.fromkeys(by))
        ssl = [done[f"{key}-{what}"] for what in self.experiment.trainings(key) if "ssl" in what]
        if ssl:
            course["error_after_ssl"] = _last_error(ssl[-1])
        counts = [one.figures["revived"] for one in ssl if "revived" in one.figures]
        if counts:
            groups = dict.fromkeys(group for one in counts for group in one)
            course["revived"] = {name: sum(one.get(name, 0) for one in counts) for name in groups}
        return course

    def _keep(self, done: Mapping[int, Done], medians: Mapping[str, int]) -> None:
        """Copy the experiment into the result folder, and what belongs to the median runs."""
        text = self.experiment.file.read_bytes()
        self.out.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.out / FILE) as file:  # first: it marks the folder as ours
            file.write(text)
        for key in self._keys():
            stage = done[medians[key]]
            target = self.out / key
            _make_empty(target)
            for what in self.experiment.trainings(key):
                folder = stage[stage_name(key, what)].folder
                shutil.copy(folder / NET, target / f"{what}_net.prototxt")
                shutil.copy(folder / LOG, target / f"{what}_{LOG}")
                solver = read_solver(folder / "solver.prototxt")
                solver.net = f"{what}_net.prototxt"
                write_prototxt(solver, target / f"{what}_solver.prototxt")
            if key != BASELINE:
                for name in (NET, COMPACT_WEIGHTS):
                    shutil.copy(stage[f"{key}-compact"].folder / name, target / name)
            elif (stage[key].folder / WEIGHTS).stat().st_size <= SMALL:
                shutil.copy(stage[key].folder / WEIGHTS, target / WEIGHTS)


def median_of(runs: Sequence[Mapping[str, Any]]) -> int:
    """Return the seed of the run whose error is in the middle; of two in the middle, the worse."""
    order = sorted((run["error"], run["flops_percent"], run["seed"]) for run in runs)
    return int(order[len(order) // 2][-1])


def spread_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the smallest and the largest of what runs differ in."""
    return {
        name: [min(run[name] for run in runs), max(run[name] for run in runs)]
        for name in ("error", "flops_percent", "bytes")
    }


def speed_ups(times: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many times faster the compacted network is, by batch size.

    Returns
    -------
    dict
        Batch size -> ``all``, ``fastest``, ``layers`` {name: ratio}, ``products`` {name: ratio}.
    """
    ratios: dict[str, Any] = {}
    for size, both in times.items():
        dense, small = both["dense"], both["compacted"]
        ratios[size] = {"all": dense["total_ms"] / small["total_ms"]}
        if "fastest_ms" in dense:  # older results lack it
            ratios[size]["fastest"] = dense["fastest_ms"] / small["fastest_ms"]
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
