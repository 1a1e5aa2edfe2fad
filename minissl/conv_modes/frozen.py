"""What a convolution computes while rows and columns of its weights are frozen at zero."""

from __future__ import annotations

from typing import Any

from minissl.conv_modes.lowered_ccnmm import LoweredCcnmm
from minissl.conv_modes.narrow import NarrowConvolution
from minissl.conv_modes.training import TrainedConvolution

#: The living part must be predicted to take less than this share of the time of all weights: within
#: a tenth the prediction is not sure enough to copy channels for it.
WORTH = 0.9


def without_zeros(
    trained: TrainedConvolution, mask: Any, trains: bool
) -> LoweredCcnmm | NarrowConvolution | None:
    """Return the convolution without what is frozen; None where nothing is won by that.

    Kept rows and columns are lowered and multiplied; in training that is compared, by prediction,
    with tiles for all weights and with tiles for the living filters and channels.

    Parameters
    ----------
    trained : TrainedConvolution
        The convolution with all its weights.
    mask : (F, C/G, kh, kw)
        0 where a weight is frozen at zero.
    trains : bool
        Whether gradients are wanted as well.
    """
    packed = LoweredCcnmm(trained.shape, mask, None, trained.kernels)
    if packed.multiply_adds == mask.size:
        return None
    if not trains or trained.lowers_all:
        return packed
    ways: list[tuple[float, LoweredCcnmm | NarrowConvolution | None]]
    ways = [(trained.seconds(), None), (trained.packed_seconds(mask), packed)]
    if narrow := NarrowConvolution.of(trained, mask):
        ways.append((narrow.seconds() / WORTH, narrow))
    return min(ways, key=lambda way: way[0])[1]
