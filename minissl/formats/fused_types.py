"""SkimCaffe's fused layer types, as the plain layers they stand for.

    ConvolutionReLU   ConvolutionReLUPool   ConvolutionReLUPoolLRN
    ReLUPooling       InnerProductReLUDropout

In SkimCaffe each is one layer, for inference only. Here it becomes its parts: the first keeps the
layer's name, and with it its weights. In phase TEST they run as one step again, like any such chain
(:mod:`minissl.fusion`); in phase TRAIN they learn. ``MKLConvolution``, ``MKLReLU``, ``MKLPooling``
and ``MKLLRN`` are names for the plain layers, computed by another library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minissl.formats.proto import LayerParameter

#: each type of SkimCaffe, and the types of its parts
PARTS = {
    "ConvolutionReLU": ("Convolution", "ReLU"),
    "ConvolutionReLUPool": ("Convolution", "ReLU", "Pooling"),
    "ConvolutionReLUPoolLRN": ("Convolution", "ReLU", "Pooling", "LRN"),
    "ReLUPooling": ("ReLU", "Pooling"),
    "InnerProductReLUDropout": ("InnerProduct", "ReLU", "Dropout"),
    "MKLConvolution": ("Convolution",),
    "MKLReLU": ("ReLU",),
    "MKLPooling": ("Pooling",),
    "MKLLRN": ("LRN",),
}
_FIELD = {
    "Convolution": "convolution_param",
    "InnerProduct": "inner_product_param",
    "ReLU": "relu_param",
    "Pooling": "pooling_param",
    "LRN": "lrn_param",
    "Dropout": "dropout_param",
}
#: parts that may overwrite what they read
_IN_PLACE = ("ReLU", "Dropout")


def main_type(type_name: str) -> str:
    """Return the type of the part that has a layer's weights: its own, unless it is fused."""
    return PARTS.get(type_name, (type_name,))[0]


def plain_layers(layer: LayerParameter) -> list[LayerParameter]:
    """Return the layers that a layer stands for: itself, unless it is of one of SkimCaffe's types.

    Later parts are named after their type, ``conv1_relu`` of ``conv1``, and so are the blobs
    between them. A ReLU or Dropout behind another part is computed in place.
    """
    kinds = PARTS.get(layer.type)
    if kinds is None:
        return [layer]
    parts = []
    blob = layer.bottom[0] if layer.bottom else ""
    for i, kind in enumerate(kinds):
        part = type(layer)()
        part.CopyFrom(layer)
        part.type = kind
        for other, field in _FIELD.items():
            if other != kind:
                part.ClearField(field)
        if i:
            part.name = f"{layer.name}_{kind.lower()}"
            for field in ("param", "blobs", "connectivity_mode", "propagate_down"):
                part.ClearField(field)
            part.bottom[:] = [blob]
        if i < len(kinds) - 1:
            part.ClearField("loss_weight")
        if i and kind in _IN_PLACE:
            part.top[:] = [blob]
        elif all(later in _IN_PLACE for later in kinds[i + 1 :]):
            part.top[:] = layer.top  # nothing that follows makes a blob of its own
        else:
            part.top[:] = [f"{layer.name}_{kind.lower()}"]
        blob = part.top[0] if part.top else ""
        parts.append(part)
    return parts
