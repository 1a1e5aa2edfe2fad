"""``BlobProto``: an array in Caffe's files, read from and written to a stream.

Its values are ``data`` (float32) or ``double_data`` (float64); its shape is ``shape``, or the four
old numbers, which win where both are given, as in Caffe. Gradients (``diff``) are passed over.
A ``.binaryproto`` file is one such array: a mean image, or multipliers of a ``decay_proto``.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minissl.errors import MinisslError, WeightsError
from minissl.formats.atomic import atomic_write
from minissl.formats.reading import read_bytes
from minissl.formats.wire import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    Reader,
    WireError,
    header,
    signed,
    varint,
)

_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8
_OLD_AXES = (1, 2, 3, 4)  # num, channels, height, width


def read_blob(reader: Reader, length: int, where: str) -> np.ndarray:
    """Read a blob of `length` bytes; the array is the caller's own.

    Raises
    ------
    WeightsError
        If a dimension is negative or the shape does not fit the number of values; `where` names
        the blob.
    WireError
        If the bytes are no blob.
    """
    parts: dict[int, list[np.ndarray]] = {_DATA: [], _DOUBLE_DATA: []}
    loose: dict[int, list[int]] = {_DATA: [], _DOUBLE_DATA: []}
    dims: list[int] = []
    old = dict.fromkeys(_OLD_AXES, 0)
    is_old = False
    for number, kind, value in reader.fields(reader.position + length):
        if number in parts and kind == BYTES:
            _collect(parts[number], loose[number], number)
            parts[number].append(reader.array(value, _dtype(number)))
        elif (number, kind) in ((_DATA, FIXED32), (_DOUBLE_DATA, FIXED64)):
            loose[number].append(value)
        elif number == _SHAPE and kind == BYTES:
            dims += _dims(reader, value)
        elif number in old and kind == VARINT:
            old[number], is_old = signed(value, 32), True
    chosen = _DOUBLE_DATA if parts[_DOUBLE_DATA] or loose[_DOUBLE_DATA] else _DATA
    pieces = parts[chosen]
    _collect(pieces, loose[chosen], chosen)
    shape = tuple(old.values()) if is_old else tuple(dims)
    count = sum(map(len, pieces))
    if min(shape, default=0) < 0 or math.prod(shape) != count:
        raise WeightsError(
            f"{where} has shape {'x'.join(map(str, shape[:32]))} but {count} values; "
            "the file is damaged."
        )
    flat = pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, _dtype(chosen)), *pieces])
    try:
        return flat.astype(flat.dtype.newbyteorder("="), copy=False).reshape(shape)
    except ValueError:  # more axes than NumPy has
        raise WeightsError(f"{where} has {len(shape)} axes; the file is damaged.") from None


def blob_parts(
    array: np.ndarray, dtype: DTypeLike = np.float32, old_shape: bool = False
) -> tuple[int, list]:
    """Return the length of an array as a blob, and its bytes in pieces; values are not copied.

    Parameters
    ----------
    array
        Any shape; with `old_shape` up to four axes, the first of which may be missing.
    dtype
        float32 fills ``data``, which Caffe reads; float64 fills ``double_data``.
    old_shape
        Write num, channels, height, width in place of ``shape``, as Caffe's tools for means do.
    """
    is_double = np.dtype(dtype) == np.float64
    values = np.ascontiguousarray(array, dtype="<f8" if is_double else "<f4")
    if old_shape:
        four = (1,) * (4 - array.ndim) + array.shape
        axes = zip(_OLD_AXES, four, strict=True)
        before = b"".join(varint(axis << 3) + varint(n) for axis, n in axes)
        shape = b""
    else:
        before = b""
        dims = b"".join(map(varint, array.shape))
        inner = header(1, len(dims)) + dims if dims else b""
        shape = header(_SHAPE, len(inner)) + inner
    lead = header(_DOUBLE_DATA if is_double else _DATA, values.nbytes) if values.size else b""
    payload: Any = values.reshape(-1).view(np.uint8).data if values.size else b""
    # fields in the order of their numbers, as the protobuf library writes them
    order = [shape, lead, payload] if is_double else [lead, payload, shape]
    pieces = [before, *order]
    return sum(map(len, pieces)), pieces


def read_binaryproto(path: str | Path, what: str = "binaryproto file") -> np.ndarray:
    """Read a file that holds one array.

    Raises
    ------
    WeightsError
        If the file is missing or damaged.
    """
    content = read_bytes(path, what, WeightsError)
    try:
        return read_blob(Reader(io.BytesIO(content), len(content)), len(content), str(path))
    except WireError:
        raise WeightsError(
            f"{path} is not a {what} (a binary BlobProto), or it is truncated; make it again."
        ) from None


def write_binaryproto(path: str | Path, array: np.ndarray) -> None:
    """Write an array of one to four axes as Caffe's tools do: float32, with the four old numbers.

    Raises
    ------
    MinisslError
        If the array has more axes, or the file cannot be written.
    """
    if array.ndim > 4:
        raise MinisslError(f"Cannot write {path}: the array has {array.ndim} axes, at most 4 fit.")
    _, pieces = blob_parts(array, old_shape=True)
    with atomic_write(path) as file:
        for piece in pieces:
            file.write(piece)


def _dims(reader: Reader, length: int) -> list[int]:
    """Read a ``BlobShape``."""
    dims: list[int] = []
    for number, kind, value in reader.fields(reader.position + length):
        if number == 1 and kind == BYTES:
            dims += map(signed, reader.varints(value))
        elif number == 1 and kind == VARINT:
            dims.append(signed(value))
    return dims


def _dtype(number: int) -> str:
    return "<f8" if number == _DOUBLE_DATA else "<f4"


def _collect(parts: list[np.ndarray], loose: list[int], number: int) -> None:
    """Append values that came one by one; legal, though no writer of Caffe's files does it."""
    if loose:
        bits = np.array(loose, "<u8" if number == _DOUBLE_DATA else "<u4")
        parts.append(bits.view(_dtype(number)))
        loose.clear()
