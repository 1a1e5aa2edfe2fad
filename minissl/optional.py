"""Libraries that not everybody needs, imported when they are."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from minissl.errors import DependencyError


def library(name: str, users: str, install: str, otherwise: str = "") -> Any:
    """Return a module of a library that may be missing.

    Parameters
    ----------
    name : str
        The module, such as ``"h5py"``.
    users : str
        Who needs it, in the plural: ``"HDF5 files"``.
    install : str
        What pip is to install, such as ``"minissl[hdf5]"``.
    otherwise : str
        What else can be done.

    Raises
    ------
    DependencyError
        If it is not installed, or cannot be imported.
    """
    try:
        return import_module(name)
    except ImportError as reason:
        advice = f"run pip install '{install}'" + (f", or {otherwise}" if otherwise else "")
        raise DependencyError(
            f"{users} need {name}, which is missing ({reason}); {advice}"
        ) from None
