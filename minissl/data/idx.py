"""IDX, the file format of MNIST: a magic number, the dimensions, then one byte per element.

All header numbers are 4-byte big-endian integers::

    00 00 08 ND     08 = unsigned bytes, ND = number of dimensions (3: images, 1: labels)
    N               number of records
    H, W            further dimensions, if there are any
    bytes           N * H * W of them, last dimension fastest

Source: http://yann.lecun.com/exdb/mnist/, "The IDX file format".
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from minissl.errors import DataError

UNSIGNED_BYTE = 0x08
MAX_DIMENSIONS = 4
#: Larger files are refused: a few kilobytes of gzip can claim to hold any amount.
MAX_BYTES = 2**31
CHUNK = 2**20
GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | os.PathLike, dimensions: int | None = None) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or compressed by gzip.

    Parameters
    ----------
    path : path
        The file; compression is recognised by its content, not by its name.
    dimensions : int, optional
        Expected number of dimensions: 3 for images (N, H, W), 1 for labels (N,).

    Returns
    -------
    numpy.ndarray
        uint8, read-only, of the shape that the file's header states.

    Raises
    ------
    DataError
        The file cannot be read, is no IDX file of unsigned bytes, has another number of
        dimensions, is cut short, or goes on after its last record.
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            if compressed:
                with gzip.GzipFile(fileobj=raw) as stream:
                    return _parse(stream, path, dimensions)
            return _parse(raw, path, dimensions)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: the gzip data are damaged or cut short ({error}); download the file again"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check path and permissions"
        ) from error


def write_idx(path: str | os.PathLike, array: np.ndarray, compress: bool = False) -> None:
    """Write an array of unsigned bytes as an IDX file.

    Parameters
    ----------
    path : path
        The file, overwritten if it is there.
    array : numpy.ndarray
        uint8, one to four dimensions, none of them 0.
    compress : bool
        Compress by gzip, without a time stamp: the same array always gives the same bytes.

    Raises
    ------
    DataError
        The array is of another type or shape, or the file cannot be written.
    """
    if array.dtype != np.uint8 or not 1 <= array.ndim <= MAX_DIMENSIONS or array.size == 0:
        raise DataError(
            f"{path}: only non-empty uint8 arrays of 1 to {MAX_DIMENSIONS} dimensions are written "
            f"as IDX, not {array.dtype} of shape {array.shape}; convert the array first"
        )
    header = struct.pack(f">4B{array.ndim}I", 0, 0, UNSIGNED_BYTE, array.ndim, *array.shape)
    content = header + array.tobytes()
    if compress:
        content = gzip.compress(content, compresslevel=9, mtime=0)
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error}); check the folder"
        ) from error


def _parse(stream: Any, path: Path, dimensions: int | None) -> np.ndarray:
    shape = _read_header(stream, path, dimensions)
    size = math.prod(shape)
    if size == 0:
        raise DataError(f"{path}: holds no records (shape {shape}); download the file again")
    if size > MAX_BYTES:
        raise DataError(
            f"{path}: its header asks for {size} bytes, more than the {MAX_BYTES} accepted; "
            "the file is damaged or not the one you meant"
        )
    # One byte more than expected is asked for, so that trailing bytes are noticed.
    content = _read_at_most(stream, size + 1)
    if len(content) < size:
        raise DataError(
            f"{path}: cut short, its header promises {size} bytes of data {shape} and "
            f"{len(content)} are there; download the file again"
        )
    if len(content) > size:
        raise DataError(
            f"{path}: goes on after the {size} bytes of data {shape} that its header promises; "
            "download the file again"
        )
    array = np.frombuffer(content, np.uint8).reshape(shape)
    array.flags.writeable = False
    return array


def _read_header(stream: Any, path: Path, dimensions: int | None) -> tuple[int, ...]:
    magic = stream.read(4)
    if len(magic) < 4:
        raise DataError(
            f"{path}: cut short, {len(magic)} bytes are no IDX header; download the file again"
        )
    if magic[:2] != b"\0\0" or not 1 <= magic[3] <= MAX_DIMENSIONS:
        raise DataError(
            f"{path}: not an IDX file, it begins with {magic.hex(' ')} where 00 00 08 and the "
            "number of dimensions belong; check that this is the file you meant"
        )
    if magic[2] != UNSIGNED_BYTE:
        raise DataError(
            f"{path}: its elements are of IDX type 0x{magic[2]:02x}, and only unsigned bytes "
            "(0x08) are read; convert the file"
        )
    count = magic[3]
    if dimensions is not None and count != dimensions:
        raise DataError(
            f"{path}: has {count} dimensions where {dimensions} are expected (images have 3, "
            "labels 1); check that images and labels are not swapped"
        )
    sizes = stream.read(4 * count)
    if len(sizes) < 4 * count:
        raise DataError(f"{path}: cut short in its header; download the file again")
    return struct.unpack(f">{count}I", sizes)


def _read_at_most(stream: Any, limit: int) -> bytearray:
    """Read up to ``limit`` bytes; memory follows what is there, not what the header claims."""
    content = bytearray()
    while len(content) < limit:
        chunk = stream.read(min(CHUNK, limit - len(content)))
        if not chunk:
            break
        content += chunk
    return content
