"""minissl: learning structured sparsity in deep neural networks.

The names below are loaded on first use, so that ``import minissl`` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minissl.errors import MinisslError
    from minissl.net import Net
    from minissl.solvers import Solver

__version__ = "0.1.0"

_HOME_OF = {
    "Net": "minissl.net",
    "Solver": "minissl.solvers",
    "MinisslError": "minissl.errors",
}

__all__ = ["MinisslError", "Net", "Solver", "__version__"]


def __getattr__(name: str):
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'minissl' has no attribute {name!r}")
