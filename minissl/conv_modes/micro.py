"""How the direct modes find the register-blocked kernels of a backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.conv_modes.shape import ConvShape


def micro_kernel(kernels: Any, name: str, *arguments: Any) -> Any:
    """Ask the register-blocked kernels of a backend; None where it has none for this.

    Parameters
    ----------
    name : str
        Function of :mod:`minissl.kernels.cpu.micro`.
    """
    micro = getattr(kernels, "micro", None)
    return None if micro is None else getattr(micro, name)(*arguments)


def every_weight(shape: ConvShape, w: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return dense weights as compressed rows, zeros kept: values, columns, row_start."""
    K = shape.columns
    columns = np.tile(np.arange(K, dtype=np.int32), shape.filters)
    return to_host(w).reshape(-1), columns, np.arange(shape.filters + 1) * K
