"""ONNX operators as functions of NumPy arrays.

Constants are folded with them, and the backend runs what no layer of minissl computes. A function
gets the node's attributes as a dict (with the version of the operators under ``"opset"``), then the
inputs, None for one that is left out; it returns an array, or a tuple of them. Results have the
type that ONNX demands.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.errors import ConfigError
from minissl.onnx.arrays import (  # noqa: F401  # they fill the table
    classification,
    elementwise,
    reductions,
    shapes,
    windows,
)
from minissl.onnx.arrays.table import FUNCTIONS, Attributes

__all__ = ["FUNCTIONS", "call"]


def call(
    op: str, attributes: Attributes, opset: int, outputs: int, inputs: list[Any]
) -> list[np.ndarray]:
    """Run one operator; return its outputs.

    Raises
    ------
    ConfigError
        If the operator is not in the table, or the inputs do not fit it.
    """
    function = FUNCTIONS.get(op)
    if function is None:
        raise ConfigError(f"the operator {op} is not one that minissl computes.")
    try:
        with np.errstate(all="ignore"):
            result = function({**attributes, "opset": opset, "outputs": outputs}, *inputs)
    except (
        *(ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError),
        *(MemoryError, np.exceptions.AxisError),
    ) as reason:
        raise ConfigError(f"{op} does not fit its inputs: {str(reason)[:160]}.") from None
    results = result if isinstance(result, tuple) else (result,)
    return [np.asarray(array) for array in results[:outputs]]
