"""Sizes of convolutions and poolings: pure integer arithmetic, shared by all backends."""

from __future__ import annotations


def convolution_output(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Output length of a convolution along one axis.

    floor((size + 2 pad - dilation (kernel - 1) - 1) / stride) + 1; zero or less when the (dilated)
    kernel is longer than the padded input.
    """
    return (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


def pooling_output(size: int, kernel: int, stride: int, pad: int, round_down: bool = False) -> int:
    """Output length of Caffe's pooling along one axis.

    ceil((size + 2 pad - kernel) / stride) + 1: rounded *up*, so that a last window may hang over
    the far edge. A last window that would begin beyond the image (size + pad) is dropped again;
    Caffe does so only with padding, and leaves an empty window where the stride exceeds an
    unpadded kernel. With `round_down`, as in most other frameworks, no window hangs over.

    Examples
    --------
    >>> pooling_output(6, kernel=3, stride=2, pad=0)  # floor would give 2
    3
    >>> pooling_output(3, kernel=2, stride=2, pad=1)  # the third window would begin at 4 >= 3 + 1
    2
    >>> pooling_output(6, kernel=3, stride=2, pad=0, round_down=True)
    2
    """
    if round_down:
        return (size + 2 * pad - kernel) // stride + 1
    length = -(-(size + 2 * pad - kernel) // stride) + 1
    if length > 0 and (length - 1) * stride >= size + pad:
        length -= 1
    return length
