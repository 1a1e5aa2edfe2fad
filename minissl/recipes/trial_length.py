"""How long a trial of a decay must be to say something about the whole run.

The gradient of group lasso takes at most

    reach = lambda * sum over iterations of rate / (1 - momentum)

off the norm of a group, whatever the group does for the data. A trial whose reach is shorter than
the groups it starts from leaves nearly all of them, however useless they are; a search would then
answer with a decay that is far too large for the whole run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np

from minissl.backend import to_host
from minissl.formats import proto
from minissl.solvers import Solver, learning_rate
from minissl.solvers.regularizer import lasso_by_decay
from minissl.solvers.update_rules import Adaptive
from minissl.sparsity.group_lasso import group_norms

#: the solver trains so many times as long as the shortest trial that is made without being asked
SHARE = 5
#: the reach of such a trial, as a multiple of the groups' norms: the data hold on to them
MARGIN = 1.5


@dataclass(frozen=True)
class Need:
    """The tiling whose groups group lasso takes longest to remove.

    Attributes
    ----------
    layer : str
    norm : float
        Median of its groups that are not zero.
    reach : float
        Of the solver's whole schedule.
    """

    layer: str
    norm: float
    reach: float


def need_of(solver: Solver, decays: Mapping[str, float]) -> Need | None:
    """Return what a solver with some decays needs to remove the groups it starts from.

    None where all groups are zero already, and for adaptive rules such as Adam, whose steps do not
    follow the decay.
    """
    if isinstance(solver.rule, Adaptive):
        return None
    asked = proto.SolverParameter(**decays)
    total = sum(solver.rule.long_run_rate(rate) for rate in learning_rate.course(solver.param))
    needs = []
    for parameter in solver.net.parameters:
        for _, term in lasso_by_decay(parameter, asked):
            norms = to_host(group_norms(parameter.matrix, term.tile, solver.kernels))
            reach = total * parameter.spec.lr_mult * term.strength
            if parameter.role == "weight" and norms.any() and reach:
                needs.append(Need(parameter.layer_name, float(np.median(norms[norms > 0])), reach))
    return max(needs, key=lambda need: need.norm / need.reach, default=None)


def default_iterations(whole: int, need: Need | None) -> int:
    """Return how long to make trials of a solver that trains for ``whole`` iterations.

    A fifth of it, or as long as it takes to remove the groups with a margin; never longer than the
    solver.
    """
    share = min(1.0, MARGIN * need.norm / need.reach) if need else 0.0
    return min(whole, max(1, whole // SHARE, ceil(whole * share)))


def warning(iterations: int, whole: int, need: Need | None) -> str | None:
    """Say so, in one sentence, where a trial is too short to remove the groups it starts from."""
    if need is None or need.reach * iterations / whole >= need.norm:
        return None
    enough = ceil(whole * need.norm / need.reach)
    advice = (
        f"give --iterations {enough} or more"
        if enough <= whole
        else "train for more iterations, or begin with larger decays"
    )
    return (
        f"in {iterations} iterations these decays take at most "
        f"{need.reach * iterations / whole:.2g} off a group of {need.layer}, and half of its "
        f"groups are longer than {need.norm:.2g}, so larger decays will be found than the whole "
        f"run needs; {advice}"
    )
