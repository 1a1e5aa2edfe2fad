"""From a graph of operators to a prototxt and weights.

Nodes are taken in order. What is computed from constants is folded; for everything else the
function of :mod:`minissl.onnx.operators` adds the layers that compute the same. Each layer is set
up as a net would do it, so that shapes are known from here on and cannot disagree with the net.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minissl import backend
from minissl.blob import Shape
from minissl.errors import ConfigError
from minissl.formats import proto
from minissl.layers import LAYERS, Context, create
from minissl.onnx import files
from minissl.onnx.folding import SIZES, Folder
from minissl.onnx.graph import Graph, Node

#: ``TensorProto.FLOAT`` and ``DOUBLE``
FLOAT, DOUBLE = 1, 11


#: elements of a blob; 2 GB of float32
MAX_BLOB = 2**29


class Inexpressible(ConfigError):
    """A node for which prototxt has no words."""


@dataclass
class Translated:
    """A network in Caffe's terms.

    Attributes
    ----------
    net_param : NetParameter
    weights : dict
        {layer name: [arrays]}.
    inputs, outputs : dict
        Name in the ONNX graph -> name of the blob.
    consulted : set of str
        Inputs of the graph whose values were built into the weights.
    """

    net_param: Any
    weights: dict[str, list[np.ndarray]]
    inputs: dict[str, str]
    outputs: dict[str, str]
    consulted: set[str]


def translate(
    graph: Graph,
    shapes: Mapping[str, Shape],
    values: Mapping[str, np.ndarray] | None = None,
    data_type: int = FLOAT,
) -> Translated:
    """Translate a graph.

    Parameters
    ----------
    graph : Graph
    shapes : dict
        The shape of each input that becomes a blob.
    values : dict, optional
        Values of inputs that may be built into weights; nothing is folded then, so that a layer
        computes what the nodes say.
    data_type : int
        What the net will compute with, as ONNX counts types.

    Raises
    ------
    Inexpressible
        If a node has no counterpart in Caffe's terms.
    ConfigError
        If shapes do not fit together.
    """
    work = Translation(graph, shapes, values, data_type)
    with np.errstate(all="ignore"):  # weights may hold anything
        work.run(graph.nodes, set(graph.outputs))
    return work.result()


class Translation:
    """A translation under way; what the functions in ``operators`` work with.

    Attributes
    ----------
    graph : Graph
    weights : dict
        As in :class:`Translated`.
    layers : list of LayerParameter
    data_type : int
        What the net will compute with, as ONNX counts types.
    """

    def __init__(
        self,
        graph: Graph,
        shapes: Mapping[str, Shape],
        values: Mapping[str, np.ndarray] | None = None,
        data_type: int = FLOAT,
    ):
        self.graph = graph
        self.data_type = data_type
        self.weights: dict[str, list[np.ndarray]] = {}
        self.layers: list[Any] = []
        self._given = dict(shapes)
        self._inputs: dict[str, str] = {}
        self._blobs: dict[str, str] = {}  # ONNX name -> blob
        self._shapes: dict[str, Shape] = {}  # blob -> shape
        self._constants = {**graph.constants, **(values or {})}
        self._values = dict(values or {})
        self._consulted: set[str] = set()
        self._origins: dict[str, str] = {}  # constant -> the initializer it was made from
        self._makers: dict[str, Any] = {}  # blob -> the layer that makes it
        self._names: dict[str, dict[str, int]] = {"layer": {}, "blob": {}}
        self._reads = _count_reads(graph)
        self._aliases: set[str] = set()  # names of a blob that has another one
        self._folder = Folder(graph.opset, files.MAX_DESCRIBED_BYTES)
        self._folds = values is None
        self._context = Context(backend.get("numpy"), phase="TEST")

    # --- the walk ---

    def run(self, nodes: Sequence[Node], outputs: set[str]) -> None:
        """Translate those nodes on which the outputs depend."""
        for node in _live(nodes, outputs):
            inputs = [self._constants.get(name) for name in node.inputs]
            known = all(
                array is not None or not name
                for name, array in zip(node.inputs, inputs, strict=True)
            )
            if self._folds and node.op == "Shape" and node.inputs[0] not in self._constants:
                # a stand-in of this shape that takes no memory
                inputs = [np.broadcast_to(np.int8(0), self.shape(self.blob(node, 0)))]
                known = True
            if self._folds and known and node.op in SIZES:
                self._keep(node, self._folder.fold(node, inputs))
                continue
            self._translate(node)

    def _translate(self, node: Node) -> None:
        from minissl.onnx.operators import OPERATORS

        function = OPERATORS.get(node.op)
        if function is None:
            raise Inexpressible(f"{node}: Caffe has no layer for the operator {node.op}.")
        unused = [name for name in node.outputs[1:] if name]
        try:
            function(self, node)
        except Inexpressible:
            raise
        except ConfigError as reason:
            raise Inexpressible(f"{node}: {reason}") from None
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as reason:
            # attributes that are missing or of another type, inputs of other shapes
            raise Inexpressible(f"{node}: it is damaged ({reason!r:.100}).") from None
        for name in unused:
            if name not in self._blobs and name not in self._constants:
                self._blobs[name] = ""  # an error only where somebody reads it

    def _keep(self, node: Node, arrays: list[np.ndarray]) -> None:
        for name, array in zip(node.outputs, arrays, strict=False):
            self._constants[name] = array
            if node.inputs:
                self._origins[name] = self._origins.get(node.inputs[0], node.inputs[0])

    # --- what the functions of operators ask for ---

    def blob(self, node: Node, index: int) -> str:
        """Return the blob that is an input of a node."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if name not in self._blobs and name in self._given:
            self._declare(name)
        if not self._blobs.get(name):
            kind = "is a constant" if name in self._constants else "is not there"
            raise Inexpressible(f"{node}: its input '{name}' {kind}, where a layer needs a blob.")
        return self._blobs[name]

    def is_blob(self, node: Node, index: int) -> bool:
        """Whether an input is computed by the net, or given to it."""
        name = node.inputs[index]
        return bool(self._blobs.get(name)) or (name in self._given and name not in self._constants)

    def constant(self, node: Node, index: int) -> np.ndarray | None:
        """Return an input that must be constant; None where it is left out."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        if not name:
            return None
        if name not in self._constants:
            raise Inexpressible(
                f"{node}: its input '{name}' is computed by the net, where Caffe needs a constant."
            )
        if name in self._values:
            self._consulted.add(name)
        return self._constants[name]

    def required(self, node: Node, index: int) -> np.ndarray:
        """Return an input that must be there and constant."""
        array = self.constant(node, index)
        if array is None:
            raise Inexpressible(f"{node}: its input {index} is missing.")
        return array

    def shape(self, blob: str) -> Shape:
        """Return the shape of a blob."""
        return self._shapes[blob]

    def layer(
        self,
        node: Node,
        type_name: str,
        bottoms: Sequence[str],
        tops: Sequence[str] = (),
        blobs: Iterable[Any] = (),
        name: str = "",
        **fields: Any,
    ) -> list[str]:
        """Add a layer; return the names of its tops.

        Parameters
        ----------
        node : Node
            What is translated.
        type_name : str
        bottoms : list of str
            Blobs.
        tops : list of str
            Outputs of the node that are the layer's tops; none for a step in between, which gets
            one top of its own.
        blobs : list of arrays
            Weights.
        name : str
            A name to prefer for the layer.
        **fields
            Of the ``LayerParameter``.
        """
        if type_name not in LAYERS:
            raise Inexpressible(f"{node}: minissl has no layer {type_name}.")
        label = self._unique(name or node.name.lstrip("/") or node.outputs[0].lstrip("/"))
        named = [self._unique(top, "blob") for top in tops] or [
            self._unique(f"{label}_top", "blob")
        ]
        try:
            param = proto.LayerParameter(
                name=label, type=type_name, bottom=bottoms, top=named, **fields
            )
        except (ValueError, TypeError):
            raise Inexpressible(f"{node}: its settings are out of range.") from None
        layer = create(param, self._context)
        shapes = layer.setup([self._shapes[bottom] for bottom in bottoms])
        if any(math.prod(shape) > MAX_BLOB for shape in shapes):
            raise Inexpressible(f"{node}: its output would take the shape {shapes[0]}.")
        arrays = [np.asarray(blob) for blob in blobs]
        if [array.size for array in arrays] != [declared.size for declared in layer.parameters]:
            raise Inexpressible(
                f"{node}: its weights of shape {[array.shape for array in arrays]} do not fit an "
                f"input of shape {self._shapes[bottoms[0]]}."
            )
        if arrays:
            self.weights[label] = [
                array.reshape(declared.shape)
                for array, declared in zip(arrays, layer.parameters, strict=True)
            ]
        self.layers.append(param)
        self._makers.update(dict.fromkeys(named, param))
        self._shapes.update(zip(named, shapes, strict=True))
        self._blobs.update(zip(tops, named, strict=False))
        return named

    def alias(self, node: Node, blob: str, output: int = 0) -> None:
        """Let an output of a node be another name for a blob."""
        self._blobs[node.outputs[output]] = blob
        self._aliases.add(node.outputs[output])

    def alias_of(self, outer: str, inner: str) -> None:
        """Let a value of the graph be another name for one inside a branch."""
        if inner in self._constants:
            self._constants[outer] = self._constants[inner]
        else:
            self._blobs[outer] = self._blobs[inner]
            self._aliases.add(outer)

    def named(self, name: str) -> str:
        """Return the blob that a name of the graph stands for."""
        return self._blobs[name]

    def add_constants(self, constants: Mapping[str, np.ndarray]) -> None:
        """Take over the constants of a branch."""
        self._constants.update(constants)

    def silence(self, node: Node, blobs: Sequence[str]) -> None:
        """Let nobody read these blobs."""
        label = self._unique(f"{self.layers[-1].name}_silence")
        if "Silence" not in LAYERS:
            raise Inexpressible(f"{node}: minissl has no layer Silence.")
        self.layers.append(proto.LayerParameter(name=label, type="Silence", bottom=blobs))

    def is_computed(self, node: Node, index: int) -> bool:
        """Whether the value of an input is not known."""
        return node.inputs[index] not in self._constants

    def readers_of(self, name: str) -> int:
        """How often nodes of the graph read a value, and the graph puts it out."""
        return self._reads[name]

    def read_once(self, node: Node, index: int) -> bool:
        """Whether this node alone reads an input, which no other name stands for."""
        name = node.inputs[index]
        return self._reads[name] == 1 and name not in self._aliases

    def maker(self, blob: str) -> Any:
        """Return the last layer that writes a blob."""
        return self._makers[blob]

    def weight_name(self, node: Node, index: int = 1) -> str:
        """Return the name that the weights of a node suggest for its layer."""
        name = self._origins.get(node.inputs[index], node.inputs[index])
        return name.removesuffix(".weight") if name.endswith(".weight") else ""

    # --- names ---

    def _declare(self, name: str) -> None:
        """Add the Input layer of an input."""
        shape = self._given[name]
        label = self._unique(name)
        param = proto.LayerParameter(name=label, type="Input", top=[self._unique(name, "blob")])
        param.input_param.shape.add().dim.extend(shape)
        self.layers.append(param)
        self._blobs[name] = self._inputs[name] = param.top[0]
        self._makers[param.top[0]] = param
        self._shapes[param.top[0]] = tuple(shape)

    def _unique(self, name: str, kind: str = "layer") -> str:
        """Return the name, with a number behind it where a layer (or blob) has it already."""
        taken = self._names[kind]
        found = name or kind
        while found in taken:
            taken[name] = taken.get(name, 1) + 1
            found = f"{name}_{taken[name]}"
        taken[found] = 1
        return found

    def result(self) -> Translated:
        """Return the net, where single readers are served in place."""
        missing = [name for name in self.graph.outputs if not self._blobs.get(name)]
        for name in list(missing):
            if name in self._given:
                self._declare(name)
                missing.remove(name)
        if missing:
            raise Inexpressible(f"the output '{missing[0]}' is a constant; a net computes nothing.")
        outputs = {name: self._blobs[name] for name in self.graph.outputs}
        _compute_in_place(self.layers, outputs)
        name = self.graph.name
        return Translated(
            proto.NetParameter(name=name, layer=self.layers),
            self.weights,
            self._inputs,
            outputs,
            self._consulted,
        )


def _count_reads(graph: Graph) -> Counter[str]:
    """Count how often nodes read each value, and the graph puts it out."""
    reads = Counter(graph.outputs)
    for node in graph.nodes:
        reads.update(node.inputs)
        for value in node.attributes.values():
            if isinstance(value, Graph):
                reads.update(_count_reads(value))
    return reads


def _live(nodes: Sequence[Node], outputs: set[str]) -> list[Node]:
    """Return the nodes on which the outputs depend."""
    wanted, live = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            live.append(node)
            wanted.update(_reads(node))
    return live[::-1]


def _reads(node: Node) -> set[str]:
    """Return what a node and its branches read."""
    names = set(filter(None, node.inputs))
    for value in node.attributes.values():
        if isinstance(value, Graph):
            for inner in value.nodes:
                names |= _reads(inner)
            names.update(value.outputs)
    return names


#: layers whose backward pass does not look at their output
_INDIFFERENT = ("Convolution", "InnerProduct", "BatchNorm", "Scale", "Bias")


def _compute_in_place(layers: list[Any], outputs: dict[str, str]) -> None:
    """Let activations overwrite what nobody else reads, as Caffe's nets do."""
    readers: dict[str, int] = {}
    for layer in layers:
        for bottom in layer.bottom:
            readers[bottom] = readers.get(bottom, 0) + 1
    kept = set(outputs.values())
    makers: dict[str, Any] = {}
    renamed: dict[str, str] = {}
    for layer in layers:
        for i, bottom in enumerate(layer.bottom):
            layer.bottom[i] = renamed.get(bottom, bottom)
        if len(layer.bottom) == len(layer.top) == 1:
            bottom, top = layer.bottom[0], layer.top[0]
            maker = makers.get(bottom)
            fits = maker in _INDIFFERENT and LAYERS[layer.type].in_place
            if fits and readers.get(bottom) == 1 and bottom not in kept and top not in kept:
                layer.top[0] = renamed[top] = bottom
                readers[bottom] = readers.get(top, 0)
        for top in layer.top:
            makers[top] = layer.type


def input_shapes(graph: Graph, batch: int) -> dict[str, Shape]:
    """Return the shapes that a graph declares for its inputs, an open first length being `batch`.

    Raises
    ------
    ConfigError
        If another length is open, or an input holds no floating-point numbers.
    """
    shapes = {}
    for name, (dtype, shape) in graph.inputs.items():
        if dtype is not None and dtype.kind != "f":
            continue
        if shape is None or None in shape[1:]:
            raise ConfigError(
                f"input '{name}' of the model has open lengths {shape}; export it with a fixed "
                "size, only the batch may be open."
            )
        fixed = tuple(batch if length is None else int(length) for length in shape)
        if not 1 <= math.prod(fixed) <= MAX_BLOB:
            raise ConfigError(
                f"input '{name}' of the model has the shape {fixed}, which is empty or too large."
            )
        shapes[name] = fixed
    return shapes
