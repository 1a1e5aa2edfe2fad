"""Open a user's file, or say in one sentence why that is not possible."""

from __future__ import annotations

from pathlib import Path

from minissl.errors import MinisslError


def read_bytes(path: str | Path, what: str, error: type[MinisslError]) -> bytes:
    """Return the content of the file `path`.

    Parameters
    ----------
    path
        The file.
    what
        What it is to the user ("solver file"), for the message.
    error
        The class of the exception.

    Raises
    ------
    error
        If the file is missing, is a folder, or cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as reason:
        # ValueError: a path with a NUL character.
        raise explain(path, what, error, reason) from None


def explain(
    path: str | Path, what: str, error: type[MinisslError], reason: Exception
) -> MinisslError:
    """Return the one-sentence error for a file that could not be opened."""
    if isinstance(reason, FileNotFoundError):
        return error(f"There is no {what} {path}; check the path.")
    if isinstance(reason, IsADirectoryError):
        return error(f"{path} is a folder, not a {what}; name a file inside it.")
    if isinstance(reason, PermissionError):
        return error(f"The {what} {path} may not be read; change its permissions.")
    detail = reason.strerror if isinstance(reason, OSError) and reason.strerror else reason
    return error(f"The {what} {path} cannot be read: {detail}.")
