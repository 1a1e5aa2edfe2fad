"""What a backend says of itself: its arrays, whether results are there at once, its clock."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

#: the array module of this backend
xp = np

#: whether results are there when a function returns; a device computes them later
WAITS = True


class Timer:
    """Measure the time between two points; a device does so by its own clock."""

    def start(self) -> None:
        """Mark the beginning."""
        self.begin = time.perf_counter()

    def stop(self) -> float:
        """Return the seconds since then."""
        return time.perf_counter() - self.begin


def at_once(check: Any) -> None:
    """Run a check that reads results, unless that would mean to wait for them.

    A backend that does not wait leaves it to :meth:`minissl.net.Net.check`.
    """
    check()
