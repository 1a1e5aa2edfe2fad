"""A backend in the sense of ``onnx.backend.base``: models of others, run by minissl.

A model that can be expressed as a prototxt runs as a :class:`minissl.Net`. Of any other model, each
node that a layer can compute runs as a net of that layer, and the rest by the functions of
:mod:`minissl.onnx.arrays`. Which way each node took is told by :attr:`PreparedModel.ways`.

>>> import onnx
>>> from minissl.onnx import backend
>>> model = onnx.load("net.onnx")  # doctest: +SKIP
>>> outputs = backend.prepare(model, device="CPU").run([images])  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minissl import backend as backends
from minissl.errors import ConfigError, DependencyError, MinisslError
from minissl.net import Net
from minissl.onnx import arrays
from minissl.onnx.graph import Graph, Node, graph_of
from minissl.onnx.patterns import recognize
from minissl.onnx.translation import DOUBLE, FLOAT, Translated, translate

try:
    from onnx.backend.base import Backend, BackendRep, namedtupledict
except ImportError as reason:
    raise DependencyError(
        f"the backend needs the library onnx ({reason}); pip install 'minissl[onnx]'"
    ) from None

#: device of ONNX -> backend of minissl
DEVICES = {"CPU": "numba", "CUDA": "cupy"}


class _Runner:
    """A translated graph as a net, kept while shapes and built-in values stay the same."""

    def __init__(self, graph: Graph, kernels: str):
        self.graph = graph
        self.kernels = kernels
        self._net: Net | None = None
        self._key: Any = None
        self._translated: Translated | None = None

    def run(self, inputs: Mapping[str, np.ndarray], built_in: bool) -> dict[str, np.ndarray]:
        """Run the net on inputs; with `built_in`, values may become weights."""
        floats = {name: x for name, x in inputs.items() if x.dtype.kind == "f"}
        types = {x.dtype for x in floats.values()}
        if len(types) != 1 or types.pop().itemsize not in (4, 8):
            raise ConfigError("a net computes with float32 or float64, and with one of them.")
        (dtype,) = {x.dtype for x in floats.values()}
        if not all(x.size for x in floats.values()):
            raise ConfigError("a net has no empty blobs.")
        key = dtype, tuple((name, x.shape) for name, x in inputs.items())
        if key != self._key or self._net is None or (built_in and self._consulted()):
            shapes = {name: x.shape for name, x in floats.items()}
            number = FLOAT if dtype.itemsize == 4 else DOUBLE
            made = translate(self.graph, shapes, inputs if built_in else None, number)
            self._net = Net(made.net_param, "TEST", backend=self.kernels, dtype=dtype.name)
            if made.weights:
                self._net.load(made.weights)
            self._translated, self._key = made, key
        result, net = self._translated, self._net
        assert result is not None and net is not None
        net.forward({blob: inputs[name] for name, blob in result.inputs.items()})
        return {
            name: np.array(backends.to_host(net.blobs[blob].data))
            for name, blob in result.outputs.items()
        }

    def _consulted(self) -> set[str]:
        return self._translated.consulted if self._translated else set()


class PreparedModel(BackendRep):
    """A model that is ready to run.

    Attributes
    ----------
    ways : dict
        Name of each node that has run, or ``"*"`` for the model as a whole -> ``"layers"`` or
        ``"arrays"``.
    reason : str
        Why the model does not run as one net; "" where it does.
    """

    def __init__(self, graph: Graph, kernels: str):
        self.graph = recognize(graph)
        self.kernels = kernels
        self.ways: dict[str, str] = {}
        self.reason = ""
        self._whole = _Runner(self.graph, kernels)
        self._single: dict[int, _Runner] = {}

    def run(self, inputs: Any, **kwargs: Any) -> Any:
        """Compute the outputs.

        Parameters
        ----------
        inputs : sequence or dict of arrays
            In the order of the model's inputs, or by name.

        Returns
        -------
        namedtuple of arrays

        Raises
        ------
        MinisslError
            If an input is missing, or an operator is neither a layer nor a function here.
        """
        given = self._by_name(inputs)
        with np.errstate(all="ignore"):  # a model may well ask for NaN and infinity
            values = self._as_net(given)
            if values is None:
                values = self._node_by_node(given)
        names = self.graph.outputs
        return namedtupledict("Outputs", names)(*(values[name] for name in names))

    def _by_name(self, inputs: Any) -> dict[str, np.ndarray]:
        names = list(self.graph.inputs)
        if not isinstance(inputs, Mapping):
            if isinstance(inputs, np.ndarray):
                inputs = [inputs]
            if len(inputs) > len(names):
                raise ConfigError(f"the model has {len(names)} inputs, but {len(inputs)} came.")
            inputs = dict(zip(names, inputs, strict=False))
        unknown = set(inputs) - set(names)
        missing = set(names) - set(inputs)
        if unknown or missing:
            raise ConfigError(
                f"the model's inputs are {', '.join(names)}; "
                f"{'unknown' if unknown else 'missing'}: {', '.join(unknown or missing)}."
            )
        if any(not isinstance(value, (np.ndarray, np.generic)) for value in inputs.values()):
            raise ConfigError("inputs must be arrays; lists and optional values have no blob.")
        return {name: np.asarray(inputs[name]) for name in names}

    def _as_net(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        """Run the model as one net; None where it cannot be one."""
        if self.reason:
            return None
        try:
            values = self._whole.run(given, built_in=False)
        except MinisslError as reason:
            self.reason = str(reason)
            return None
        self.ways = {"*": "layers"}
        return values

    def _node_by_node(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = {**self.graph.constants, **given}
        for number, node in enumerate(self.graph.nodes):
            inputs = [values[name] if name else None for name in node.inputs]
            outputs = self._by_layers(number, node, inputs)
            self.ways[node.name or node.outputs[0]] = "arrays" if outputs is None else "layers"
            if outputs is None:
                opset = self.graph.opset
                outputs = arrays.call(node.op, node.attributes, opset, len(node.outputs), inputs)
            for name, array in zip(node.outputs, outputs, strict=False):
                values[name] = array
            missing = [name for name in node.outputs[len(outputs) :] if name]
            if missing:
                raise ConfigError(f"{node}: its output '{missing[0]}' is not computed here.")
        return values

    def _by_layers(self, number: int, node: Node, inputs: Sequence[Any]) -> list[Any] | None:
        """Run one node as a net; None where no layer computes it."""
        outputs = [name for name in node.outputs if name]
        if len(outputs) > 1 and node.op != "Split":
            return None
        known = {
            name: array
            for name, array in zip(node.inputs, inputs, strict=True)
            if array is not None
        }
        if number not in self._single:
            types: dict[str, Any] = {name: (array.dtype, None) for name, array in known.items()}
            graph = Graph("node", [node], types, outputs, {}, self.graph.opset)
            self._single[number] = _Runner(graph, self.kernels)
        try:
            made = self._single[number].run(known, built_in=True)
        except MinisslError:
            return None
        return [made[name] for name in outputs]


class MinisslBackend(Backend):
    """The backend's entry points."""

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether models run on ``CPU`` or ``CUDA`` here."""
        name = device.split(":")[0]
        return name == "CPU" or (name == "CUDA" and backends.has_gpu())

    @classmethod
    def is_compatible(cls, model: Any, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether every operator of a model is a layer or a function here."""
        from minissl.onnx.operators import OPERATORS

        try:
            graph = recognize(graph_of(model))
        except MinisslError:
            return False
        known = {*OPERATORS, *arrays.FUNCTIONS}
        return cls.supports_device(device) and all(node.op in known for node in graph.nodes)

    @classmethod
    def prepare(
        cls, model: Any, device: str = "CPU", folder: str | Path | None = None, **kwargs: Any
    ) -> PreparedModel:
        """Make a model ready to run.

        Parameters
        ----------
        model : ModelProto
        device : str
            ``CPU``, or ``CUDA`` for the first GPU.
        folder : str or Path, optional
            Where tensors in other files lie.

        Raises
        ------
        MinisslError
            If the model is damaged or the device is not there.
        """
        if not cls.supports_device(device):
            raise ConfigError(f"device {device} is not there; use CPU.")
        where = None if folder is None else Path(folder)
        return PreparedModel(graph_of(model, where), DEVICES[device.split(":")[0]])

    @classmethod
    def run_model(cls, model: Any, inputs: Any, device: str = "CPU", **kwargs: Any) -> Any:
        """Prepare a model and run it once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: Any,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Run one ``NodeProto`` on arrays."""
        from onnx import TensorProto, defs, helper

        opset = kwargs.get("opset_version", defs.onnx_opset_version())
        names = list(dict.fromkeys(filter(None, node.input)))
        if len(names) != len(inputs):
            raise ConfigError(f"{node.op_type} has {len(names)} inputs, but {len(inputs)} came.")
        graph = helper.make_graph(
            [node],
            "node",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(np.asarray(array).dtype), None
                )
                for name, array in zip(names, inputs, strict=True)
            ],
            [
                helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None)
                for name in node.output
                if name
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        return cls.run_model(model, list(inputs), device)


prepare = MinisslBackend.prepare
run_model = MinisslBackend.run_model
run_node = MinisslBackend.run_node
supports_device = MinisslBackend.supports_device
is_compatible = MinisslBackend.is_compatible
