"""Which vectors the micro kernels use: what the CPU has, or what MINISSL_ISA asks for.

======== ====================== =================================================
name     floats in a vector     needs
======== ====================== =================================================
avx512   16, or 8 on short rows AVX-512F: 32 registers
avx2     8                      AVX2 and FMA: 16 registers
generic  none                   nothing: plain Numba kernels, micro kernels are off
======== ====================== =================================================

The environment variable MINISSL_ISA forces one of them, for tests and for comparisons; it is read
whenever weights are packed. Wider is not always faster, so avx2 may be asked for on any CPU that
has AVX-512.
"""

from __future__ import annotations

import os
from functools import cache
from typing import NamedTuple

from minissl.errors import ConfigError
from minissl.kernels.cpu.jit import config

VARIABLE = "MINISSL_ISA"
#: Fused multiply-adds that must be under way at once: latency times units, on common CPUs.
CHAINS = 8


class Isa(NamedTuple):
    """A set of vector instructions.

    Attributes
    ----------
    name : str
    lanes : int
        float32 numbers in its longest vector.
    registers : int
        How many such vectors it can hold.
    """

    name: str
    lanes: int
    registers: int


AVX512 = Isa("avx512", 16, 32)
AVX2 = Isa("avx2", 8, 16)
NEEDS = {AVX512: ("avx512f", "avx512vl", "fma"), AVX2: ("avx2", "fma")}
NAMES = ("generic", "avx2", "avx512")


def chosen() -> Isa | None:
    """Return the vectors to use, None for plain Numba.

    Raises
    ------
    ConfigError
        When MINISSL_ISA is not a known name, or names vectors that this CPU lacks.
    """
    asked = os.environ.get(VARIABLE, "").lower()
    if asked and asked not in NAMES:
        raise ConfigError(
            f"{VARIABLE}={asked} is unknown; choose one of {', '.join(NAMES)}, or unset it"
        )
    usable = available()
    if asked == "generic" or config.DISABLE_JIT:
        return None
    if not asked:
        return usable[0] if usable else None
    for isa in usable:
        if isa.name == asked:
            return isa
    names = ", ".join(["generic", *(isa.name for isa in usable)])
    raise ConfigError(f"{VARIABLE}={asked} is not possible here, this CPU has {names}; unset it")


@cache
def available() -> tuple[Isa, ...]:
    """Return what the code that Numba compiles may use, the widest first."""
    from numba.core.registry import cpu_target

    # (triple, name of the CPU, "+avx2,-avx512f,..."); follows NUMBA_CPU_FEATURES
    features = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return tuple(
        isa for isa, needed in NEEDS.items() if all(f"+{name}" in features for name in needed)
    )
