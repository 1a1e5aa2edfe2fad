"""Folders for what is written."""

from __future__ import annotations

from pathlib import Path

from minissl.errors import MinisslError


def make_folder(path: str | Path, advice: str = "choose another one") -> Path:
    """Make a folder, and those above it, if it is not there; return it.

    Parameters
    ----------
    advice : str
        What to do where it cannot be made.

    Raises
    ------
    MinisslError
        If it cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise MinisslError(
            f"Cannot make the folder {folder} ({reason.strerror}); {advice}."
        ) from None
    return folder
