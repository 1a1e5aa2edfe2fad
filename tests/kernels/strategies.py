"""Shapes that hypothesis draws: every corner of a convolution, small enough for naive loops."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from minissl.conv_modes import ConvShape
from minissl.kernels.geometry import convolution_output


@dataclass
class Case:
    """One convolution with data: x (N, C, H, W), w (F, C/G, kh, kw), b (F,)."""

    N: int
    shape: ConvShape
    seed: int

    @property
    def arguments(self):
        """stride, pad, dilation, groups."""
        s = self.shape
        return s.stride, s.pad, s.dilation, s.groups

    def arrays(self, dtype=np.float64):
        rng = np.random.default_rng(self.seed)
        s = self.shape
        x = rng.uniform(-1, 1, (self.N, s.channels, *s.size)).astype(dtype)
        w = rng.uniform(-1, 1, s.weight_shape).astype(dtype)
        b = rng.uniform(-1, 1, s.filters).astype(dtype)
        d_y = rng.uniform(-1, 1, (self.N, s.filters, *s.output)).astype(dtype)
        return x, w, b, d_y


def _axis(draw):
    kernel = draw(st.integers(1, 4))
    dilation = draw(st.integers(1, 2))
    pad = draw(st.integers(0, 3))
    reach = dilation * (kernel - 1) + 1
    size = draw(st.integers(max(1, reach - 2 * pad), max(1, reach - 2 * pad) + 5))
    stride = draw(st.integers(1, 3))
    assert convolution_output(size, kernel, stride, pad, dilation) >= 1
    return size, kernel, stride, pad, dilation


@st.composite
def convolutions(draw):
    """Any stride, pad, dilation, rectangular kernel and number of groups; batch 1 and 1x1 too."""
    axes = _axis(draw), _axis(draw)
    size, kernel, stride, pad, dilation = ((a, b) for a, b in zip(*axes, strict=True))
    groups = draw(st.integers(1, 3))
    channels, filters = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    shape = ConvShape(channels, size, filters, kernel, stride, pad, dilation, groups)
    return Case(draw(st.integers(1, 4)), shape, draw(st.integers(0, 2**32 - 1)))


PATTERNS = ("dense", "elements", "rows", "columns", "both", "zero", "one element", "one column")


def sparsify(w, shape, pattern, rng):
    """Zero some of the weights, in place, by a pattern of ``PATTERNS``."""
    bands = shape.bands(w)
    for band in bands:  # (F/G, K)
        if pattern == "elements":
            band[rng.random(band.shape) < 0.7] = 0
        if pattern in ("rows", "both"):
            band[rng.random(len(band)) < 0.5] = 0
        if pattern in ("columns", "both"):
            band[:, rng.random(band.shape[1]) < 0.5] = 0
        if pattern == "one column":
            kept = rng.integers(band.shape[1])
            band[:, np.arange(band.shape[1]) != kept] = 0
    if pattern in ("zero", "one element"):
        w[...] = 0
    if pattern == "one element":
        w.reshape(-1)[rng.integers(w.size)] = 0.75
    return w
