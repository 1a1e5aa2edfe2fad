"""Networks and solvers that come with minissl, as prototxt files."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent


def path(name: str) -> Path:
    """Return the path of a packaged prototxt, such as ``lenet_solver.prototxt``."""
    return FOLDER / name
