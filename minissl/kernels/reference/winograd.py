r"""Winograd's F(4 x 4, 3 x 3): a 3 x 3 convolution in a quarter of the multiplications.

The outputs are cut into tiles of 4 x 4 pixels, each of which depends on 6 x 6 pixels of the input.
A tile is computed by 36 multiplications for each channel in place of 144, between sums of weights
and sums of pixels:

    Y  =  A^T [ (G w G^T) * (B^T X B) ] A            * number by number, summed over channels

    X (6, 6) input    w (3, 3) weights    Y (4, 4) output    the product (6, 6)

Transforming a tile costs only additions, and serves all filters (all channels): so for every one of
the 36 places there is a matrix product of filters x channels by channels x tiles.

The formula is linear in w and in X, so its gradients are the transposed products. The gradient of
the input is a convolution by the turned weights as well, and is computed as one. With
Z = A d_Y A^T,

    d_w  =  G^T [ Z * (B^T X B) ] G                  summed over images and tiles

The matrices interpolate at the points 0, 1, -1, 2, -2 and infinity. They magnify rounding: float32
results are right to about 1e-5 of the largest one, where a plain sum is right to 1e-6.

Dimensions: N images, C channels, F filters, H x W pixels of x and of y, which are as large (pad 1,
stride 1); T_H x T_W tiles.

Source: S. Winograd, *Arithmetic Complexity of Computations* (1980); A. Lavin and S. Gray, *Fast
Algorithms for Convolutional Neural Networks* (CVPR 2016), whose matrices these are.
"""

from __future__ import annotations

import numpy as np

#: outputs of a tile along each axis, and the inputs they depend on
TILE, READ = 4, 6
#: places of a transformed tile
PLACES = READ * READ

#: (6, 6)
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
#: (6, 3)
G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
#: (4, 6)
A_T = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], float
)
#: G w G^T of a filter as a vector: (36, 9) @ (9,)
FILTER = np.kron(G, G)


def tiles_of(pixels: int) -> int:
    """Tiles along an axis."""
    return -(-pixels // TILE)


def cut_input(x: np.ndarray) -> np.ndarray:
    """Return the pixels that each tile depends on, zeros around: (N, C, T_H, T_W, 6, 6)."""
    N, C, H, W = x.shape
    high, wide = tiles_of(H), tiles_of(W)
    around = np.zeros((N, C, TILE * high + 2, TILE * wide + 2), x.dtype)
    around[:, :, 1 : H + 1, 1 : W + 1] = x
    windows = np.lib.stride_tricks.sliding_window_view(around, (READ, READ), axis=(2, 3))
    return windows[:, :, ::TILE, ::TILE]


def cut_output(y: np.ndarray) -> np.ndarray:
    """Return the outputs of each tile, zeros beyond the image: (N, F, T_H, T_W, 4, 4)."""
    N, F, H, W = y.shape
    high, wide = tiles_of(H), tiles_of(W)
    around = np.zeros((N, F, TILE * high, TILE * wide), y.dtype)
    around[:, :, :H, :W] = y
    return around.reshape(N, F, high, TILE, wide, TILE).swapaxes(3, 4)


def conv_winograd(x, w, b, y) -> None:
    """Convolve x (N, C, H, W) by w (F, C, 3, 3) into y (N, F, H, W); b is (F,) or None."""
    N, F, H, W = y.shape
    u = np.einsum("ir,fcrq,jq->fcij", G, w, G)
    v = np.einsum("ir,nctsrq,jq->nctsij", B_T, cut_input(x), B_T)
    m = np.einsum("fcij,nctsij->nftsij", u, v)
    tiles = np.einsum("ai,nftsij,bj->nftasb", A_T, m, A_T)
    high, wide = tiles.shape[2], tiles.shape[4]
    whole = tiles.reshape(N, F, TILE * high, TILE * wide)
    y[...] = whole[:, :, :H, :W] + (0 if b is None else np.reshape(b, (-1, 1, 1)))


def conv_winograd_backward_weights(x, d_y, d_w) -> None:
    """Add to d_w (F, C, 3, 3) from x (N, C, H, W) and d_y (N, F, H, W)."""
    v = np.einsum("ir,nctsrq,jq->nctsij", B_T, cut_input(x), B_T)
    z = np.einsum("ai,nftsab,bj->nftsij", A_T, cut_output(d_y), A_T)
    d_u = np.einsum("nftsij,nctsij->fcij", z, v)
    d_w += np.einsum("ir,fcij,jq->fcrq", G, d_u, G)


def conv_winograd_backward_input(d_y, w, d_x) -> None:
    """Compute d_x (N, C, H, W) from d_y (N, F, H, W): a convolution by the turned weights."""
    conv_winograd(d_y, w.swapaxes(0, 1)[:, :, ::-1, ::-1], None, d_x)
