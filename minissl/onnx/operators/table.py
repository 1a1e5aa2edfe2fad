"""The table of operators as layers, which the modules of this folder fill."""

from __future__ import annotations

from collections.abc import Callable

from minissl.onnx.graph import Node
from minissl.onnx.translation import Translation

Operator = Callable[[Translation, Node], None]

OPERATORS: dict[str, Operator] = {}

#: elements of a kernel that zeros are added to, and windows of a pooling that are counted
MAX_PADDED = 2**24


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Make a function known under the names of ONNX operators."""

    def add(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return add
