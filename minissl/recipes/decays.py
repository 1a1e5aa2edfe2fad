"""Where to begin with the decays of group lasso: marks from the net, its weights and the data.

Group lasso is lambda * sum of ||w_g|| with lambda = decay * multiplier, the decay from the solver
and the multiplier from the net. For each decay of a solver:

===================== ==========================================================================
equal to the L2 decay where the penalty of all groups is that of weight_decay on the same weights:
                      below it, group lasso is the weaker of the two
equal to the loss     where the penalty is as large as the loss of the data: above it, the first
                      iterations are about the penalty alone
lambda_max            where a layer that is zero stays zero: the gradient of the data, taken there,
                      is longer than lambda for none of its groups
===================== ==========================================================================

From lambda_max on a whole layer can be lost, so the useful decays lie below it, and far above the
other two where the weights are trained already and the loss is small. Losses and gradients are
means over some batches of the training data.

R rows, C columns of a weight matrix; tiles are ``ydimen`` rows by ``xdimen`` columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minissl import backend as backends
from minissl.blob import Parameter
from minissl.errors import ConfigError
from minissl.formats import proto
from minissl.formats.prototxt import read_solver, set_fields
from minissl.net import Net
from minissl.solvers.nets import train_net
from minissl.solvers.regularizer import DECAYS, lasso_by_decay
from minissl.sparsity import group_lasso, weight_decay
from minissl.sparsity.groups import Tile


@dataclass(frozen=True)
class Tiling:
    """One division of a layer's weights into groups.

    Attributes
    ----------
    layer : str
    blob : int
        0 for the weights, 1 for the bias.
    decay : str
        The solver's decay that acts on it.
    tile : Tile
    groups : int
        How many there are.
    multiplier : float
        Of the net.
    norms : float
        sum of ||w_g|| over the groups.
    decay_max : float or None
        lambda_max / multiplier; None where a layer of zeros passes no gradient at all, such as one
        before a ReLU without a positive bias: it stays zero under any decay.
    """

    layer: str
    blob: int
    decay: str
    tile: Tile
    groups: int
    multiplier: float
    norms: float
    decay_max: float | None

    @property
    def length(self) -> int:
        """Weights in a group."""
        return self.tile.xdimen * self.tile.ydimen


@dataclass(frozen=True)
class Suggestion:
    """The marks on the scale of one decay.

    Attributes
    ----------
    decay : str
    now : float
        What the solver says.
    equal_to_l2 : float or None
        None without L2 decay of these weights, or where they are all zero.
    equal_to_loss : float or None
        None where the weights are all zero.
    decay_max : float or None
        The smallest of its tilings': where the first layer is lost.
    """

    decay: str
    now: float
    equal_to_l2: float | None
    equal_to_loss: float | None
    decay_max: float | None

    @property
    def middle(self) -> float | None:
        """Where to begin a search: between the marks, at the geometric mean.

        It is that of the last mark and the larger of the first two; one alone is taken as it is.
        None without any.
        """
        below = max((mark for mark in (self.equal_to_l2, self.equal_to_loss) if mark), default=None)
        if below and self.decay_max:
            return math.sqrt(below * self.decay_max)
        return below or self.decay_max


@dataclass(frozen=True)
class Suggestions:
    """What :func:`suggest` found: the loss of the data, all tilings, and the marks by decay."""

    loss: float
    batches: int
    tilings: list[Tiling]
    decays: list[Suggestion]

    def root_multiplier(self, tiling: Tiling) -> float:
        """Return sqrt(length of a group), 1 for the shortest of the net.

        With such multipliers long groups lose as much of each weight as short ones; the paper's
        AlexNet was trained so.
        """
        return math.sqrt(tiling.length / min(one.length for one in self.tilings))

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "loss": self.loss,
            "batches": self.batches,
            "decays": [dict(vars(one)) for one in self.decays],
            "tilings": [
                {
                    **{name: value for name, value in vars(one).items() if name != "tile"},
                    "tile": str(one.tile),
                    "length": one.length,
                    "root_multiplier": self.root_multiplier(one),
                }
                for one in self.tilings
            ],
        }


def suggest(
    solver: Any,
    weights: Any = None,
    batches: int = 10,
    changes: Sequence[str] = (),
    backend: str = "auto",
    data: dict[str, Any] | None = None,
) -> Suggestions:
    """Work out the marks of every decay that the solver's net has groups for.

    Parameters
    ----------
    solver : path
        The solver prototxt; its decays may be 0.
    weights : path, optional
        Weights to start from, as for training; else the fillers' values.
    batches : int
        Batches of training data to average over.
    changes : sequence of str
        Solver fields to set, as ``key=value``.
    backend, data : see :class:`minissl.net.Net`

    Raises
    ------
    ConfigError
        When the net asks for no groups.
    """
    param = read_solver(solver)
    set_fields(param, changes)
    seed = max(0, param.random_seed)
    net = train_net(
        param, str(solver), backend=backend, seed=seed, data={"seed": seed, **(data or {})}
    )
    if weights is not None:
        net.load(weights)
    asked = asked_for(net)
    loss = _mean_loss(net, batches)
    tilings = [
        tiling for parameter, found in asked for tiling in _tilings(net, parameter, found, batches)
    ]
    return Suggestions(loss, batches, tilings, _marks(param, loss, tilings, asked))


def asked_for(net: Net) -> list[tuple[Parameter, list[tuple[str, group_lasso.GroupTerm]]]]:
    """Return the parameters with group lasso, each with the terms it has where every decay is 1.

    A term stands beside the name of the solver's decay that acts on it.

    Raises
    ------
    ConfigError
        When the net asks for no groups.
    """
    unit = proto.SolverParameter(**dict.fromkeys(DECAYS, 1.0))
    every = [(parameter, lasso_by_decay(parameter, unit)) for parameter in net.parameters]
    asked = [(parameter, found) for parameter, found in every if found]
    if not asked:
        raise ConfigError(
            f"net '{net.name}' asks for no group lasso; add block_group_lasso, "
            "kernel_shape_decay_mult or breadth_decay_mult to the param of a layer"
        )
    return asked


def _mean_loss(net: Net, batches: int) -> float:
    """Return the loss over the next batches, and stay where the data are."""
    state = net.state()
    total = 0.0
    with backends.single_threaded_blas():
        for _ in range(batches):
            net.forward()
            total += net.loss()
    net.set_state(state)
    return total / batches


def _tilings(
    net: Net,
    parameter: Parameter,
    found: Sequence[tuple[str, group_lasso.GroupTerm]],
    batches: int,
) -> list[Tiling]:
    """Measure the groups of one parameter."""
    norms = [group_lasso.group_norms(parameter.matrix, term.tile, net.kernels) for _, term in found]
    slope = _gradient_at_zero(net, parameter, batches)  # (R, C)
    tilings = []
    for (decay, term), lengths in zip(found, norms, strict=True):
        strongest = float(group_lasso.group_norms(slope, term.tile, net.kernels).max())
        tilings.append(
            Tiling(
                layer=parameter.layer_name,
                blob=parameter.index,
                decay=decay,
                tile=term.tile,
                groups=lengths.size,
                multiplier=term.strength,
                norms=float(lengths.sum()),
                decay_max=strongest / term.strength if strongest else None,
            )
        )
    return tilings


def _gradient_at_zero(net: Net, parameter: Parameter, batches: int) -> np.ndarray:
    """Return the mean gradient (R, C) of a parameter's matrix where all of that matrix is 0."""
    state, kept = net.state(), parameter.data.copy()
    parameter.data[...] = 0
    net.clear_gradients()
    with backends.single_threaded_blas():
        for _ in range(batches):
            net.forward()
            net.backward()
    parameter.data[...] = kept
    net.set_state(state)
    return parameter.diff_matrix / batches


def _marks(
    param: Any,
    loss: float,
    tilings: Sequence[Tiling],
    parameters: Sequence[tuple[Parameter, Any]],
) -> list[Suggestion]:
    """Put the tilings of each decay together."""
    marks = []
    for decay in DECAYS:
        own = [tiling for tiling in tilings if tiling.decay == decay]
        if not own:
            continue
        unit = sum(tiling.multiplier * tiling.norms for tiling in own)  # the penalty of decay 1
        l2 = sum(
            _l2_penalty(parameter, param)
            for parameter, found in parameters
            if any(name == decay for name, _ in found)
        )
        limits = [tiling.decay_max for tiling in own if tiling.decay_max is not None]
        marks.append(
            Suggestion(
                decay=decay,
                now=getattr(param, decay),
                equal_to_l2=l2 / unit if l2 and unit else None,
                equal_to_loss=loss / unit if unit else None,
                decay_max=min(limits, default=None),
            )
        )
    return marks


def _l2_penalty(parameter: Parameter, param: Any) -> float:
    """Return the L2 decay's part of the objective for one parameter, 0 without L2 decay."""
    term = weight_decay.term_of(parameter.spec, param, f"layer '{parameter.layer_name}'")
    if term is None or term.kind != "L2":
        return 0.0
    return weight_decay.penalty(backends.to_host(parameter.data), "L2", term.strength)
