"""Groups that were zero and came back to life.

Nothing keeps a zero group at zero during SSL: group lasso does not pull at it, and the gradient of
the loss may lift a weight above the zero-out threshold again. :class:`Revivals` counts the groups
to which that happened, each one once. It looks at the weights every ``EVERY`` iterations, and saves
what it has seen beside each snapshot, so that a run that was interrupted counts the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minissl.backend import to_host
from minissl.formats.atomic import atomic_write
from minissl.solvers.display import Silent
from minissl.sparsity.group_lasso import group_norms

if TYPE_CHECKING:
    from minissl.solvers.solver import Solver

#: iterations between two looks
EVERY = 10
FILE = "revived.json"


class Revivals(Silent):
    """Count revived groups of every parameter with group lasso.

    Parameters
    ----------
    folder : Path
        Where ``revived.json`` is kept for a resumed run.
    """

    def __init__(self, folder: Path):
        self.path = folder / FILE
        #: layer and tile -> which groups were zero at the last look, and which came back so far
        self.zero: dict[str, np.ndarray] = {}
        self.revived: dict[str, np.ndarray] = {}

    def begin(self, solver: Solver, last: int) -> None:
        """Go on where the snapshot was saved, or start with the present zeros."""
        self.zero = _zero_groups(solver)
        self.revived = {key: np.zeros_like(zero) for key, zero in self.zero.items()}
        if solver.iteration == 0 or not self.path.exists():
            return
        saved = json.loads(self.path.read_text("utf-8"))
        if saved["iteration"] == solver.iteration:
            for name, arrays in (("zero", self.zero), ("revived", self.revived)):
                for key, indices in saved[name].items():
                    arrays[key][:] = False
                    arrays[key][indices] = True

    def after_update(self, solver: Solver) -> None:
        """Look at the groups."""
        if solver.iteration % EVERY:
            return
        now = _zero_groups(solver)
        for key, zero in now.items():
            self.revived[key] |= self.zero[key] & ~zero
        self.zero = now

    def saved(self, solver: Solver, path: Path) -> None:
        """Save what was seen so far beside the snapshot."""
        state: dict[str, Any] = {"iteration": solver.iteration}
        for name, arrays in (("zero", self.zero), ("revived", self.revived)):
            state[name] = {key: np.flatnonzero(array).tolist() for key, array in arrays.items()}
        with atomic_write(self.path) as file:
            file.write(json.dumps(state).encode())

    def counts(self) -> dict[str, int]:
        """Return how many groups of each tiling came back, by ``layer columns x rows``."""
        return {key: int(np.count_nonzero(array)) for key, array in self.revived.items()}


def _zero_groups(solver: Solver) -> dict[str, np.ndarray]:
    """Return which groups are zero, by layer and tile."""
    found = {}
    for parameter, terms in zip(solver.net.parameters, solver.terms, strict=True):
        for term in terms.lasso:
            norms = group_norms(parameter.matrix, term.tile, solver.kernels)
            found[f"{parameter.layer_name} {term.tile}"] = to_host(norms).reshape(-1) == 0
    return found
