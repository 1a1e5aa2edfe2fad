"""The main job: LeNet on the digits inside the package, from dense to small and fast.

========== ========================================================================================
baseline   the dense network
ssl        group Lasso on the filters and channels of both convolutions, from the dense weights
finetune   the same network without group Lasso; dead filters and columns stay dead
compact    dead filters and channels leave; the outputs stay the same, which is shown
measure    error of all four on the test digits, structure, FLOP; time of the dense and the
           compacted one, side by side
========== ========================================================================================

The solver files say how their numbers were chosen: on digits that are neither trained on nor among
the test digits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minissl import backend as backends
from minissl import doctor, models
from minissl.errors import ConfigError
from minissl.formats.atomic import atomic_write
from minissl.recipes import stages
from minissl.recipes.measuring import (
    COMPACT_WEIGHTS,
    NET,
    Network,
    dense_flop,
    figures_of,
    time_side_by_side,
    write_compacted,
)
from minissl.recipes.paper import LENET_TABLE_1
from minissl.recipes.stages import Done, Stage, Watcher, Work
from minissl.recipes.training import LOG, WEIGHTS, Training

DATA = "mnist-small"
RESULT = "result.json"
TEST_BATCHES = 10
BATCH_SIZES = (1, 64)
#: iterations of a stage in a run that only shows that everything works
FAST_ITERATIONS = 30


@dataclass(frozen=True)
class Demo:
    """What can be chosen about the demo.

    Attributes
    ----------
    folder : Path
        Where everything is written.
    seed : int
        Of the initial weights.
    backend : str
        See :func:`minissl.backend.get`.
    fast : bool
        Train for a few iterations only; the figures then mean nothing.
    """

    folder: Path
    seed: int = 1
    backend: str = "auto"
    fast: bool = False
    data: str = DATA

    def run(self, watcher: Watcher | None = None) -> dict[str, Any]:
        """Run all stages that are not complete; return and write ``result.json``.

        Returns
        -------
        dict
            ``rows``, ``times``, ``compaction``, ``machine``, ``seed`` ...

        Raises
        ------
        Stopped
            After a signal; the next run goes on from there.
        MinisslError
            Whatever a stage raises.
        """
        if (self.folder / LOG).exists():
            raise ConfigError(f"{self.folder} holds a training run; choose another with --out")
        done = stages.run(self.stages(), self.folder, watcher)
        result = {
            "recipe": "demo",
            "seed": self.seed,
            "fast": self.fast,
            "data": self.data,
            **done["measure"].figures,
            "compaction": done["compact"].figures,
            "stages": [
                {"name": stage.name, "title": stage.title, "seconds": done[stage.name].seconds}
                for stage in self.stages()
            ],
        }
        with atomic_write(self.folder / RESULT) as file:
            file.write(json.dumps(result, indent=1).encode())
        return result

    def stages(self) -> list[Stage]:
        """Return the stages in order."""
        changes = [f"random_seed={self.seed}"]
        if self.fast:
            changes += [f"max_iter={FAST_ITERATIONS}", "display=5", "test_interval=15"]
        training: dict[str, Any] = {
            "changes": changes,
            "data": self.data,
            "backend": self.backend,
        }
        backend = {"backend": self._backend_name()}
        trained = [(name, WEIGHTS) for name in ("baseline", "ssl", "finetune")]
        return [
            Training(
                "baseline",
                "train the dense LeNet",
                models.path("demo_baseline_solver.prototxt"),
                **training,
            ),
            Training(
                "ssl",
                "learn structured sparsity",
                models.path("demo_ssl_solver.prototxt"),
                start="baseline",
                **training,
            ),
            Training(
                "finetune",
                "fine-tune, zeros frozen",
                models.path("demo_ft_solver.prototxt"),
                start="ssl",
                **training,
            ),
            Work(
                "compact",
                "remove dead filters and channels",
                self._compact,
                reads=[("baseline", NET), ("finetune", WEIGHTS)],
                options=backend,
            ),
            Work(
                "measure",
                "test and time",
                self._measure,
                reads=[*trained, ("compact", COMPACT_WEIGHTS)],
                options={**backend, "threads": str(backends.threads())},
            ),
        ]

    def _backend_name(self) -> str:
        return backends.name_of(backends.get(self.backend))

    def _network(self, name: str, model: Path, weights: Path) -> Network:
        return Network(name, model, weights, {"backend": self.backend})

    def _compact(self, folder: Path, done: Done) -> dict[str, Any]:
        """Write the small network, and show that its outputs are the same."""
        weights = done["finetune"].folder / WEIGHTS
        before = self._network("fine-tuned", done["baseline"].folder / NET, weights).open()
        return write_compacted(before, folder, {"backend": self.backend})

    def _measure(self, folder: Path, done: Done) -> dict[str, Any]:
        """Fill the rows of the table."""
        dense_net = done["baseline"].folder / NET
        compact = done["compact"].folder
        networks = [
            self._network("dense", dense_net, done["baseline"].folder / WEIGHTS),
            self._network("after SSL", dense_net, done["ssl"].folder / WEIGHTS),
            self._network("fine-tuned", dense_net, done["finetune"].folder / WEIGHTS),
            self._network("compacted", compact / NET, compact / COMPACT_WEIGHTS),
        ]
        dense = dense_flop(networks[0].open())
        rows = [self._row(network, dense) for network in networks]
        rows[0]["paper"], rows[-1]["paper"] = LENET_TABLE_1[0], LENET_TABLE_1[1]
        blocks, iterations = (1, 3) if self.fast else (5, 20)
        times = {
            str(size): time_side_by_side([networks[0], networks[-1]], size, blocks, iterations)
            for size in BATCH_SIZES
        }
        for row in rows:
            row["ms"] = {
                size: timed[row["name"]]["total_ms"]
                for size, timed in times.items()
                if row["name"] in timed
            }
        return {
            "rows": rows,
            "paper": LENET_TABLE_1,
            "times": times,
            "threads": backends.threads(),
            "backend": self._backend_name(),
            "machine": doctor.machine_in_words(),
            "versions": doctor.versions(),
        }

    def _row(self, network: Network, dense: Mapping[str, int]) -> dict[str, Any]:
        return {"name": network.name, **figures_of(network, dense, TEST_BATCHES)}
