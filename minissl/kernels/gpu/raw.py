"""The own kernels: CUDA C++ sources beside this file, compiled by NVRTC on first use.

A source is compiled once for each type of its numbers (``real``) and of its column numbers
(``column_t``); CuPy keeps the result on disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cupy
import numpy as np

from minissl.errors import ShapeError

SOURCES = Path(__file__).parent / "sources"

#: C++ names of the types that arrays may have
REAL = {"float32": "float", "float64": "double"}
COLUMN = {
    "int32": "int",
    "int64": "long long",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
}

#: threads of a block: of kernels whose threads work alone, and of those that sum together
THREADS = 256

#: what stands for an array that is not given
NOTHING = np.uint64(0)

_INCLUDE = re.compile(r'^#include "(\w+\.cuh)"$', re.MULTILINE)


def names() -> list[str]:
    """Return the names of all sources, without their suffix."""
    return sorted(path.stem for path in SOURCES.glob("*.cu"))


def source(name: str, real: str, column: str = "int32") -> str:
    """Return the text of a source, its includes put in, for arrays of these types.

    CuPy's cache of compiled kernels knows a kernel by its text, so that includes must be part of
    it.
    """
    text = (SOURCES / f"{name}.cu").read_text("utf-8")
    text = _INCLUDE.sub(lambda match: (SOURCES / match[1]).read_text("utf-8"), text)
    return f"typedef {REAL[real]} real;\ntypedef {COLUMN[column]} column_t;\n{text}"


@cache
def _module(name: str, real: str, column: str) -> Any:
    return cupy.RawModule(code=source(name, real, column), options=("-std=c++14",))


@cache
def _function(name: str, kernel: str, real: np.dtype, column: np.dtype | None) -> Any:
    numbers = "int32" if column is None else column.name
    return _module(name, real.name, numbers).get_function(kernel)


def each(name: str, kernel: str, like: Any, count: int, *arguments: Any, column: Any = None):
    """Run a kernel with one thread for each of ``count`` things.

    Parameters
    ----------
    name, kernel : str
        The source, and the function in it.
    like : array
        One whose type is ``real``.
    arguments : arrays, int, float, None
        Arrays are contiguous; int becomes ``int``, float ``double``, None a null pointer.
    column : dtype, optional
        Type of column numbers, where the kernel takes some.

    Raises
    ------
    ShapeError
        When there are more elements than an ``int`` can count.
    """
    if count >= 2**31 - THREADS:
        raise ShapeError(
            f"{count} elements are more than the GPU kernels count; make the batch smaller"
        )
    if count:
        blocks(name, kernel, like, -(-count // THREADS), *arguments, column=column)


def blocks(
    name: str,
    kernel: str,
    like: Any,
    count: int,
    *arguments: Any,
    column: Any = None,
    threads: int = THREADS,
) -> None:
    """Run a kernel with ``count`` blocks of threads; parameters as in :func:`each`."""
    if not count:
        return
    function = _function(name, kernel, like.dtype, column)
    function((count,), (threads,), tuple(map(_argument, arguments)))


#: what a kernel is given for a value of each type; arrays are given as they are
_SCALARS: dict[type, Callable[[Any], Any]] = {
    int: np.int32,
    bool: np.int32,
    np.int64: np.int32,
    float: np.float64,
    type(None): lambda _: NOTHING,
}


def _argument(value: Any) -> Any:
    convert = _SCALARS.get(type(value))
    return convert(value) if convert else value


def threads_for(terms: int) -> int:
    """Return how many threads share a sum of so many terms: a power of two, 32 to 256."""
    return int(min(THREADS, max(32, 1 << max(0, terms - 1).bit_length())))
