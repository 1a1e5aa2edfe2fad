"""How much memory the machine has, so that a network too large for it is refused in time."""

from __future__ import annotations

import os
from pathlib import Path

from minissl.errors import ShapeError


def available_bytes() -> int | None:
    """Memory that could be allocated now; None where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def check(needed: int, what: str, there: int | None = None) -> None:
    """Refuse to go on when ``needed`` bytes are more than there are.

    ``there`` is what a device has available; without it the machine is asked.

    Raises
    ------
    ShapeError
        Naming both sizes.
    """
    there = available_bytes() if there is None else there
    if there is not None and needed > there:
        raise ShapeError(
            f"{what} needs {readable(needed)} of memory and this machine has {readable(there)} "
            "available; make the batch or the layers smaller"
        )


def readable(size: float) -> str:
    """Write a number of bytes for people: ``1.7 MB``."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if abs(size) < 1000 or unit == "PB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
