"""Which modes a net asks for, and which its layers can be timed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minissl.conv_modes import executed_mode, offered_modes
from minissl.conv_modes.auto import AUTO, Choice
from minissl.conv_modes.inner_product import GEMM_MODES, PRODUCTS
from minissl.formats.fused_types import main_type
from minissl.layers import Convolution, Layer
from minissl.net import Net
from minissl.timing.measurements import ALL, BASELINE, PICKED


def own_modes(param: Any) -> dict[str, str]:
    """Return the ``conv_mode`` that a net (NetParameter) asks for, by layer.

    A compacted layer (``kept_columns``) that asks for no mode, or for a dense one, runs as
    LOWERED_CCNMM.
    """
    modes = {}
    for layer in param.layer:
        if main_type(layer.type) == "Convolution":
            fields = layer.convolution_param
            mode = fields.ConvMode.Name(fields.conv_mode)
        elif main_type(layer.type) == "InnerProduct":
            fields = layer.inner_product_param
            name = fields.GemmMode.Name(fields.gemm_mode)
            mode = GEMM_MODES.get(name, name)
        else:
            continue
        modes[layer.name] = executed_mode(mode, bool(fields.kept_columns))
    return modes


def without_modes(param: Any) -> Any:
    """Return a copy of a net in which every layer is dense, to be timed in any mode.

    A LOWERED_GEMM that is written out stays: in training it means more than no mode at all.
    """
    copy = type(param)()
    copy.CopyFrom(param)
    for layer in copy.layer:
        fields = layer.convolution_param
        if main_type(layer.type) == "Convolution" and fields.conv_mode != fields.LOWERED_GEMM:
            fields.ClearField("conv_mode")
        if main_type(layer.type) == "InnerProduct":
            layer.inner_product_param.ClearField("gemm_mode")
    return copy


def lower(param: Any) -> None:
    """Write LOWERED_GEMM out in every convolution of a net (NetParameter)."""
    for layer in param.layer:
        if main_type(layer.type) == "Convolution":
            layer.convolution_param.conv_mode = layer.convolution_param.LOWERED_GEMM


def automatic(param: Any) -> Any:
    """Return a copy of a net in which the performance model picks the mode of every layer."""
    copy = type(param)()
    copy.CopyFrom(param)
    for layer in copy.layer:
        if main_type(layer.type) == "Convolution":
            layer.convolution_param.conv_mode = layer.convolution_param.AUTO
        elif main_type(layer.type) == "InnerProduct":
            layer.inner_product_param.gemm_mode = layer.inner_product_param.AUTO
    return copy


def trained_modes(net: Net) -> dict[str, str]:
    """Return what the forward passes of convolutions amount to, where a net is trained."""
    if net.phase != "TRAIN":
        return {}
    convolutions = [layer for layer in net.layers if isinstance(layer, Convolution)]
    return {layer.name: layer.trained.mode for layer in convolutions}


def modes_in(net: Net, own: Mapping[str, str]) -> dict[str, str]:
    """Return the modes of :func:`own_modes` as the layers of a net have them in its phase."""
    modes = {layer.name: own[layer.name] for layer in net.layers if layer.name in own}
    if net.phase == "TRAIN":  # where AUTO is GEMM for an inner product
        modes = {name: BASELINE if mode == AUTO else mode for name, mode in modes.items()}
    return {**modes, **trained_modes(net)}


def modes_of(layer: Layer) -> tuple[str, ...]:
    """Return the modes that a layer can be timed in; none where it has no weights to multiply."""
    if isinstance(layer, Convolution):
        return offered_modes(layer.shape, layer.kernels)
    return tuple(PRODUCTS) if layer.type_name == "InnerProduct" else ()


def modes_to_time(
    asked: str | None, own: dict[str, str], net: Net, choices: Mapping[str, Choice] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return the modes to time for each layer of ``own``, the net's own modes.

    A layer that does not have the mode that was asked for keeps its own. ``choices`` are those of
    the performance model, for layers that want AUTO (:func:`wants_choice`).
    """
    choices = choices or {}
    modes = {}
    for name, mode in own.items():
        offered = modes_of(net.layer(name))
        if asked == ALL:
            modes[name] = offered
        elif wants_choice(asked, mode, offered):
            modes[name] = (choices[name].mode,)
        else:
            modes[name] = (asked if asked in offered else mode,)
    return modes


def wants_choice(asked: str | None, own: str, offered: Sequence[str]) -> bool:
    """Whether the performance model must choose for a layer: of its own mode, and those offered."""
    return asked in (ALL, PICKED) or (own == AUTO and asked not in offered)
