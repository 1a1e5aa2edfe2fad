"""How an emitter becomes a C function, and how compiled loops call it by its address.

A *tile* is a C function of int64 numbers: addresses, counts and flags. What it does is described
by a named tuple of constants (how many rows, how many vectors, ...) with a method ``emit`` that
writes the instructions:

    class Doubling(NamedTuple):
        lanes: int

        def emit(self, v, source, target):
            value = v.load(source)
            v.store(v.plus(value, value), target)

    def compile(tile):
        constant = Constant(tile)

        def doubling(source, target):
            emitted(constant, (source, target))

        return c_function(doubling, "...")

Loops over filters, images and threads are plain Numba and compiled once for all tiles; they take
the address of a tile and :func:`call` it. So the first use of a new shape of layer costs no more
than the compilation of its tile, which is then kept on disk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.imputils import lower_constant

from minissl.kernels.cpu.micro.simd import I64, Vectors

#: makes a function of Numba from one that writes instructions; its callers pass all but _typing
intrinsic: Any = extending.intrinsic


class Constant:
    """A value that is known at compile time, as the type of the argument, and nothing at run time.

    A function that closes over one is compiled, and named on disk, for this value.
    """

    def __init__(self, value: Any):
        self.value = value

    def __reduce__(self) -> tuple:
        return Constant, (self.value,)


class ConstantType(types.Type):
    """The type of a :class:`Constant`; two are the same when their values are."""

    def __init__(self, value: Any):
        self.value = value
        super().__init__(name=f"Constant[{value!r}]")


@extending.typeof_impl.register(Constant)
def _type_of(constant: Constant, _context: Any) -> ConstantType:
    return ConstantType(constant.value)


@extending.register_model(ConstantType)
class _Model(extending.models.OpaqueModel):
    """Takes no part in the compiled code."""


@lower_constant(ConstantType)
def _nothing(context: Any, _builder: Any, _type: Any, _value: Any) -> Any:
    return context.get_dummy_value()


@intrinsic
def emitted(_typing, tile, arguments):
    """Whatever ``tile.emit`` writes, given a tuple of int64 numbers."""

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        numbers = cgutils.unpack_tuple(builder, values[1])
        tile.value.emit(Vectors(builder, tile.value.lanes), *numbers)
        return context.get_dummy_value()

    return types.void(tile, arguments), generate


@intrinsic
def address_of(_typing, array):
    """Address of the first element of an array, as int64."""

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        data = context.make_array(array)(context, builder, values[0]).data
        return builder.ptrtoint(data, I64)

    return types.int64(array), generate


@intrinsic
def call(_typing, address, arguments):
    """Call the tile at an address with a tuple of int64 numbers."""
    if any(kind != types.int64 for kind in (address, *arguments)):
        raise TypingError(f"a tile takes int64 numbers, not {arguments}")

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        numbers = cgutils.unpack_tuple(builder, values[1])
        kind = ir.FunctionType(ir.VoidType(), [I64] * len(numbers))
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), numbers)
        return context.get_dummy_value()

    return types.void(types.int64, arguments), generate


def one_row(shape: Any) -> Any:
    """See the image as one long row where the kernel is one pixel that moves nowhere.

    Parameters
    ----------
    shape : ConvShape
        Geometry of the layer (:class:`minissl.conv_modes.shape.ConvShape`).
    """
    H, W = shape.size
    flat = shape.kernel == shape.stride == (1, 1) and shape.pad == (0, 0)
    return shape._replace(size=(1, H * W)) if flat else shape


def ready(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y as tiles need them, float32 and contiguous; y may be another array then."""
    fits = y.dtype == np.float32 and y.flags.c_contiguous
    return np.ascontiguousarray(x, np.float32), y if fits else np.empty(y.shape, np.float32)
