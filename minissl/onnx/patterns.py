"""Several nodes that together stand for one layer.

PyTorch exports ``LocalResponseNorm`` as a dozen nodes: squares, an average over neighbouring
channels, and ``x / (k + alpha * average) ** beta``. They are found from that quotient backward
and become one LRN node; what is left over of them is read by nobody and drops out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from minissl.onnx.graph import Graph, Node

#: nodes between the squares and their averages that only change the shape, or pad
_BETWEEN = ("Reshape", "Unsqueeze", "Squeeze", "Pad", "AveragePool", "If", "Identity")


def recognize(graph: Graph) -> Graph:
    """Return the graph with patterns replaced by single nodes."""
    makers = {name: node for node in graph.nodes for name in node.outputs if name}
    nodes = [_lrn(node, makers, graph) or node for node in graph.nodes]
    return replace(graph, nodes=nodes)


def _lrn(node: Node, makers: dict[str, Node], graph: Graph) -> Node | None:
    """Return ``x / (k + alpha * average) ** beta`` as an LRN node; None if it is another one."""
    if node.op != "Div" or len(node.inputs) != 2:
        return None
    x, divisor = node.inputs
    power = makers.get(divisor)
    beta, total = _number_and_rest(power, "Pow", makers, graph)
    k, scaled = _number_and_rest(total, "Add", makers, graph)
    alpha, average = _number_and_rest(scaled, "Mul", makers, graph)
    if beta is None or k is None or alpha is None or average is None:
        return None
    size = None
    for _ in range(8):
        if average is None or average.op not in _BETWEEN:
            break
        if average.op == "AveragePool":
            kernel = average.attributes.get("kernel_shape", [])
            longer = [length for length in kernel if length != 1]
            if len(longer) != 1 or size is not None:
                return None
            size = longer[0]
        average = makers.get(_inner(average))
    squares = average
    if size is None or squares is None or squares.op != "Mul" or squares.inputs != [x, x]:
        return None
    settings = {"size": size, "alpha": alpha, "beta": beta, "bias": k}
    return Node("LRN", node.name, [x], node.outputs, settings)


def _inner(node: Node) -> str:
    """Return what a node reads; of an If, what its first branch reads of the outer graph."""
    branch = node.attributes.get("then_branch")
    if not isinstance(branch, Graph):
        return node.inputs[0] if node.inputs else ""
    made = {name for inner in branch.nodes for name in inner.outputs}
    outer = [
        name
        for inner in branch.nodes
        for name in inner.inputs
        if name not in made and name not in branch.constants
    ]
    return outer[0] if outer else ""


def _number_and_rest(
    node: Node | None, op: str, makers: dict[str, Node], graph: Graph
) -> tuple[float | None, Node | None]:
    """Return the constant operand of a node and the node that makes the other one."""
    if node is None or node.op != op or len(node.inputs) != 2:
        return None, None
    for i in (1,) if op == "Pow" else (1, 0):
        value = _constant(node.inputs[i], makers, graph)
        if value is not None and value.size == 1:
            return float(value.ravel()[0]), makers.get(node.inputs[1 - i])
    return None, None


def _constant(name: str, makers: dict[str, Node], graph: Graph) -> np.ndarray | None:
    if name in graph.constants:
        return graph.constants[name]
    maker = makers.get(name)
    if maker is None or maker.op != "Constant":
        return None
    value: Any = maker.attributes.get("value", maker.attributes.get("value_float"))
    return None if value is None else np.asarray(value)
