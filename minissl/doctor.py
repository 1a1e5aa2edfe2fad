"""Is this machine fit for minissl: libraries, backends, threads, vector units, data sets, caches.

Every check is a function that returns one or more :class:`Check` and never raises. A check is
``needed`` when minissl cannot work without it; the others are advice.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from minissl import backend as backends
from minissl import memory
from minissl.conv_modes.projection import alpha
from minissl.errors import MinisslError
from minissl.machine import penalties, probes, store

#: Oldest Python that is supported.
OLDEST_PYTHON = (3, 10)
#: Library -> whether minissl cannot work without it.
LIBRARIES = {
    "numpy": True,
    "scipy": True,
    "numba": True,
    "click": True,
    "rich": True,
    "protobuf": True,
    "safetensors": True,
    "threadpoolctl": True,
    "pooch": False,
    "matplotlib": False,
}
#: Entering a parallel region takes about 1 us with OpenMP; above this something is in the way.
SLOW_REGION_US = 30.0
#: Parallel loops in the forward pass of a network of ten layers, about.
LOOPS_OF_A_NET = 20
#: Environment variables that keep OpenBLAS from choosing its fastest kernels.
BLAS_OVERRIDES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


@dataclass(frozen=True)
class Check:
    """One finding about the machine, with a detail that says what to do where it is not ok."""

    name: str
    ok: bool
    detail: str
    needed: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the finding as it is reported."""
        return dict(vars(self))


def examine() -> list[Check]:
    """Run all checks."""
    checks: list[Check] = []
    for check in (
        _python,
        _libraries,
        _backends,
        _agreement,
        _threads,
        _threading_layer,
        _vector_width,
        _blas,
        _blas_threads,
        _calibration,
        _memory,
        _kernel_cache,
        _data_sets,
    ):
        checks += _guarded(check)
    return checks


def is_fit(checks: list[Check]) -> bool:
    """Whether everything that is needed is ok."""
    return all(check.ok for check in checks if check.needed)


def machine_in_words() -> str:
    """Describe the machine without naming it: ``2 cores, znver5, 24.0 GB, Linux 6.1``."""
    parts = [f"{os.cpu_count()} cores"]
    try:
        from llvmlite import binding

        parts.append(binding.get_host_cpu_name())
    except ImportError:
        parts.append(platform.machine())
    with suppress(AttributeError, ValueError, OSError):
        parts.append(memory.readable(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    release = ".".join(platform.release().split(".")[:2])
    return ", ".join([*parts, f"{platform.system()} {release}"])


def versions() -> dict[str, str]:
    """Return the versions of Python, minissl and every library it stands on."""
    from minissl import __version__

    found = {"python": platform.python_version(), "minissl": __version__}
    for name in LIBRARIES:
        version = _version(name)
        if version:
            found[name] = version
    return found


def blas_overrides() -> list[str]:
    """Return the settings, as NAME=VALUE, that keep OpenBLAS from choosing its fastest kernels."""
    return [f"{name}={os.environ[name]}" for name in BLAS_OVERRIDES if os.environ.get(name)]


def kernels_are_compiled() -> bool:
    """Whether a first use of the Numba kernels finds its compiled code on disk."""
    from numba import config

    if config.DISABLE_JIT:  # type: ignore[attr-defined]
        return True
    from minissl.kernels.cpu import convolution

    folder = Path(convolution._forward.stats.cache_path)
    return any(folder.glob("convolution._forward-*.nbi"))


# --- the checks ---


def _guarded(check: Callable[[], Iterator[Check]]) -> list[Check]:
    """Run a check; an exception in it becomes its finding."""
    try:
        return list(check())
    except Exception as error:
        name = check.__name__.strip("_").replace("_", " ")
        return [Check(name, False, f"{type(error).__name__}: {error}")]


def _python() -> Iterator[Check]:
    version = platform.python_version()
    if sys.version_info >= OLDEST_PYTHON:
        yield Check("python", True, f"{version} ({platform.python_implementation()})")
    else:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        yield Check("python", False, f"{version} is too old; install Python {oldest} or newer")


def _libraries() -> Iterator[Check]:
    for name, needed in LIBRARIES.items():
        version = _version(name)
        detail = version or f"missing; pip install {name}"
        yield Check(name, version is not None, detail, needed)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _backends() -> Iterator[Check]:
    for name in ("numpy", "numba", "cupy"):
        needed = name != "cupy"
        try:
            backends.get(name)
            yield Check(f"backend {name}", True, "available", needed)
        except MinisslError as error:
            yield Check(f"backend {name}", False, str(error), needed)


def _agreement() -> Iterator[Check]:
    """Convolve a few random numbers by the definition and by the compiled kernels."""
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(2, 4, 7, 6)), rng.normal(size=(6, 2, 3, 3)), rng.normal(size=6)
    results = []
    for name in ("numpy", "numba"):
        y = np.empty((2, 6, 7, 6))
        with backends.single_threaded_blas():
            backends.get(name).conv_forward(x, w, b, (1, 1), (1, 1), (1, 1), 2, y)
        results.append(y)
    difference = float(np.abs(results[0] - results[1]).max())
    ok = difference < 1e-12
    advice = "" if ok else "; clear Numba's cache and report it if it stays"
    yield Check("numba equals numpy", ok, f"largest difference {difference:.1e}{advice}")


def _threads() -> Iterator[Check]:
    cores, threads = os.cpu_count() or 1, backends.threads()
    usable = _usable_cores()
    detail = f"{threads} of {cores} cores"
    if threads > usable:
        detail += f", but this process may use {usable}; set NUMBA_NUM_THREADS={usable}"
        before = probes.region_us()
        backends.set_threads(usable)
        try:
            detail += f" (a parallel loop takes {before:.0f} us to enter, {probes.region_us():.0f} "
        finally:
            backends.set_threads(threads)
        detail += f"with {usable})"
    yield Check("threads", threads <= usable, detail, needed=False)


def _usable_cores() -> int:
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def _blas_threads() -> Iterator[Check]:
    """Whether BLAS has threads of its own beside the kernels', and what that would cost."""
    pools = backends.blas_pools().info()
    most = max((pool["num_threads"] for pool in pools), default=1)
    detail = f"{most}, held to 1 while minissl computes"
    if most * backends.threads() <= _usable_cores():
        yield Check("blas threads", True, detail, needed=False)
        return
    detail += (
        f"; a convolution that does not takes {penalties.threads_in_threads():.1f} times as long "
        "(calls of your own: minissl.backend.single_threaded_blas)"
    )
    yield Check("blas threads", True, detail, needed=False)


def _threading_layer() -> Iterator[Check]:
    import numba

    cost = probes.region_us()
    layer = ""
    with suppress(ValueError):  # no parallel loop was compiled: NUMBA_DISABLE_JIT is set
        layer = numba.threading_layer()
    ok = cost < SLOW_REGION_US
    detail = f"{layer or 'none'}, {cost:.1f} us to enter a parallel loop"
    if not ok:
        lost = cost * LOOPS_OF_A_NET / 1000
        detail += f", about 1 with OpenMP: {lost:.1f} ms lost in a network of 10 layers"
    if layer == "workqueue":
        detail += "; install OpenMP (libgomp) or 'pip install tbb' for less"
    elif not ok:
        detail += "; other programs keep the cores busy, or there are more threads than cores"
    yield Check("threading layer", ok, detail, needed=False)


def _vector_width() -> Iterator[Check]:
    from llvmlite import binding

    from minissl.kernels.cpu.micro import isa

    has, used = penalties.vector_bits()
    detail = f"{has} bit ({binding.get_host_cpu_name()})"
    if used < has:
        detail += (
            f", but NUMBA_CPU_NAME or NUMBA_CPU_FEATURES limits compiled kernels to {used}; "
            f"unset them: vector loops take up to {has / used:.0f} times as long"
        )
    vectors = isa.chosen()
    widest = 32 * vectors.lanes if vectors else 0
    if widest < used:
        how = f"{widest} bit" if widest else "no vectors of their own"
        detail += f"; {isa.VARIABLE} leaves direct convolutions {how}"
        detail += f", up to {used // widest} times as slow" if widest else ": they are not used"
    yield Check("vector unit", used >= has and widest >= used, detail, needed=False)


def _blas() -> Iterator[Check]:
    described = ", ".join(
        f"{pool['internal_api']} {pool.get('version') or ''} {pool.get('architecture') or ''}"
        for pool in backends.blas_pools().info()
    )
    forced = blas_overrides()
    detail = described or "unknown library"
    if forced:
        detail += f"; forced by {', '.join(forced)}, unset it to let BLAS choose"
        rates = penalties.forced_blas(BLAS_OVERRIDES)
        if rates:
            detail += (
                f": GEMM reaches {rates.here:.0f} GFLOP/s with it and {rates.free:.0f} without"
            )
    yield Check("blas", not forced, detail, needed=False)


def _calibration() -> Iterator[Check]:
    """Whether the performance model knows this machine, and the figures that it stands on."""
    machine = store.load()
    if machine is None:
        yield Check(
            "calibration",
            False,
            "never done for this CPU and these libraries, so conv_mode AUTO works with built-in "
            "constants; run 'minissl doctor --calibrate' (three minutes)",
            needed=False,
        )
        return
    for threads, rates in machine.rates.items():
        factors = {
            mode: alpha(machine, threads, mode) for mode in ("LOWERED_CSRMM", "DIRECT_SCONV")
        }
        known = ", ".join(
            f"{mode} {'unknown' if one is None else f'{one:.1f}'}" for mode, one in factors.items()
        )
        yield Check(
            f"calibration {threads}t",
            True,
            f"{machine.date[:10]}: GEMM {rates['gemm_gflops']:.0f} GFLOP/s, reading L2 "
            f"{rates['l2_gbs']:.0f}, L3 {rates['l3_gbs']:.0f}, memory {rates['memory_gbs']:.0f} "
            f"GB/s, a parallel loop {rates['region_us']:.1f} us; a multiply-add costs, against "
            f"GEMM's: {known}; the model errs "
            f"by {100 * machine.error[threads]:.0f} % (median)",
            needed=False,
        )


def _memory() -> Iterator[Check]:
    there = memory.available_bytes()
    detail = "unknown" if there is None else f"{memory.readable(there)} available"
    yield Check("memory", there is None or there > 2**30, detail, needed=False)


def _kernel_cache() -> Iterator[Check]:
    from minissl.kernels.cpu import convolution

    if not hasattr(convolution._forward, "stats"):
        yield Check("kernel cache", True, "not used: NUMBA_DISABLE_JIT is set", needed=False)
        return
    folder = Path(convolution._forward.stats.cache_path)
    writable, detail = _is_writable(folder), str(folder)
    if not writable:
        detail += " cannot be written: every start compiles again; set NUMBA_CACHE_DIR"
    yield Check("kernel cache", writable, detail, needed=False)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _data_sets() -> Iterator[Check]:
    from minissl.data.catalogue import CATALOGUE, data_folder

    folder = data_folder()
    for name in CATALOGUE:
        missing = missing_files(name)
        if not missing:
            yield Check(f"data {name}", True, "there", needed=name == "mnist-small")
        else:
            detail = f"not in {folder}; run 'minissl data fetch {name}' if you want it"
            yield Check(f"data {name}", False, detail, needed=name == "mnist-small")


def missing_files(name: str) -> list[Path]:
    """Return the files of a data set that are not there (their contents are not looked at)."""
    from minissl.data.catalogue import IDX_FILES, data_folder, find
    from minissl.data.datasets import SMALL_FOLDER

    entry = find(name)
    if name == "mnist-small":
        paths = [SMALL_FOLDER / file for pair in IDX_FILES.values() for file in pair]
    else:
        paths = [data_folder() / file.path for archive in entry.archives for file in archive.files]
    return [
        path
        for path in paths
        if not path.is_file() and not path.with_name(f"{path.name}.gz").is_file()
    ]
