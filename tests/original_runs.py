"""Recorded runs of the published program: where they lie, and how a solver follows one.

See tests/fixtures/original_runs/README.md.
"""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from minissl import Solver
from minissl.solvers.display import Silent

FOLDER = Path(__file__).parent / "fixtures" / "original_runs"
RUNS = sorted(folder.name for folder in (FOLDER / "recorded").iterdir())
SMALL_RUNS = [run for run in RUNS if run.startswith("t_")]
LENET_RUNS = [run for run in RUNS if not run.startswith("t_")]


def record(run: str) -> dict[str, Any]:
    return json.loads((FOLDER / "recorded" / run / "record.json").read_text())


def trace(run: str) -> dict[int, dict[str, str]]:
    """Rows of the trace by iteration."""
    with gzip.open(FOLDER / "recorded" / run / "trace.csv.gz", "rt") as file:
        return {int(row["iter"]): row for row in csv.DictReader(file)}


def final(run: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / "recorded" / run / "final.npz") as file:
        return dict(file)


def log_lines(run: str) -> list[str]:
    with gzip.open(FOLDER / "recorded" / run / "log.txt.gz", "rt") as file:
        return file.read().splitlines()


def make_solver(run: str, **options: Any) -> Solver:
    weights = FOLDER / "weights" / record(run)["initial_weights"]
    options = {"dtype": "float64", "original": True, **options}
    return Solver(
        FOLDER / "recorded" / run / "solver.prototxt",
        weights=weights,
        data={"source": "mnist"},
        **options,
    )


class Tracer(Silent):
    """Collects for every iteration what the traces hold, under the same names."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        #: for every iteration, how many biases the zero-out hit
        self.zeroed_biases: list[int] = []

    def before_update(self, solver: Solver, rate: float) -> None:
        row = {"loss": solver.loss, "regularization": solver.regularization()}
        for p, parameter in enumerate(solver.net.parameters):
            row[f"grad_l1_{p}"] = float(np.abs(parameter.diff).sum(dtype=np.float64))
        self.rows.append(row)

    def after_update(self, solver: Solver) -> None:
        for p, parameter in enumerate(solver.net.parameters):
            row = self.rows[-1]
            row[f"upd_l1_{p}"] = float(np.abs(parameter.diff).sum(dtype=np.float64))
            row[f"w_l1_{p}"] = float(np.abs(parameter.data).sum(dtype=np.float64))
            row[f"w_nnz_{p}"] = int(np.count_nonzero(parameter.data))
        # a bias that was moved and is exactly 0 was put there
        self.zeroed_biases.append(
            sum(
                int(np.count_nonzero((parameter.data == 0) & (parameter.diff != 0)))
                for parameter in solver.net.parameters
                if parameter.role == "bias"
            )
        )
