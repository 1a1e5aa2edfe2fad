"""What a network needs of memory, and how the gradients of its blobs share some.

The gradient of a blob is written by the backward pass of the step that reads the blob and read by
that of the step that makes it; before and after, its memory can hold another one. The plan lays all
of them into one arena: the largest first, each at the lowest place where nothing lies that is
needed at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minissl.blob import Blob
from minissl.fused_training import SummedStep, TrainingStep
from minissl.fusion import Step
from minissl.layers import Layer, Split

#: every gradient begins at a multiple of so many bytes, a cache line
LINE = 64


@dataclass(frozen=True)
class Needs:
    """Bytes that a network needs.

    Attributes
    ----------
    forward : int
        Values of the blobs that are written.
    backward : int
        Their gradients; of those that share memory the arena.
    parameters : int
        Values and, in phase TRAIN, gradients of the parameters.
    history : int
        One momentum buffer for each parameter, in phase TRAIN.
    scratch : int
        What layers keep for the backward pass or compute with.
    backward_apart : int
        What the gradients of blobs would need if each had memory of its own.
    """

    forward: int
    backward: int
    parameters: int
    history: int
    scratch: int
    backward_apart: int

    @property
    def total(self) -> int:
        """All of it, as it is."""
        return self.forward + self.backward + self.parameters + self.history + self.scratch

    def to_json(self) -> dict[str, int]:
        """Return the numbers as they are reported."""
        return {**vars(self), "total": self.total}


@dataclass(frozen=True)
class Tenant:
    """Something that needs ``size`` bytes from time ``first`` to time ``last``."""

    size: int
    first: int
    last: int


def place(tenants: Sequence[Tenant]) -> tuple[list[int], int]:
    """Return where each tenant begins, and how many bytes that takes.

    Examples
    --------
    >>> place([Tenant(100, 0, 1), Tenant(50, 1, 2), Tenant(60, 2, 3)])
    ([0, 128, 0], 192)
    """
    starts = [0] * len(tenants)
    placed: list[int] = []
    for i in sorted(range(len(tenants)), key=lambda i: -tenants[i].size):
        one = tenants[i]
        beside = sorted(
            (starts[j], starts[j] + _rounded(tenants[j].size))
            for j in placed
            if tenants[j].first <= one.last and one.first <= tenants[j].last
        )
        at = 0
        for begin, end in beside:
            if begin - at >= one.size:
                break
            at = max(at, end)
        starts[i] = at
        placed.append(i)
    ends = (starts[i] + _rounded(one.size) for i, one in enumerate(tenants))
    return starts, max(ends, default=0)


def _rounded(size: int) -> int:
    return -(-size // LINE) * LINE


class GradientPlan:
    """Which blobs of a network have gradients in the backward pass, and where in the arena.

    Parameters
    ----------
    steps : sequence of Step
        What the network runs, in order.
    gets_gradient : callable
        Takes a layer and tells for each of its bottoms whether it gets a gradient.
    """

    def __init__(self, steps: Sequence[Step], gets_gradient: Callable[[Layer], list[bool]]):
        written: dict[int, Blob] = {}
        touched: dict[int, list[int]] = {}
        self.owner: dict[int, int] = {}  # blobs in the memory of another
        for number, step in enumerate(steps):
            for blob in (*step.bottom, *step.top):
                touched.setdefault(id(blob), []).append(number)
            for blob, yes in zip(step.bottom, gets_gradient(step.layers[0]), strict=True):
                if yes:
                    written[id(blob)] = blob
            # d_a is computed in place of d_y; the gradient of what a view looks at is a view too
            if isinstance(step, SummedStep) or step.layer.is_view:
                self.owner[id(step.bottom[0])] = id(step.top[0])
        self.blobs = list(written.values())
        self.owner = {a: b for a, b in self.owner.items() if a in written and b in written}
        lives: dict[int, list[int]] = {}
        sizes: dict[int, int] = {}
        for blob in self.blobs:
            root = self._root(id(blob))
            lives.setdefault(root, []).extend(touched[id(blob)])
            sizes[root] = blob.size * blob.dtype.itemsize
        # the backward pass runs through the steps from the last to the first
        tenants = [Tenant(sizes[root], -max(times), -min(times)) for root, times in lives.items()]
        starts, self.bytes = place(tenants)
        self.starts = dict(zip(lives, starts, strict=True))

    def _root(self, key: int) -> int:
        while key in self.owner:
            key = self.owner[key]
        return key

    def share(self, xp: Any) -> None:
        """Give all these gradients their place in one arena."""
        if not self.blobs:
            return
        itemsize = self.blobs[0].dtype.itemsize
        arena = xp.zeros((self.bytes + LINE) // itemsize, self.blobs[0].dtype)
        skipped = -arena.ctypes.data % LINE // itemsize if isinstance(arena, np.ndarray) else 0
        for blob in self.blobs:
            first = skipped + self.starts[self._root(id(blob))] // itemsize
            blob.diff = arena[first : first + math.prod(blob.shape)].reshape(blob.shape)

    @property
    def bytes_apart(self) -> int:
        """Return what the gradients take where each has memory of its own."""
        return sum(blob.size * blob.dtype.itemsize for blob in self.blobs)


def needs(
    steps: Sequence[Step],
    gradients: GradientPlan,
    shares: bool,
    parameters: Sequence[Any],
    phase: str,
) -> Needs:
    """Add up what a network needs; only one in phase TRAIN has gradients."""
    written: dict[int, int] = {}
    scratch = 0
    for step in steps:
        if not isinstance(step.layer, Split):  # the tops of a split are its bottom
            for blob in step.top:
                written[id(blob)] = blob.size * blob.dtype.itemsize
        if isinstance(step, TrainingStep):
            scratch += step.bytes_kept()
        else:
            scratch += sum(layer.workspace_bytes() for layer in step.layers)
    weights = sum(parameter.size * parameter.dtype.itemsize for parameter in parameters)
    trains = phase == "TRAIN"
    apart = gradients.bytes_apart if trains else 0
    return Needs(
        forward=sum(written.values()),
        backward=gradients.bytes if shares and trains else apart,
        parameters=(2 if trains else 1) * weights,
        history=weights if trains else 0,
        scratch=scratch,
        backward_apart=apart,
    )
