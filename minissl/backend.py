"""Choose, once and by name, who computes: ``numpy``, ``numba``, ``cupy`` or ``auto``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from minissl.errors import ConfigError, DependencyError

NAMES = ("auto", "numpy", "numba", "cupy")

_MODULES = {"numpy": "minissl.kernels.reference", "numba": "minissl.kernels.cpu"}


def get(name: str = "auto") -> ModuleType:
    """Return the kernels of a backend.

    Parameters
    ----------
    name : {"auto", "numpy", "numba", "cupy"}
        ``numpy`` is the plain definition, ``numba`` the fast parallel twin; ``auto`` is ``numba``.
        The environment variable MINISSL_BACKEND replaces ``auto``.

    Raises
    ------
    ConfigError
        For an unknown name.
    DependencyError
        When the library the backend stands on is not installed.
    """
    if name == "auto":
        name = os.environ.get("MINISSL_BACKEND", "numba")
    if name == "cupy":
        raise DependencyError(
            "the cupy backend is not part of this version; use --backend numba or numpy"
        )
    if name not in _MODULES:
        raise ConfigError(f"unknown backend '{name}'; choose one of {', '.join(NAMES)}")
    try:
        return import_module(_MODULES[name])
    except ImportError as error:
        raise DependencyError(
            f"backend '{name}' needs a library that is missing ({error}); pip install numba"
        ) from error


def name_of(kernels: ModuleType) -> str:
    """Return the name of a backend module."""
    return next(name for name, module in _MODULES.items() if module == kernels.__name__)


def set_threads(count: int) -> None:
    """Let the kernels of this process use ``count`` threads.

    Raises
    ------
    ConfigError
        When the count is not between 1 and what Numba was started with.
    """
    import numba

    config: Any = numba.config
    most = config.NUMBA_NUM_THREADS
    if not 1 <= count <= most:
        raise ConfigError(
            f"--threads {count} is not possible here; choose 1 to {most} "
            "(NUMBA_NUM_THREADS sets the upper limit)"
        )
    numba.set_num_threads(count)


def threads() -> int:
    """Return how many threads the kernels use."""
    import numba

    return numba.get_num_threads()


def threads_of(kernels: ModuleType) -> int:
    """Return how many threads the kernels of a backend use."""
    return 1 if name_of(kernels) == "numpy" else threads()


@cache
def blas_pools() -> Any:
    """Return the BLAS libraries of this process, as threadpoolctl sees them."""
    from threadpoolctl import ThreadpoolController

    import_module(
        "scipy.linalg.blas"
    )  # the BLAS that compiled kernels call must be loaded to be seen
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """Let BLAS use so many threads for a while, then restore it.

    A library that has this number already is left alone: asking takes much less time than setting.
    """
    before = [(library, library.num_threads) for library in blas_pools().lib_controllers]
    changed = [(library, threads) for library, threads in before if threads != count]
    try:
        for library, _ in changed:
            library.set_num_threads(count)
        yield
    finally:
        for library, threads in changed:
            library.set_num_threads(threads)


_inside = False


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep BLAS to one thread for a while, then restore it.

    The kernels are parallel themselves and call BLAS from each of their threads; a BLAS with
    threads of its own would fight them, and would make results depend on the number of threads.
    """
    global _inside
    if _inside:
        yield
        return
    _inside = True
    try:
        with blas_threads(1):
            yield
    finally:
        _inside = False
