"""Update rules: from the gradient of a parameter to the step it takes.

Each rule keeps its history (momentum buffers) per parameter and turns ``parameter.diff`` into the
step that is subtracted from the weights. Decay and group lasso are part of the gradient by then,
so they enter the momentum like any other gradient, as in the published program.
"""

from __future__ import annotations

from typing import Any

from minissl.blob import Parameter
from minissl.errors import ConfigError
from minissl.sparsity.proximal import is_proximal


class Sgd:
    """h = momentum * h + rate * g; the step is h."""

    buffers = 1

    def __init__(self, solver: Any, kernels: Any):
        self.momentum = solver.momentum
        self.kernels = kernels

    def compute(self, parameter: Parameter, history: list[Any], rate: float, i: int) -> None:
        """Turn ``parameter.diff`` into the step of iteration ``i``."""
        self.kernels.sgd_update(parameter.diff, history[0], rate, self.momentum)

    def long_run_rate(self, rate: float) -> float:
        """Return how far a gradient of 1 that does not change moves a weight in one iteration.

        h = momentum * h + rate has the limit rate / (1 - momentum). A proximal step of that length
        stands still where the gradient of the data has the length lambda, as the subgradient does.
        """
        return rate / (1 - self.momentum)


class Nesterov(Sgd):
    """h' = momentum * h + rate * g; the step is (1 + momentum) * h' - momentum * h."""

    def compute(self, parameter: Parameter, history: list[Any], rate: float, i: int) -> None:
        """Turn ``parameter.diff`` into the step of iteration ``i``."""
        self.kernels.nesterov_update(parameter.diff, history[0], rate, self.momentum)


class Adaptive:
    """Rules that divide each gradient by its own usual size, so that steps do not follow it."""

    buffers = 1
    #: whether ``momentum`` has a part in the rule; otherwise it must be 0
    uses_momentum = False
    #: whether the steps of a constant gradient keep a length that the rate tells
    knows_its_steps = True

    def __init__(self, solver: Any, kernels: Any):
        self.kernels = kernels
        self.delta = solver.delta

    def long_run_rate(self, rate: float) -> float:
        """Return how far a gradient that does not change moves a weight in one iteration.

        It is the rate, whatever the gradient: next to a proximal step, such a rule makes lambda a
        length for each iteration and no longer a part of the objective. 0 where it is not known.
        """
        return rate if self.knows_its_steps else 0.0


class Adam(Adaptive):
    """m, v: running means of g and g^2; the step is rate * correction * m / (sqrt(v) + delta).

    correction = sqrt(1 - beta2^t) / (1 - beta1^t), t = i + 1, beta1 = momentum, beta2 = momentum2.
    """

    buffers = 2
    uses_momentum = True

    def __init__(self, solver: Any, kernels: Any):
        super().__init__(solver, kernels)
        self.beta1, self.beta2 = solver.momentum, solver.momentum2

    def compute(self, parameter: Parameter, history: list[Any], rate: float, i: int) -> None:
        """Turn ``parameter.diff`` into the step of iteration ``i``."""
        t = i + 1
        correction = (1 - self.beta2**t) ** 0.5 / (1 - self.beta1**t)
        self.kernels.adam_update(
            parameter.diff, *history, rate * correction, self.beta1, self.beta2, self.delta
        )


class AdaGrad(Adaptive):
    """h: sum of g^2; the step is rate * g / (sqrt(h) + delta).

    Duchi, Hazan and Singer, JMLR 12 (2011).
    """

    knows_its_steps = False

    def compute(self, parameter: Parameter, history: list[Any], rate: float, i: int) -> None:
        """Turn ``parameter.diff`` into the step of iteration ``i``."""
        self.kernels.adagrad_update(parameter.diff, history[0], rate, self.delta)


class RmsProp(Adaptive):
    """h: running mean of g^2, by ``rms_decay``; the step is rate * g / (sqrt(h) + delta).

    Tieleman and Hinton, lecture 6.5 of "Neural Networks for Machine Learning" (2012).
    """

    def __init__(self, solver: Any, kernels: Any):
        super().__init__(solver, kernels)
        self.decay = solver.rms_decay
        if not 0 <= self.decay < 1:
            raise ConfigError(f"rms_decay is {self.decay:g}; it must be at least 0 and below 1")

    def compute(self, parameter: Parameter, history: list[Any], rate: float, i: int) -> None:
        """Turn ``parameter.diff`` into the step of iteration ``i``."""
        self.kernels.rmsprop_update(parameter.diff, history[0], rate, self.decay, self.delta)


class AdaDelta(Adaptive):
    """h, s: running means of g^2 and u^2, by ``momentum``; the step is rate * u.

    u = g * sqrt((s + delta) / (h + delta)) has the unit of a weight. Zeiler, arXiv:1212.5701
    (2012), algorithm 1, where the rate is 1.
    """

    buffers = 2
    uses_momentum = True
    knows_its_steps = False

    def __init__(self, solver: Any, kernels: Any):
        super().__init__(solver, kernels)
        self.decay = solver.momentum

    def compute(self, parameter: Parameter, history: list[Any], rate: float, i: int) -> None:
        """Turn ``parameter.diff`` into the step of iteration ``i``."""
        self.kernels.adadelta_update(parameter.diff, *history, rate, self.decay, self.delta)


Rule = Sgd | Adam | AdaGrad | RmsProp | AdaDelta

RULES: dict[str, type[Sgd] | type[Adam] | type[AdaGrad] | type[RmsProp] | type[AdaDelta]] = {
    "SGD": Sgd,
    "Nesterov": Nesterov,
    "Adam": Adam,
    "AdaGrad": AdaGrad,
    "RMSProp": RmsProp,
    "AdaDelta": AdaDelta,
}


def create(solver: Any, kernels: Any) -> Rule:
    """Return the rule that the solver's ``type`` names.

    Raises
    ------
    ConfigError
        For an unknown type, a momentum outside 0 <= momentum < 1 or given to a rule that has none,
        or proximal group lasso with a rule whose steps shrink by themselves.
    """
    rule = RULES.get(solver.type)
    if rule is None:
        raise ConfigError(f"unknown solver type '{solver.type}'; use one of {', '.join(RULES)}")
    if not 0 <= solver.momentum < 1:
        raise ConfigError(f"momentum is {solver.momentum:g}; it must be at least 0 and below 1")
    if issubclass(rule, Adaptive) and solver.momentum and not rule.uses_momentum:
        raise ConfigError(
            f"solver type {solver.type} has no momentum, but momentum is {solver.momentum:g}; "
            "remove it, or use Adam"
        )
    shrinks = issubclass(rule, Adaptive) and not rule.knows_its_steps
    if shrinks and is_proximal(solver.group_lasso_method):
        raise ConfigError(
            f"proximal group lasso needs the length of a step, which solver type {solver.type} "
            "changes by itself; use SGD, Nesterov, RMSProp or Adam, or the subgradient"
        )
    return rule(solver, kernels)
