"""Register-blocked vector kernels for convolutions at inference: what plain loops cannot reach.

======================  ==========================================================================
:mod:`.isa`             which vectors to use; MINISSL_ISA forces or switches off
:mod:`.simd`            vector instructions, in words
:mod:`.tiles`           from written instructions to an address that compiled loops can call
:mod:`.planes`          the input in planes with zero rows around, strides taken out
:mod:`.sparse_tile`     register tile of the sparse convolution (DIRECT_SCONV)
:mod:`.sparse`          its packing and its loops
:mod:`.dense_tile`      register tile of the dense convolution (LOWERED_CCNMM, DIRECT_DCONV)
:mod:`.dense`           its packing and its loops
======================  ==========================================================================

They are an option, never the only way: where they do not apply (no such vectors, float64,
MINISSL_ISA=generic), the functions below return None and the caller runs the plain kernels. The
results are those of the definition, in another order of sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.kernels.cpu.micro import isa
from minissl.kernels.cpu.micro.dense import DenseConvolution
from minissl.kernels.cpu.micro.sparse import SparseConvolution

__all__ = ["dense_convolution", "sparse_convolution", "supports"]

#: Offsets into one image are int32 numbers of bytes; planes hold a few times the image.
MOST_BYTES = 2**28


def sparse_convolution(
    shape: Any, values: Any, columns: Any, row_start: Any, b: Any
) -> SparseConvolution | None:
    """Prepare a convolution with sparse weights; None where the plain kernels must do.

    Parameters
    ----------
    shape : ConvShape
        Geometry (:class:`minissl.conv_modes.shape.ConvShape`).
    values, columns, row_start, b
        As :func:`minissl.kernels.reference.conv_sconv` takes them.
    """
    vectors = _usable(shape, values.dtype)
    return vectors and SparseConvolution(vectors, shape, values, columns, row_start, b)


def dense_convolution(
    shape: Any, values: Any, rows: Any, row_start: Any, columns: Any, column_start: Any, b: Any
) -> DenseConvolution | None:
    """Prepare a convolution over kept rows and columns; None where the plain kernels must do.

    Parameters
    ----------
    shape : ConvShape
        Geometry (:class:`minissl.conv_modes.shape.ConvShape`).
    values, rows, row_start, columns, column_start, b
        As :func:`minissl.kernels.reference.conv_ccnmm` takes them.
    """
    vectors = _usable(shape, values.dtype)
    return vectors and DenseConvolution(
        vectors, shape, values, rows, row_start, columns, column_start, b
    )


def supports(shape: Any, dtype: Any) -> bool:
    """Whether the functions above prepare a convolution of this geometry and type of number."""
    return _usable(shape, dtype) is not None


def _usable(shape: Any, dtype: Any) -> isa.Isa | None:
    H, W = shape.size
    large = 4 * shape.channels * (H + 64) * (W + 64) > MOST_BYTES
    return None if np.dtype(dtype) != np.float32 or large else isa.chosen()
