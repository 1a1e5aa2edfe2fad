"""The update of a parameter in one pass, where the backend has one.

To read each parameter once takes less time than once for every line of ``Solver.update_all``, and
on a GPU starting a kernel is dear. So every backend but the plain one has ``sgd_step``, which
computes what the methods of :class:`minissl.solvers.solver.Solver` would compute one after the
other. Those stay the definition. They run on the numpy backend, and do what the pass does not:
adaptive rules such as Adam, group lasso by its proximal step, more than ``MOST_TERMS`` tilings, and
parameters with ``lr_mult: 0``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minissl import backend as backends
from minissl.blob import Parameter
from minissl.solvers.update_rules import Nesterov, Sgd
from minissl.sparsity import zero_out as zeroing

if TYPE_CHECKING:
    from minissl.solvers.solver import Solver

#: kinds of groups that the backend's pass takes
MOST_TERMS = 4


def update(solver: Solver, rate: float) -> tuple[list[tuple[int, Parameter]], bool]:
    """Update what can be updated in one pass.

    Returns
    -------
    left : list of (number, parameter)
        What is left to do.
    finite : bool
        Whether no weight updated here is NaN or infinite, as far as the backend looks.
    """
    every = list(enumerate(solver.net.parameters))
    if backends.name_of(solver.kernels) == "numpy" or not isinstance(solver.rule, Sgd):
        return every, True
    left, finite = [], True
    for number, parameter in every:
        terms = solver.terms[number]
        fixed = parameter.spec.lr_mult == 0
        if fixed or len(terms.lasso) > MOST_TERMS or (terms.proximal and terms.lasso):
            left.append((number, parameter))
            continue
        zeroed = zeroing.applies_to(
            parameter.role, enabled=solver.zero_out_enabled, original=solver.original
        )
        finite &= solver.kernels.sgd_step(
            parameter.data,
            parameter.diff,
            solver.history[number][0],
            1 / solver.param.iter_size,
            (terms.decay.kind, terms.decay.strength) if terms.decay else None,
            terms.multiplier,
            [(term.tile.ydimen, term.tile.xdimen, term.strength) for term in terms.lasso],
            rate * parameter.spec.lr_mult,
            solver.rule.momentum,
            isinstance(solver.rule, Nesterov),
            parameter.mask,
            zeroing.ZERO_THRESHOLD if zeroed else 0.0,
        )
    return left, finite
