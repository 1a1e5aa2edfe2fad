"""Convolutions for the register-blocked kernels: wide enough for several vectors and tiles."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from minissl.conv_modes import ConvShape
from minissl.kernels import reference
from minissl.kernels.geometry import convolution_output
from tests.kernels.strategies import Case


@st.composite
def wide_convolutions(draw):
    """Rows of 1 to 40 pixels, batches of 1 to 20, up to 40 filters; any geometry."""
    axes = []
    for longest in (12, 40):
        kernel, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3))
        pad, stride = draw(st.integers(0, 4)), draw(st.integers(1, 4))
        reach = dilation * (kernel - 1) + 1
        size = draw(st.integers(max(1, reach - 2 * pad), max(longest, reach)))
        assert convolution_output(size, kernel, stride, pad, dilation) >= 1
        axes.append((size, kernel, stride, pad, dilation))
    size, kernel, stride, pad, dilation = ((a, b) for a, b in zip(*axes, strict=True))
    groups = draw(st.integers(1, 3))
    channels = groups * draw(st.integers(1, 5))
    filters = groups * draw(st.sampled_from([1, 2, 5, 8, 17, 40]))
    shape = ConvShape(channels, size, filters, kernel, stride, pad, dilation, groups)
    N = draw(st.sampled_from([1, 2, 7, 16, 20]))
    return Case(N, shape, draw(st.integers(0, 2**32 - 1)))


def integers(case, rng):
    """x, w and b of small whole numbers: whatever the order of a sum, it is exact."""
    s = case.shape
    x, w, b = (
        rng.integers(-4, 5, shape).astype(np.float32)
        for shape in ((case.N, s.channels, *s.size), s.weight_shape, s.filters)
    )
    return x, w, b


def expected(case, x, w, b, relu):
    """What the definition says."""
    y = np.empty((case.N, case.shape.filters, *case.shape.output), x.dtype)
    reference.conv_forward(x, w, b, *case.arguments, y)
    if relu:
        reference.relu_forward(y, 0.0, y)
    return y
