"""The update of all parameters, timed as a solver makes it."""

from __future__ import annotations

from minissl.formats import proto
from minissl.net import Net
from minissl.solvers import regularizer, update_rules
from minissl.solvers.solver import Solver

#: Caffe's usual solver; at rate 0 the weights stay what they are
FIELDS = {"type": "SGD", "base_lr": 0.0, "momentum": 0.9, "weight_decay": 0.0005}


class TimedUpdate(Solver):
    """A solver around a network that is there already, which only updates.

    SGD with momentum and weight decay, at rate 0 and without zero-out, so that no weight changes.
    Group lasso is no part of it: how strong it is says a solver, and there is none.
    """

    def __init__(self, net: Net):
        self.param = proto.SolverParameter(**FIELDS)
        self.net, self.kernels = net, net.kernels
        self.original = self.zero_out_enabled = False
        self.rule = update_rules.create(self.param, self.kernels)
        self.terms = [
            regularizer.terms_of(parameter, self.param, self.kernels)
            for parameter in net.parameters
        ]
        self.history = [
            [self.kernels.xp.zeros_like(parameter.data) for _ in range(self.rule.buffers)]
            for parameter in net.parameters
        ]
        self.iteration = 0

    def once(self) -> None:
        """Update every parameter, and look for numbers that are not finite."""
        self.update_all(rate=0.0)
