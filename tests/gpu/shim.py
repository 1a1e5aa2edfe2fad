"""Compile a CUDA source for the CPU and run its kernels there; see shim.h.

With MINISSL_SANITIZE=1 the compiler's sanitizers watch every access and every overflow; Python must
then be started with LD_PRELOAD set to libasan.so and libubsan.so, PYTHONMALLOC=malloc and
ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0.
"""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

SHIM = Path(__file__).with_name("shim.h")
OPTIONS = ["-std=c++14", "-O1", "-w", "-shared", "-fPIC"]
if os.environ.get("MINISSL_SANITIZE", "0") not in ("", "0"):
    OPTIONS += ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]

#: whether blocks and threads run in the opposite order
backwards = False

COMPILER = shutil.which("g++") or shutil.which("clang++")

#: kernels that are told how far rows lie apart
STRIDED = {"csr_dots"}

_KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')


def launchers(source):
    """C++ functions that run each kernel of a source: launch_NAME(grid, block, arguments)."""
    text = ""
    for name, parameters in _KERNEL.findall(source):
        given = ", ".join(re.findall(r"(\w+)\s*(?:,|$)", parameters))
        together = "true" if "__syncthreads" in source else "false"
        text += (
            f'extern "C" void launch_{name}(int grid, int block, {parameters})\n'
            f"{{ launch(grid, block, {together}, [&] {{ {name}({given}); }}); }}\n"
        )
    return text


@cache
def library(source):
    """The shared library of a source, compiled once and kept in the temporary folder."""
    text = f'#include "{SHIM}"\n{source}\n{launchers(source)}'
    identity = text + SHIM.read_text() + " ".join(OPTIONS)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / "minissl-shim"
    folder.mkdir(exist_ok=True)
    path = folder / f"{digest}.so"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            cpp, made = Path(scratch, "kernels.cpp"), Path(scratch, "kernels.so")
            cpp.write_text(text)
            command = [COMPILER, *OPTIONS, "-o", made, cpp]
            subprocess.run(command, check=True, capture_output=True, text=True)
            made.replace(path)
    return ctypes.CDLL(str(path))


_C_TYPES = {"int32": ctypes.c_int, "float64": ctypes.c_double, "uint64": ctypes.c_void_p}


def run(source, name, grid, block, arguments):
    """Run a kernel; arguments are NumPy arrays and scalars of the very type it takes."""
    converted = []
    for value in arguments:
        if isinstance(value, np.ndarray):
            gapless = value.flags.c_contiguous or name in STRIDED
            assert gapless, f"{name} was given an array with gaps"
            converted.append(ctypes.c_void_p(value.ctypes.data))
        else:
            converted.append(_C_TYPES[value.dtype.name](value.item()))
    library(source).set_backwards(int(backwards))
    function = getattr(library(source), f"launch_{name}")
    function.restype = None
    function(ctypes.c_int(grid), ctypes.c_int(block), *converted)
