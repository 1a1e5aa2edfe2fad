"""Register-blocked vector kernels for convolutions and pooling: what plain loops cannot reach.

=========================  =========================================================================
:mod:`.isa`                which vectors to use; MINISSL_ISA forces or switches off
:mod:`.simd`               vector instructions, in words
:mod:`.tiles`              from written instructions to an address that compiled loops can call
:mod:`.planes`             the input in planes with zero rows around, strides taken out
:mod:`.sparse_tile`        register tile of the sparse convolution (DIRECT_SCONV)
:mod:`.sparse_layout`      ... how its outputs lie in vectors, and what each way costs
:mod:`.sparse`             its packing and its loops
:mod:`.batch_product`      a batch times a sparse matrix, by the same tile
:mod:`.dense_tile`         register tile of the dense convolution (LOWERED_CCNMM, DIRECT_DCONV)
:mod:`.dense`              its packing and its loops
:mod:`.windows`            what a convolution and its gradients read: taps, phases, offsets
:mod:`.pixel_tile`         register tile of a convolution in training: pixels in the lanes
:mod:`.correlation`        its loops: forward, and the gradient of the input
:mod:`.spread_tile`        register tile of the gradient of the input where nothing is padded
:mod:`.spreading`          its loops
:mod:`.gradient_tile`      register tile of the gradient of the weights
:mod:`.weight_gradient`    its loops
:mod:`.pool_tile`          pooling of a plane, and its gradient
:mod:`.plane_pooling`      its loops
:mod:`.winograd_tile`      register tiles of Winograd's convolution: transforms and products
:mod:`.winograd`           its loops: forward, and the gradient of the input
:mod:`.winograd_gradient`  the gradient of the weights
:mod:`.channels`           living channels side by side, and back to their places
=========================  =========================================================================

They are an option, never the only way: where they do not apply (no such vectors, float64,
MINISSL_ISA=generic), the functions below return None and the caller runs the plain kernels. The
results are those of the definition, in another order of sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.kernels.cpu.jit import scratch
from minissl.kernels.cpu.micro import isa, spreading, winograd
from minissl.kernels.cpu.micro.batch_product import BatchProduct, panel_images
from minissl.kernels.cpu.micro.channels import gather_channels, scatter_channels
from minissl.kernels.cpu.micro.correlation import Correlation
from minissl.kernels.cpu.micro.dense import DenseConvolution
from minissl.kernels.cpu.micro.sparse import SparseConvolution
from minissl.kernels.cpu.micro.sparse_layout import MOST_BYTES, layouts
from minissl.kernels.cpu.micro.spreading import SpreadGradient
from minissl.kernels.cpu.micro.weight_gradient import WeightGradient
from minissl.kernels.cpu.micro.winograd import WinogradConvolution
from minissl.kernels.cpu.micro.winograd_gradient import WinogradWeightGradient
from minissl.kernels.cpu.sparse_product import FEW
from minissl.kernels.winograd import covers

__all__ = [
    "batch_product",
    "batch_width",
    "dense_convolution",
    "gather_channels",
    "scatter_channels",
    "scratch",
    "sparse_convolution",
    "supports",
    "training_pass",
    "training_passes",
    "winograd_convolution",
]


def sparse_convolution(
    shape: Any, values: Any, columns: Any, row_start: Any, b: Any
) -> SparseConvolution | None:
    """Prepare a convolution with sparse weights; None where the plain kernels must do.

    Parameters
    ----------
    shape : ConvShape
        Geometry (:class:`minissl.conv_modes.shape.ConvShape`).
    values, columns, row_start, b
        As :func:`minissl.kernels.reference.sparse_convolution.conv_sconv` takes them.
    """
    vectors = _usable(shape, values.dtype)
    ways = layouts(vectors, shape) if vectors else []
    if vectors is None or not ways:
        return None
    return SparseConvolution(vectors, shape, values, columns, row_start, b, ways)


def batch_width(N: int, dtype: Any) -> int | None:
    """Return the width of the panels of a batch; None for few images, or without vectors for it."""
    vectors = isa.chosen() if np.dtype(dtype) == np.float32 and N >= FEW else None
    return vectors and panel_images(N, vectors.lanes)


def batch_product(
    shape: Any, values: Any, columns: Any, row_start: Any, b: Any
) -> BatchProduct | None:
    """Prepare a sparse matrix for batches; None where the plain kernels must do.

    Parameters
    ----------
    shape : ConvShape
        K channels of one row, as wide as a panel of the batch, and F filters of one pixel
        (:mod:`minissl.kernels.cpu.micro.batch_product`).
    values, columns, row_start, b
        As :func:`minissl.kernels.reference.inner_product_csr` takes them.
    """
    vectors = _usable(shape, values.dtype)
    return vectors and BatchProduct(vectors, shape, values, columns, row_start, b)


def dense_convolution(
    shape: Any, values: Any, rows: Any, row_start: Any, columns: Any, column_start: Any, b: Any
) -> DenseConvolution | None:
    """Prepare a convolution over kept rows and columns; None where the plain kernels must do.

    Parameters
    ----------
    shape : ConvShape
        Geometry (:class:`minissl.conv_modes.shape.ConvShape`).
    values, rows, row_start, columns, column_start, b
        As :func:`minissl.kernels.reference.sparse_convolution.conv_ccnmm` takes them.
    """
    vectors = _usable(shape, values.dtype)
    return vectors and DenseConvolution(
        vectors, shape, values, rows, row_start, columns, column_start, b
    )


def winograd_convolution(shape: Any, dtype: Any, rectifies: bool) -> WinogradConvolution | None:
    """Prepare Winograd's convolution; None where the plain kernels must do.

    Parameters
    ----------
    shape : ConvShape
        Geometry (:class:`minissl.conv_modes.shape.ConvShape`).
    dtype : dtype
        Of images and weights.
    rectifies : bool
        Whether negative outputs become zero.
    """
    vectors = _usable(shape, dtype)
    if vectors is None or not covers(shape):
        return None
    return WinogradConvolution(vectors, shape, gradient=False, rectifies=rectifies)


#: What computes a pass of a convolution that is trained.
TrainingPass = (
    Correlation | SpreadGradient | WeightGradient | WinogradConvolution | WinogradWeightGradient
)


def training_pass(name: str, shape: Any, dtype: Any) -> TrainingPass | None:
    """Prepare a pass of a convolution that is trained; None where lowering must do.

    Of :func:`training_passes`, the one that takes least by its own count.
    """
    return min(training_passes(name, shape, dtype), key=lambda one: one.cost(), default=None)


def training_passes(name: str, shape: Any, dtype: Any) -> list[TrainingPass]:
    """Return all tiles that can run a pass of a convolution that is trained.

    Parameters
    ----------
    name : {"forward", "weights", "input"}
        The convolution itself, or the gradient of its weights or of its input.
    shape : ConvShape
        Geometry (:class:`minissl.conv_modes.shape.ConvShape`).
    dtype : dtype
        Of all arrays.
    """
    vectors = _usable(shape, dtype)
    P, Q = shape.output
    if vectors is None or 4 * (shape.filters + 1) * (P + 1) * (Q + 1) > MOST_BYTES:
        return []
    found: list[TrainingPass] = []
    if name == "weights":
        found.append(WeightGradient(vectors, shape))
        if winograd.applies(vectors, shape):
            found.append(WinogradWeightGradient(vectors, shape))
    else:
        gradient = name == "input"
        found.append(Correlation(vectors, shape, gradient))
        if gradient and spreading.applies(vectors, shape):
            found.append(SpreadGradient(vectors, shape))
        if winograd.applies(vectors, shape):
            found.append(WinogradConvolution(vectors, shape, gradient))
    return found


def supports(shape: Any, dtype: Any) -> bool:
    """Whether the functions above prepare a convolution of this geometry and type of number."""
    vectors = _usable(shape, dtype)
    return vectors is not None and bool(layouts(vectors, shape))


def _usable(shape: Any, dtype: Any) -> isa.Isa | None:
    H, W = (size + 2 * pad for size, pad in zip(shape.size, shape.pad, strict=True))
    large = 4 * (shape.channels + 1) * H * W > MOST_BYTES
    return None if np.dtype(dtype) != np.float32 or large else isa.chosen()
