"""Protocol buffers' wire format, walked piece by piece: large arrays go straight where they stay.

The protobuf library parses a message as a whole, which takes several times the memory and the
time of reading the file. Here a weight file is read once, and each packed array is read from the
file into the array that the caller gets. Lengths are compared with what is left of the file before
anything is allocated.

A field is a key (number << 3 | kind) and a value::

    kind 0   varint: seven bits a byte, lowest first
    kind 1   eight bytes
    kind 2   a length and as many bytes: text, a message, packed numbers
    kind 5   four bytes

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

#: More fields than this are refused: a model has thousands, and each takes time.
MAX_FIELDS = 2**22
#: Largest text or message that is handed over as bytes.
MAX_SMALL = 2**26
_CHUNK = 2**20


class WireError(Exception):
    """The bytes are no message, or end too early; whoever reads a file says which."""


class Reader:
    """Walks through a message in a file.

    Parameters
    ----------
    file
        Open for reading, at the first byte of the message.
    size
        Its number of bytes. For a stream of unknown length an upper limit, with `exact` False;
        memory is then taken as the bytes arrive.
    """

    def __init__(self, file: Any, size: int, exact: bool = True):
        self._file = file
        self._exact = exact
        self._fields = 0
        self.size = size
        self.position = 0

    def fields(self, end: int | None = None) -> Iterator[tuple[int, int, int]]:
        """Yield number, kind and value of each field up to `end`, or to the end of the file.

        The value of kind 2 is its length; whatever the caller does not read of it is passed over.
        Values of kinds 1 and 5 are their bits.
        """
        limit = self.size if end is None else end
        while self.position < limit:
            first = self._file.read(1)
            if not first:
                if end is not None or self._exact:
                    raise WireError
                return
            self.position += 1
            self._count()
            key = self._varint(limit, first[0])
            number, kind = key >> 3, key & 7
            if not 0 < number < 2**29:
                raise WireError
            if kind == VARINT:
                yield number, kind, self._varint(limit)
            elif kind == BYTES:
                length = self._varint(limit)
                stop = self.position + length
                if stop > limit:
                    raise WireError
                yield number, kind, length
                self._skip_to(stop)
            elif kind in (FIXED64, FIXED32):
                width = 8 if kind == FIXED64 else 4
                yield number, kind, int.from_bytes(self._read(width, limit), "little")
            else:  # groups, which Caffe's files never held
                raise WireError

    def small(self, length: int) -> bytes:
        """Read a text or a small message."""
        if length > MAX_SMALL:
            raise WireError
        return self._read(length, self.size)

    def text(self, length: int) -> str:
        """Read a text in UTF-8."""
        try:
            return self.small(length).decode("utf-8")
        except UnicodeDecodeError:
            raise WireError from None

    def varints(self, length: int) -> list[int]:
        """Read packed whole numbers."""
        stop = self.position + length
        numbers = []
        while self.position < stop:
            numbers.append(self._varint(stop))
            self._count()
        return numbers

    def array(self, length: int, dtype: str) -> np.ndarray:
        """Read packed numbers of a fixed width into a new array."""
        width = np.dtype(dtype).itemsize
        if length % width:
            raise WireError
        if not self._exact:  # the length may be a lie, and nothing says so in advance
            return np.frombuffer(self._gather(length), dtype)
        try:
            array = np.empty(length // width, dtype)
        except MemoryError:
            raise WireError from None
        view: Any = array.view(np.uint8).data
        done = 0
        while done < length:
            count = self._file.readinto(view[done:])
            if not count:
                raise WireError
            done += count
        self.position += length
        return array

    def _count(self) -> None:
        self._fields += 1
        if self._fields > MAX_FIELDS:
            raise WireError

    def _gather(self, length: int) -> bytearray:
        content = bytearray()
        while len(content) < length:
            chunk = self._file.read(min(_CHUNK, length - len(content)))
            if not chunk:
                raise WireError
            content += chunk
        self.position += length
        return content

    def _read(self, length: int, limit: int) -> bytes:
        if self.position + length > limit:
            raise WireError
        return bytes(self._gather(length)) if length else b""

    def _skip_to(self, stop: int) -> None:
        if self.position > stop:
            raise WireError
        if self._exact and stop - self.position > _CHUNK:
            self._file.seek(stop - self.position, 1)
            self.position = stop
        while self.position < stop:
            self._gather(min(_CHUNK, stop - self.position))

    def _varint(self, limit: int, first: int | None = None) -> int:
        number = shift = 0
        byte = first
        while True:
            if byte is None:
                byte = self._read(1, limit)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number & (2**64 - 1)
            shift += 7
            if shift > 63:
                raise WireError
            byte = None


def signed(number: int, bits: int = 64) -> int:
    """Return the whole number that a varint of an int32 or int64 field stands for."""
    number &= 2**bits - 1
    return number - 2**bits if number >> (bits - 1) else number


def varint(number: int) -> bytes:
    """Encode a whole number that is not negative."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def header(number: int, length: int) -> bytes:
    """Return what stands before the bytes of a field of kind 2."""
    return varint(number << 3 | BYTES) + varint(length)
