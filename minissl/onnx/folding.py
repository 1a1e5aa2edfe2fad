"""What a graph computes from constants alone is computed once, within a budget of memory.

Exports are full of it: the shape of an input, its first length, a list made of both, all to
reshape a value. A result's size is known before it is computed, so that no file can ask for more
than the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minissl.errors import ConfigError
from minissl.onnx.arrays import call
from minissl.onnx.graph import Node

Size = Callable[[Node, list[Any]], int]


def _no_larger(node: Node, inputs: list[Any]) -> int:
    return sum(x.size for x in inputs if x is not None)


def _broadcast(node: Node, inputs: list[Any]) -> int:
    return math.prod(np.broadcast_shapes(*(x.shape for x in inputs)))


def _filled(node: Node, inputs: list[Any]) -> int:
    return math.prod(int(length) for length in inputs[0])


def _expanded(node: Node, inputs: list[Any]) -> int:
    return max(1, inputs[0].size) * math.prod(int(length) for length in inputs[1])


def _gathered(node: Node, inputs: list[Any]) -> int:
    x, indices = inputs
    return indices.size * (x.size // max(1, x.shape[node.attributes.get("axis", 0)]))


def _counted(node: Node, inputs: list[Any]) -> int:
    start, limit, step = (x.item() for x in inputs)
    return max(0, math.ceil((limit - start) / step))


def _rank(node: Node, inputs: list[Any]) -> int:
    return inputs[0].ndim


def _given(node: Node, inputs: list[Any]) -> int:
    return sum(x.size for x in node.attributes.values() if isinstance(x, np.ndarray))


#: operators that are folded -> the number of elements of the result, at most
SIZES: dict[str, Size] = {
    **dict.fromkeys(
        (
            *("Abs", "Cast", "Ceil", "Concat", "Flatten", "Floor", "Identity", "Neg", "Not"),
            *("Reciprocal", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape"),
            *("Slice", "Split", "Sqrt", "Squeeze", "Transpose", "Unsqueeze"),
        ),
        _no_larger,
    ),
    **dict.fromkeys(
        (
            *("Add", "And", "Div", "Equal", "Greater", "Less", "Max", "Min", "Mod", "Mul", "Or"),
            *("Pow", "Sub", "Where"),
        ),
        _broadcast,
    ),
    "Constant": _given,
    "ConstantOfShape": _filled,
    "Expand": _expanded,
    "Gather": _gathered,
    "Range": _counted,
    "Shape": _rank,
    "Size": _rank,
}


def _widest(node: Node, inputs: list[Any]) -> int:
    """Return the bytes of an element of the result, at most."""
    if node.op == "ConstantOfShape":
        value = node.attributes.get("value")
        return 4 if value is None else value.dtype.itemsize
    widest = max((x.dtype.itemsize for x in inputs if x is not None), default=8)
    return max(8, widest) if node.op in ("Cast", "Shape", "Size") else widest


class Folder:
    """Computes constants until the budget is spent.

    Parameters
    ----------
    opset : int
    budget : int
        Bytes that all results together may take.
    """

    def __init__(self, opset: int, budget: int):
        self.opset = opset
        self.budget = budget

    def fold(self, node: Node, inputs: list[Any]) -> list[np.ndarray]:
        """Return the outputs of a node whose inputs are all known.

        Raises
        ------
        ConfigError
            If the budget does not suffice or the inputs do not fit.
        """
        try:
            size = SIZES[node.op](node, inputs)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as reason:
            raise ConfigError(f"{node} does not fit its inputs: {str(reason)[:160]}.") from None
        self.budget -= size * _widest(node, inputs)
        if self.budget < 0:
            raise ConfigError(
                f"{node} would compute a constant of {size:,} elements, more than minissl allows; "
                "store it as an initializer."
            )
        return call(node.op, node.attributes, self.opset, len(node.outputs), inputs)
