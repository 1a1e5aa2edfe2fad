"""Fused inference: a convolution and what follows it run as one step.

Sparse weights make the products small; ReLU, pooling and normalization keep their size, and what
they cost is mostly memory: each reads its whole input and writes its whole output. In phase TEST a
network therefore looks for chains such as

    Convolution -> ReLU -> Pooling -> LRN          InnerProduct -> ReLU -> Dropout
    ReLU -> Pooling (maximum)

and runs each as one step. The ReLU is applied while the product is scattered and its bias added.
What follows runs over a few images at a time, as many as keep the values between the layers in the
cache, before the next images are convolved. SkimCaffe has layers of their own for this
(ConvolutionReLUPoolLRN, InnerProductReLUDropout, ReLUPooling ...); here they are found.

Nothing else changes. The same kernels compute the same numbers, bit by bit, and the blobs between
the layers of a chain can still be looked at: they are computed when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from minissl import backend as backends
from minissl.blob import Blob
from minissl.conv_modes import Prepared
from minissl.layers import Convolution, Dropout, InnerProduct, Layer, Pooling, ReLU
from minissl.layers.pooling import MAX

#: what the values between the layers of a chain may take: about the caches of a core
BLOCK_BYTES = 4 * 2**20

#: what may follow a layer, and one another, in a chain
FOLLOWERS = {
    "Convolution": ("ReLU", "Pooling", "LRN", "Dropout"),
    "InnerProduct": ("ReLU", "Dropout"),
    "ReLU": ("Pooling", "LRN", "Dropout"),
}


class Step:
    """One layer as a network runs it.

    Attributes
    ----------
    layers : list of Layer
        Those that run in this step; the first gives it its name.
    bottom, top : list of Blob
        What the step reads and writes.
    hidden : list of Blob
        What lies between the layers of a chain and is not written.
    """

    def __init__(self, layers: list[Layer], bottoms: list[list[Blob]], tops: list[list[Blob]]):
        self.layers = layers
        self.layer = layers[0]
        self.bottom, self.top = bottoms[0], tops[-1]
        between = [top[0] for top in tops[:-1] if top[0] is not tops[-1][0]]
        self.hidden = list(dict.fromkeys(between))
        self._apart = list(zip(layers, bottoms, tops, strict=True))[: len(between)]

    def forward(self, runner: Prepared | None = None, **stages: int) -> None:
        """Run the step.

        Parameters
        ----------
        runner : Prepared, optional
            Runs a convolution in place of the layer's own ``conv_mode``, to be timed.
        stages : int
            Stages of the convolution that are run, and nothing else of the step.
        """
        if runner is None:
            self.layer.forward(self.bottom, self.top)
        else:
            runner.forward(self.bottom[0].data, self.top[0].data, relu=False, **stages)

    def forget(self) -> None:
        """Leave nothing to be computed on demand."""
        for blob in self.hidden:
            blob.deferred = None


class FusedStep(Step):
    """A chain of layers, each the only reader of the one before.

    Attributes
    ----------
    kind : str
        The chain as the name of a layer type, such as ``ConvolutionReLUPool``.
    """

    def __init__(self, layers: list[Layer], bottoms: list[list[Blob]], tops: list[list[Blob]]):
        super().__init__(layers, bottoms, tops)
        self.kind = "".join(layer.type_name for layer in layers)
        if layers[0].type_name != "ReLU":
            self.kind = self.kind.replace("Pooling", "Pool")
        self._plan(tops)

    def _plan(self, tops: list[list[Blob]]) -> None:
        """Decide which layers run, in which order, and where each of them writes."""
        order = list(zip(self.layers, (top[0].shape[1:] for top in tops), strict=True))
        if isinstance(self.layer, ReLU):
            # the largest of rectified numbers is the largest number, rectified
            order[:2] = [order[1], (self.layer, order[1][1])]
        self._relu = isinstance(self.layer, (Convolution, InnerProduct)) and _is_plain_relu(
            self.layers[1]
        )
        if self._relu:
            del order[1]
        self._order = [(layer, shape) for layer, shape in order if not isinstance(layer, Dropout)]
        writers = [i for i, (layer, _) in enumerate(self._order) if not isinstance(layer, ReLU)]
        self._last_writer = writers[-1]
        self._between = {i: self._order[i][1] for i in writers[:-1]}  # shapes of one image
        self._image_bytes = sum(map(prod, self._between.values())) * self.top[0].dtype.itemsize
        self._memory: dict[int, Any] = {}
        self._whole: list[Blob] = []

    def forward(self, runner: Prepared | None = None, **stages: int) -> None:
        """Run the chain; what it passes over can be computed on demand."""
        if runner is None and isinstance(self.layer, Convolution):
            runner = self.layer.runner()
        images = self.top[0].shape[0]
        block = self.images_per_block(runner)
        if block == images:
            self._whole = self._whole or self._path(0, images)
            self._run(self._whole, runner, stages)
        else:
            for first in range(0, images, block):
                self._run(self._path(first, min(images, first + block)), runner, stages)
        for blob in self.hidden:
            blob.deferred = self._compute_hidden

    def images_per_block(self, runner: Prepared | None) -> int:
        """Return after how many images the chain begins anew.

        A multiple of what is convolved together, so that nothing changes in any digit, and enough
        to keep all threads busy.
        """
        images = self.top[0].shape[0]
        if images == 1 or not self._image_bytes or not self.layer.kernels.WAITS:
            return images  # a device is kept busy by a whole batch only
        chunk = runner.images_per_chunk(images) if runner else 1
        is_compiled = backends.name_of(self.layer.kernels) == "numba"
        together = chunk * (backends.threads() if is_compiled else 1)
        return min(images, together * max(1, BLOCK_BYTES // (together * self._image_bytes)))

    def _path(self, first: int, last: int) -> list[Blob]:
        """Return what some images pass through: the input of each layer, and the last output."""
        path = [_part(self.bottom[0], first, last)]
        for i in range(len(self._order)):
            if i == self._last_writer:
                path.append(_part(self.top[0], first, last))
            elif i in self._between:
                path.append(self._buffer(i, last - first))
            else:  # a ReLU that stands alone is computed in place
                path.append(path[-1])
        return path

    def _run(self, path: list[Blob], runner: Prepared | None, stages: dict[str, int]) -> None:
        """Run the chain for some images; with ``stages``, these of the convolution alone."""
        for i, (layer, _) in enumerate(self._order):
            if i == 0 and runner is not None:
                runner.forward(path[0].data, path[1].data, relu=self._relu, **stages)
                if stages:
                    return
            elif isinstance(layer, InnerProduct):
                layer.forward([path[i]], [path[i + 1]], relu=self._relu)
            else:
                layer.forward([path[i]], [path[i + 1]])

    def _buffer(self, i: int, images: int) -> Blob:
        """Return memory for what layer i hands to the next one."""
        shape = (images, *self._between[i])
        if i not in self._memory or len(self._memory[i]) < images:
            self._memory[i] = self.layer.kernels.xp.empty(shape, self.top[0].dtype)
        return _view("between", self._memory[i][:images])

    def _compute_hidden(self) -> None:
        """Give the blobs between the layers the values that they have without fusion."""
        self.forget()
        with backends.single_threaded_blas():
            for layer, bottom, top in self._apart:
                layer.forward(bottom, top)


def plan(
    layers: Sequence[Layer],
    bottoms: Sequence[list[Blob]],
    tops: Sequence[list[Blob]],
    fuse: bool,
) -> list[Step]:
    """Return the steps of a network, in order; each layer is part of one."""
    chains = {chain[0]: chain for chain in find_chains(layers, bottoms, tops)} if fuse else {}
    taken = {number for chain in chains.values() for number in chain[1:]}
    steps: list[Step] = []
    for number in range(len(layers)):
        if number in taken:
            continue
        chain = chains.get(number, [number])
        kind = FusedStep if len(chain) > 1 else Step
        steps.append(
            kind([layers[i] for i in chain], [bottoms[i] for i in chain], [tops[i] for i in chain])
        )
    return steps


def find_chains(
    layers: Sequence[Layer], bottoms: Sequence[list[Blob]], tops: Sequence[list[Blob]]
) -> Iterator[list[int]]:
    """Yield the chains of a network, as numbers of their layers."""
    taken: set[int] = set()
    for number, layer in enumerate(layers):
        if number in taken or layer.type_name not in FOLLOWERS:
            continue
        chain = [number]
        while (follower := _only_reader(chain[-1], bottoms, tops)) is not None:
            if len(tops[follower]) != 1 or not _joins(layers, chain, layers[follower]):
                break
            chain.append(follower)
        if len(chain) > 1:
            taken.update(chain)
            yield chain


def _only_reader(
    number: int, bottoms: Sequence[list[Blob]], tops: Sequence[list[Blob]]
) -> int | None:
    """Return the layer that reads what another has written; None where nobody does.

    Where there are several, a Split layer reads it for them, and that is not part of any chain.
    """
    (blob,) = tops[number]
    for later in range(number + 1, len(bottoms)):
        if any(bottom is blob for bottom in bottoms[later]):
            return later
    return None


def _joins(layers: Sequence[Layer], chain: list[int], layer: Layer) -> bool:
    """Whether a layer may run in the step of a chain."""
    head = layers[chain[0]]
    if isinstance(head, InnerProduct) and head.axis == 0:
        return False  # what comes out has no axis of images
    if isinstance(head, ReLU) and len(chain) == 1:
        is_max_pooling = isinstance(layer, Pooling) and layer.method == MAX
        return is_max_pooling and head.negative_slope >= 0
    return layer.type_name in FOLLOWERS[head.type_name]


def _is_plain_relu(layer: Layer) -> bool:
    return isinstance(layer, ReLU) and layer.negative_slope == 0


def _part(blob: Blob, first: int, last: int) -> Blob:
    """See some images of a blob as a blob."""
    if (first, last) == (0, blob.shape[0]):
        return blob
    return _view(blob.name, blob.data[first:last])


def _view(name: str, array: Any) -> Blob:
    blob = Blob(name, array.shape, array.dtype)
    blob.data = array
    return blob
