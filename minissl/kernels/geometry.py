"""Sizes of convolutions and poolings: pure integer arithmetic, shared by all backends."""

from __future__ import annotations


def convolution_output(size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Output length of a convolution along one axis.

    floor((size + 2 pad - dilation (kernel - 1) - 1) / stride) + 1; zero or less when the (dilated)
    kernel is longer than the padded input.
    """
    return (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


def pooling_output(size: int, kernel: int, stride: int, pad: int) -> int:
    """Output length of Caffe's pooling along one axis.

    The quotient is rounded *up*, so that a last, partial window is kept; with padding, a last
    window that would begin beyond the padded input is dropped again.
    """
    length = -(-(size + 2 * pad - kernel) // stride) + 1
    if pad > 0 and (length - 1) * stride >= size + pad:
        length -= 1
    return length
