"""Update rules: from the gradient of a parameter to the step it takes.

Each rule keeps its history (momentum buffers) per parameter and turns ``parameter.diff`` into the
step that is subtracted from the weights. Decay and group lasso are part of the gradient by then,
so they enter the momentum like any other gradient, as in the published program.
"""

from __future__ import annotations

from typing import Any

from minissl.blob import Parameter
from minissl.errors import ConfigError


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


class Adam:
    """m, v: running means of g and g^2; the step is rate * correction * m / (sqrt(v) + delta).

    correction = sqrt(1 - beta2^t) / (1 - beta1^t), t = i + 1, beta1 = momentum, beta2 = momentum2.
    """

    buffers = 2

    def __init__(self, solver: Any, kernels: Any):
        self.beta1, self.beta2, self.delta = solver.momentum, solver.momentum2, solver.delta
        self.kernels = kernels

    def compute(self, parameter: Parameter, history: list[Any], rate: float, i: int) -> None:
        """Turn ``parameter.diff`` into the step of iteration ``i``."""
        t = i + 1
        correction = (1 - self.beta2**t) ** 0.5 / (1 - self.beta1**t)
        self.kernels.adam_update(
            parameter.diff, *history, rate * correction, self.beta1, self.beta2, self.delta
        )

    def long_run_rate(self, rate: float) -> float:
        """Return how far a gradient that does not change moves a weight in one iteration.

        It is the rate, whatever the gradient: next to a proximal step, Adam makes lambda a length
        for each iteration and no longer a part of the objective.
        """
        return rate


RULES: dict[str, type[Sgd] | type[Adam]] = {"SGD": Sgd, "Nesterov": Nesterov, "Adam": Adam}


def create(solver: Any, kernels: Any) -> Sgd | Adam:
    """Return the rule that the solver's ``type`` names.

    Raises
    ------
    ConfigError
        For an unknown type, or a momentum outside 0 <= momentum < 1.
    """
    rule = RULES.get(solver.type)
    if rule is None:
        raise ConfigError(f"unknown solver type '{solver.type}'; use one of {', '.join(RULES)}")
    if not 0 <= solver.momentum < 1:
        raise ConfigError(f"momentum is {solver.momentum:g}; it must be at least 0 and below 1")
    return rule(solver, kernels)
