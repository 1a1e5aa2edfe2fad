"""Vector instructions for kernels: a thin layer over LLVM's builder, in the words of this package.

Numba compiles loops over arrays well, but does not keep a block of results in registers while it
walks over a list of non-zeros. The kernels of this folder therefore *emit* their inner loops:
Python functions that run while Numba compiles, and that write LLVM instructions through
``numba.extending.intrinsic``. A Python ``for`` in such a function is unrolled code; a loop that is
to exist at run time is written with :meth:`Vectors.loop`, and what it hands from pass to pass are
values in registers.

    v = Vectors(builder, lanes=16)
    (total,) = v.loop(start, stop, 8, [v.zero],
                      lambda at, sums: [v.fma(v.broadcast(at), v.load(x), sums[0])])

Addresses are 64-bit integers, in bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

I1, I32, I64, F32 = ir.IntType(1), ir.IntType(32), ir.IntType(64), ir.FloatType()
FLOAT = 4  # bytes

Value = Any


class Vectors:
    """Emits instructions on vectors of float32 into the function that is being compiled.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    lanes : int
        Numbers in a vector; a power of two.
    """

    def __init__(self, builder: Any, lanes: int):
        self.builder, self.lanes = builder, lanes
        self.type = ir.VectorType(F32, lanes)
        self.integer_type = ir.VectorType(I32, lanes)
        self.bytes = lanes * FLOAT
        self.zero = ir.Constant(self.type, [0.0] * lanes)
        self._unset = ir.Constant(self.type, ir.Undefined)

    # --- integers ---

    def add(self, address: Value, offset: int) -> Value:
        """Address plus a constant."""
        return self.builder.add(address, ir.Constant(I64, offset)) if offset else address

    def integer(self, address: Value, index: int = 0) -> Value:
        """Load the int32 number ``index`` at an address, as 64 bits."""
        return self.builder.sext(self._load(self.add(address, 4 * index), I32, 4), I64)

    def long(self, address: Value, index: int = 0) -> Value:
        """Load the int64 number ``index`` at an address."""
        return self._load(self.add(address, 8 * index), I64, 8)

    def floats(self, count: Value) -> Value:
        """Bytes of so many float32 numbers."""
        return self.builder.mul(count, ir.Constant(I64, FLOAT))

    def rounded_up(self, count: Value, divisor: int) -> Value:
        """Count / divisor, rounded up; neither is negative."""
        return self.builder.sdiv(self.add(count, divisor - 1), ir.Constant(I64, divisor))

    def larger(self, a: Value, b: Value) -> Value:
        """The larger of two integers."""
        return self.builder.select(self.builder.icmp_signed(">", a, b), a, b)

    def smaller(self, a: Value, b: Value) -> Value:
        """The smaller of two integers."""
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def has(self, flags: Value, bit: int) -> Value:
        """Whether a bit is set."""
        kept = self.builder.and_(flags, ir.Constant(I64, bit))
        return self.builder.icmp_signed("!=", kept, ir.Constant(I64, 0))

    # --- memory ---

    def _load(self, address: Value, kind: Any, align: int) -> Value:
        value = self.builder.load(self.builder.inttoptr(address, kind.as_pointer()))
        value.align = align
        return value

    def load(self, address: Value, aligned: bool = True) -> Value:
        """Load a vector."""
        return self._load(address, self.type, self.bytes if aligned else FLOAT)

    def prefetch(self, address: Value) -> None:
        """Ask for the cache line at an address, which is to be read soon."""
        pointer = ir.IntType(8).as_pointer()
        function = self._declare("llvm.prefetch.p0i8", ir.VoidType(), [pointer, I32, I32, I32])
        numbers = [ir.Constant(I32, number) for number in (0, 3, 1)]  # read, near, data
        self.builder.call(function, [self.builder.inttoptr(address, pointer), *numbers])

    def store(self, value: Value, address: Value, aligned: bool = True) -> None:
        """Store a vector."""
        pointer = self.builder.inttoptr(address, self.type.as_pointer())
        self.builder.store(value, pointer).align = self.bytes if aligned else FLOAT

    def load_some(self, address: Value, mask: Value) -> Value:
        """Load the lanes of a mask, 0 in the others; nothing else is touched."""
        function = self._declare(
            f"llvm.masked.load.v{self.lanes}f32.p0v{self.lanes}f32",
            self.type,
            [self.type.as_pointer(), I32, mask.type, self.type],
        )
        pointer = self.builder.inttoptr(address, self.type.as_pointer())
        return self.builder.call(function, [pointer, ir.Constant(I32, FLOAT), mask, self.zero])

    def store_some(self, value: Value, address: Value, mask: Value) -> None:
        """Store the lanes of a mask; nothing else is touched."""
        function = self._declare(
            f"llvm.masked.store.v{self.lanes}f32.p0v{self.lanes}f32",
            ir.VoidType(),
            [self.type, self.type.as_pointer(), I32, mask.type],
        )
        pointer = self.builder.inttoptr(address, self.type.as_pointer())
        self.builder.call(function, [value, pointer, ir.Constant(I32, FLOAT), mask])

    def between(self, begin: Value, end: Value, first: int = 0) -> Value:
        """Mask of the lanes whose number, counted from ``first``, is begin <= number < end."""
        return self.within(begin, end, range(first, first + self.lanes))

    def within(self, begin: Value, end: Value, numbers: Sequence[int]) -> Value:
        """Mask of the lanes whose given number is begin <= number < end."""
        given = self.integers(numbers)
        low, high = (
            self._spread(self.builder.trunc(number, I32), self.integer_type)
            for number in (begin, end)
        )
        return self.builder.and_(
            self.builder.icmp_signed(">=", given, low),
            self.builder.icmp_signed("<", given, high),
        )

    def _declare(self, name: str, result: Any, arguments: Sequence[Any]) -> Any:
        module = self.builder.module
        return module.globals.get(name) or ir.Function(
            module, ir.FunctionType(result, arguments), name
        )

    def store_transposed(
        self, vectors: Sequence[Value], line: Callable[[int], Value], count: Value
    ) -> None:
        """Store lane i of all vectors side by side at ``line(i)``, for the lanes i < count."""
        for first in range(0, len(vectors), self.lanes):
            part = vectors[first : first + self.lanes]
            for lane, values in enumerate(self.transpose(part)):
                with self.builder.if_then(
                    self.builder.icmp_signed("<", ir.Constant(I64, lane), count)
                ):
                    self.store_first(values, len(part), self.add(line(lane), first * FLOAT))

    def store_first(self, value: Value, count: int, address: Value) -> None:
        """Store the first lanes of a vector; nothing else is touched.

        Short vectors go in pieces of 4, 2 and 1 numbers: CPUs without masks of their own take many
        cycles for a masked store.
        """
        if count == self.lanes:
            self.store(value, address, aligned=False)
        elif self.lanes > 8:
            kept = [lane < count for lane in range(self.lanes)]
            self.store_some(value, address, ir.Constant(ir.VectorType(I1, self.lanes), kept))
        else:
            first = 0
            while count:
                length = 1 << (count.bit_length() - 1)
                piece = self.builder.shuffle_vector(
                    value, self._unset, self._lanes(range(first, first + length))
                )
                place = self.add(address, first * FLOAT)
                pointer = self.builder.inttoptr(place, piece.type.as_pointer())
                self.builder.store(piece, pointer).align = FLOAT
                first, count = first + length, count - length

    def add_lanes(self, value: Value, first: int, last: int, address: Value) -> None:
        """Add lanes first .. last - 1 to what is there; nothing else is touched.

        In pieces of a power of two: what a masked store has written cannot be read at once.
        """
        while first < last:
            length = 1 << ((last - first).bit_length() - 1)
            kind = ir.VectorType(F32, length)
            piece = self.builder.shuffle_vector(
                value, self._unset, self._lanes(range(first, first + length))
            )
            there = self._load(address, kind, FLOAT)
            pointer = self.builder.inttoptr(address, kind.as_pointer())
            self.builder.store(self.builder.fadd(there, piece), pointer).align = FLOAT
            first, address = first + length, self.add(address, length * FLOAT)

    # --- arithmetic ---

    def _spread(self, value: Value, kind: Any) -> Value:
        unset = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(unset, value, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(first, unset, self._lanes([0] * self.lanes))

    def broadcast(self, address: Value) -> Value:
        """Load one number into every lane."""
        return self.spread(self._load(address, F32, FLOAT))

    def spread(self, number: Value) -> Value:
        """One number in every lane."""
        return self._spread(number, self.type)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """A * b + c, rounded once."""
        function = self._declare(f"llvm.fma.v{self.lanes}f32", self.type, [self.type] * 3)
        return self.builder.call(function, [a, b, c])

    def plus(self, a: Value, b: Value) -> Value:
        """A + b."""
        return self.builder.fadd(a, b)

    def minus(self, a: Value, b: Value) -> Value:
        """A - b."""
        return self.builder.fsub(a, b)

    def times(self, number: float, a: Value, c: Value) -> Value:
        """Number * a + c, rounded once."""
        return self.fma(ir.Constant(self.type, [number] * self.lanes), a, c)

    def positive(self, value: Value) -> Value:
        """ReLU; NaN stays NaN."""
        negative = self.builder.fcmp_ordered("<", value, self.zero)
        return self.builder.select(negative, self.zero, value)

    def beats(self, b: Value, a: Value) -> Value:
        """Mask: b is larger than a, or NaN where a is not; so NaN is handed on."""
        return self.builder.and_(
            self.builder.fcmp_unordered(">", b, a), self.builder.fcmp_ordered("ord", a, a)
        )

    # --- int32 numbers in the lanes ---

    def integers(self, numbers: Sequence[int]) -> Value:
        """Constants."""
        return ir.Constant(self.integer_type, list(numbers))

    def plus_integer(self, vector: Value, number: Value) -> Value:
        """Add one int64 number to every lane."""
        return self.builder.add(
            vector, self._spread(self.builder.trunc(number, I32), self.integer_type)
        )

    def at_least(self, vector: Value, least: int) -> Value:
        """The larger of each lane and a constant."""
        limit = self.integers([least] * self.lanes)
        return self.builder.select(self.builder.icmp_signed(">", vector, limit), vector, limit)

    # --- moves between lanes ---

    def _lanes(self, numbers: Sequence[int]) -> Any:
        return ir.Constant(ir.VectorType(I32, len(numbers)), list(numbers))

    def shift(self, row: Sequence[Value], by: int, fill: bool = True) -> list[Value]:
        """Move a row of vectors by some lanes to the left (to the right where negative).

        result[i] = row[i + by] over the lanes of the whole row; from beyond its ends come zeros,
        or anything where ``fill`` is false.
        """
        if by == 0:
            return list(row)
        whole, part = divmod(by, self.lanes)
        beyond = self.zero if fill else self._unset

        def vector(number: int) -> Value:
            return row[number] if 0 <= number < len(row) else beyond

        picked = self._lanes(range(part, part + self.lanes))
        return [
            vector(i + whole)
            if part == 0
            else self.builder.shuffle_vector(vector(i + whole), vector(i + whole + 1), picked)
            for i in range(len(row))
        ]

    def pick(self, vectors: Sequence[Value], places: Sequence[int]) -> Value:
        """Gather lanes: lane i of the result is number ``places[i]`` of all vectors in a row."""
        result = vectors[0]
        for number in range(1, max(2, len(vectors))):
            lanes = []
            for i, place in enumerate(places):
                vector, lane = divmod(place, self.lanes)
                if vector == number:
                    lanes.append(self.lanes + lane)
                else:  # from the first vector, or where it was put before
                    lanes.append(lane if number == 1 else i)
            other = vectors[number] if number < len(vectors) else self._unset
            result = self.builder.shuffle_vector(result, other, self._lanes(lanes))
        return result

    def every(self, vectors: Sequence[Value], step: int) -> Value:
        """Gather every step-th number of as many vectors in a row."""
        return vectors[0] if step == 1 else self.pick(vectors, range(0, step * self.lanes, step))

    def interleave(self, vectors: Sequence[Value]) -> list[Value]:
        """Deal out: the first numbers of all vectors, then the second ones, ..."""
        count = len(vectors)
        order = [lane + k * self.lanes for lane in range(self.lanes) for k in range(count)]
        return [
            self.pick(vectors, order[i * self.lanes : (i + 1) * self.lanes]) for i in range(count)
        ]

    def transpose(self, vectors: Sequence[Value]) -> list[Value]:
        """Transpose a square: lane i of vector j of the result is lane j of vector i.

        In log2(lanes) steps; step d swaps, within each pair of vectors that are d apart, blocks of
        d lanes. Vectors that are missing at the end count as unset.
        """
        square = [*vectors, *[self._unset] * (self.lanes - len(vectors))]
        distance = 1
        while distance < self.lanes:
            low, high = [], []
            for lane in range(self.lanes):
                swapped = bool(lane & distance)
                low.append(lane + self.lanes - distance if swapped else lane)
                high.append(lane + self.lanes if swapped else lane + distance)
            for i in range(self.lanes):
                if not i & distance:
                    a, b = square[i], square[i + distance]
                    square[i] = self.builder.shuffle_vector(a, b, self._lanes(low))
                    square[i + distance] = self.builder.shuffle_vector(a, b, self._lanes(high))
            distance *= 2
        return square

    # --- control ---

    def loop(
        self,
        start: Value,
        stop: Value,
        step: int,
        carried: Sequence[Value],
        body: Callable[[Value, list[Value]], Sequence[Value]],
    ) -> list[Value]:
        """Run ``body(at, values)`` for at = start, start + step, ... below stop.

        The values begin as ``carried``, and each pass returns them anew; they live in registers.
        """
        builder = self.builder
        before = builder.block
        head = builder.append_basic_block("head")
        inside = builder.append_basic_block("body")
        after = builder.append_basic_block("after")
        builder.branch(head)
        builder.position_at_end(head)
        at = builder.phi(I64)
        at.add_incoming(start, before)
        values = []
        for value in carried:
            phi = builder.phi(value.type)
            phi.add_incoming(value, before)
            values.append(phi)
        builder.cbranch(builder.icmp_signed("<", at, stop), inside, after)
        builder.position_at_end(inside)
        results = body(at, values)
        end = builder.block
        at.add_incoming(self.add(at, step), end)
        for phi, result in zip(values, results, strict=True):
            phi.add_incoming(result, end)
        builder.branch(head)
        builder.position_at_end(after)
        return values

    def choose(
        self,
        condition: Value,
        then: Callable[[], Sequence[Value]],
        otherwise: Callable[[], Sequence[Value]],
    ) -> list[Value]:
        """Run one of two pieces of code, and return its values."""
        builder = self.builder
        outcomes = []
        with builder.if_else(condition) as (if_true, if_false):
            for context, piece in ((if_true, then), (if_false, otherwise)):
                with context:
                    outcomes.append((list(piece()), builder.block))
        (yes, from_yes), (no, from_no) = outcomes
        values = []
        for a, b in zip(yes, no, strict=True):
            phi = builder.phi(a.type)
            phi.add_incoming(a, from_yes)
            phi.add_incoming(b, from_no)
            values.append(phi)
        return values
