"""Weight decay, the regularizer R(W) on single weights (SSL paper, equation 1).

====  ===================== ========================= ===================================
type  gradient added        penalty                   with a multiplier m for each weight
====  ===================== ========================= ===================================
L2    lambda * w            lambda/2 * sum w^2        lambda*m*w,  lambda/2 * sum m*w^2
L1    lambda * sign(w)      lambda * sum abs(w)       lambda*m*sign(w),  lambda * sum abs(m*w)
====  ===================== ========================= ===================================

lambda = weight_decay * decay_mult; sign(0) = 0. The multipliers are the file that a ParamSpec names
in ``decay_proto``.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np

from minissl.errors import ConfigError, ShapeError
from minissl.kernels import reference
from minissl.sparsity.groups import Shape
from minissl.sparsity.strength import strength_of

#: the values of ``regularization_type``
KINDS = ("L1", "L2")


@dataclass(frozen=True)
class DecayTerm:
    """Weight decay of one parameter: ``kind`` is "L1" or "L2", ``strength`` is lambda."""

    kind: str
    strength: float


def term_of(parameter_spec, solver_param, where: str = "param") -> DecayTerm | None:
    """Read the weight decay of a parameter from its prototxt; None where its strength is 0.

    The type is the ParamSpec's ``regularization_type``, or the solver's where that is empty.

    Raises
    ------
    ConfigError
        For an unknown type, unless the strength is 0: then no decay is asked for at all.
    """
    strength = strength_of(solver_param.weight_decay, parameter_spec.decay_mult)
    if strength == 0:
        return None
    kind = parameter_spec.regularization_type or solver_param.regularization_type
    _check_kind(kind, f"{where}: ")
    return DecayTerm(kind, strength)


def check_multiplier(multiplier: np.ndarray, shape: Shape, where: str) -> None:
    """Refuse element-wise multipliers whose shape is not the parameter's.

    Raises
    ------
    ShapeError
        Names both shapes.
    """
    if multiplier.shape != tuple(shape):
        raise ShapeError(
            f"{where}: decay_proto holds multipliers of shape {multiplier.shape} for a blob "
            f"of shape {tuple(shape)}; write one multiplier for each weight"
        )


def penalty(
    w: np.ndarray,
    kind: str,
    strength: float,
    multiplier: np.ndarray | None = None,
    kernels: ModuleType = reference,
) -> float:
    """Return the penalty of one parameter, summed in float64.

    Parameters
    ----------
    w : ndarray
        The weights, of any shape.
    kind : {"L1", "L2"}
    strength : float
        lambda.
    multiplier : ndarray of the shape of w, optional
        m; None for 1.
    kernels : module
        The backend.
    """
    _check_kind(kind)
    if kind == "L2":
        return strength / 2 * kernels.sum_of_squares(w, multiplier)
    return strength * kernels.sum_of_magnitudes(w, multiplier)


def add_gradient(
    d_w: np.ndarray,
    w: np.ndarray,
    kind: str,
    strength: float,
    multiplier: np.ndarray | None = None,
    kernels: ModuleType = reference,
) -> None:
    """Add the gradient of the penalty to ``d_w``; parameters as in :func:`penalty`.

    Where a multiplier of L1 is negative this is not the derivative of the printed penalty: the
    published program keeps the sign in one and drops it in the other, and so does this.
    """
    _check_kind(kind)
    add = kernels.add_l2 if kind == "L2" else kernels.add_l1
    add(w, strength, multiplier, d_w)


def _check_kind(kind: str, where: str = "") -> None:
    if kind not in KINDS:
        raise ConfigError(
            f"{where}unknown regularization_type '{kind}'; use one of {', '.join(KINDS)}"
        )
