"""Signals while training: stop after this iteration and save, or save and go on.

============  ===================================================================
SIGINT        finish the iteration, save, stop (Ctrl-C); the exit code is 130
SIGTERM       the same, as cluster schedulers send it; the exit code is 143
SIGHUP        save after this iteration and go on (not on Windows)
============  ===================================================================

A second SIGINT or SIGTERM leaves at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Stoppable(Protocol):
    """A solver, or anything else that looks at these after each step."""

    stop_requested: bool
    snapshot_requested: bool


class Caught:
    """Which signal asked the run to stop; ``signal`` is None where none did."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def exit_code(self) -> int | None:
        """130 after SIGINT, 143 after SIGTERM (128 + its number, as shells count), else None."""
        return None if self.signal is None else 128 + self.signal


@contextmanager
def catching(solver: Stoppable) -> Iterator[Caught]:
    """Let signals stop or save a run while the block runs; the old handlers come back after it.

    Python delivers signals to the main thread only: in any other this does nothing.

    Raises
    ------
    KeyboardInterrupt
        On the second SIGINT or SIGTERM.

    Examples
    --------
    >>> with catching(solver) as caught:  # doctest: +SKIP
    ...     solver.solve()
    >>> caught.exit_code  # doctest: +SKIP
    """
    caught = Caught()

    def stop(number: int, frame: Any) -> None:
        again = caught.signal is not None
        caught.signal = number
        solver.stop_requested = True
        if again:
            raise KeyboardInterrupt

    def save(number: int, frame: Any) -> None:
        solver.snapshot_requested = True

    handlers = {signal.SIGINT: stop, signal.SIGTERM: stop}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = save
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            # None is a handler that Python did not install and cannot put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
