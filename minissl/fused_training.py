"""Fused training: layers that only pass over memory run as one step, forward and backward.

BatchNorm, Scale, ReLU and Eltwise compute next to nothing; what they cost is reading and writing
their blobs. In phase TRAIN a network therefore runs two chains as one step each:

    BatchNorm -> Scale [-> ReLU]      Eltwise (sum of two) -> ReLU

One pass writes the last output, from which the backward pass reads where the ReLU was active; two
more give the gradient of the first input and of all parameters. Beside the last output only the
input of the normalization is kept, also where the layers are computed in place: then the blob
changes its memory for another that the step has.

The numbers are those of the single layers; gradients may differ in the last digits, as their sums
are formed at once. What lies between the layers of a chain is computed when somebody asks for its
values; it has no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minissl.blob import Blob
from minissl.fusion import Step
from minissl.layers import BatchNorm, Eltwise, Layer, ReLU, Scale
from minissl.layers.eltwise import SUM


class TrainingStep(Step):
    """A chain that has a backward pass of its own."""

    def bytes_kept(self) -> int:
        """Bytes of what is kept for the backward pass beside the blobs."""
        return 0

    def backward(self) -> None:
        """Compute the gradients of the inputs and of all parameters."""
        raise NotImplementedError


class NormalizedStep(TrainingStep):
    """BatchNorm by the batch's own statistics, Scale by channel, and a ReLU if there is one."""

    def __init__(self, layers: list[Layer], bottoms: list[list[Blob]], tops: list[list[Blob]]):
        super().__init__(layers, bottoms, tops)
        self.norm: Any = layers[0]
        self.scale: Any = layers[1]
        self.relu = len(layers) == 3
        self.in_place = self.top[0] is self.bottom[0]
        self._between = [top[0] for top in tops[:-1]]
        self._other: Any = None
        self._x: Any = None

    def bytes_kept(self) -> int:
        """Bytes of the input that is kept where it would be overwritten."""
        return self.top[0].size * self.top[0].dtype.itemsize if self.in_place else 0

    def forward(self, runner: Any = None, **stages: int) -> None:
        """Y = scale * (x - mean) / sqrt(variance + eps) + bias, rectified."""
        self._x = x = self.bottom[0].data
        if self.in_place:
            if self._other is None or self._other is x:
                self._other = self.layer.kernels.xp.empty_like(x)
            self.top[0].data, self._other = self._other, x
        folded = self.norm.folded  # (N, C, S)
        self._moments = self.norm.batch_moments(x.reshape(folded))
        self.layer.kernels.norm_scale_forward(
            x.reshape(folded), *self._moments, self.norm.eps, *self._affine("data"),
            self.top[0].data.reshape(folded), self.relu,
        )  # fmt: skip
        for blob in self.hidden:
            blob.deferred = self._compute_hidden

    def backward(self) -> None:
        """d_bias, d_scale (added) and d_x."""
        folded = self.norm.folded
        scale, _ = self._affine("data")
        self.layer.kernels.norm_scale_backward(
            self._x.reshape(folded), self.top[0].data.reshape(folded), *self._moments,
            self.norm.eps, scale, self.top[0].diff.reshape(folded), *self._affine("diff"),
            self.bottom[0].diff.reshape(folded), self.relu,
        )  # fmt: skip

    def _affine(self, what: str) -> tuple[Any, Any]:
        """Return the scale and the bias, or their gradients."""
        arrays = [getattr(parameter, what) for parameter in self.scale.parameters]
        return arrays[0], arrays[1] if self.scale.has_bias else None

    def _compute_hidden(self) -> None:
        """Give the blobs between the layers the values they have without fusion."""
        self.forget()
        kernels, folded, last = self.layer.kernels, self.norm.folded, self.top[0]
        first, second = self._between[0], self._between[-1]
        if first is self.bottom[0] and not self.in_place:  # its values take the place of the input
            self._x = self._x.copy()
        if first is not last:
            y = first.data.reshape(folded)
            x = self._x.reshape(folded)
            kernels.batch_norm_forward(x, *self._moments, self.norm.eps, y)
        if second is not first and second is not last:
            x, y = self._x.reshape(folded), second.data.reshape(folded)
            kernels.norm_scale_forward(x, *self._moments, self.norm.eps, *self._affine("data"), y)


class SummedStep(TrainingStep):
    """The sum of two blobs, rectified."""

    def forward(self, runner: Any = None, **stages: int) -> None:
        """Y = max(a + b, 0)."""
        a, b = (blob.data for blob in self.bottom)
        self.layer.kernels.weighted_sum(a, 1.0, b, 1.0, self.top[0].data, True)
        for blob in self.hidden:
            blob.deferred = self._compute_hidden

    def backward(self) -> None:
        """d_a = d_b = d_y where y > 0."""
        (top,), (a, b) = self.top, self.bottom
        self.layer.kernels.sum_relu_backward(top.data, top.diff, a.diff, b.diff)

    def _compute_hidden(self) -> None:
        self.forget()
        a, b = (blob.data for blob in self.bottom)
        self.layer.kernels.weighted_sum(a, 1.0, b, 1.0, self.hidden[0].data)


def plan(
    layers: Sequence[Layer],
    bottoms: Sequence[list[Blob]],
    tops: Sequence[list[Blob]],
    propagates: Sequence[list[bool]],
    plain: Sequence[bool],
) -> list[Step]:
    """Return the steps of a network that trains, in order; each layer is part of one.

    Parameters
    ----------
    propagates : sequence of lists of bool
        For each layer, which bottoms get a gradient.
    plain : sequence of bool
        For each layer, whether it runs backward and none of its tops is part of the loss.
    """
    readers = _readers(bottoms)
    steps: list[Step] = []
    number = 0
    while number < len(layers):
        chain = [number]
        if plain[number] and all(propagates[number]):
            chain = _chain(number, layers, bottoms, tops, readers, plain)
        kind = Step
        if len(chain) > 1:
            kind = NormalizedStep if isinstance(layers[number], BatchNorm) else SummedStep
        numbers = slice(number, number + len(chain))
        steps.append(kind(list(layers[numbers]), list(bottoms[numbers]), list(tops[numbers])))
        number += len(chain)
    return steps


def _readers(bottoms: Sequence[list[Blob]]) -> dict[int, list[int]]:
    """Return which layers read each blob, by its identity."""
    readers: dict[int, list[int]] = {}
    for number, blobs in enumerate(bottoms):
        for blob in blobs:
            readers.setdefault(id(blob), []).append(number)
    return readers


def _chain(
    number: int,
    layers: Sequence[Layer],
    bottoms: Sequence[list[Blob]],
    tops: Sequence[list[Blob]],
    readers: dict[int, list[int]],
    plain: Sequence[bool],
) -> list[int]:
    """Return the chain that begins with a layer: neighbours, each the only reader of the last."""

    def follows(later: int) -> bool:
        return (
            later < len(layers)
            and plain[later]
            and bottoms[later] == [tops[later - 1][0]]
            and next(r for r in readers[id(bottoms[later][0])] if r >= later) == later
        )

    def rectifies(later: int) -> bool:
        if not (follows(later) and isinstance(layers[later], ReLU)):
            return False
        (y,) = tops[later]
        changed = any(
            r > later and any(top is y for top in tops[r]) for r in readers.get(id(y), [])
        )
        return layers[later].negative_slope == 0 and not changed  # type: ignore[attr-defined]

    layer: Any = layers[number]
    if isinstance(layer, BatchNorm) and layer.uses_batch and follows(number + 1):
        scale: Any = layers[number + 1]
        from_data = any(
            one.is_data and bottoms[number][0] in top for one, top in zip(layers, tops, strict=True)
        )
        if isinstance(scale, Scale) and scale.folded == layer.folded and not from_data:
            chain = [number, number + 1]
            return [*chain, number + 2] if rectifies(number + 2) else chain
    if isinstance(layer, Eltwise) and layer.operation == SUM and layer.coefficients == [1, 1]:
        return [number, number + 1] if rectifies(number + 1) else [number]
    return [number]
