"""Too large a decay: a layer whose groups are all gone within the first epoch.

Nothing passes through such a layer any more, and no gradient that could bring it back; the loss
stays where guessing begins. So training stops there and says which decay to halve, instead of
going on for hours.

A group is gone when it is zero or hovers about zero. The gradient of group lasso has the length
lambda whatever the group's norm, so it carries a group across zero and back again, by

    reach = rate * lambda / (1 - momentum)

in the long run. What is not longer than that is on its way through zero. (At the rates of a first
epoch such groups seldom fall below the threshold of the zero-out, so waiting for exact zeros would
find nothing.) The proximal step makes exact zeros, and there only those count. Adam's steps do not
follow lambda: with it ``reach`` is rate * lambda, and hovering groups can escape the check.

Not meant are

* a layer that is one single group: that tiling asks whether the layer is needed at all (depth, with
  a shortcut around it), and "no" is an answer;
* a layer that was zero before the first iteration;
* biases; and whatever dies after the first epoch, when the data have been heard.

An epoch is all records of the training data once. The check only reads weights, every few
iterations.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import TYPE_CHECKING

from minissl.errors import CollapseError
from minissl.solvers import learning_rate
from minissl.solvers.regularizer import lasso_by_decay
from minissl.sparsity.group_lasso import GroupTerm, group_norms

if TYPE_CHECKING:
    from minissl.blob import Parameter
    from minissl.solvers.solver import Solver

#: iterations between two looks
EVERY = 10
#: ... with a backend that does not wait for results, where a look makes it wait
SELDOM = 100
#: iterations that stand for an epoch where the number of records is not known
UNKNOWN_EPOCH = 1000


def zero_parameters(parameters: Iterable[Parameter]) -> set[str]:
    """Return the names of parameters that are zero: before the first iteration, not looked at."""
    return {parameter.name for parameter in parameters if not parameter.data.any()}


class Watch:
    """Looks after the layers of a solver.

    Those that were zero before the first iteration (``Solver.zero_from_the_start``, which a
    snapshot keeps) are not looked at.
    """

    def check(self, solver: Solver) -> None:
        """Look, if this iteration is one to look at.

        Raises
        ------
        CollapseError
            When a layer has lost all of its groups. Where the solver has a run folder, a snapshot
            is saved before.
        """
        if not is_due(solver):
            return
        for number, parameter in enumerate(solver.net.parameters):
            if parameter.role != "weight" or parameter.name in solver.zero_from_the_start:
                continue
            gone = vanished(solver, number)
            if gone:
                raise _collapse(solver, parameter, gone)


def is_due(solver: Solver) -> bool:
    """Whether to look after this iteration: every few of the first epoch, and at its end."""
    i, epoch = solver.iteration, epoch_of(solver)
    every = EVERY if solver.kernels.WAITS else SELDOM
    return i == epoch or (i < epoch and (i % every == 0 or i == solver.param.max_iter))


def epoch_of(solver: Solver) -> int:
    """Return how many iterations read all records of the training data once."""
    known = [layer.batches_per_epoch() for layer in solver.net.layers if layer.is_data]
    batches = max((number for number in known if number), default=None)
    return ceil(batches / solver.param.iter_size) if batches else UNKNOWN_EPOCH


def vanished(solver: Solver, number: int) -> list[tuple[str, GroupTerm]]:
    """Return the tilings of a parameter whose groups are all gone, each with its decay.

    Parameters
    ----------
    solver : Solver
        After an update.
    number : int
        Of the parameter, in ``solver.net.parameters``.
    """
    parameter, terms = solver.net.parameters[number], solver.terms[number]
    if not terms.lasso:
        return []
    # the rate of the update that was made, not of the next one
    rate = learning_rate.rate(solver.param, solver.iteration - 1, solver.steps_passed)
    step = solver.rule.long_run_rate(rate * parameter.spec.lr_mult)
    found = []
    for decay, term in lasso_by_decay(parameter, solver.param):
        norms = group_norms(parameter.matrix, term.tile, solver.kernels)
        reach = 0.0 if terms.proximal else step * term.strength
        if norms.size > 1 and bool((norms <= reach).all()):
            found.append((decay, term))
    return found


def _collapse(
    solver: Solver, parameter: Parameter, gone: list[tuple[str, GroupTerm]]
) -> CollapseError:
    decays = list(dict.fromkeys(decay for decay, _ in gone))
    named = " and ".join(f"{decay} {getattr(solver.param, decay):g}" for decay in decays)
    which, them = ("is", "it") if len(decays) == 1 else ("are", "them")
    path = solver.snapshot_path()
    if path is not None and path != solver.last_snapshot:
        solver.snapshot()
    saved = f"; the state is saved in {path}" if path is not None else ""
    return CollapseError(
        f"iteration {solver.iteration}: all groups ({gone[0][1].tile}) of layer "
        f"'{parameter.layer_name}' are gone within the first epoch, so {named} "
        f"{which} too large; halve {them}, let 'minissl lambda' suggest a decay, or go on with "
        f"--no-collapse-check{saved}",
        parameter.layer_name,
        solver.iteration,
    )
