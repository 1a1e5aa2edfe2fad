r"""The gradient of a convolution's weights by Winograd's formula.

    Z = A d_Y A^T        d_w  =  G^T [ Z * (B^T X B) ] G        summed over images and tiles

Both sides are transformed as :mod:`minissl.kernels.cpu.micro.winograd` transforms x, and multiplied
over the tiles: ``d_u[place, channel, filter] += v[place]^T @ z[place]``. The sum over images is cut
into a fixed number of parts, so that results do not depend on the number of threads.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from minissl.kernels.cpu.convolution import conv_backward_bias
from minissl.kernels.cpu.jit import (
    PARTS,
    config,
    get_thread_id,
    parallel_kernel,
    prange,
    scratch,
)
from minissl.kernels.cpu.micro.tiles import address_of, call
from minissl.kernels.cpu.micro.weight_gradient import add_parts
from minissl.kernels.cpu.micro.winograd import FLOAT32, Pass, addresses_of, transform, turn_in
from minissl.kernels.cpu.micro.winograd_tile import ProductTile, TransformTiles
from minissl.kernels.winograd import PLACES

#: Units of work of a part of the sum over images, at least.
UNITS = 4
#: What it takes, measured, against its own count: both sides come from memory.
MEASURED = 1.33


class WinogradWeightGradient(Pass):
    """The gradient of the weights of one layer, for any batch.

    Parameters
    ----------
    isa : Isa
    shape : ConvShape
    """

    @property
    def length(self) -> int:
        """Terms of a sum in a block of a product."""
        return self.tiles

    def cost(self) -> float:
        """Multiply-adds of vectors that take as long as one image, about."""
        return MEASURED * super().cost()

    def parts(self, N: int) -> int:
        """Return into how many parts the sum over N images is cut.

        A part is a matrix for each of the 36 places, so it should have several units of work.
        """
        units = -(-N // self.images) * -(-self.high // self.rows)
        return max(1, min(PARTS, N, units // UNITS))

    @cached_property
    def addresses(self) -> tuple[np.ndarray, ...]:
        """Addresses of the tiles: turning in, of x and of d_y; transforms; the product."""
        L = self.lanes
        rows, vectors = self.block(self.f_room // L)
        return (
            self.turns(self.C),
            self.turns(self.F),
            addresses_of(
                [TransformTiles(L, self.formula.tile, gradient) for gradient in (False, True)]
            ),
            addresses_of([ProductTile(L, rows, vectors, 4, adds=True)]),
        )

    def run(self, x: np.ndarray, d_y: np.ndarray, d_w: np.ndarray, d_b: np.ndarray | None) -> None:
        """Add to d_w (F, C, r, r) and, if given, to d_b (F,), from x and d_y."""
        x, d_y = np.ascontiguousarray(x), np.ascontiguousarray(d_y)
        if d_b is not None:
            conv_backward_bias(d_y, d_b)
        threads, room, weights = config.NUMBA_NUM_THREADS, self.tiles + 1, self.c_room * self.f_room
        partial = scratch("winograd partial", (self.parts(len(x)), PLACES * weights), FLOAT32)
        _gradient(
            x.reshape(-1),
            d_y.reshape(-1),
            len(x),
            self.tiling,
            self.source,
            self.target,
            self.addresses,
            scratch("winograd source", (threads, self.source.floats(self.lanes)), FLOAT32),
            scratch("winograd target", (threads, self.target.floats(self.lanes)), FLOAT32),
            scratch("winograd v", (threads, PLACES, room * self.c_room), FLOAT32),
            scratch("winograd z", (threads, PLACES, room * self.f_room), FLOAT32),
            partial,
        )
        add_parts(partial)
        with np.errstate(all="ignore"):
            total = np.dot(self.filters.T, partial[0].reshape(PLACES, weights))
        total = total.reshape(-1, self.c_room, self.f_room)[:, : self.C, : self.F]
        d_w += total.transpose(2, 1, 0).reshape(d_w.shape)


@parallel_kernel
def _gradient(x, d_y, N, tiling, source, target, addresses, xs, ys, vs, zs, partial):
    """Compute all parts: ``partial`` (parts, places * channels * filters)."""
    L, size, high, wide, together, band, block_rows, block_vectors = tiling
    turns_x, turns_y, transforms, products = addresses
    c_room, f_room = source[1] * L, target[1] * L
    v_room, z_room = vs.shape[2], zs.shape[2]
    parts = len(partial)
    for index in prange(parts):
        part = np.int64(index)  # prange counts in unsigned numbers
        thread = get_thread_id()
        own_x, own_y, v, z = xs[thread], ys[thread], vs[thread], zs[thread]
        d_u = partial[part]
        own_x[:], own_y[:], d_u[:] = 0, 0, 0
        end = (part + 1) * N // parts
        for first in range(part * N // parts, end, together):
            images = min(together, end - first)
            for top in range(0, high, band):
                rows = min(band, high - top)
                for i in range(images):
                    if band < high:
                        own_x[:], own_y[:] = 0, 0
                    at, tile, row, own = first + i, i * rows * wide, size * top, size * rows
                    turn_in(x, at, source, L, turns_x, row, own, own_x)
                    transform(transforms[0], own_x, source, L, size, rows, wide, tile, v_room, v)
                    turn_in(d_y, at, target, L, turns_y, row, own, own_y)
                    transform(transforms[1], own_y, target, L, size, rows, wide, tile, z_room, z)
                for place in range(PLACES):
                    for f in range(0, f_room, block_vectors * L):
                        for c in range(0, c_room, block_rows):
                            call(
                                products[0],
                                (
                                    address_of(v) + 4 * (place * v_room + c),
                                    4 * c_room,
                                    address_of(z) + 4 * (place * z_room + f),
                                    4 * f_room,
                                    images * rows * wide,
                                    address_of(d_u) + 4 * ((place * c_room + c) * f_room + f),
                                    4 * f_room,
                                ),
                            )
