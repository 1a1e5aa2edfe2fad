"""Local response normalization: a thread for each element."""

from __future__ import annotations

import cupy

from minissl.kernels.gpu.raw import each


def lrn_forward(x, window, alpha, beta, k, scale, y) -> None:
    """Divide each value by a power of the energy around it.

    y = x * scale^-beta, scale = k + alpha / |window| * sum of x^2 over the window around it.

    Parameters
    ----------
    x : (N, C, H, W)
    window : (channels, rows, columns), odd numbers
    scale : (N, C, H, W) or None, written
    y : (N, C, H, W), written
    """
    x = cupy.ascontiguousarray(x)
    constants = float(alpha), float(beta), float(k)
    each("lrn", "lrn", x, x.size, x, *x.shape, *window, *constants, scale, y)


def lrn_backward(x, y, scale, d_y, window, alpha, beta, d_x) -> None:
    """Gradient of :func:`lrn_forward`.

    d_x_i = d_y_i * scale_i^-beta - 2 alpha beta / |window| * x_i * sum of d_y_j * y_j / scale_j.
    """
    x, y, scale, d_y = (cupy.ascontiguousarray(a) for a in (x, y, scale, d_y))
    constants = float(alpha), float(beta)
    each(
        "lrn", "lrn_gradient", x, x.size,
        x, y, scale, d_y, *x.shape, *window, *constants, d_x,
    )  # fmt: skip
