"""Choose, once and by name, who computes: ``numpy``, ``numba``, ``cupy`` or ``auto``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from minissl.errors import ConfigError, DependencyError

NAMES = ("auto", "numpy", "numba", "cupy")

_MODULES = {
    "numpy": "minissl.kernels.reference",
    "numba": "minissl.kernels.cpu",
    "cupy": "minissl.kernels.gpu",
}

#: what brings CuPy, and with it the libraries of CUDA
_INSTALL_CUPY = "pip install 'minissl[gpu]'"


def get(name: str = "auto") -> ModuleType:
    """Return the kernels of a backend.

    Parameters
    ----------
    name : {"auto", "numpy", "numba", "cupy"}
        ``numpy`` is the plain definition, ``numba`` the fast parallel twin, ``cupy`` runs on a GPU;
        ``auto`` is ``numba``. The environment variable MINISSL_BACKEND replaces ``auto``.

    Raises
    ------
    ConfigError
        For an unknown name.
    DependencyError
        When the library the backend stands on is not installed, or there is no GPU.
    """
    if name == "auto":
        name = os.environ.get("MINISSL_BACKEND", "numba")
    if name not in _MODULES:
        raise ConfigError(f"unknown backend '{name}'; choose one of {', '.join(NAMES)}")
    if name == "cupy":
        _check_gpu()
    try:
        kernels = import_module(_MODULES[name])
        if name == "cupy":
            kernels.use_tf32(_tf32)
        return kernels
    except ImportError as error:
        raise DependencyError(
            f"backend '{name}' needs a library that is missing ({error}); pip install numba"
        ) from error


_tf32 = os.environ.get("MINISSL_TF32", "0") not in ("", "0")


def allow_tf32(enabled: bool) -> None:
    """Let the ``cupy`` backend round the factors of float32 products to TF32, or forbid it again.

    Tensor cores then multiply several times faster, and a product is right to about 1e-3 of the
    sum of its terms' magnitudes instead of 1e-6. Off unless asked for, here, by ``--tf32`` or by
    MINISSL_TF32=1; float64 is never rounded. It acts on backends that are chosen afterwards.
    """
    global _tf32
    _tf32 = enabled


@cache
def _check_gpu() -> None:
    """See that CuPy, its libraries and a GPU are there."""
    try:
        import cupy
        from cupy_backends.cuda.libs import cublas, cusparse  # noqa: F401
    except ImportError as error:
        what = str(error).splitlines()[0]
        raise DependencyError(
            f"backend 'cupy' needs CuPy and the libraries of CUDA ({what}); {_INSTALL_CUPY}, or "
            "use --backend numba"
        ) from error
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DependencyError(
            f"backend 'cupy' needs an NVIDIA GPU and its driver ({error}); use --backend numba"
        ) from error
    if not devices:
        raise DependencyError("backend 'cupy' finds no NVIDIA GPU; use --backend numba")


def has_gpu() -> bool:
    """Whether the ``cupy`` backend can be used here."""
    try:
        _check_gpu()
    except DependencyError:
        return False
    return True


def name_of(kernels: ModuleType) -> str:
    """Return the name of a backend module."""
    return next(name for name, module in _MODULES.items() if module == kernels.__name__)


def device_bytes(kernels: ModuleType) -> int | None:
    """Return the memory a device has left; None for backends that use the machine's own."""
    return kernels.device_bytes() if hasattr(kernels, "device_bytes") else None


def in_words(kernels: ModuleType) -> str:
    """Say who computes: ``numba, 2 threads``, or ``cupy on NVIDIA A100``."""
    name = name_of(kernels)
    if hasattr(kernels, "device_name"):
        return f"{name} on {kernels.device_name()}"
    count = threads_of(kernels)
    return f"{name}, {count} thread" + ("s" if count > 1 else "")


# --- between the host and where a backend keeps its arrays ---


def to_host(array: Any) -> np.ndarray:
    """Return an array as NumPy's: itself, or a copy of what is on a device."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


@contextmanager
def writing(target: Any) -> Iterator[np.ndarray]:
    """Yield a NumPy array to be filled with the new values of ``target``.

    It is ``target`` itself, or memory that is copied to the device afterwards.
    """
    if isinstance(target, np.ndarray):
        yield target
        return
    with import_module(_MODULES["cupy"]).writing(target) as memory:
        yield memory


def assign(target: Any, values: Any) -> None:
    """Set ``target[...] = values``, wherever each of them is."""
    if isinstance(values, np.ndarray) and not isinstance(target, np.ndarray):
        with writing(target) as memory:
            memory[...] = values
    else:
        target[...] = values


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
    """Let BLAS use so many threads for a while, then restore it."""
    changed = _limit_blas(count)
    try:
        yield
    finally:
        _restore_blas(changed)


def single_threaded_blas() -> _SingleThreadedBlas:
    """Keep BLAS to one thread inside a ``with``, then restore it.

    The kernels are parallel themselves and call BLAS from each of their threads; a BLAS with
    threads of its own would fight them, and would make results depend on the number of threads.
    """
    return _BLAS


class _SingleThreadedBlas:
    """One for the process: whoever comes first limits BLAS, and restores it when leaving.

    Each forward pass of a network enters it, so that a generator would be felt.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.changed: list[tuple[Any, int]] = []

    def __enter__(self) -> None:
        if self.depth == 0:
            self.changed = _limit_blas(1)  # may fail: then nobody has entered
        self.depth += 1

    def __exit__(self, *error: object) -> None:
        self.depth -= 1
        if self.depth == 0:
            _restore_blas(self.changed)


_BLAS = _SingleThreadedBlas()


def _limit_blas(count: int) -> list[tuple[Any, int]]:
    """Let BLAS use so many threads; return the libraries that had another number, and which.

    A library that has this number already is left alone: asking takes much less time than setting.
    """
    libraries = blas_pools().lib_controllers
    changed = [(one, now) for one in libraries if (now := one.num_threads) != count]
    for library, _ in changed:
        library.set_num_threads(count)
    return changed


def _restore_blas(changed: list[tuple[Any, int]]) -> None:
    for library, threads in changed:
        library.set_num_threads(threads)
