r"""SkimCaffe's projection: from which sparsity on a sparse convolution pays, and until when.

A dense convolution of C operations takes C / F on a machine of F operations a second. A sparse one
that holds a share x of the weights takes as long as computing, which costs alpha times as much for
each operation, or as reading its data at B bytes a second::

    t_dense  = C / F
    t_sparse = max(alpha x C / F,  (S_A + beta x S_W) / B)
    speed-up = t_dense / t_sparse

S_A are the bytes of the activations, in and out, and S_W those of the dense weights; a non-zero of
compressed rows takes beta = 2 numbers, its value and its column. Two bounds follow. Above
x = 1 / alpha computing costs more than the dense layer. Below the x where both terms meet, fewer
weights do not make the layer faster, since it waits for memory::

    x_low = (S_A / B) / (alpha C / F - beta S_W / B)

Source: Park, Li, Wen, Tang, Li, Chen and Dubey, *Faster CNNs with Direct Sparse Convolutions and
Guided Pruning* (ICLR 2017), section 2.2 and table 1. The model that ``AUTO`` uses
(:mod:`minissl.conv_modes.cost`) counts more, and for each mode.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minissl.conv_modes.cost import CONVOLUTION, Work, lowered
from minissl.conv_modes.shape import ConvShape
from minissl.machine import Machine

#: numbers that a non-zero of compressed rows takes: value and column
CSR_NUMBERS = 2.0
FLOAT_BYTES = 4


class Platform(NamedTuple):
    """A machine, as the projection sees it.

    Attributes
    ----------
    gflops : float
        F, 1e9 operations a second of a dense product.
    gbs : float
        B, 1e9 bytes a second of reading memory.
    alpha : float
        Time of an operation of the sparse convolution / of the dense one.
    """

    gflops: float
    gbs: float
    alpha: float


#: Table 1 of the paper.
XEON = Platform(gflops=2150, gbs=122, alpha=3)
ATOM = Platform(gflops=62, gbs=15, alpha=1.2)


class Sizes(NamedTuple):
    """What a convolution computes and moves: C operations, S_A and S_W bytes."""

    flop: float
    activation_bytes: float
    weight_bytes: float


def sizes(shape: ConvShape, images: int = 1) -> Sizes:
    """Return C, S_A and S_W of a layer for a batch."""
    P, Q = shape.output
    H, W = shape.size
    numbers = shape.filters * P * Q + shape.channels * H * W
    weights = shape.filters * shape.columns
    return Sizes(
        2 * images * weights * P * Q, FLOAT_BYTES * images * numbers, FLOAT_BYTES * weights
    )


def speed_up(x: float, layer: Sizes, platform: Platform, beta: float = CSR_NUMBERS) -> float:
    """Project how many times faster than the dense layer a sparse one is.

    Parameters
    ----------
    x : float
        Share of weights that are not zero, 0 to 1.
    layer : Sizes
    platform : Platform
    beta : float
        Numbers that a non-zero takes.
    """
    dense = layer.flop / (1e9 * platform.gflops)
    moved = layer.activation_bytes + beta * x * layer.weight_bytes
    return dense / max(platform.alpha * x * dense, moved / (1e9 * platform.gbs))


def useful_range(
    layer: Sizes, platform: Platform, beta: float = CSR_NUMBERS
) -> tuple[float, float]:
    """Return the shares of non-zeros between which fewer of them make the layer faster.

    Returns
    -------
    low, high : float
        Below ``low`` memory decides, above ``high`` = 1 / alpha the dense layer is faster. ``low``
        is 1 where memory always decides.
    """
    computing = platform.alpha * layer.flop / (1e9 * platform.gflops)  # at x = 1
    reading = beta * layer.weight_bytes / (1e9 * platform.gbs)
    if computing <= reading:
        return 1.0, 1 / platform.alpha
    low = layer.activation_bytes / (1e9 * platform.gbs) / (computing - reading)
    return min(1.0, low), 1 / platform.alpha


def alpha(machine: Machine, threads: int, mode: str = "LOWERED_CSRMM") -> float | None:
    """Return how much longer an operation of a sparse mode takes than one of the dense product.

    As the constants of the machine have it: what another eighth of the weights of AlexNet's conv3
    takes, at random places, against an eighth of LOWERED_GEMM's product. What a layer costs without
    any weight, as its lowering does, drops out. None where the CPU does not run the mode's fast
    kernel.
    """

    def seconds(eighths: int) -> float | None:
        amounts = CONVOLUTION[mode](_conv3(eighths, threads))
        return None if amounts is None else machine.seconds(amounts, threads)

    product = 1e-9 * lowered.gemm(_conv3(8, threads))["gemm"] * machine.nanoseconds("gemm", threads)
    more, fewer = seconds(2), seconds(1)
    if not product or more is None or fewer is None:
        return None
    return (more - fewer) / (product / 8)


def _conv3(eighths: int, threads: int) -> Work:
    """Return AlexNet's conv3, an image for each thread, with so many eighths of its weights."""
    F, C = 384, 256
    shape = ConvShape(C, (13, 13), F, (3, 3), pad=(1, 1))
    nonzeros = np.full(F, shape.columns * eighths // 8)  # (F,)
    return Work(shape, threads, threads, nonzeros, (F,), (shape.columns,), (C,))


def this_machine(machine: Machine, threads: int) -> Platform | None:
    """Describe a calibrated machine; None when it was never measured for so many threads."""
    rates, factor = machine.rates.get(threads), alpha(machine, threads)
    if not rates or factor is None:
        return None
    return Platform(rates["gemm_gflops"], rates["memory_gbs"], factor)
