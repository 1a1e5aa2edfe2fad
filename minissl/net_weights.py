"""The parameters of a network: who holds them, what fits them from a file, which are frozen."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minissl import backend as backends
from minissl.blob import Parameter, Shape
from minissl.errors import ConfigError, NonFiniteError, WeightsError
from minissl.layers import Layer
from minissl.sparsity import connectivity
from minissl.sparsity.zero_out import zero_out

log = logging.getLogger("minissl")


def own(layers: Sequence[Layer], others: Sequence[Layer]) -> list[Parameter]:
    """Return every learnable blob once; those that are shared become one object.

    Parameters
    ----------
    layers : sequence of Layer
        Parameters of one name (``param { name: ... }``) are shared among them.
    others : sequence of Layer
        Those of another network, whose parameters are taken by layer name.
    """
    named: dict[str, Parameter] = {}
    theirs = {layer.name: layer for layer in others}
    parameters: list[Parameter] = []
    for layer in layers:
        other = theirs.get(layer.name)
        if other is not None and len(other.parameters) != len(layer.parameters):
            raise layer.config_error(
                f"has {len(layer.parameters)} blobs of weights where the layer of this name in the "
                f"other net has {len(other.parameters)}; let both agree, or rename one"
            )
        for i, parameter in enumerate(layer.parameters):
            if other is not None:
                if parameter.spec.name:  # a layer that the other network lacks may share it too
                    named.setdefault(parameter.spec.name, other.parameters[i])
                _share(layer, i, other.parameters[i])
            elif parameter.spec.name in named:
                _agree(parameter, named[parameter.spec.name])
                _share(layer, i, named[parameter.spec.name])
                continue
            elif parameter.spec.name:
                named[parameter.spec.name] = parameter
            if not any(layer.parameters[i] is known for known in parameters):
                parameters.append(layer.parameters[i])
    return parameters


def _agree(one: Parameter, parameter: Parameter) -> None:
    """Let a parameter have what another layer says of it too, as Caffe does; or refuse both."""
    for field, value in one.spec.ListFields():
        if field.name in ("name", "share_mode"):
            continue
        theirs = getattr(parameter.spec, field.name)
        given = {known.name for known, _ in parameter.spec.ListFields()}
        if field.name in given and theirs != value:
            raise ConfigError(
                f"'{one.name}' and '{parameter.name}' share their values, but differ in "
                f"'{field.name}'; give it once, or the same twice"
            )
        if field.name not in given:
            parameter.spec.MergeFrom(type(parameter.spec)(**{field.name: value}))


def _share(layer: Layer, index: int, parameter: Parameter) -> None:
    """Let a layer use the parameter of another one in the place of its own."""
    one = layer.parameters[index]
    if one.shape != parameter.shape:
        raise ConfigError(
            f"'{one.name}' of shape {one.shape} cannot share the values of "
            f"'{parameter.name}' of shape {parameter.shape}"
        )
    layer.parameters[index] = parameter
    parameter.shared = True


def fill(layers: Sequence[Layer], known: Sequence[Parameter]) -> None:
    """Give the parameters of layers their first values, but not those of another network."""
    filled = {id(parameter) for parameter in known}
    for layer in layers:
        if not any(id(parameter) in filled for parameter in layer.parameters):
            layer.fill_parameters()


def make_dense(layers: Sequence[Layer], kernels: Any) -> None:
    """Give weights that are zero throughout random values, to be counted or timed as dense ones.

    A net without fillers, as networks are often passed on, would have no weight but 0.
    """
    rng = np.random.default_rng(0)
    for layer in layers:
        for parameter in layer.parameters:
            if parameter.role == "weight" and not parameter.data.any():
                values = rng.normal(0, 0.01, parameter.shape)
                parameter.data = kernels.xp.asarray(values, parameter.dtype)
        layer.prepare()


def fitting(
    layers: Sequence[Layer],
    weights: Mapping[str, Sequence[Any]],
    dtype: np.dtype,
    source: str,
    net_name: str,
    otherwise: str = "initial values stay",
) -> dict[str, list[np.ndarray]]:
    """Return the weights of the layers that find some, in the shape and type of their parameters.

    All are checked before any is returned. ``otherwise`` says what is done about layers without.

    Raises
    ------
    WeightsError
        When blobs of a layer differ in number or shape, or no layer matches at all.
    NonFiniteError
        When a weight is NaN or infinite.
    """
    learning = [layer for layer in layers if layer.parameters]
    weights = whole(learning, weights)
    found = {
        layer.name: _fitting_values(layer, weights[layer.name], dtype, source)
        for layer in learning
        if layer.name in weights
    }
    if learning and not found:
        raise WeightsError(
            f"{source} holds no layer of net '{net_name}': it has "
            f"{', '.join(weights) or 'none'}, the net {', '.join(layer.name for layer in learning)}"
        )
    missing = [layer.name for layer in learning if layer.name not in found]
    if missing:
        log.info("no weights for %s in %s: %s", ", ".join(missing), source, otherwise)
    return found


def whole(layers: Sequence[Layer], weights: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """Return weights in which a shared blob that a layer lacks is that of the layer it belongs to.

    Caffe's HDF5 files hold shared blobs once, with the first layer that has them.
    """
    result = {name: list(blobs) for name, blobs in weights.items()}
    owners: dict[int, Any] = {}  # id of a parameter -> its values
    for layer in layers:
        blobs = result.get(layer.name)
        if not blobs:
            continue
        for i, parameter in enumerate(layer.parameters):
            if i < len(blobs) and np.size(blobs[i]):
                owners.setdefault(id(parameter), blobs[i])
            elif id(parameter) in owners:
                blobs[i : i + 1] = [owners[id(parameter)]]
    return result


def _fitting_values(
    layer: Layer, blobs: Sequence[Any], dtype: np.dtype, source: str
) -> list[np.ndarray]:
    """Return the blobs of a layer in the shape and type of its parameters, or refuse them."""
    if len(blobs) != len(layer.parameters):
        raise WeightsError(
            f"{source}: layer '{layer.name}' has {len(blobs)} blobs where the net has "
            f"{len(layer.parameters)}; check bias_term, or load another file"
        )
    arrays = []
    for parameter, values in zip(layer.parameters, blobs, strict=True):
        values = backends.to_host(values)
        if _squeezed(values.shape) != _squeezed(parameter.shape):
            raise WeightsError(
                f"{source}: blob {parameter.index} of layer '{layer.name}' has shape "
                f"{values.shape} where the net has {parameter.shape}; load weights of this net"
            )
        if not np.isfinite(values).all():
            raise NonFiniteError(
                f"{source}: blob {parameter.index} of layer '{layer.name}' holds NaN or "
                "infinity; load weights that were saved before the run diverged"
            )
        # ascontiguousarray would give a single number an axis
        arrays.append(np.asarray(values.reshape(parameter.shape), dtype, order="C"))
    return arrays


def _squeezed(shape: Shape) -> Shape:
    """Drop dimensions of length 1: old files hold (1, 1, F, K) for what is (F, K) now."""
    shape = tuple(n for n in shape if n != 1)
    return shape if math.prod(shape) != 1 else ()


def mode_of(layer: Layer) -> str:
    """Return what stays zero in a layer's weights; only layers that are ``FREEZABLE`` say so."""
    if layer.type_name not in connectivity.FREEZABLE:
        return "CONNECTED"
    return connectivity.MODES[layer.param.connectivity_mode]


def thaw(layer: Layer) -> None:
    """Remove the connectivity mask of a layer's weights."""
    if layer.type_name in connectivity.FREEZABLE:
        layer.parameters[0].mask = None


def freeze(layer: Layer, kernels: Any) -> None:
    """Make the connectivity mask of a layer whose weights were just loaded.

    Weights below the zero-out threshold become zero first, then zeros are frozen as the layer's
    ``connectivity_mode`` says. A layer that freezes nothing leaves the mask alone: another one may
    share its weights.
    """
    mode = mode_of(layer)
    if mode == "CONNECTED":
        return
    weights = layer.parameters[0]
    zero_out(weights.data, kernels=kernels)
    weights.mask = kernels.xp.asarray(
        connectivity.mask_of(backends.to_host(weights.data), mode, weights.conv_groups)
    )
    frozen = 100 * (1 - float(weights.mask.mean()))
    log.info("layer %s: %s freezes %.2f %% of its weights", layer.name, mode, frozen)
