"""Where the constants of this machine are kept: a JSON file beside the compiled kernels.

The file belongs to one CPU, one set of library versions, and one BLAS kernel and threading layer,
since each of them changes how fast a mode is; inside it, constants are kept by number of threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

from minissl.machine.constants import DEFAULTS, Machine

#: libraries whose version changes how fast kernels are
LIBRARIES = ("minissl", "numba", "llvmlite", "numpy", "scipy")


def folder() -> Path:
    """Return the folder that holds the files of all machines."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "minissl" / "calibration"


def file_of(key: dict[str, str]) -> Path:
    """Return the file of one machine."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder() / f"{digest[:16]}.json"


def machine_key() -> dict[str, str]:
    """Return what the constants depend on: CPU, cores, libraries, and how these are set up."""
    found = {"cpu": cpu_name(), "cores": str(os.cpu_count()), "blas": blas_kernels()}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    for variable in ("MINISSL_ISA", "NUMBA_CPU_NAME", "NUMBA_THREADING_LAYER"):
        if os.environ.get(variable):
            found[variable] = os.environ[variable]
    return found


@cache
def cpu_name() -> str:
    """Return the CPU's own name, or else what the compiler calls it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    with suppress(ImportError):
        from llvmlite import binding

        return str(binding.get_host_cpu_name())
    return platform.machine()


def blas_kernels() -> str:
    """Return which kernels the BLAS has chosen: ``openblas SkylakeX``."""
    from minissl import backend

    pools = backend.blas_pools().info()
    return ", ".join(sorted({f"{p['internal_api']} {p.get('architecture')}" for p in pools}))


def load() -> Machine | None:
    """Return the constants of this machine as it is set up now; None when it was never measured."""
    key = machine_key()
    try:
        machine = Machine.from_json(json.loads(file_of(key).read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return machine if dict(machine.key) == key else None


def save(machine: Machine) -> Path:
    """Keep the constants of a machine.

    Raises
    ------
    OSError
        When the cache folder cannot be written.
    """
    path = file_of(dict(machine.key))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    partial.write_text(json.dumps(machine.to_json(), indent=1) + "\n")
    partial.replace(path)
    current.cache_clear()
    return path


@cache
def current() -> Machine:
    """Return the constants of this machine, or those that stand in for them."""
    return load() or DEFAULTS
