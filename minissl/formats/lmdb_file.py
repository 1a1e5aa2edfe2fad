"""LMDB databases: records in the order of their keys, read and written by the library lmdb.

A database is a folder with a ``data.mdb``. The library maps that file and trusts what stands in
it, so its pages are checked before (:mod:`minissl.formats.lmdb_check`); what the records hold is
checked as they are read (:mod:`minissl.formats.datum`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from minissl import optional
from minissl.errors import DataError
from minissl.formats.lmdb_check import check

DATA_FILE = "data.mdb"
#: records that Caffe's tools write between two commits
COMMIT_EVERY = 1000
#: room that is asked for and not taken until it is needed; Windows takes more of it at once
MAP_SIZE = 2**40 if os.name == "posix" else 2**34

_open: WeakValueDictionary[str, Database] = WeakValueDictionary()


def library() -> Any:
    """Return the module lmdb.

    Raises
    ------
    DependencyError
        It is not installed.
    """
    return optional.library("lmdb", "LMDB databases", "minissl[lmdb]")


def is_lmdb(path: str | Path) -> bool:
    """Tell whether a folder holds an LMDB database."""
    try:
        return (Path(path) / DATA_FILE).is_file()
    except (OSError, ValueError):
        return False


def is_leveldb(path: str | Path) -> bool:
    """Tell whether a folder holds a LevelDB database."""
    try:
        return (Path(path) / "CURRENT").is_file()
    except (OSError, ValueError):
        return False


def open_database(path: str | Path) -> Database:
    """Open a database for reading; who opens it again gets the same object."""
    key = str(Path(path).resolve())
    database = _open.get(key)
    if database is None:
        database = _open[key] = Database(path)
    return database


class Database:
    """An open database.

    Raises
    ------
    DataError
        If it is missing, cut short, empty, or no LMDB database.
    """

    def __init__(self, path: str | Path):
        lmdb = library()
        self.path = Path(path)
        check(self.path / DATA_FILE)
        try:
            self._environment = lmdb.open(
                str(path), readonly=True, lock=False, create=False, readahead=False, max_dbs=0
            )
            self._transaction = self._environment.begin(buffers=False)
            self._cursor = self._transaction.cursor()
            self._length = int(self._transaction.stat()["entries"])
        except (lmdb.Error, OSError) as reason:
            raise DataError(f"The database {path} cannot be opened: {reason}.") from None
        if not self._length:
            raise DataError(f"The database {path} is empty; make it again.")
        self._next = 0
        self._keys: list[bytes] = []
        self._one_at_a_time = Lock()  # several layers read it, each in a thread of its own

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> bytes:
        """Return the record of a number; quick for the one behind the last that was asked for."""
        if not 0 <= number < self._length:
            raise IndexError(number)
        try:
            with self._one_at_a_time:
                found = self._move_to(number)
                value: bytes = self._cursor.value()
                self._next = number + 1
        except library().Error as reason:
            raise DataError(f"The database {self.path} is damaged: {reason}.") from None
        if not found:
            raise DataError(f"The database {self.path} has no record {number}; it is damaged.")
        return value

    def _move_to(self, number: int) -> bool:
        if number == 0:
            return bool(self._cursor.first())
        if number == self._next:
            return bool(self._cursor.next())
        self._keys = self._keys or list(self._walk())
        return len(self._keys) > number and bool(self._cursor.set_key(self._keys[number]))

    def _walk(self) -> Iterator[bytes]:
        return self._cursor.iternext(keys=True, values=False) if self._cursor.first() else iter(())


def write_database(path: str | Path, records: Iterable[tuple[bytes, bytes]]) -> int:
    """Write a new database; it appears when it is complete. Returns the number of records.

    Raises
    ------
    DataError
        If something is there already, or the folder cannot be written.
    """
    lmdb = library()
    path = Path(path)
    if path.exists():
        raise DataError(f"{path} is there already; remove it, or choose another name.")
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    count = 0
    try:
        temporary.mkdir(parents=True)
        with lmdb.open(str(temporary), map_size=MAP_SIZE, sync=False) as environment:
            transaction = environment.begin(write=True)
            for key, value in records:
                transaction.put(key, value, append=True)
                count += 1
                if count % COMMIT_EVERY == 0:
                    transaction.commit()
                    transaction = environment.begin(write=True)
            transaction.commit()
            environment.sync(True)
        temporary.rename(path)
    except (lmdb.Error, OSError) as reason:
        raise DataError(f"The database {path} cannot be written: {reason}.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return count
