"""Mistakes in a solver, and where it and its net ask for different things."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from minissl.errors import ConfigError
from minissl.lint.finding import KINDS, REGULARIZATION_TYPES, Finding, unknown_regularization
from minissl.solvers import learning_rate
from minissl.solvers.solver import LEAST

if TYPE_CHECKING:
    from minissl.formats.proto import NetParameter, SolverParameter

#: A run of this many iterations without a snapshot is worth a word.
LONG_RUN = 10_000

GROUP_LASSO_METHODS = ("subgradient", "proximal")
SOLVER_TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
#: rates and decays, none of which may be negative
_FROM_ZERO = ("base_lr", "weight_decay", *(decay for decay, _, _ in KINDS))
#: of SkimCaffe's solver
_THRESHOLDS = (
    "prune_threshold",
    "measure_threshold",
    "max_threshold_factor",
    "winograd_adjust_threshold",
)


def lint_solver(
    solver: SolverParameter, net: NetParameter | None = None, weights_given: bool | None = None
) -> list[Finding]:
    """Check a solver, and whether it and its net ask for the same things.

    Parameters
    ----------
    solver
        The solver.
    net
        Its net; without it only the solver's own fields are checked. The net's own mistakes are
        the business of :func:`minissl.lint.nets.lint_net`.
    weights_given
        Whether the run starts from trained weights; None if that is not known.

    Returns
    -------
    list of Finding
        Empty if nothing is wrong.
    """
    findings: list[Finding] = []
    for check in (
        _numbers,
        _testing,
        _learning_rate,
        _steps,
        _snapshots,
        _solver_regularization,
        _update_rule,
    ):
        findings += check(solver)
    if net is not None:
        findings += _lasso_in_both(solver, net)
        findings += _connectivity(solver, net, weights_given)
    return findings


def _numbers(solver: SolverParameter) -> Iterator[Finding]:
    """Numbers that no run can follow, and those that make it idle."""
    for name, least in LEAST.items():
        given = getattr(solver, name)
        for value in given if name == "test_iter" else (given,):
            if value < least:
                yield Finding("error", "solver", f"{name} is {value}.", f"Use {least} or more.")
    for name in _FROM_ZERO:
        value = getattr(solver, name)
        if not (math.isfinite(value) and value >= 0):
            advice = "Use a finite number, 0 or more."
            yield Finding("error", "solver", f"{name} is {value:g}.", advice)
    for name, example in (("base_lr", 0.01), ("max_iter", 10_000)):
        if not getattr(solver, name):
            yield Finding(
                "warning",
                "solver",
                f"{name} is 0, so nothing would be trained.",
                f"Set {name}, for example to {example}.",
            )


def _testing(solver: SolverParameter) -> Iterator[Finding]:
    """A solver tests the nets that are given for it, then its own: one for each test_iter."""
    nets = len(solver.test_net_param) + len(solver.test_net)
    counts = len(solver.test_iter)
    only_trained = solver.HasField("train_net") or solver.HasField("train_net_param")
    if solver.test_iter and not solver.test_interval:
        yield Finding(
            "error",
            "solver",
            "test_iter is given but test_interval is not.",
            "Set test_interval to the number of iterations between tests.",
        )
    if nets > counts or (nets < counts and only_trained):
        yield Finding(
            "error",
            "solver",
            f"The number of its test nets is {nets}, that of its test_iter {counts}.",
            "Give one test_iter for each test net: its number of batches.",
        )
    elif solver.test_interval and not solver.test_iter:
        yield Finding(
            "warning",
            "solver",
            "test_interval is given but test_iter is not, so no test is run.",
            "Set test_iter to the number of batches that cover the test set.",
        )


def _learning_rate(solver: SolverParameter) -> Iterator[Finding]:
    try:
        learning_rate.check(solver)
    except ConfigError as reason:
        yield Finding("error", "solver", f"It cannot train: {reason}.", "Correct it first.")


def _steps(solver: SolverParameter) -> Iterator[Finding]:
    steps = list(solver.stepvalue)
    ignored = [policy for policy in learning_rate.POLICIES if policy != "multistep"]
    if steps and solver.lr_policy in ignored:
        yield Finding(
            "warning",
            "solver",
            f"stepvalue is given but lr_policy is '{solver.lr_policy}', which ignores it.",
            'Write lr_policy: "multistep", or remove stepvalue.',
        )
    if any(later <= earlier for earlier, later in pairwise(steps)):
        yield Finding(
            "warning",
            "solver",
            f"The stepvalues {', '.join(map(str, steps))} do not increase.",
            "Put them in increasing order, each once.",
        )
    beyond = [step for step in steps if solver.HasField("max_iter") and step >= solver.max_iter]
    if beyond:
        yield Finding(
            "warning",
            "solver",
            f"stepvalue {beyond[0]} is not reached before max_iter {solver.max_iter}.",
            "Lower the stepvalue or raise max_iter.",
        )


def _snapshots(solver: SolverParameter) -> Iterator[Finding]:
    if not solver.snapshot and solver.max_iter >= LONG_RUN:
        yield Finding(
            "warning",
            "solver",
            f"snapshot is 0 in a run of {solver.max_iter} iterations.",
            "Set snapshot, for example to a tenth of max_iter, so that a stop loses little.",
        )
    if solver.snapshot_diff:
        yield Finding(
            "warning",
            "solver",
            "snapshot_diff is ignored: snapshots hold weights, not their gradients.",
            "Remove it; debug_info prints the size of every gradient.",
        )
    given = [name for name in _THRESHOLDS if solver.HasField(name)]
    if given:
        yield Finding(
            "warning",
            "solver",
            f"{', '.join(given)} {'are' if len(given) > 1 else 'is'} SkimCaffe's and ignored: "
            "weights below 0.0001 become zero after an update, whatever their regularization.",
            "Remove it; --no-zero-out leaves small weights as they are.",
        )


def _solver_regularization(solver: SolverParameter) -> Iterator[Finding]:
    if solver.regularization_type not in REGULARIZATION_TYPES:
        yield unknown_regularization("solver", solver.regularization_type)
    if solver.group_lasso_method not in GROUP_LASSO_METHODS:
        yield Finding(
            "error",
            "solver",
            f"group_lasso_method '{solver.group_lasso_method}' is unknown.",
            f"Write one of {', '.join(GROUP_LASSO_METHODS)}.",
        )


def _update_rule(solver: SolverParameter) -> Iterator[Finding]:
    if solver.type in ("AdaGrad", "RMSProp") and solver.momentum:
        yield Finding(
            "error",
            "solver",
            f"Type {solver.type} has no momentum, but momentum is {solver.momentum:g}.",
            'Remove momentum, or write type: "Adam".',
        )
    if solver.type not in SOLVER_TYPES:
        yield Finding(
            "error",
            "solver",
            f"Type '{solver.type}' is unknown.",
            f"Write one of {', '.join(SOLVER_TYPES)}.",
        )


# --- the solver with its net ---


def _lasso_in_both(solver: SolverParameter, net: NetParameter) -> Iterator[Finding]:
    """A group lasso needs the solver's decay and a multiplier or block in the net."""
    for decay, field, asks in KINDS:
        layers = [layer.name for layer in net.layer if any(map(asks, layer.param))]
        if layers and not getattr(solver, decay):
            yield Finding(
                "warning",
                "solver",
                f"{decay} is 0, so the {field} of {_named(layers)} has no effect.",
                f"Set {decay} in the solver, or remove {field} from the net.",
            )
        if getattr(solver, decay) and not layers:
            yield Finding(
                "warning",
                "solver",
                f"{decay} is set, but no layer asks for it, so it has no effect.",
                f"Add {field} to the param of the layers that should become sparse.",
            )


def _connectivity(
    solver: SolverParameter, net: NetParameter, weights_given: bool | None
) -> Iterator[Finding]:
    """Zeros are frozen to fine-tune after sparsification, from weights that have zeros."""
    decays = [decay for decay, _, _ in KINDS if getattr(solver, decay)]
    for layer in net.layer:
        if layer.connectivity_mode == layer.CONNECTED:
            continue
        mode = layer.ConnectivityMode.Name(layer.connectivity_mode)
        where = f"layer '{layer.name}'"
        active = [
            decay for decay, _, asks in KINDS if decay in decays and any(map(asks, layer.param))
        ]
        if active:
            yield Finding(
                "warning",
                where,
                f"{mode} freezes zeros while {active[0]} still makes new ones.",
                "Sparsify with CONNECTED first, then freeze and set the decay to 0 to fine-tune.",
            )
        if weights_given is False:
            yield Finding(
                "warning",
                where,
                f"{mode} freezes the zeros of loaded weights, but the run starts from none.",
                "Start it with --weights, or remove connectivity_mode.",
            )


def _named(layers: list[str], most: int = 3) -> str:
    named = ", ".join(layers[:most])
    return named if len(layers) <= most else f"{named} and {len(layers) - most} more"
