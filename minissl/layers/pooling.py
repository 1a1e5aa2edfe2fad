"""Pooling: the maximum or the mean of each window.

N images, C channels, H x W pixels; outputs are oh x ow.
"""

from __future__ import annotations

from typing import Any

from minissl.blob import Blob, Shape
from minissl.kernels.geometry import pooling_output
from minissl.layers.base import Layer, register
from minissl.layers.stochastic_pooling import StochasticPooling

# PoolingParameter.PoolMethod
MAX, AVE, STOCHASTIC = 0, 1, 2
# PoolingParameter.RoundMode
CEIL, FLOOR = 0, 1


@register("Pooling")
class Pooling(Layer):
    """Maximum or mean of windows.

    With window (i, j) covering rows ``i * stride - pad`` to ``i * stride - pad + kernel``:

    * MAX: ``y = max`` over the pixels of the window inside the image; the gradient goes to the
      first of equal maxima in reading order. A second top receives the position ``h * W + w`` of
      each maximum, as floating-point numbers. Without one, a network that only tests looks for no
      positions, which is faster.
    * AVE: ``y = sum / area``, where the area is that of the window clipped at ``H + pad``: padding
      counts as zeros, what hangs over beyond it does not count;
    * STOCHASTIC: a value of the window by chance, see :mod:`.stochastic_pooling`; without padding.

    Bottom (N, C, H, W), top (N, C, oh, ow) with oh, ow from
    :func:`minissl.kernels.geometry.pooling_output`: rounded up, or down with ``round_mode: FLOOR``.
    """

    n_tops = (1, 2)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Read kernel, stride and pad, and count the windows."""
        shape = bottom_shapes[0]
        if len(shape) != 4:
            raise self.shape_error(
                f"the bottom has shape {shape}, but pooling needs four axes (N, C, H, W); "
                "pool before flattening"
            )
        self._read_geometry(shape)
        p = self.param.pooling_param
        n, c = shape[:2]
        oh, ow = (
            pooling_output(size, kernel, stride, pad, p.round_mode == FLOOR)
            for size, kernel, stride, pad in zip(
                shape[2:], self.kernel, self.stride, self.pad, strict=True
            )
        )
        if oh < 1 or ow < 1:
            raise self.shape_error(
                f"no {self.kernel[0]}x{self.kernel[1]} window fits an input of "
                f"{shape[2]}x{shape[3]} with pad {self.pad}; use a smaller kernel or more padding"
            )
        self.top_shape = (n, c, oh, ow)
        self._argmax: Any = None
        self._stochastic = StochasticPooling(self, self.kernel, self.stride, shape, self.top_shape)
        return [self.top_shape] * max(1, len(self.param.top))

    def workspace_bytes(self) -> int:
        """Positions of the maxima, int32; for STOCHASTIC the values of all windows."""
        n, c, oh, ow = self.top_shape
        if self.method == STOCHASTIC:
            size = n * c * oh * ow * self.kernel[0] * self.kernel[1]
            return 2 * size * self.dtype.itemsize
        return 4 * n * c * oh * ow if self.keeps_positions else 0

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Pool every window."""
        x, y = bottom[0].data, top[0].data
        if self.method == STOCHASTIC:
            self._stochastic.forward(x, y)
            return
        if self.method == AVE:
            self.kernels.ave_pool_forward(x, self.kernel, self.stride, self.pad, y)
            return
        if self.keeps_positions and self._argmax is None:
            self._argmax = self.kernels.xp.empty(self.top_shape, "int32")
        self.kernels.max_pool_forward(x, self.kernel, self.stride, self.pad, y, self._argmax)
        if len(top) > 1:
            top[1].data[...] = self._argmax

    @property
    def keeps_positions(self) -> bool:
        """Whether the maxima are needed with their places: to train, or for a second top."""
        has_mask = len(self.param.top) > 1
        return self.method == MAX and (self.phase == "TRAIN" or has_mask)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """Send each window's gradient to its maximum, or spread it evenly."""
        if not propagate_down[0]:
            return
        d_y, d_x = top[0].diff, bottom[0].diff
        if self.method == STOCHASTIC:
            self._stochastic.backward(bottom[0].data, top[0].data, d_y, d_x)
            return
        if self.method == AVE:
            self.kernels.ave_pool_backward(d_y, self.kernel, self.stride, self.pad, d_x)
            return
        geometry, argmax = (self.kernel, self.stride, self.pad), self._argmax
        if argmax is None:  # phase TEST kept none
            argmax = self.kernels.xp.empty(d_y.shape, "int32")
            x, y = bottom[0].data, self.kernels.xp.empty_like(d_y)
            self.kernels.max_pool_forward(x, *geometry, y, argmax)
        self.kernels.max_pool_backward(d_y, argmax, *geometry, d_x)

    # --- reading pooling_param ---

    def _read_geometry(self, shape: Shape) -> None:
        p = self.param.pooling_param
        self.method = p.pool
        if self.method != MAX and len(self.param.top) > 1:
            raise self.config_error("only pool: MAX has a second top; remove one top")
        self.stride = self._pair("stride", "stride_h", "stride_w", default=1)
        self.pad = self._pair("pad", "pad_h", "pad_w", default=0)
        if p.global_pooling:
            if any(p.HasField(name) for name in ("kernel_size", "kernel_h", "kernel_w")):
                raise self.config_error(
                    "global_pooling takes the whole input as its window; remove the kernel size"
                )
            if self.pad != (0, 0) or self.stride != (1, 1):
                raise self.config_error("global_pooling needs pad 0 and stride 1; remove both")
            self.kernel = (shape[2], shape[3])
        else:
            self.kernel = self._pair("kernel_size", "kernel_h", "kernel_w", default=None)
        if min(self.kernel) < 1 or min(self.stride) < 1:
            raise self.config_error(
                f"kernel {self.kernel} and stride {self.stride} must be at least 1"
            )
        if self.pad[0] >= self.kernel[0] or self.pad[1] >= self.kernel[1]:
            raise self.config_error(
                f"pad {self.pad} must be smaller than the kernel {self.kernel}, "
                "or windows would lie in the padding alone"
            )
        if self.method == STOCHASTIC and self.pad != (0, 0):
            raise self.config_error("pool: STOCHASTIC has no padding; remove pad")

    def _pair(self, both: str, h: str, w: str, default: int | None) -> tuple[int, int]:
        """Read ``pad: 1`` or ``pad_h: 1 pad_w: 2``."""
        p = self.param.pooling_param
        given = [name for name in (both, h, w) if p.HasField(name)]
        if given == [both]:
            return getattr(p, both), getattr(p, both)
        if given == [h, w]:
            return getattr(p, h), getattr(p, w)
        if not given and default is not None:
            return default, default
        found = f"found {' and '.join(given)}" if given else "found neither"
        raise self.config_error(f"give either {both} or both {h} and {w}; {found}")
