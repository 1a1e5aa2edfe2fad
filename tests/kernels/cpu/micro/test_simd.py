"""Vector instructions do what their names say, lane by lane."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from llvmlite import ir

from minissl.kernels.cpu.jit import aligned, c_function
from minissl.kernels.cpu.micro import isa
from minissl.kernels.cpu.micro.simd import FLOAT, I64
from minissl.kernels.cpu.micro.tiles import Constant, emitted
from tests.conftest import needs_compiler

pytestmark = needs_compiler
LANES = [one.lanes for one in isa.available()]
every_width = pytest.mark.parametrize("lanes", LANES)


class Shift(NamedTuple):
    """Moves a row of vectors."""

    lanes: int
    vectors: int
    by: int

    def emit(self, v, source, target, _number):
        row = [v.load(v.add(source, i * v.bytes)) for i in range(self.vectors)]
        for i, vector in enumerate(v.shift(row, self.by)):
            v.store(vector, v.add(target, i * v.bytes))


class Turn(NamedTuple):
    """Stores the first ``number`` lanes of some vectors as rows of 64 numbers."""

    lanes: int
    vectors: int

    def emit(self, v, source, target, number):
        vectors = [v.load(v.add(source, i * v.bytes)) for i in range(self.vectors)]
        v.store_transposed(vectors, lambda lane: v.add(target, lane * 64 * FLOAT), number)


class Some(NamedTuple):
    """Copies lanes 1 .. number - 1 of an unaligned vector; the others are not touched."""

    lanes: int

    def emit(self, v, source, target, number):
        mask = v.between(ir.Constant(I64, 1), number)
        v.store_some(v.load_some(v.add(source, FLOAT), mask), v.add(target, FLOAT), mask)


class Polynomial(NamedTuple):
    """target = max(0, sum over the first ``number`` numbers of source of number * vector 1)."""

    lanes: int

    def emit(self, v, source, target, number):
        factor = v.load(v.add(source, v.bytes))
        end = v.builder.add(source, v.builder.mul(number, ir.Constant(I64, FLOAT)))

        def add(at, sums):
            return [v.fma(v.broadcast(at), factor, sums[0])]

        (total,) = v.loop(source, end, FLOAT, [v.zero], add)
        v.store(v.positive(total), target)


def run(tile, source, size, number=0):
    constant = Constant(tile)

    def moved(source, target, number):
        emitted(constant, (source, target, number))

    target = aligned(np.full(size, -1, np.float32))
    compiled = c_function(moved, "a test")
    compiled.ctypes(source.ctypes.data, target.ctypes.data, number)
    return target


def numbers(count):
    return aligned(np.arange(1, count + 1, dtype=np.float32))


@every_width
@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize("by", [0, 1, -1, 5, -7, 8, -16, 19])
def test_shift_moves_a_row_and_fills_with_zeros(lanes, vectors, by):
    row = numbers(vectors * lanes)
    expected = np.zeros_like(row)
    for i in range(row.size):
        if 0 <= i + by < row.size:
            expected[i] = row[i + by]
    assert np.array_equal(run(Shift(lanes, vectors, by), row, row.size), expected)


@every_width
def test_transposed_stores_touch_only_what_exists(lanes):
    for vectors in (1, 3, lanes, lanes + 2):
        for count in (0, 1, lanes - 1, lanes):
            source = numbers(vectors * lanes)
            found = run(Turn(lanes, vectors), source, lanes * 64, count).reshape(lanes, 64)
            expected = np.full_like(found, -1)
            expected[:count, :vectors] = source.reshape(vectors, lanes).T[:count]
            assert np.array_equal(found, expected)


@every_width
def test_masks(lanes):
    for number in (-3, 0, 1, 2, lanes - 1, lanes, lanes + 9):
        source = numbers(2 * lanes)
        found = run(Some(lanes), source, 2 * lanes, number)
        expected = np.full_like(found, -1)
        expected[2 : 1 + max(1, min(number, lanes))] = source[2 : 1 + max(1, min(number, lanes))]
        assert np.array_equal(found, expected)


@every_width
def test_loops_carry_values(lanes):
    source = numbers(2 * lanes)
    for count in (0, 1, 5):
        expected = source[:count].sum() * source[lanes:]
        assert np.array_equal(run(Polynomial(lanes), source, lanes, count), expected)
    source[lanes:] *= -1
    assert not run(Polynomial(lanes), source, lanes, 3).any()
