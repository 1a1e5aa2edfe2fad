"""What this machine says of its caches."""

from __future__ import annotations

from functools import cache
from pathlib import Path

#: Where Linux tells of the caches of the first core.
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
#: Bytes that are common for the second level of a core.
COMMON = 1024 * 1024
UNITS = {"K": 1024, "M": 1024 * 1024}


@cache
def second_level_bytes(caches: Path = CACHES) -> int:
    """Return the bytes of a core's second-level cache, or what is common where nothing tells."""
    for index in sorted(caches.glob("index*")):
        try:
            level = (index / "level").read_text().strip()
            size = (index / "size").read_text().strip()
            if level == "2":
                return int(size[:-1]) * UNITS[size[-1]]
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return COMMON
