"""The table of operators as functions of NumPy arrays, which the modules of this folder fill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Attributes = dict[str, Any]
Function = Callable[..., Any]

FUNCTIONS: dict[str, Function] = {}


def operator(*names: str) -> Callable[[Function], Function]:
    """Make a function known under the names of ONNX operators."""

    def add(function: Function) -> Function:
        FUNCTIONS.update(dict.fromkeys(names, function))
        return function

    return add


def as_first(function: Function) -> Function:
    """Return the result in the type of the first input, as ONNX demands of most operators."""

    def typed(a: Attributes, x: Any, *more: Any) -> Any:
        return np.asarray(function(a, x, *more)).astype(x.dtype)

    return typed
