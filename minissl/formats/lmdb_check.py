"""The pages of an LMDB file, checked before the library maps them.

The library trusts the file: a forged page would let it read beyond the map, or end the process.
So the tree of the records is walked here first. Pages of P bytes, numbers little-endian::

    page     number u64, pad u16, flags u16, lower u16, upper u16, offsets of nodes u16 each
    node     low u16, high u16, flags u16, key size u16, key, data
             in a leaf: size of the data = low + high * 2^16; with the flag BIG the data are the
             u64 number of the first of the pages that hold them
             in a branch: page = low + high * 2^16 + flags * 2^32
    meta     a page's header, then magic, version, ..., two trees (free pages, records),
             u64 last page, u64 transaction; the first two pages, the later transaction counts

Values on pages of their own are not touched: it is enough that they end within the file.

Source: the structures of ``mdb.c``, LMDB 0.9.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minissl.errors import DataError
from minissl.formats.reading import explain

MAGIC, VERSIONS = 0xBEEFC0DE, (1, 999)
#: deepest tree that the library's cursors follow
MAX_DEPTH = 32
BRANCH, LEAF, DIRTY = 0x01, 0x02, 0x10
BIG = 0x01
INTEGER_KEY = 0x08
HEADER, NODE = 16, 8
NOTHING = 2**64 - 1

# behind the header of a meta page: magic, version, address, map size; page size and flags of the
# free pages' tree; flags, depth, entries and root of the records' tree; last page, transaction
_META = struct.Struct("<16x II 16x IH 42x 4x HH 24x QQ QQ")


@dataclass
class _Meta:
    page_size: int
    flags: int
    record_flags: int
    depth: int
    entries: int
    root: int
    last: int
    transaction: int


def check(file: Path) -> None:
    """See that the records of a database can be read without leaving its file.

    Raises
    ------
    DataError
        If the file is missing, cut short, damaged, or no LMDB database of plain records.
    """
    try:
        content = np.asarray(np.memmap(file, np.uint8, "r"))  # a plain array is much quicker
    except (OSError, ValueError) as reason:
        if isinstance(reason, ValueError):  # an empty file cannot be mapped
            raise DataError(f"{file} is not an LMDB database.") from None
        raise explain(file, "database", DataError, reason) from None
    meta = _read_meta(content, file)
    size = meta.page_size
    if (meta.last + 1) * size > len(content):
        raise DataError(
            f"{file} is cut short: {len(content):,} bytes of {(meta.last + 1) * size:,} are there."
        )
    pages = content[: (meta.last + 1) * size].reshape(-1, size)
    if meta.flags & ~INTEGER_KEY or meta.record_flags:
        raise DataError(f"{file} is not a database of plain records, as Caffe's are.")
    if meta.root == NOTHING:
        return
    if not 1 <= meta.depth <= MAX_DEPTH or _count(pages, meta, file) != meta.entries:
        raise _damaged(file)


def _read_meta(content: np.ndarray, file: Path) -> _Meta:
    """Return the meta page that counts."""
    found = []
    start = 0
    for _ in range(2):
        if start + _META.size > len(content):
            raise DataError(f"{file} is not an LMDB database, or it is cut short.")
        magic, version, page_size, flags, *rest = _META.unpack(
            content[start : start + _META.size].tobytes()
        )
        if magic != MAGIC or version not in VERSIONS:
            raise DataError(f"{file} is not an LMDB database of this kind of machine.")
        found.append(_Meta(page_size, flags, *rest))
        start = found[0].page_size
        if start not in [2**k for k in range(9, 17)]:
            raise DataError(f"{file} is damaged: its pages have {start} bytes.")
    best = max(found, key=lambda meta: meta.transaction)
    best.page_size = found[0].page_size
    return best


def _count(pages: np.ndarray, meta: _Meta, file: Path) -> int:
    """Walk the tree of the records; return how many there are."""
    seen = np.zeros(len(pages), bool)
    level, count = [meta.root], 0
    for depth in range(meta.depth):
        kind = LEAF if depth == meta.depth - 1 else BRANCH
        below: list[int] = []
        for number in level:
            if number >= len(pages) or seen[number]:
                raise _damaged(file)
            seen[number] = True
            nodes = _nodes(pages[number], number, kind, file)
            if kind == LEAF:
                count += len(nodes)
                _check_values(pages, pages[number], nodes, file)
            else:
                low, high, flags, _ = _fields(pages[number], nodes)
                below += (low + (high << 16) + (flags << 32)).tolist()
        level = below
    return count


def _nodes(page: np.ndarray, number: int, kind: int, file: Path) -> np.ndarray:
    """Return the offsets of a page's nodes, whose headers and keys lie within the page."""
    words = page.view("<u2")
    flags, lower, upper = (int(word) for word in words[5:8])
    least = HEADER + 2 * (1 if kind == LEAF else 2)
    if (
        int(page[:8].view("<u8")[0]) != number
        or flags & ~DIRTY != kind
        or lower % 2
        or not least <= lower <= upper <= len(page)
    ):
        raise _damaged(file)
    nodes = words[HEADER // 2 : lower // 2].astype(np.int64)
    if (nodes % 2).any() or (nodes < lower).any() or (nodes > len(page) - NODE).any():
        raise _damaged(file)
    _, _, _, key_size = _fields(page, nodes)
    if (nodes + NODE + key_size > len(page)).any():
        raise _damaged(file)
    return nodes


def _check_values(pages: np.ndarray, page: np.ndarray, nodes: np.ndarray, file: Path) -> None:
    """See that the values of a leaf end within it, or within the file."""
    low, high, flags, key_size = _fields(page, nodes)
    sizes, places = low + (high << 16), nodes + NODE + key_size
    big = flags == BIG
    if (flags & ~BIG).any() or (places + np.where(big, 8, sizes) > len(page)).any():
        raise _damaged(file)
    if big.any():
        eight = page[places[big, None] + np.arange(8)]  # (values, 8)
        first = np.ascontiguousarray(eight).view("<u8")[:, 0]
        if (first >= len(pages)).any():
            raise _damaged(file)
        end = first.astype(np.int64) * len(page) + HEADER + sizes[big]
        if (end > pages.size).any():
            raise _damaged(file)


def _fields(page: np.ndarray, nodes: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return low, high, flags and key size of nodes."""
    words = page.view("<u2")
    return tuple(words[nodes // 2 + i].astype(np.int64) for i in range(4))


def _damaged(file: Path) -> DataError:
    return DataError(f"{file} is a damaged database; make it again, or copy it again.")
