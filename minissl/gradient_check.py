"""Check a layer's hand-written backward pass against finite differences of its forward pass.

Method
------
A layer maps bottoms x and parameters w to tops y. Fix random numbers v, one for each element of the
tops, and look at the scalar objective

    L(x, w) = sum_i v_i y_i(x, w).

Handing v to the layer as ``top.diff`` makes its backward pass compute dL/dx and dL/dw: the whole
Jacobian takes part, each row weighted by a random number, so that an error in any of its entries
shows with probability 1. *Every* element of every bottom and parameter is then moved by +h and -h,
and the gradient is compared with the central difference

    dL/dx_j  ~  sum_i v_i (y_i(x + h e_j) - y_i(x - h e_j)) / 2h        (error O(h^2) + O(eps / h)).

Differences are taken before they are summed: outputs that x_j does not reach drop out exactly.
For a layer that is linear in what is moved the central difference has no truncation error at all,
so a large h (0.5, say) reaches 1e-12; for smooth ones h = 1e-5 gives about 1e-10.

All arithmetic is float64. Kinks (ReLU at 0, equal values under max pooling) have no derivative:
give inputs that stay further than h away from them. Where a layer draws random numbers (dropout),
its generator is set to the same state before each forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.blob import Blob, Parameter
from minissl.errors import ConfigError
from minissl.layers.base import Layer


def check_layer(
    layer: Layer,
    bottoms: Sequence[Any],
    *,
    objective_tops: Sequence[int] | None = None,
    check_bottoms: Sequence[int] | None = None,
    in_place: bool = False,
    step: float = 1e-5,
    seed: int = 0,
) -> float:
    """Compare a layer's gradients with central differences; return the largest relative error.

    Parameters
    ----------
    layer : Layer
        A float64 layer fresh from its constructor. It is set up here, and its parameters are given
        normally distributed values instead of those of its fillers (which are often 0). Statistics
        are given their magnitudes, and have no gradient to check.
    bottoms : sequence of arrays or shapes
        One entry for each bottom: its values, or a tuple of lengths to be filled with normally
        distributed numbers. Keep them small, every element costs two forward passes.
    objective_tops : sequence of int, optional
        Tops that carry gradient (default: all). Leave out tops such as the positions of maxima.
    check_bottoms : sequence of int, optional
        Bottoms to check (default: all but ``layer.no_gradient``).
    in_place : bool
        Let ``top[0]`` be the very blob ``bottom[0]``.
    step : float
        h, see above.
    seed : int
        Seed of v, of parameters, of bottoms given by shape and of the layer's generator.

    Returns
    -------
    float
        Largest ``|a - d| / max(|a|, |d|, m / 1000)`` over all elements, a the layer's gradient, d
        the difference quotient and m the largest magnitude in that array (so that entries that
        cancel to nearly 0 are not measured against themselves). Infinity where anything is NaN.

    Raises
    ------
    AssertionError
        When the layer breaks the contract of :class:`minissl.layers.Layer`: forward changes a
        bottom that is not in place, backward changes ``top.diff`` or does not add to the gradients
        of parameters.
    ConfigError
        For a layer that is not float64.

    Examples
    --------
    >>> check_layer(layer, [(2, 3, 5, 5)]) < 1e-6                        # doctest: +SKIP
    True
    """
    if layer.dtype != np.float64:
        raise ConfigError(
            f"layer '{layer.name}' computes in {layer.dtype}; build it with dtype float64 for a "
            "gradient check"
        )
    rng = np.random.default_rng(seed)
    inputs = [_values(entry, rng) for entry in bottoms]
    trial = _Trial(layer, inputs, in_place, rng, seed)
    if objective_tops is None:
        objective_tops = range(len(trial.top))
    if check_bottoms is None:
        check_bottoms = [i for i in range(len(bottoms)) if i not in layer.no_gradient]
    weights = {i: np.asarray(rng.normal(size=trial.top[i].shape)) for i in objective_tops}

    d_bottoms, d_parameters = trial.gradients(weights, check_bottoms)
    largest = 0.0
    checks = [(inputs[i], d_bottoms[i]) for i in check_bottoms]
    checks += [
        (array, gradient)
        for parameter, array, gradient in zip(
            layer.parameters, trial.parameters, d_parameters, strict=True
        )
        if parameter.role != "statistic"
    ]
    for array, gradient in checks:
        quotient = _difference_quotient(trial.forward, array, weights, step)
        largest = max(largest, relative_error(gradient, quotient))
    return largest


def relative_error(gradient: np.ndarray, quotient: np.ndarray) -> float:
    """Return the largest ``|a - d| / max(|a|, |d|, m / 1000)``, see :func:`check_layer`."""
    gradient, quotient = np.asarray(gradient), np.asarray(quotient)
    if gradient.size == 0:
        return 0.0
    if not (np.isfinite(gradient).all() and np.isfinite(quotient).all()):
        return float("inf")
    magnitude = np.maximum(np.abs(gradient), np.abs(quotient))
    if magnitude.max() == 0:
        return 0.0
    scale = np.maximum(magnitude, magnitude.max() / 1000)
    return float((np.abs(gradient - quotient) / scale).max())


def adjoint_error(
    forward: Callable[[np.ndarray], np.ndarray],
    adjoint: Callable[[np.ndarray], np.ndarray],
    x_shape: tuple[int, ...],
    y_shape: tuple[int, ...],
    seed: int = 0,
) -> float:
    """Measure how far a pair of linear maps is from satisfying <A x, y> = <x, A' y>.

    Parameters
    ----------
    forward, adjoint : callables
        ``A`` takes an array of ``x_shape`` to one of ``y_shape``, ``A'`` the other way.
    x_shape, y_shape : tuples of int
        Shapes of the random x and y.
    seed : int
        Seed of x and y.

    Returns
    -------
    float
        ``|<A x, y> - <x, A' y>| / (‖A x‖ ‖y‖)``; about 1e-16 for a true pair in float64.
    """
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=x_shape), rng.normal(size=y_shape)
    a_x, at_y = forward(x), adjoint(y)
    scale = float(np.linalg.norm(a_x.ravel()) * np.linalg.norm(y.ravel()))
    return abs(float((a_x * y).sum()) - float((x * at_y).sum())) / max(scale, 1e-300)


def random_values(parameter: Parameter, rng: np.random.Generator) -> np.ndarray:
    """Return normally distributed values for a parameter; of a statistic their magnitudes."""
    values = np.asarray(rng.normal(size=parameter.shape))
    return np.abs(values) if parameter.role == "statistic" else values


def _values(entry: Any, rng: np.random.Generator) -> np.ndarray:
    """Return a bottom's values: a copy of those given, or random ones of the given shape."""
    if isinstance(entry, tuple):
        return rng.normal(size=entry)
    return np.array(entry, dtype=np.float64, order="C")


def _difference_quotient(
    forward: Callable[[], list[np.ndarray]],
    array: np.ndarray,
    weights: dict[int, np.ndarray],
    step: float,
) -> np.ndarray:
    """Central difference of the objective for each element of ``array``, moved where it lies."""
    quotient = np.empty(array.shape)
    for j in np.ndindex(array.shape):
        kept = array[j]
        array[j] = kept + step
        after = forward()
        array[j] = kept - step
        before = forward()
        array[j] = kept
        moved = sum(float((v * (after[i] - before[i])).sum()) for i, v in weights.items())
        quotient[j] = moved / ((kept + step) - (kept - step))  # the step as it was rounded
    return quotient


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


class _Trial:
    """A layer with blobs around it that can be run again and again from the same state."""

    def __init__(
        self,
        layer: Layer,
        inputs: list[np.ndarray],
        in_place: bool,
        rng: np.random.Generator,
        seed: int,
    ):
        self.layer = layer
        self.inputs = inputs
        self.in_place = in_place
        self.seed = seed
        top_shapes = layer.setup([x.shape for x in inputs])
        self.xp = layer.kernels.xp
        self.parameters = [random_values(parameter, rng) for parameter in layer.parameters]
        self.bottom = [self._blob(f"bottom{i}", x.shape) for i, x in enumerate(inputs)]
        self.top = [self._blob(f"top{i}", shape) for i, shape in enumerate(top_shapes)]
        if in_place:
            self.top[0] = self.bottom[0]

    def _blob(self, name: str, shape: tuple[int, ...]) -> Blob:
        return Blob(name, shape, np.float64, self.xp)

    def forward(self) -> list[np.ndarray]:
        """Run forward on the current inputs and parameters; return copies of the tops."""
        self.layer.rng = np.random.default_rng(self.seed)
        for parameter, values in zip(self.layer.parameters, self.parameters, strict=True):
            parameter.data = self.xp.asarray(values)
        for blob, values in zip(self.bottom, self.inputs, strict=True):
            blob.data = self.xp.asarray(values.copy() if self.in_place else values)
        self.layer.forward(self.bottom, self.top)
        return [to_host(blob.data.copy()) for blob in self.top]

    def gradients(
        self, weights: dict[int, np.ndarray], check_bottoms: Sequence[int]
    ) -> tuple[dict[int, np.ndarray], list[np.ndarray]]:
        """Run forward and backward, checking what they may touch; return the gradients."""
        name = f"layer '{self.layer.name}' ({self.layer.type_name})"
        before = [x.copy() for x in self.inputs]
        self.forward()
        for i, (blob, kept) in enumerate(zip(self.bottom, before, strict=True)):
            unchanged = self.in_place or np.array_equal(to_host(blob.data), kept)
            _require(unchanged, f"{name}: forward changes bottom {i}")

        if not self.in_place:
            for blob in self.bottom:  # what backward fails to overwrite stays NaN
                blob.diff = self.xp.full(blob.shape, np.nan)
        for i, blob in enumerate(self.top):
            values = weights[i].copy() if i in weights else np.zeros(blob.shape)
            blob.diff = self.xp.asarray(values)
        propagate_down = [i in check_bottoms for i in range(len(self.bottom))]
        for parameter in self.layer.parameters:
            parameter.diff[...] = 0

        self.layer.backward(self.top, propagate_down, self.bottom)
        d_bottoms = {i: to_host(self.bottom[i].diff.copy()) for i in check_bottoms}
        d_parameters = [to_host(parameter.diff.copy()) for parameter in self.layer.parameters]

        if not self.in_place:
            for i, v in weights.items():
                _require(
                    np.array_equal(to_host(self.top[i].diff), v),
                    f"{name}: backward changes top {i}'s diff",
                )
            self.layer.backward(self.top, propagate_down, self.bottom)
            for parameter, once in zip(self.layer.parameters, d_parameters, strict=True):
                _require(
                    np.allclose(to_host(parameter.diff), 2 * once, rtol=1e-10, atol=1e-10),
                    f"{name}: backward does not add to the gradient of '{parameter.name}'",
                )
        return d_bottoms, d_parameters
