"""HDF5 files, by the library h5py (an extra), read with care.

An HDF5 file can point at other files (external and soft links, virtual and external storage), can
claim more data than it holds, and can ask for filters that are programs. None of that is followed:
only plain numbers and texts that lie in the file itself are read, and a data set is no larger than
a file of its size can hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minissl import optional
from minissl.errors import MinisslError, WeightsError
from minissl.formats.reading import explain

#: Largest data set that is read, as for other weights.
MAX_BYTES = 2**31
#: zlib packs 1 byte into a thousandth at best
MOST_PACKED = 1100
_MAX_DEPTH = 16
_MAX_LINKS = 2**17
#: DEFLATE, shuffle and checksum: those that every HDF5 library has
_FILTERS = {1, 2, 3}


def is_there() -> bool:
    """Tell whether the library is installed."""
    from importlib.util import find_spec

    return find_spec("h5py") is not None


def library() -> Any:
    """Return h5py.

    Raises
    ------
    DependencyError
        It is not installed.
    """
    return optional.library("h5py", "HDF5 files", "minissl[hdf5]")


@contextmanager
def opened(path: str | Path, what: str, error: type[MinisslError] = WeightsError) -> Iterator[File]:
    """Open an HDF5 file for reading; anything that goes wrong inside becomes one sentence."""
    h5py = library()
    damaged = error(f"{path} is not a complete HDF5 {what}; copy or save it again.")
    try:
        size = Path(path).stat().st_size
        if not Path(path).is_file():
            raise explain(path, what, error, IsADirectoryError())
        with open(path, "rb"):
            pass  # says in the usual words why not
    except (OSError, ValueError) as reason:
        raise explain(path, what, error, reason) from None
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield File(file, path, size, error)
    except MinisslError:
        raise
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, MemoryError):
        # h5py answers damage with all of these
        raise damaged from None
    except (OverflowError, UnicodeError, RecursionError, NotImplementedError, SystemError):
        raise damaged from None


class File:
    """An open file whose data sets are read safely."""

    def __init__(self, file: Any, path: str | Path, size: int, error: type[MinisslError]):
        self._file, self._path, self._size, self._error = file, path, size, error
        self._links = 0

    def names(self, group: str = "/") -> list[str]:
        """Return the paths of all data sets below a group, in the order of their names."""
        if group not in self._file:
            return []
        start = self._own(self._file, group)
        return [f"{group.rstrip('/')}/{name}" for name in self._walk(start, 0)]

    def __contains__(self, name: str) -> bool:
        return name in self._file

    def array(self, name: str) -> np.ndarray:
        """Read a data set of numbers.

        Raises
        ------
        MinisslError
            It is not there, holds something else, or is larger than the file can hold.
        """
        data_set = self._data_set(name)
        if data_set.dtype.kind not in "biuf":
            raise self._error(f"{self._path}: {name} holds no numbers but {data_set.dtype}.")
        return np.asarray(data_set[()])

    def integer(self, name: str) -> int:
        """Read a whole number, as the first element of a data set."""
        array = self.array(name)
        if array.size != 1 or array.dtype.kind not in "iu":
            raise self._error(f"{self._path}: {name} is no whole number; the file is damaged.")
        return int(array.reshape(-1)[0])

    def text(self, name: str) -> str:
        """Read a text."""
        data_set = self._data_set(name)
        value = data_set[()]
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(-1)[0]
        if not isinstance(value, (bytes, str)):
            raise self._error(f"{self._path}: {name} is no text; the file is damaged.")
        return value if isinstance(value, str) else value.rstrip(b"\0").decode("utf-8")

    def _own(self, parent: Any, name: str) -> Any:
        """Return what stands under a name of several steps, if it lies in this file."""
        found = parent
        for step in filter(None, name.split("/")):
            link = found.get(step, getlink=True)
            if type(link).__name__ != "HardLink":
                raise self._error(
                    f"{self._path}: {name} points elsewhere; only data inside the file are read."
                )
            found = found[step]
        return found

    def _walk(self, group: Any, depth: int) -> Iterator[str]:
        if depth > _MAX_DEPTH:
            raise self._error(f"{self._path}: its groups are nested too deeply.")
        for name in group:
            self._links += 1
            if self._links > _MAX_LINKS:
                raise self._error(f"{self._path}: it holds too many data sets.")
            found = self._own(group, name)
            if hasattr(found, "keys"):
                yield from (f"{name}/{below}" for below in self._walk(found, depth + 1))
            else:
                yield name

    def _data_set(self, name: str) -> Any:
        if name not in self._file:
            raise self._error(f"{self._path} holds no {name}; is it the right file?")
        data_set = self._own(self._file, name)
        if not hasattr(data_set, "shape") or data_set.shape is None:
            raise self._error(f"{self._path}: {name} is no data set; the file is damaged.")
        plan = data_set.id.get_create_plist()
        filters = {plan.get_filter(i)[0] for i in range(plan.get_nfilters())}
        if data_set.is_virtual or data_set.external or not filters <= _FILTERS:
            raise self._error(
                f"{self._path}: {name} points elsewhere or is packed in a way of its own; "
                "only plain data inside the file are read."
            )
        claimed = math.prod(data_set.shape) * data_set.dtype.itemsize
        if claimed > min(MAX_BYTES, self._size * (MOST_PACKED if filters else 1)):
            raise self._error(
                f"{self._path}: {name} claims {claimed} bytes, more than the file can hold."
            )
        return data_set
