"""What every layer has in common: how it is set up, and what forward and backward may touch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from minissl.blob import Blob, Parameter, Shape
from minissl.errors import ConfigError, ShapeError
from minissl.layers.fillers import fill


@dataclass
class Context:
    """What a network hands to each of its layers.

    Attributes
    ----------
    kernels : module
        The backend (see :mod:`minissl.backend`).
    dtype : numpy.dtype
        float32 or float64.
    rng : numpy.random.Generator
        The network's random numbers: fillers and dropout.
    phase : {"TRAIN", "TEST"}
        Which of the two networks a prototxt describes is built.
    data : dict
        ``{"source": name or None, "batch_size": int or None, "shuffle": bool, "seed": int}``;
        overrides for Data layers given on the command line.
    """

    kernels: Any
    dtype: np.dtype = field(default_factory=lambda: np.dtype(np.float32))
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    phase: str = "TRAIN"
    data: dict = field(default_factory=dict)


class Layer:
    """Base of all layers.

    A layer is set up from shapes alone (nothing is allocated until the whole network is known to
    fit), then run by ``forward`` and ``backward``. Both write into arrays that already exist:

    * ``forward`` writes ``top[i].data``;
    * ``backward`` overwrites ``bottom[i].diff`` where ``propagate_down[i]`` is true, and *adds* to
      the gradient of each parameter, so that several passes can share one update (``iter_size``).

    ``top[0]`` may be the very blob ``bottom[0]`` (computed in place) where ``in_place`` says so.
    """

    type_name: ClassVar[str] = ""
    #: numbers of bottoms and tops the layer accepts, as (least, most)
    n_bottoms: ClassVar[tuple[int, int]] = (1, 1)
    n_tops: ClassVar[tuple[int, int]] = (1, 1)
    in_place: ClassVar[bool] = False
    #: whether the backward pass looks at ``top[0].data``, which no later layer may then change
    reads_top: bool = False
    #: types that may change such a top in place all the same
    unharmed_by: ClassVar[tuple[str, ...]] = ()
    #: whether the top looks at the bottom's memory, and the bottom's gradient at the top's
    is_view: ClassVar[bool] = False
    is_loss: ClassVar[bool] = False
    is_data: ClassVar[bool] = False
    #: bottoms that never receive a gradient, such as labels
    no_gradient: ClassVar[tuple[int, ...]] = ()

    def __init__(self, param: Any, context: Context):
        self.param = param
        self.name: str = param.name
        self.kernels = context.kernels
        self.dtype = np.dtype(context.dtype)
        self.rng = context.rng
        self.phase = context.phase
        self.context = context
        self.parameters: list[Parameter] = []
        self._fillers: list[Any] = []

    # --- set-up ---

    def check_counts(self) -> None:
        """See that the prototxt names as many bottoms and tops as the layer has."""
        counts = {
            "bottom": (len(self.param.bottom), self.n_bottoms),
            "top": (len(self.param.top), self.n_tops),
        }
        for what, (count, (least, most)) in counts.items():
            if not least <= count <= most:
                expected = f"{least} to {most}"
                if least == most:
                    expected = str(least)
                elif most > 99:
                    expected = f"{least} or more"
                raise self.config_error(f"has {count} {what}s where {expected} belong")

    def check_params(self) -> None:
        """See that there are no more ``param`` blocks than blobs that are learned."""
        given, blobs = len(self.param.param), len(self.parameters)
        if given > blobs:
            raise self.config_error(
                f"has {given} param blocks for {blobs} blob{'' if blobs == 1 else 's'} of "
                "weights; remove those at the end, which would do nothing"
            )

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Check the bottoms, fix the geometry, declare parameters; return the tops' shapes."""
        raise NotImplementedError

    def declare_parameter(
        self, shape: Shape, filler: Any, role: str, conv_groups: int = 1
    ) -> Parameter:
        """Announce a learnable blob; it is filled by :meth:`fill_parameters` later."""
        index = len(self.parameters)
        specs = self.param.param
        while len(specs) <= index:
            specs.add()  # the format's defaults: multipliers 1, no group lasso
        parameter = Parameter(
            self.name,
            index,
            shape,
            role,
            specs[index],
            conv_groups,
            self.dtype,
            self.kernels.xp,
        )
        self.parameters.append(parameter)
        self._fillers.append(filler)
        return parameter

    def fill_parameters(self) -> None:
        """Give every declared parameter its initial value, but for those of another layer."""
        for parameter, filler in zip(self.parameters, self._fillers, strict=True):
            if parameter.layer_name != self.name:
                continue
            values = fill(filler, parameter.shape, self.rng, where=f"layer '{self.name}'")
            parameter.data = self.kernels.xp.asarray(values.astype(self.dtype))

    def prepare(self) -> None:
        """Pack the weights, where the layer has a mode for sparse ones; called when they change."""

    def top_changes(self, number: int) -> None:
        """Take note that a later layer changes a top in place: it may not be another's memory."""

    def workspace_bytes(self) -> int:
        """Bytes of scratch memory the layer needs beside its blobs."""
        return 0

    # --- running ---

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Compute ``top[i].data`` from ``bottom[i].data``."""
        raise NotImplementedError

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """Compute gradients of the bottoms and of the parameters from ``top[i].diff``."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise what went wrong in earlier passes and could not be said at once.

        A backend that does not wait for its results leaves checks of them to this method.
        """

    # --- a data layer's records ---

    def batches_per_epoch(self) -> int | None:
        """Return how many batches hold every record once; None where nobody knows."""
        return None

    # --- state between iterations ---

    def state(self) -> dict[str, Any]:
        """Return what a snapshot must keep beside the parameters, such as a data position."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned."""

    # --- messages ---

    def shape_error(self, what: str) -> ShapeError:
        """Build an error that names this layer."""
        return ShapeError(f"layer '{self.name}' ({self.type_name}): {what}")

    def config_error(self, what: str) -> ConfigError:
        """Build an error that names this layer."""
        return ConfigError(f"layer '{self.name}' ({self.type_name}): {what}")


LAYERS: dict[str, type[Layer]] = {}


def register(type_name: str) -> Callable[[type[Layer]], type[Layer]]:
    """Class decorator: make a layer known by its prototxt ``type``."""

    def add(cls: type[Layer]) -> type[Layer]:
        cls.type_name = type_name
        LAYERS[type_name] = cls
        return cls

    return add
