"""A network: layers in order, blobs by name, parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minissl import backend as backends
from minissl import backward_plan, fused_training, fusion, graph, memory, memory_plan, net_weights
from minissl.blob import Blob, Parameter
from minissl.errors import ConfigError, ShapeError
from minissl.layers import Context, Layer, create, split


class Net:
    """A network built from a prototxt for one phase.

    Parameters
    ----------
    param : str, Path or NetParameter
        A prototxt file, or its parsed message.
    phase : {"TRAIN", "TEST"}
        Layers are chosen by their include and exclude rules.
    backend : str
        ``numpy`` (the readable definition), ``numba`` (fast), ``cupy`` (on a GPU) or ``auto``.
    dtype : str
        ``float32``, or ``float64`` for gradient checks.
    seed : int
        Of the fillers and of dropout.
    data : dict, optional
        Overrides for Data layers: ``source``, ``batch_size``, ``shuffle``, ``seed``.
    level, stages : int, sequence of str
        The rest of the network's state, for include and exclude rules.
    share : Net, optional
        A network whose parameters this one uses, matched by layer name (as a test network uses
        those of the network being trained).
    fuse : bool
        Run chains of layers as one step (:mod:`minissl.fusion`) in phase TEST, and in a lean
        network in phase TRAIN too (:mod:`minissl.fused_training`), but there not by the plain
        backend.
    lean : bool
        Train with less time and memory, as a solver does: the gradients of blobs share memory
        (:mod:`minissl.memory_plan`), so that ``blobs[...].diff`` is right only while the backward
        pass needs it.

    Attributes
    ----------
    layers : list of Layer
    blobs : dict of str to Blob
    parameters : list of Parameter
        Every learnable blob once, in net order.
    outputs : list of str
        Names of the blobs that no layer reads.
    steps : list of Step
        What runs, in order: layers, or chains of layers that were fused.
    watcher : callable, optional
        Called with ``"Forward"`` or ``"Backward"`` and the layer that has just run; None at first.

    Examples
    --------
    >>> net = Net("lenet.prototxt", phase="TEST", data={"source": "mnist-small"})  # doctest: +SKIP
    >>> net.load("lenet.caffemodel")  # doctest: +SKIP
    >>> net.forward()["accuracy"]  # doctest: +SKIP
    """

    def __init__(
        self,
        param: Any,
        phase: str = "TEST",
        backend: str = "auto",
        dtype: str = "float32",
        seed: int = 0,
        data: Mapping[str, Any] | None = None,
        level: int = 0,
        stages: Sequence[str] = (),
        share: Net | None = None,
        fuse: bool = True,
        lean: bool = False,
    ):
        if isinstance(param, (str, Path)):
            from minissl.formats.prototxt import read_net

            param = read_net(param)
        self.param = param
        self.name: str = param.name
        self.phase = phase
        self.level, self.stages = level, tuple(stages)
        self.kernels = backends.get(backend)
        self.dtype = np.dtype(dtype)
        self.rng = np.random.default_rng(seed)
        context = Context(self.kernels, self.dtype, self.rng, phase, dict(data or {}))
        self._selected = graph.select_layers(param, phase, level, self.stages)
        chosen = graph.insert_splits(self._selected)
        if not chosen:
            raise ConfigError(f"net '{self.name}' has no layer in phase {phase}")
        graph.check_names(chosen, phase)
        self.layers: list[Layer] = [create(layer, context) for layer in chosen]
        self._numbers = {id(layer): number for number, layer in enumerate(self.layers)}
        self.blobs: dict[str, Blob] = {}
        self._makers: dict[str, list[int]] = {}
        self._bottoms: list[list[Blob]] = []
        self._tops: list[list[Blob]] = []
        self._set_up()
        graph_of_layers = self.layers, self._bottoms, self._tops
        self._plan = backward_plan.plan(*graph_of_layers, param.force_backward)
        self.loss_weights = self._plan.loss_weights
        self.parameters = net_weights.own(self.layers, share.layers if share else ())
        self.outputs = graph.unread(chosen)
        self._single_steps = fusion.plan(*graph_of_layers, fuse=False)
        if lean and fuse and phase == "TRAIN" and backends.name_of(self.kernels) != "numpy":
            plan = self._plan
            self.steps = fused_training.plan(*graph_of_layers, plan.propagates, plan.plain())
        else:
            self.steps = fusion.plan(*graph_of_layers, fuse=fuse and phase == "TEST")
        self._steps_run = self.steps
        self._ran_fused: set[int] = set()
        self._lean = lean
        self._gradients = self._plan_gradients()
        there = backends.device_bytes(self.kernels)
        memory.check(self.bytes_needed(), f"net '{self.name}'", there)
        net_weights.fill(self.layers, share.parameters if share else ())
        if lean:
            self._gradients.share(self.kernels.xp)
        self._passed_over = [blob for step in self.steps for blob in step.hidden]
        self.watcher: Callable[[str, Layer], None] | None = None

    # --- set-up ---

    def _set_up(self) -> None:
        """Let every layer work out its shapes; nothing is allocated."""
        makers: dict[str, tuple[Layer, int]] = {}
        for layer in self.layers:
            param = layer.param
            layer.check_counts()
            bottom = [self.blobs[name] for name in param.bottom]
            shapes = layer.setup([blob.shape for blob in bottom])
            layer.check_params()
            top = []
            for number, (name, shape) in enumerate(zip(param.top, shapes, strict=True)):
                if name in param.bottom:
                    if not layer.in_place:
                        raise layer.config_error(
                            f"cannot compute in place; give its top another name than '{name}'"
                        )
                    top.append(self.blobs[name])
                    maker, its_number = makers[name]
                    maker.top_changes(its_number)
                    continue
                blob = Blob(name, shape, self.dtype, self.kernels.xp)
                self.blobs[name] = blob
                self._makers.setdefault(name, []).append(len(self._tops))
                makers[name] = layer, number
                top.append(blob)
            self._bottoms.append(bottom)
            self._tops.append(top)

    def bytes_needed(self) -> int:
        """Return the bytes of all blobs, parameters and scratch memory.

        In TRAIN also those of gradients, and of one momentum buffer.
        """
        return self.needs().total

    def needs(self) -> memory_plan.Needs:
        """Return what the network needs of memory, by what it is for."""
        return memory_plan.needs(
            self.steps, self._gradients, self._lean, self.parameters, self.phase
        )

    def _plan_gradients(self) -> memory_plan.GradientPlan:
        def gets_gradient(layer: Layer) -> list[bool]:
            number = self._number(layer)
            runs = self._plan.runs[number]
            return [runs and flag for flag in self._plan.propagates[number]]

        return memory_plan.GradientPlan(self.steps, gets_gradient)

    # --- running ---

    def forward(
        self,
        inputs: Mapping[str, Any] | None = None,
        start: str | None = None,
        end: str | None = None,
    ) -> dict[str, Any]:
        """Run all layers, or those from ``start`` to ``end``, and return what comes out, by name.

        Where somebody watches, or only a part runs, each layer runs by itself.

        Parameters
        ----------
        inputs : dict, optional
            Values for blobs: of Input layers, or of what the layer ``start`` reads.
        start, end : str, optional
            Names of the first and the last layer to run, both included.

        Returns
        -------
        dict of str to array
            The network's outputs, or the tops of ``end``; the arrays are the network's own.

        Raises
        ------
        ConfigError
            For a name that no layer or blob has, or an ``end`` before ``start``.
        ShapeError
            For values of another shape than their blob's.
        """
        first, last = self._span(start, end)
        is_part = start is not None or end is not None
        if not is_part:
            self.forget()
        for name, value in (inputs or {}).items():
            blob = self._blob_before(first, name)
            if np.shape(value) != blob.shape:
                raise ShapeError(
                    f"blob '{name}' of net '{self.name}' has shape {blob.shape}, and is given "
                    f"values of shape {np.shape(value)}"
                )
            backends.assign(blob.data, value)
        self._steps_run = self._single_steps if is_part or self.watcher else self.steps
        self._note_fused(set(range(first, last + 1)))
        steps = self._single_steps[first : last + 1] if is_part else self._steps_run
        split.hand_on_before(first, self.layers, self._bottoms, self._tops)
        with backends.single_threaded_blas():
            for step in steps:
                step.forward()
                if self.watcher:
                    self.watcher("Forward", step.layer)
        names = self.outputs if end is None else [blob.name for blob in self._tops[last]]
        return {name: self.blobs[name].data for name in names}

    def _note_fused(self, running: set[int]) -> None:
        """Note which layers have kept their values within a fused step: those only it can use."""
        self._ran_fused -= running
        for step in self._steps_run:
            if isinstance(step, fused_training.TrainingStep):
                self._ran_fused.update(map(self._number, step.layers))

    def _span(self, first: str | None, last: str | None) -> tuple[int, int]:
        """Return the numbers of the layers from one name to another, all layers for None."""
        begin = 0 if first is None else self._number(self.layer(first))
        end = len(self.layers) - 1 if last is None else self._number(self.layer(last))
        if begin > end:
            raise ConfigError(
                f"layer '{last}' runs before layer '{first}'; name them in the order they run"
            )
        return begin, end

    def forget(self) -> None:
        """Drop what fused steps have left to be computed on demand."""
        for blob in self._passed_over:
            blob.deferred = None

    @property
    def inputs(self) -> list[str]:
        """Names of the blobs of Input layers, which :meth:`forward` is given."""
        return [name for x in self.layers if x.type_name == "Input" for name in x.param.top]

    @property
    def fused(self) -> dict[str, str]:
        """The layers that run within the step of another: {"relu1": "conv1", ...}."""
        return {layer.name: step.layer.name for step in self.steps for layer in step.layers[1:]}

    def loss(self) -> float:
        """Return the weighted sum of all loss tops of the last forward pass.

        Raises
        ------
        DataError
            As :meth:`check`.
        """
        value = float(self.loss_value())
        self.check()
        return value

    def loss_value(self) -> Any:
        """Return the loss as a scalar of the backend, which need not have been computed yet."""
        values = [
            weight * blob.data.sum(dtype="float64")
            for top, weights in zip(self._tops, self.loss_weights, strict=True)
            for blob, weight in zip(top, weights, strict=True)
            if weight
        ]
        return sum(values[1:], start=values[0]) if values else 0.0

    def check(self) -> None:
        """Raise what went wrong in earlier passes, where the backend does not wait for results.

        Raises
        ------
        DataError
            For a label that is no class.
        """
        for layer in self.layers:
            layer.check()

    def backward(self, start: str | None = None, end: str | None = None) -> None:
        """Compute all gradients of :meth:`loss`, or go back from layer ``start`` to ``end``.

        Those of parameters are added to their diffs. From ``start`` on, the gradient is what
        stands in the diffs of its tops: write there what you want to differentiate.

        Parameters
        ----------
        start, end : str, optional
            Names of the first and the last layer to run, in the order of the backward pass.

        Raises
        ------
        ConfigError
            For a name that no layer has, or an ``end`` that comes behind ``start``.
        """
        first, last = self._span(end, start)
        runs = self._plan.runs
        reached = None
        if start is not None:
            runs, reached = self._plan.under(last, self._bottoms, self._tops)
        is_whole = start is None and end is None
        fits = is_whole and self._steps_run is self.steps
        if not fits and self._ran_fused.intersection(range(first, last + 1)):
            raise ConfigError(
                f"net '{self.name}' ran fused and cannot go back layer by layer; build it with "
                "lean=False, or run all of it before all of it goes back"
            )
        with backends.single_threaded_blas():
            if is_whole:
                for step in reversed(self._steps_run):
                    self.backward_step(step)
                return
            for number in reversed(range(first, last + 1)):
                if runs[number]:
                    is_start = start is not None and number == last
                    if reached is not None and len(self._tops[number]) > 1:
                        self._clear(blob for blob in self._tops[number] if id(blob) not in reached)
                    self._backward_layer(number, set_weights=not is_start)

    def backward_step(self, step: fusion.Step) -> None:
        """Run the backward pass of one of the steps that the last forward pass has run."""
        if isinstance(step, fused_training.TrainingStep):
            step.backward()
            return
        for layer in reversed(step.layers):
            number = self._number(layer)
            if self._plan.runs[number]:
                self._backward_layer(number)

    def _backward_layer(self, number: int, set_weights: bool = True) -> None:
        layer, top = self.layers[number], self._tops[number]
        if number in self._plan.spoiled:
            raise ConfigError(self._plan.spoiled[number])
        weighted = zip(top, self.loss_weights[number], self._plan.receives[number], strict=True)
        for blob, weight, receives in weighted:
            if weight and set_weights:
                blob.diff[...] = weight + (blob.diff if receives else 0)
        layer.backward(top, self._plan.propagates[number], self._bottoms[number])
        if self.watcher:
            self.watcher("Backward", layer)

    @staticmethod
    def _clear(blobs: Iterable[Blob]) -> None:
        """Set the gradients of blobs to zero."""
        for blob in blobs:
            blob.diff[...] = 0

    def clear_gradients(self) -> None:
        """Set the gradients of all parameters to zero."""
        for parameter in self.parameters:
            parameter.diff[...] = 0

    def _blob_before(self, first: int, name: str) -> Blob:
        """Return the blob of a name that layers from this number on read, and nobody computes.

        A layer in place makes a second blob of the name where somebody else reads the first.
        """
        if name not in self.blobs:
            raise ConfigError(
                f"net '{self.name}' has no blob '{name}'; its blobs are {', '.join(self.blobs)}"
            )
        makers = self._makers[name]
        before = [number for number in makers if number < first]
        number = before[-1] if before else makers[0]
        return next(blob for blob in self._tops[number] if blob.name == name)

    def bottoms_and_tops(self, layer: Layer) -> tuple[list[Blob], list[Blob]]:
        """Return the blobs a layer reads and writes."""
        number = self._number(layer)
        return self._bottoms[number], self._tops[number]

    def runs_backward(self, layer: Layer) -> bool:
        """Whether the layer takes part in the backward pass."""
        return self._plan.runs[self._number(layer)]

    def propagates(self, layer: Layer) -> list[bool]:
        """Tell for each bottom of a layer whether the backward pass gives it a gradient."""
        return self._plan.propagates[self._number(layer)]

    def _number(self, layer: Layer) -> int:
        return self._numbers[id(layer)]

    @property
    def params(self) -> dict[str, list[Parameter]]:
        """The learnable blobs of each layer that has some: ``net.params["conv1"][0].data``."""
        return {layer.name: layer.parameters for layer in self.layers if layer.parameters}

    def layer(self, name: str) -> Layer:
        """Return the layer of this name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = ", ".join(layer.name for layer in self.layers)
        raise ConfigError(f"net '{self.name}' has no layer '{name}'; its layers are {known}")

    def first_non_finite(self) -> str | None:
        """Name the first layer whose output is NaN or infinite, as ``layer 'x', blob 'y'``."""
        for layer, top in zip(self.layers, self._tops, strict=True):
            for blob in top:
                if not self.kernels.all_finite(blob.data):
                    return f"layer '{layer.name}', blob '{blob.name}'"
        return None

    # --- weights ---

    def load(self, weights: str | Path | Mapping[str, Sequence[Any]]) -> list[str]:
        """Take weights by layer name from a file or a dict; return the layers that found some.

        Connectivity is frozen here, by each layer's ``connectivity_mode``, and layers with a
        sparse ``conv_mode`` or ``gemm_mode`` are packed.

        Raises
        ------
        WeightsError
            When blobs of a layer differ in number or shape, or no layer matches at all.
        NonFiniteError
            When a weight is NaN or infinite.
        """
        source = "the given weights"
        if isinstance(weights, (str, Path)):
            from minissl.formats.weights import read_weights

            source = str(weights)
            weights = read_weights(weights)
        found = net_weights.fitting(self.layers, weights, self.dtype, source, self.name)
        for name, arrays in found.items():
            for parameter, values in zip(self.layer(name).parameters, arrays, strict=True):
                parameter.data = self.kernels.xp.array(values)
        self.freeze(list(found))
        self.prepare()
        return list(found)

    def freeze(self, names: Sequence[str]) -> None:
        """Make the connectivity masks of layers whose weights were just loaded.

        Weights below the zero-out threshold become zero first, then zeros are frozen as the
        layer's ``connectivity_mode`` says (of layers that are ``FREEZABLE``, weights only).
        """
        loaded = [layer for layer in self.layers if layer.name in names]
        for layer in loaded:
            net_weights.thaw(layer)
        for layer in loaded:
            net_weights.freeze(layer, self.kernels)

    def prepare(self) -> None:
        """Pack the weights of layers with a sparse mode; again whenever they change."""
        for layer in self.layers:
            layer.prepare()

    def weights(self) -> dict[str, list[np.ndarray]]:
        """Return all parameters as {layer name: [arrays]}, the form files hold."""
        return {
            layer.name: [backends.to_host(parameter.data) for parameter in layer.parameters]
            for layer in self.layers
            if layer.parameters
        }

    def save(self, path: str | Path) -> None:
        """Write the weights; the suffix chooses .caffemodel, .safetensors or .npz."""
        from minissl.formats.weights import write_weights

        write_weights(path, self.weights(), self.name, definitions=self.definitions())

    def definitions(self) -> dict[str, Any]:
        """Return the LayerParameter of each layer by name and in order, as the prototxt has it."""
        return {param.name: param for param in self._selected}

    # --- state ---

    def state(self) -> dict[str, Any]:
        """Return what a snapshot keeps beside the parameters: random state and data positions."""
        return {
            "rng": self.rng.bit_generator.state,
            "layers": {layer.name: layer.state() for layer in self.layers if layer.state()},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self.rng.bit_generator.state = state["rng"]
        for name, layer_state in state["layers"].items():
            self.layer(name).set_state(layer_state)
