"""A model as a list of nodes: attributes as plain values, constants as arrays, order checked."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minissl.errors import ConfigError, WeightsError
from minissl.onnx import files, library

#: the domains whose operators are ONNX's own
OWN_DOMAINS = ("", "ai.onnx")


@dataclass
class Node:
    """One operator.

    Attributes
    ----------
    op : str
        ``Conv``; with the domain in front, ``ai.onnx.ml:Scaler``, where it is not ONNX's own.
    name : str
    inputs, outputs : list of str
        ``""`` where an optional one is left out.
    attributes : dict
        Numbers, strings, lists, arrays, and :class:`Graph` for the branches of an If.
    """

    op: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        label = self.name or next(filter(None, self.outputs), "")
        return f"node '{label}' ({self.op})"


@dataclass
class Graph:
    """A network of operators.

    Attributes
    ----------
    name : str
    nodes : list of Node
        In an order in which each reads what earlier ones made.
    inputs : dict
        Name -> (type, shape); the shape has None for lengths that the model leaves open, and is
        None where nothing is known. Initializers are no inputs here.
    outputs : list of str
    constants : dict
        Name -> array of each initializer.
    opset : int
        Version of ONNX's own operators.
    """

    name: str
    nodes: list[Node]
    inputs: dict[str, tuple[Any, tuple[int | None, ...] | None]]
    outputs: list[str]
    constants: dict[str, np.ndarray]
    opset: int


def graph_of(model: Any, folder: Path | None = None) -> Graph:
    """Return the graph of a ``ModelProto``.

    Parameters
    ----------
    model : ModelProto
    folder : Path, optional
        Where tensors in other files are looked for.

    Raises
    ------
    ConfigError
        If the model has local functions, or a node reads what no earlier node makes.
    WeightsError
        If a tensor is damaged.
    """
    if model.functions:
        raise ConfigError(
            "the model has functions of its own; write it once more with "
            "onnx.inliner.inline_local_functions."
        )
    if not model.graph.output:
        raise ConfigError("the graph of the model has no outputs; there is nothing to compute.")
    versions = [entry.version for entry in model.opset_import if entry.domain in OWN_DOMAINS]
    try:
        return _Reader(folder).graph(model.graph, versions[0] if versions else 1, frozenset())
    except UnicodeDecodeError:  # as _text, in other implementations of protobuf
        raise WeightsError("a name in the model is not UTF-8 text; the file is damaged.") from None


def _text(value: Any) -> str:
    """Return a name; protobuf hands one over as bytes if it is not UTF-8."""
    if not isinstance(value, str):
        raise WeightsError("a name in the model is not UTF-8 text; the file is damaged.")
    return value


def _texts(values: Any) -> list[str]:
    return [_text(value) for value in values]


class _Reader:
    """Turns messages into plain values; one budget for all that the file merely describes."""

    def __init__(self, folder: Path | None):
        self.onnx = library.load()
        self.folder = folder
        self.budget = files.MAX_DESCRIBED_BYTES

    def graph(self, message: Any, opset: int, outer: Set[str]) -> Graph:
        constants: dict[str, np.ndarray] = {}
        for tensor in message.initializer:
            where = f"initializer '{tensor.name}'"
            constants[_text(tensor.name)] = files.array_of(tensor, self.folder, where)
        for sparse in message.sparse_initializer:
            where = f"sparse initializer '{sparse.values.name}'"
            constants[_text(sparse.values.name)] = self._dense(sparse, where)
        inputs = {
            _text(value.name): self._type(value)
            for value in message.input
            if value.name not in constants
        }
        known = {*outer, *constants, *inputs}
        nodes: list[Node] = []
        for message_of_node in message.node:
            node = self._node(message_of_node, opset, known)
            unknown = [name for name in node.inputs if name and name not in known]
            if unknown:
                raise ConfigError(
                    f"{node} reads '{unknown[0]}', which no earlier node makes; the nodes of a "
                    "model must stand in order, without cycles."
                )
            twice = [name for name in node.outputs if name in known and name not in outer]
            if twice:
                raise ConfigError(f"{node} makes '{twice[0]}', which is there already.")
            known.update(filter(None, node.outputs))
            nodes.append(node)
        outputs = _texts(value.name for value in message.output)
        for name in outputs:
            if name not in known:
                raise ConfigError(f"no node makes the output '{name}' of graph '{message.name}'.")
        return Graph(_text(message.name), nodes, inputs, outputs, constants, opset)

    def _dense(self, sparse: Any, where: str) -> np.ndarray:
        dense = files.dense_of(sparse, self.folder, where, self.budget)
        self.budget -= dense.nbytes
        return dense

    def _type(self, value: Any) -> tuple[Any, tuple[int | None, ...] | None]:
        """Return the type and shape that a ``ValueInfoProto`` declares."""
        if not value.type.HasField("tensor_type"):
            return None, None
        tensor = value.type.tensor_type
        try:
            dtype = np.dtype(self.onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        except (KeyError, TypeError, ValueError):
            dtype = None
        if not tensor.HasField("shape"):
            return dtype, None
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim
        )
        if min((length for length in shape if length is not None), default=0) < 0:
            raise ConfigError(f"input '{value.name}' has the shape {shape}; the file is damaged.")
        return dtype, shape

    def _node(self, message: Any, opset: int, known: Set[str]) -> Node:
        domain, op = _text(message.domain), _text(message.op_type)
        node = Node(
            op if domain in OWN_DOMAINS else f"{domain}:{op}",
            _text(message.name),
            _texts(message.input),
            _texts(message.output),
        )
        for attribute in message.attribute:
            node.attributes[_text(attribute.name)] = self._value(attribute, node, opset, known)
        return node

    def _value(self, attribute: Any, node: Node, opset: int, known: Set[str]) -> Any:
        kinds = self.onnx.AttributeProto
        where = f"attribute '{attribute.name}' of {node}"
        if attribute.ref_attr_name:
            raise ConfigError(f"{where} refers to a function's; only functions may do so.")
        if attribute.type == kinds.TENSOR:
            return files.array_of(attribute.t, self.folder, where)
        if attribute.type == kinds.TENSORS:
            return [files.array_of(tensor, self.folder, where) for tensor in attribute.tensors]
        if attribute.type == kinds.SPARSE_TENSOR:
            return self._dense(attribute.sparse_tensor, where)
        if attribute.type == kinds.GRAPH:
            return self.graph(attribute.g, opset, known)
        if attribute.type in (kinds.STRING, kinds.STRINGS):
            texts = [*attribute.strings] or [attribute.s]
            try:
                decoded = [text.decode() for text in texts]
            except UnicodeDecodeError:
                raise WeightsError(f"{where} is not UTF-8 text; the file is damaged.") from None
            return decoded if attribute.type == kinds.STRINGS else decoded[0]
        if attribute.type in (kinds.FLOATS, kinds.INTS):
            return list(attribute.floats or attribute.ints)
        if attribute.type == kinds.FLOAT:
            return attribute.f
        if attribute.type == kinds.INT:
            return attribute.i
        return None
