"""One trial of a decay: a short run of SSL, and what it left of the network.

A trial runs through the whole course of the solver's learning rates in fewer iterations. It must
not leave out the end of it: at a high rate, groups that are no longer needed hover about zero, and
only low rates let them fall below the threshold of the zero-out.

What a short run finds is not what the whole run would find. Group lasso takes the same length off a
group in each iteration, so a fifth of the iterations shortens groups by at most a fifth as much:
short runs leave more FLOP, and the whole run at the same decay is sparser.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from minissl.errors import CollapseError
from minissl.net import Net
from minissl.recipes.decays import asked_for
from minissl.recipes.measuring import dense_flop, structure_of, total_flops_percent
from minissl.recipes.stages import Done, Watcher, digest
from minissl.recipes.training import WEIGHTS, Training
from minissl.solvers import learning_rate
from minissl.solvers.nets import train_net
from minissl.sparsity.group_lasso import group_norms


@dataclass(frozen=True)
class Trial(Training):
    """A short run of a solver with other decays.

    Attributes
    ----------
    decays : dict
        Decay of the solver -> its value.
    iterations : int
        How long to train.
    """

    decays: Mapping[str, float] = field(default_factory=dict)
    iterations: int = 1

    def named(self) -> Trial:
        """Return the same trial, its folder named after its decays and all else that counts.

        A trial with other settings has another folder, so neither ever replaces the other.
        """
        values = "-".join(f"{decay}-{value:g}" for decay, value in self.decays.items())
        settings = "".join(self.settings({}).values())
        return replace(self, name=f"{values}-{digest(settings)[:8]}")

    def read(self) -> Any:
        """Return the message of the solver, with the decays, its course compressed."""
        param = super().read()
        for decay, value in self.decays.items():
            setattr(param, decay, value)
        learning_rate.compress(param, self.iterations)
        param.snapshot = 0  # a signal still saves
        param.test_initialization = False
        if param.test_iter:
            param.test_interval = self.iterations  # only at the end
        return param

    def run(self, folder: Path, done: Done, watcher: Watcher) -> dict[str, Any]:
        """Train, and measure what is left.

        Returns
        -------
        dict
            ``lost``: None, or ``layer`` and ``iteration`` where all groups of a layer are gone.
            Unless that happened within the first epoch, which ends the run, also ``error`` of the
            first test net (None without an accuracy), ``flops_percent`` of the whole net,
            ``grouped_flops_percent`` of the layers with groups, ``groups`` and ``layers``.
        """
        try:
            trained = super().run(folder, done, watcher)
        except CollapseError as error:
            return {"lost": {"layer": error.layer, "iteration": error.iteration}}
        outputs = trained["outputs"][0] if trained["outputs"] else {}
        net = train_net(self.read(), str(self.solver), backend=self.backend, dtype=self.dtype)
        net.load(folder / WEIGHTS)
        left = groups_left(net)
        dead = next((one["layer"] for one in left if one["groups"] > 1 and not one["left"]), None)
        dense = dense_flop(net)
        return {
            "lost": {"layer": dead, "iteration": self.iterations} if dead else None,
            "error": 1.0 - outputs["accuracy"] if "accuracy" in outputs else None,
            "flops_percent": total_flops_percent(net, dense),
            "grouped_flops_percent": total_flops_percent(
                net, dense, {one["layer"] for one in left} & set(dense)
            ),
            "groups": left,
            "layers": structure_of(net, dense),
        }


def groups_left(net: Net) -> list[dict[str, Any]]:
    """Count the groups that are not zero, for every tiling of the weights that a net asks for.

    Returns
    -------
    list of dict
        ``layer``, ``decay``, ``tile``, ``groups``, ``left``.
    """
    counted = []
    for parameter, found in asked_for(net):
        if parameter.role != "weight":
            continue
        for decay, term in found:
            norms = group_norms(parameter.matrix, term.tile, net.kernels)
            counted.append(
                {
                    "layer": parameter.layer_name,
                    "decay": decay,
                    "tile": str(term.tile),
                    "groups": norms.size,
                    "left": int(np.count_nonzero(norms)),
                }
            )
    return counted
