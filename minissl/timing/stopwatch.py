"""Durations under names: medians and quartiles."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minissl.kernels import reference


class Stopwatch:
    """Collects durations under keys, by the clock of a backend (the machine's by default)."""

    def __init__(self, kernels: Any = reference) -> None:
        self.seconds: dict[Hashable, list[float]] = {}
        self.timer = kernels.Timer()

    @contextmanager
    def measure(self, key: Hashable) -> Iterator[None]:
        """Add the duration of a block."""
        self.timer.start()
        yield
        self.seconds.setdefault(key, []).append(self.timer.stop())

    def forget(self) -> None:
        """Drop all durations."""
        self.seconds.clear()

    def median_ms(self, key: Hashable) -> float | None:
        """Return the median in milliseconds; None where nothing was measured."""
        return 1e3 * float(np.median(self.seconds[key])) if key in self.seconds else None

    def quartiles_ms(self, key: Hashable) -> tuple[float, float] | None:
        """Return the first and the third quartile: half of the durations lie between them."""
        if key not in self.seconds:
            return None
        low, high = np.quantile(self.seconds[key], (0.25, 0.75))
        return 1e3 * float(low), 1e3 * float(high)
