"""From a net and its weights to an ONNX model.

The graph computes what the net computes in phase TEST, from its images to the blobs that nobody
reads. Labels, and what depends on them (losses, accuracies), stay behind. The operators are those
of version 13, which every runtime has.

Weights whose columns a compacted layer left out stay left out of the file:

* a Convolution keeps its packed matrix (F, kept), and ``Gather`` puts each column at its place and
  a column of zeros everywhere else; a runtime does that once, as it loads the model;
* an InnerProduct gathers the inputs that it reads, and multiplies by the packed matrix itself.

With ``sparse``, weights that take less room as a list of non-zeros become sparse initializers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.errors import ConfigError
from minissl.layers import Layer
from minissl.net import Net
from minissl.onnx import library

OPSET, IR_VERSION = 13, 8

#: a non-zero of a sparse initializer takes its value and an index of 64 bits
SPARSE_BYTES = 4 + 8

Writer = Callable[["Export", Layer, list[str]], None]

#: layer type -> the function that adds its nodes
WRITERS: dict[str, Writer] = {}


def writes(*types: str) -> Callable[[Writer], Writer]:
    """Make a function known under the types of layers."""

    def add(function: Writer) -> Writer:
        WRITERS.update(dict.fromkeys(types, function))
        return function

    return add


def export(net: Net, sparse: bool = False) -> Any:
    """Return a net with its weights as a ``ModelProto``.

    The first length of the inputs is left open where no layer depends on it.

    Parameters
    ----------
    net : Net
        In phase TEST.
    sparse : bool
        Write weights with enough zeros as sparse initializers.

    Raises
    ------
    ConfigError
        If a layer has no counterpart in ONNX.
    DependencyError
        If the library onnx is not installed.
    """
    return Export(net, sparse).model()


class Export:
    """A model under way; what the functions of the layers work with."""

    def __init__(self, net: Net, sparse: bool = False):
        from minissl.onnx import export_layers  # noqa: F401  # fills the table

        self.onnx = library.load()
        self.net = net
        self.sparse = sparse
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.sparse_initializers: list[Any] = []
        self.fixes_batch = False
        self._inputs: list[str] = []
        self._values: dict[str, str] = {}  # blob -> its name in the graph, as things stand
        self._shapes: dict[str, tuple[int, ...]] = {}  # name in the graph -> shape
        self._read: set[str] = set()
        self._last_writer = {top: layer.name for layer in net.layers for top in layer.param.top}
        self._names: set[str] = set(net.blobs)

    # --- the walk ---

    def model(self) -> Any:
        """Write every layer; return the model."""
        for layer in self.net.layers:
            self._layer(layer)
        outputs = list(
            dict.fromkeys(
                name for name in self._values.values() if name not in {*self._read, *self._inputs}
            )
        )
        if not outputs:
            raise ConfigError(f"net '{self.net.name}' has no outputs; there is nothing to export.")
        make = self.onnx.helper
        graph = make.make_graph(
            self.nodes,
            self.net.name or "net",
            [self._info(name) for name in self._inputs],
            [self._info(name) for name in outputs],
            self.initializers,
            sparse_initializer=self.sparse_initializers,
        )
        opset = make.make_opsetid("", OPSET)
        model = make.make_model(graph, opset_imports=[opset], producer_name="minissl")
        model.ir_version = IR_VERSION
        return model

    def _layer(self, layer: Layer) -> None:
        param = layer.param
        if layer.is_data:
            self._source(layer)
            return
        there = all(bottom in self._values for bottom in param.bottom)
        if layer.is_loss or not there or layer.type_name in ("Accuracy", "Silence"):
            for bottom in param.bottom if layer.type_name == "Silence" else ():
                self._read.add(self._values.get(bottom, ""))
            return  # without labels, there is nothing to compute
        bottoms = [self._values[bottom] for bottom in param.bottom]
        if layer.type_name == "Split":
            self._values.update(dict.fromkeys(param.top, bottoms[0]))
            return
        function = WRITERS.get(layer.type_name)
        if function is None:
            raise ConfigError(
                f"layer '{layer.name}' ({layer.type_name}) has no counterpart in ONNX; remove it."
            )
        function(self, layer, bottoms)

    def _source(self, layer: Layer) -> None:
        """Make the first top of a data layer an input; of an Input layer every one."""
        tops = layer.param.top if layer.type_name == "Input" else layer.param.top[:1]
        for top in tops:
            self._values[top] = top
            self._shapes[top] = self.net.blobs[top].shape
            self._inputs.append(top)

    def _info(self, name: str) -> Any:
        shape: list[Any] = list(self._shapes[name])
        if shape and not self.fixes_batch:
            shape[0] = "N"
        make = self.onnx.helper
        return make.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape)

    # --- what the functions of layers ask for ---

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        name: str,
        outputs: Sequence[str] = (),
        **attributes: Any,
    ) -> str:
        """Add a node; return its first output, which gets the node's name where none is given."""
        tops = list(outputs) or [self.unique(name)]
        self._read.update(inputs)
        self.nodes.append(
            self.onnx.helper.make_node(op, list(inputs), tops, name=name, **attributes)
        )
        return tops[0]

    def finish(self, layer: Layer, op: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Add the node that makes the tops of a layer."""
        tops = []
        for top in layer.param.top:
            last = self._last_writer[top] == layer.name and top not in self._inputs
            name = top if last else self.unique(f"{top}@{layer.name}")
            self._values[top] = name
            self._shapes[name] = self.net.blobs[top].shape
            tops.append(name)
        self.node(op, inputs, layer.name, tops, **attributes)

    def array(self, name: str, values: Any) -> str:
        """Add an initializer; return its name."""
        name = self.unique(name)
        values = np.asarray(values)
        array = np.ascontiguousarray(values, np.float32 if values.dtype.kind == "f" else None)
        array = array.reshape(values.shape)
        kept = np.flatnonzero(array)
        if self.sparse and array.ndim > 1 and SPARSE_BYTES * len(kept) < array.nbytes:
            self._add_sparse(name, array, kept)
        else:
            self.initializers.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def _add_sparse(self, name: str, array: np.ndarray, kept: np.ndarray) -> None:
        from_array = self.onnx.numpy_helper.from_array
        values = from_array(array.ravel()[kept], name)
        places = from_array(kept.astype(np.int64), f"{name}_places")
        sparse = self.onnx.helper.make_sparse_tensor(values, places, list(array.shape))
        self.sparse_initializers.append(sparse)

    def parameter(self, layer: Layer, index: int) -> np.ndarray:
        """Return a parameter's values."""
        return to_host(layer.parameters[index].data)

    def parameters(self, layer: Layer, suffixes: Sequence[str] = ("weight", "bias")) -> list[str]:
        """Add the parameters of a layer as initializers; return their names."""
        return [
            self.array(f"{layer.name}.{suffix}", self.parameter(layer, i))
            for i, suffix in zip(range(len(layer.parameters)), suffixes, strict=False)
        ]

    def shape(self, layer: Layer) -> tuple[int, ...]:
        """Return the shape of a layer's first bottom."""
        return self.net.blobs[layer.param.bottom[0]].shape

    def top_shape(self, layer: Layer) -> tuple[int, ...]:
        """Return the shape of a layer's first top."""
        return self.net.blobs[layer.param.top[0]].shape

    def unique(self, name: str) -> str:
        """Return a name that nothing else in the graph has."""
        number, found = 1, name
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found
