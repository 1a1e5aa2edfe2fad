"""Inputs of test vectors: numbers that are the same on every machine, for ever.

They come from SHAKE-128 of a name, so that no random generator and no library version matters, and
are multiples of a power of two, so that sums and products of a few of them are exact in float64
whatever the order. Whoever writes another implementation can make them again:

    uniform(name, shape)   the bytes of SHAKE-128(name) as signed integers, times 1/64: [-2, 2)
    distinct(name, shape)  a permutation of the odd multiples of 1/64 around 0: no two are equal
                           and none is 0, for functions with kinks
"""

from __future__ import annotations

import hashlib
from math import prod

import numpy as np

#: distance between neighbours in :func:`distinct`
STEP = 1 / 32


def _bytes(name: str, count: int) -> bytes:
    return hashlib.shake_128(name.encode()).digest(count)


def uniform(name: str, shape: tuple[int, ...], scale: float = 1 / 64) -> np.ndarray:
    """Return multiples of ``scale`` from -128 to 127."""
    numbers = np.frombuffer(_bytes(name, prod(shape)), np.int8)
    return (numbers * scale).reshape(shape)


def positive(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return multiples of 1/64 in [1/8, 4 + 1/8)."""
    numbers = np.frombuffer(_bytes(name, prod(shape)), np.uint8)
    return (numbers / 64 + 0.125).reshape(shape)


def share(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return odd multiples of 1/512 in (0, 1): targets and probabilities."""
    numbers = np.frombuffer(_bytes(name, prod(shape)), np.uint8)
    return ((2 * numbers.astype(np.float64) + 1) / 512).reshape(shape)


def distinct(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a permutation of the odd multiples of half a step around 0."""
    size = prod(shape)
    order = np.argsort(np.frombuffer(_bytes(name, 8 * size), "<u8"), kind="stable")
    return ((order - size // 2 + 0.5) * STEP).reshape(shape)


def integers(name: str, shape: tuple[int, ...], below: int) -> np.ndarray:
    """Return whole numbers 0 to ``below`` - 1 as float64, which is how blobs hold labels."""
    numbers = np.frombuffer(_bytes(name, 8 * prod(shape)), "<u8") % np.uint64(below)
    return numbers.astype(np.float64).reshape(shape)


def sparse(name: str, shape: tuple[int, ...], zeros: float = 0.5) -> np.ndarray:
    """Return :func:`uniform` with some rows, columns and single weights of its matrix at zero."""
    w = uniform(name, shape)
    matrix = w.reshape(shape[0], -1)  # (R, C)
    R, C = matrix.shape
    dead = share(f"{name} rows", (R,)) < zeros / 2, share(f"{name} columns", (C,)) < zeros / 2
    dead[0][0] = dead[1][0] = False  # something stays
    matrix[dead[0]] = 0
    matrix[:, dead[1]] = 0
    matrix[share(f"{name} single", (R, C)) < zeros / 4] = 0
    matrix[0, 0] = 1
    return w
