"""A batch times a sparse matrix, by the register tile of the direct sparse convolution.

An inner product is a convolution whose kernel is one pixel. Lay the images of a batch side by side
as the pixels of a row, and every input becomes a channel, every output a filter:

    y[f, n] = sum over k of w[f, k] * x[k, n]         x: K channels of one row, N pixels

    k = 0  [ x of image 0, of image 1, ... of image N - 1 ]      one vector or a few, which a
    k = 1  [ x of image 0, of image 1, ... of image N - 1 ]      non-zero w[f, k] multiplies

Larger batches are divided into *panels* of equal width. The inputs of a block of channels stay in
the first-level cache while all outputs use them; of the weights, which are read once for each
panel, a line is asked for some time before it is used.

Dimensions: N images, K inputs, F outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_num_threads

from minissl.kernels.cpu.jit import PARTS, kernel, parallel_kernel, prange, scratch, unsigned
from minissl.kernels.cpu.micro import sparse_tile
from minissl.kernels.cpu.micro.isa import Isa
from minissl.kernels.cpu.micro.sparse import ZEROS, Packed, fill_tile
from minissl.kernels.cpu.micro.sparse_layout import pixel_layout
from minissl.kernels.cpu.micro.sparse_tile import RELU
from minissl.kernels.cpu.micro.tiles import address_of

#: most images of a panel
WIDE = 64
#: inputs, or outputs, that are turned together: a cache line of each image
TURNED = 16


def panel_images(N: int, lanes: int) -> int:
    """Return how many images each panel of a batch has room for: whole vectors, equal panels."""
    images = -(-N // -(-N // WIDE))
    lanes = min(lanes, 8) if N <= 8 else lanes
    return -(-images // lanes) * lanes


class BatchProduct:
    """A sparse matrix, ready to be multiplied by batches whose panels have one width.

    Parameters
    ----------
    isa : Isa
    shape : ConvShape
        Of the convolution: K channels of one row of ``width`` pixels, F filters of one pixel.
    values, columns, row_start
        Compressed rows of the matrix (F, K).
    b : (F,)
    """

    def __init__(self, isa: Isa, shape: Any, values: Any, columns: Any, row_start: Any, b: Any):
        layout = pixel_layout(isa, shape)
        assert layout is not None, "a kernel of one pixel moves nothing"
        self.layout, self.width = layout, shape.size[1]
        csr = values, np.asarray(columns, np.int64), np.asarray(row_start, np.int64)
        self.packed = Packed(isa, shape, layout, *csr)
        self.inputs = np.ascontiguousarray(self.packed.slots[:, 0])
        self.bias = np.asarray(b, np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed matrix."""
        return int(self.packed.entries.nbytes + self.packed.starts.nbytes)

    def run(self, x: np.ndarray, y: np.ndarray, relu: bool) -> None:
        """Y (N, F) = x (N, K) times the matrix, transposed, and the bias; rectified if asked."""
        N, F = y.shape
        packed, tile, threads = self.packed, self.layout.tile, get_num_threads()
        count = -(-N // self.width)
        _multiply(
            np.ascontiguousarray(x),
            self.bias,
            (self.width, count, threads),
            (sparse_tile.compiled(tile).address, tile.nbytes),
            (self.inputs, self.layout.columns, packed.line),
            (packed.entries, packed.starts, packed.blocks, packed.lists, packed.chunk),
            (
                scratch("planes", (count, len(self.inputs), self.width), x.dtype),
                scratch("outputs", (count, F, self.width), x.dtype),
                scratch("sums", (threads * packed.chunk * tile.nbytes // 4,), x.dtype),
                ZEROS,
            ),
            RELU if relu else 0,
            y,
        )


@kernel
def _fill_panel(x, inputs, first, last, panel):
    """panel[k, i] = x[i, inputs[k]] for first <= k < last; zeros beyond the last image."""
    N, width = x.shape[0], panel.shape[1]
    for begin in range(first, last, TURNED):
        end = min(begin + TURNED, last)
        for i in range(N):
            for k in range(begin, end):
                panel[unsigned(k), unsigned(i)] = x[i, inputs[k]]
        for i in range(N, width):
            for k in range(begin, end):
                panel[unsigned(k), unsigned(i)] = 0


@kernel
def _put_out(out, first, last, y):
    """y[i, f] = out[f, i] for first <= f < last."""
    for begin in range(first, last, TURNED):
        end = min(begin + TURNED, last)
        for i in range(y.shape[0]):
            for f in range(begin, end):
                y[i, f] = out[unsigned(f), unsigned(i)]


@parallel_kernel
def _multiply(x, bias, sizes, tile, places, packed, buffers, flags, y):
    """Fill the panels; then every thread computes the outputs of its share of the non-zeros.

    Parameters
    ----------
    sizes : (width, panels, threads)
    tile : (address of the tile, bytes of its sums)
    places : (inputs, columns, line)
        Which input each plane is, where tiles begin (see :class:`.sparse.Layout`), and where each
        output begins on the line that the threads share.
    packed : (entries, starts, blocks, lists, chunk)
    buffers : (panels, outputs, sums of all threads, zeros)
    """
    (N, F), (width, count, threads) = y.shape, sizes
    inputs, columns, line = places
    panels, outputs, all_sums, zeros = buffers
    K, whole = len(inputs), line[F]
    for index in prange(count * PARTS):
        job = np.int64(index)  # prange counts in unsigned numbers
        panel, part = job // PARTS, job % PARTS
        own = x[panel * width : min((panel + 1) * width, N)]
        _fill_panel(own, inputs, part * K // PARTS, (part + 1) * K // PARTS, panels[panel])
    for index in prange(threads):
        part = np.int64(index)
        begin, end = part * whole * count // threads, (part + 1) * whole * count // threads
        sums = address_of(all_sums) + part * packed[4] * tile[1]
        for panel in range(begin // whole, -(-end // whole)):
            f_first = np.searchsorted(line[:-1], begin - panel * whole)
            f_last = np.searchsorted(line[:-1], end - panel * whole)
            for c in columns:
                fill_tile(
                    tile[0],
                    address_of(panels) + 4 * (panel * K * width + c[0]),
                    address_of(outputs) + 4 * (panel * F * width + c[1]),
                    (c[2], c[3]),
                    packed,
                    bias,
                    f_first,
                    f_last,
                    sums,
                    address_of(zeros),
                    (F, 1, width, tile[1]),
                    flags,
                )
            own = y[panel * width : min((panel + 1) * width, N)]
            _put_out(outputs[panel], f_first, f_last, own)
