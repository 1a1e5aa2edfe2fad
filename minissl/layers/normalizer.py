"""What the sum of a loss is divided by: ``loss_param`` of a prototxt."""

from __future__ import annotations

from minissl.layers.base import Layer

# LossParameter.NormalizationMode
FULL, VALID, BATCH_SIZE, NONE = 0, 1, 2, 3


def read_normalization(layer: Layer, default: int) -> int:
    """Return the mode of a loss layer; the older ``normalize`` means VALID, or BATCH_SIZE."""
    loss_param = layer.param.loss_param
    if loss_param.HasField("normalization"):
        mode: int = loss_param.normalization
        return mode
    if loss_param.HasField("normalize"):
        return VALID if loss_param.normalize else BATCH_SIZE
    return default
