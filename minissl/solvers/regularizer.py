"""What a solver and a prototxt ask for, per parameter: weight decay and group lasso.

The whole regularizer of the paper (equation 1), summed over all parameters, is

    R(W) = weight decay + sum over terms of lambda_g * sum over groups of ||w_g||

Its gradient is added to the gradient of the data loss before the update; with ``proximal`` as
``group_lasso_method``, the groups are shortened after the update instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minissl.blob import Parameter
from minissl.errors import ConfigError, WeightsError
from minissl.formats import proto
from minissl.formats.blobs import read_binaryproto
from minissl.sparsity import group_lasso, groups, proximal, weight_decay

#: the decays of group lasso, in the order in which their terms act
DECAYS = ("kernel_shape_decay", "breadth_decay", "block_group_decay")


@dataclass(frozen=True)
class ParameterTerms:
    """Everything that regularizes one parameter.

    ``tiles`` are its block tilings as the prototxt lists them, also those of strength 0: the
    printed statistics count their zero blocks. ``proximal`` says how ``lasso`` acts.
    """

    decay: weight_decay.DecayTerm | None
    multiplier: Any
    lasso: list[group_lasso.GroupTerm]
    tiles: list[groups.Tile]
    proximal: bool = False


def terms_of(
    parameter: Parameter, solver: Any, kernels: Any, original: bool = False
) -> ParameterTerms:
    """Read the terms of a parameter from its ``param { }`` block and the solver's decays.

    Statistics have none: nothing shrinks them, so they only hid R among much larger numbers. With
    ``original`` they count, as in the published program.

    Raises
    ------
    ConfigError
        For an unknown type of decay or method of group lasso, a tile that does not divide the
        matrix, or a missing ``decay_proto`` file.
    """
    if parameter.role == "statistic" and not original:
        return ParameterTerms(None, None, [], [])
    spec, where = parameter.spec, f"layer '{parameter.layer_name}', blob {parameter.index}"
    return ParameterTerms(
        decay=weight_decay.term_of(spec, solver, where),
        multiplier=_read_multiplier(parameter, kernels, where),
        lasso=group_lasso.terms_of(spec, solver, parameter.shape, parameter.conv_groups, where),
        tiles=groups.block_tiles(spec, parameter.shape, where),
        proximal=proximal.is_proximal(solver.group_lasso_method),
    )


def lasso_by_decay(parameter: Parameter, solver: Any) -> list[tuple[str, group_lasso.GroupTerm]]:
    """Return the group-lasso terms of a parameter, each with the decay of the solver it is from.

    Raises
    ------
    ConfigError
        As :func:`terms_of`.
    """
    where = f"layer '{parameter.layer_name}', blob {parameter.index}"
    found = []
    for decay in DECAYS:
        alone = proto.SolverParameter(**{decay: getattr(solver, decay)})
        terms = group_lasso.terms_of(
            parameter.spec, alone, parameter.shape, parameter.conv_groups, where
        )
        found += [(decay, term) for term in terms]
    return found


def penalty(parameter: Parameter, terms: ParameterTerms, kernels: Any) -> float:
    """R of one parameter, from its present weights."""
    total = 0.0
    if terms.decay:
        total += weight_decay.penalty(
            parameter.data, terms.decay.kind, terms.decay.strength, terms.multiplier, kernels
        )
    for term in terms.lasso:
        total += group_lasso.penalty(parameter.matrix, term.tile, term.strength, kernels)
    return total


def add_weight_decay(parameter: Parameter, terms: ParameterTerms, kernels: Any) -> None:
    """Add the gradient of the weight decay to ``parameter.diff``."""
    if terms.decay:
        weight_decay.add_gradient(
            parameter.diff,
            parameter.data,
            terms.decay.kind,
            terms.decay.strength,
            terms.multiplier,
            kernels,
        )


def add_group_lasso(parameter: Parameter, terms: ParameterTerms, kernels: Any) -> None:
    """Add lambda * w / ||w_g|| of every group to ``parameter.diff``, unless it is proximal."""
    for term in () if terms.proximal else terms.lasso:
        group_lasso.add_gradient(
            parameter.diff_matrix, parameter.matrix, term.tile, term.strength, kernels
        )


def shorten_groups(parameter: Parameter, terms: ParameterTerms, rate: float, kernels: Any) -> None:
    """Take rate * lambda off the norm of every group, where group lasso is proximal.

    Terms act one after the other, in the order of their gradients. For groups that lie within one
    another, small ones first, that is the proximal step of their sum; for rows and columns, which
    cross, it is close to it where rate * lambda is small.
    """
    for term in terms.lasso if terms.proximal else ():
        proximal.proximal_step(parameter.matrix, term.tile, rate * term.strength, kernels)


def _read_multiplier(parameter: Parameter, kernels: Any, where: str) -> Any:
    """Read the element-wise decay multipliers of ``decay_proto``, a binary BlobProto."""
    path = parameter.spec.decay_proto
    if not path:
        return None
    try:
        multiplier = read_binaryproto(path, "decay_proto")
    except WeightsError as error:
        raise ConfigError(f"{where}: {error}") from None
    weight_decay.check_multiplier(multiplier, parameter.shape, where)
    return kernels.xp.asarray(multiplier.astype(parameter.dtype))
