"""Initial values of parameters: Caffe's fillers.

A weight blob has shape (F, C, kh, kw) or (F, K): ``fan_in`` is the number of inputs that one output
sums (size / F), ``fan_out`` the number of outputs one input reaches as Caffe counts it (size / C).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minissl.blob import Shape
from minissl.errors import ConfigError

# FillerParameter.VarianceNorm
FAN_IN, FAN_OUT, AVERAGE = 0, 1, 2


def fill(filler_param: Any, shape: Shape, rng: np.random.Generator, where: str = "") -> np.ndarray:
    """Draw the initial values of one parameter.

    Parameters
    ----------
    filler_param : FillerParameter
        ``type`` is one of

        * ``constant``: ``value`` everywhere;
        * ``uniform``: U(``min``, ``max``);
        * ``gaussian``: N(``mean``, ``std``²); with ``sparse`` >= 0 each value is kept with
          probability ``sparse`` / F and is zero otherwise, F = ``shape[0]``;
        * ``xavier``: U(-a, a) with a = sqrt(3 / n);
        * ``msra``: N(0, 2 / n);
        * ``positive_unitball``: positive values, each row of the blob sums to 1;
        * ``bilinear``: each kernel a pyramid, with which a Deconvolution interpolates.

        n follows ``variance_norm``: fan_in (default), fan_out or their mean.
    shape : tuple of int
        Shape of the parameter.
    rng : numpy.random.Generator
        Source of randomness; only the random fillers advance it.
    where : str
        What to name in an error message, such as ``"layer 'conv1'"``.

    Returns
    -------
    ndarray, float64
        The values, of the given shape.

    Raises
    ------
    ConfigError
        For an unknown type or impossible parameters.
    """
    prefix = f"{where}: " if where else ""
    filler = _FILLERS.get(filler_param.type)
    if filler is None:
        raise ConfigError(
            f"{prefix}unknown filler type '{filler_param.type}'; use one of {', '.join(_FILLERS)}"
        )
    try:
        # a single number is drawn as a row of one
        return filler(filler_param, tuple(shape) or (1,), rng).reshape(shape)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from None


def fan(filler_param: Any, shape: Shape) -> float:
    """Return n of the xavier and msra formulas, as ``variance_norm`` says.

    Examples
    --------
    A convolution of 20 filters on 3 channels with 5x5 kernels, shape (20, 3, 5, 5), has
    fan_in = 75 and fan_out = 500.
    """
    size = math.prod(shape)
    fan_in = size / shape[0]
    fan_out = size / (shape[1] if len(shape) > 1 else 1)
    if filler_param.variance_norm == FAN_OUT:
        return fan_out
    if filler_param.variance_norm == AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_in


def _constant(param: Any, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    return np.full(shape, float(param.value))


def _uniform(param: Any, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    if not math.isfinite(param.max - param.min):
        raise ConfigError(
            f"the uniform filler goes from {param.min:g} to {param.max:g}; use finite numbers"
        )
    if param.min > param.max:
        raise ConfigError(
            f"the uniform filler has min {param.min:g} above max {param.max:g}; exchange them"
        )
    return rng.uniform(param.min, param.max, shape)


def _gaussian(param: Any, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    if param.std < 0:
        raise ConfigError(f"the gaussian filler has std {param.std:g}; it must be 0 or more")
    values = rng.normal(param.mean, param.std, shape)
    if param.sparse >= 0:
        outputs = shape[0]
        if param.sparse > outputs:
            raise ConfigError(
                f"the gaussian filler has sparse {param.sparse}, more than the {outputs} outputs; "
                "lower it, or leave it out for dense weights"
            )
        values *= rng.random(shape) < param.sparse / outputs
    return values


def _xavier(param: Any, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    scale = math.sqrt(3 / fan(param, shape))
    return rng.uniform(-scale, scale, shape)


def _msra(param: Any, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, math.sqrt(2 / fan(param, shape)), shape)


def _positive_unitball(param: Any, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    rows = rng.random((shape[0], math.prod(shape[1:])))  # (F, K)
    rows /= rows.sum(axis=1, keepdims=True)
    return rows.reshape(shape)


def _bilinear(param: Any, shape: Shape, rng: np.random.Generator) -> np.ndarray:
    if len(shape) != 4 or shape[2] != shape[3]:
        raise ConfigError(f"the bilinear filler is for square kernels, not for shape {shape}")
    half = math.ceil(shape[3] / 2)
    centre = (2 * half - 1 - half % 2) / (2 * half)
    side = 1 - np.abs(np.arange(shape[3]) / half - centre)  # (k,)
    return np.broadcast_to(side[:, None] * side, shape).copy()


_FILLERS: dict[str, Callable[[Any, Shape, np.random.Generator], np.ndarray]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "xavier": _xavier,
    "msra": _msra,
    "positive_unitball": _positive_unitball,
    "bilinear": _bilinear,
}
