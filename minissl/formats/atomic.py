"""Write a file so that it is either the complete new one or the untouched old one.

The bytes go to a temporary file in the same folder (a rename across disks is not atomic), are
flushed to the disk, and the temporary takes the place of the old file in one step. A process that
is killed leaves at most its temporary behind; the next writer of the same file removes it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from minissl.errors import MinisslError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a binary file that becomes `path` when the block ends without an exception.

    The mode is 0o666 less the umask, as for any new file. A symbolic link is followed. A device
    or a pipe is written directly, since there is nothing to replace. One process may have one
    writer for a path at a time.

    Raises
    ------
    MinisslError
        If the folder is missing or not writable, the disk is full, or anything else keeps the
        file from being written. The previous file is then still there.

    Examples
    --------
    >>> with atomic_write("weights.bin") as file:  # doctest: +SKIP
    ...     file.write(payload)
    """
    path = Path(path)
    if "\0" in str(path):
        raise MinisslError(f"Cannot write {str(path)!r}: a path has no NUL characters.")
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        with _write_in_place(path, target) as file:
            yield file
        return

    temporary = target.with_name(f"{_prefix(target)}{os.getpid()}")
    try:
        _sweep(target)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as reason:
        raise _explain(path, reason) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as reason:
        # Ctrl-C counts too, hence BaseException.
        with suppress(OSError):
            temporary.unlink()
        if _is_about(reason, temporary):
            raise _explain(path, reason) from None
        raise
    _sync_folder(target.parent)


@contextmanager
def _write_in_place(path: Path, target: Path) -> Iterator[BinaryIO]:
    try:
        with open(target, "wb") as file:
            yield file
    except OSError as reason:
        if not _is_about(reason, target):
            raise
        raise _explain(path, reason) from None


def _prefix(target: Path) -> str:
    return f".{target.name}.tmp-"


def _sweep(target: Path) -> None:
    """Remove temporaries of `target` whose writer is dead, or was an earlier process of our id."""
    prefix = _prefix(target)
    for name in os.listdir(target.parent):
        if _is_orphan(name, prefix):
            with suppress(OSError):
                target.with_name(name).unlink()


def _is_orphan(name: str, prefix: str) -> bool:
    writer = name.removeprefix(prefix)
    if not name.startswith(prefix) or not (writer.isascii() and writer.isdigit()):
        return False
    if int(writer) == os.getpid():
        return True
    if os.name != "posix":
        return False  # there, signal 0 would end the process instead of asking for it
    try:
        os.kill(int(writer), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return False


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; not every file system can, and then nothing is lost."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_about(reason: BaseException, file: Path) -> bool:
    """Tell whether an error comes from our file; a failed write carries no file name."""
    return isinstance(reason, OSError) and reason.filename in (None, str(file))


def _explain(path: Path, reason: BaseException) -> MinisslError:
    assert isinstance(reason, OSError)
    kept = "; the previous file is untouched" if path.is_file() else ""
    if reason.errno in (errno.ENOSPC, errno.EDQUOT):
        problem = reason.strerror or "No space left on device"
        return MinisslError(f"{problem} while writing {path}{kept}; free some space and try again.")
    if isinstance(reason, FileNotFoundError):
        return MinisslError(f"Cannot write {path}: its folder does not exist; create it first.")
    if isinstance(reason, NotADirectoryError):
        return MinisslError(f"Cannot write {path}: a part of the path is a file, not a folder.")
    if isinstance(reason, IsADirectoryError):
        return MinisslError(f"Cannot write {path}: it is a folder; name a file.")
    if isinstance(reason, PermissionError) or reason.errno == errno.EROFS:
        problem = reason.strerror or "Permission denied"
        return MinisslError(f"{problem} while writing {path}{kept}; choose another folder.")
    return MinisslError(f"{reason.strerror or reason} while writing {path}{kept}.")
