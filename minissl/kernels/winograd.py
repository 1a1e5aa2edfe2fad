r"""Winograd's convolution: sums of weights times sums of pixels, in fewer multiplications.

The outputs are cut into tiles of m x m pixels, each of which depends on 6 x 6 pixels of the input,
where m = 7 - r for weights of r x r: 4 x 4 outputs for 3 x 3 weights, 2 x 2 for 5 x 5. A tile takes
36 multiplications for each channel, in place of m^2 r^2 = 144 or 100:

    Y  =  A^T [ (G w G^T) * (B^T X B) ] A            * number by number, summed over channels

    X (6, 6) input    w (r, r) weights    Y (m, m) output    the product (6, 6)

Transforming a tile takes additions only, and serves all filters (all channels): for every one of
the 36 places there is a matrix product of filters x channels by channels x tiles.

The formula is linear in w and in X, so its gradients are the transposed products. The gradient of
the input is a convolution by the turned weights as well, and is computed as one. With
Z = A d_Y A^T,

    d_w  =  G^T [ Z * (B^T X B) ] G                  summed over images and tiles

The matrices evaluate polynomials at 0, 1, -1, 2, -2 and infinity. They magnify rounding: in float32
outputs are right to about 5e-6 of the largest one, gradients of weights, which sum over all pixels,
to 2e-5; plain sums are right to 1e-6.

Dimensions: N images, C channels, F filters, H x W pixels of x and P x Q of y, pad around x, stride
1; T_H x T_W tiles.

Source: S. Winograd, *Arithmetic Complexity of Computations* (1980); A. Lavin and S. Gray, *Fast
Algorithms for Convolutional Neural Networks* (CVPR 2016), whose matrices these are for 3 x 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

#: r of the weights that there are transforms for
SIZES = (3, 5)
#: inputs that a tile depends on along an axis, and the places of a transformed tile
READ, PLACES = 6, 36
#: finite points, and what the weights are multiplied with at each of them and at infinity
POINTS = (0, 1, -1, 2, -2)
SCALES = (1 / 4, -1 / 6, -1 / 6, 1 / 24, 1 / 24, 1)

#: (6, 6), the same for all sizes of weights
B_T = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    float,
)


class Winograd(NamedTuple):
    """The transforms of one size of weights.

    Attributes
    ----------
    kernel : int
        r, 3 or 5.
    """

    kernel: int

    @property
    def tile(self) -> int:
        """m, outputs of a tile along an axis."""
        return READ + 1 - self.kernel

    @property
    def filter_matrix(self) -> np.ndarray:
        """G (6, r): a polynomial of the weights at each point, and its leading coefficient."""
        return np.array(SCALES)[:, None] * _powers(self.kernel)

    @property
    def output_matrix(self) -> np.ndarray:
        """A^T (m, 6)."""
        return _powers(self.tile).T

    @property
    def filters(self) -> np.ndarray:
        """G w G^T as a product with the weights of a filter in a row: (36, r * r)."""
        return np.kron(self.filter_matrix, self.filter_matrix)

    def tiles(self, pixels: int) -> int:
        """Tiles that cover some outputs along an axis."""
        return -(-pixels // self.tile)

    def multiplications(self, output: tuple[int, int]) -> int:
        """Return the multiplications for an image of so many outputs, of a filter and channel."""
        return PLACES * self.tiles(output[0]) * self.tiles(output[1])

    def cut_input(self, x: np.ndarray, pad: tuple[int, int], output: tuple[int, int]) -> np.ndarray:
        """Return the pixels that each tile depends on, zeros around: (N, C, T_H, T_W, 6, 6)."""
        N, C, H, W = x.shape
        reach = self.kernel - 1
        high, wide = (self.tile * self.tiles(n) + reach for n in output)
        around = np.zeros((N, C, high, wide), x.dtype)
        around[:, :, pad[0] : pad[0] + H, pad[1] : pad[1] + W] = x
        windows = np.lib.stride_tricks.sliding_window_view(around, (READ, READ), axis=(2, 3))
        return windows[:, :, :: self.tile, :: self.tile]

    def cut_output(self, y: np.ndarray) -> np.ndarray:
        """Return the outputs of each tile, zeros beyond the image: (N, F, T_H, T_W, m, m)."""
        N, F, P, Q = y.shape
        high, wide = self.tiles(P), self.tiles(Q)
        around = np.zeros((N, F, self.tile * high, self.tile * wide), y.dtype)
        around[:, :, :P, :Q] = y
        return around.reshape(N, F, high, self.tile, wide, self.tile).swapaxes(3, 4)


def covers(shape: Any) -> bool:
    """Whether there are transforms for a convolution, and it moves pixel by pixel.

    Parameters
    ----------
    shape : ConvShape
        Geometry (:class:`minissl.conv_modes.shape.ConvShape`).
    """
    height, width = shape.kernel
    is_square = height == width and height in SIZES and max(shape.pad) < height
    return is_square and shape.stride == shape.dilation == (1, 1) and shape.groups == 1


def _powers(count: int) -> np.ndarray:
    """1, a, a^2, ... of every point a (6, count); only the last one counts at infinity."""
    finite = [[float(a**k) for k in range(count)] for a in POINTS]
    return np.array([*finite, [0.0] * (count - 1) + [1.0]])


def conv_winograd(x, w, b, pad, y) -> None:
    """Convolve x (N, C, H, W) by w (F, C, r, r) into y (N, F, P, Q); b is (F,) or None."""
    way = Winograd(w.shape[2])
    g, a_t = way.filter_matrix, way.output_matrix
    N, F, P, Q = y.shape
    u = np.einsum("ir,fcrq,jq->fcij", g, w, g)
    v = np.einsum("ir,nctsrq,jq->nctsij", B_T, way.cut_input(x, pad, (P, Q)), B_T)
    m = np.einsum("fcij,nctsij->nftsij", u, v)
    tiles = np.einsum("ai,nftsij,bj->nftasb", a_t, m, a_t)
    whole = tiles.reshape(N, F, tiles.shape[2] * way.tile, tiles.shape[4] * way.tile)
    y[...] = whole[:, :, :P, :Q] + (0 if b is None else np.reshape(b, (-1, 1, 1)))


def conv_winograd_backward_weights(x, d_y, pad, d_w) -> None:
    """Add to d_w (F, C, r, r) from x (N, C, H, W) and d_y (N, F, P, Q)."""
    way = Winograd(d_w.shape[2])
    g, a_t = way.filter_matrix, way.output_matrix
    v = np.einsum("ir,nctsrq,jq->nctsij", B_T, way.cut_input(x, pad, d_y.shape[2:]), B_T)
    z = np.einsum("ai,nftsab,bj->nftsij", a_t, way.cut_output(d_y), a_t)
    d_u = np.einsum("nftsij,nctsij->fcij", z, v)
    d_w += np.einsum("ir,fcij,jq->fcrq", g, d_u, g)


def conv_winograd_backward_input(d_y, w, pad, d_x) -> None:
    """Compute d_x (N, C, H, W) from d_y (N, F, P, Q): a convolution by the turned weights."""
    reach = w.shape[2] - 1
    beyond = reach - pad[0], reach - pad[1]
    conv_winograd(d_y, w.swapaxes(0, 1)[:, :, ::-1, ::-1], None, beyond, d_x)
