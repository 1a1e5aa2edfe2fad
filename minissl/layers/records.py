"""Layers that data come from, and those among them that read records in batches."""

from __future__ import annotations

from math import ceil
from typing import Any, ClassVar

from minissl.backend import assign, writing
from minissl.blob import Blob
from minissl.data.batches import BatchReader
from minissl.data.prefetch import Prefetch
from minissl.errors import DataError
from minissl.layers.base import Layer


class Source(Layer):
    """A layer that only produces."""

    n_bottoms: ClassVar[tuple[int, int]] = (0, 0)
    is_data: ClassVar[bool] = True

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """Do nothing: there is no bottom to give a gradient to."""

    def batch_size(self, of_prototxt: int) -> int:
        """Return the batch size of the command line, else that of the prototxt."""
        size = self.context.data.get("batch_size") or of_prototxt
        if size < 1:
            raise self.config_error(f"batch_size is {size}; use 1 or more")
        return size


class Records(Source):
    """Base of Data and ImageData: top 0 the images, top 1 the labels of consecutive records.

    A subclass sets ``_batch_size`` and ``_ahead``, which makes a batch from its seed and position,
    and gives the ``reader``.
    """

    n_tops: ClassVar[tuple[int, int]] = (1, 2)
    _batch_size: int
    _ahead: Prefetch

    @property
    def reader(self) -> BatchReader:
        """Where the records come from; the first use opens it."""
        raise NotImplementedError

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Write the next batch, and let the one after it be made in the background."""
        reader = self.reader
        with writing(top[0].data) as out:
            labels = self._ahead.take((reader.seed, reader.position), out)
            reader.position += self._batch_size
            self._ahead.begin((reader.seed, reader.position), out)
        if len(top) > 1:
            assign(top[1].data, labels)

    def batches_per_epoch(self) -> int | None:
        """Return how many batches hold every record once."""
        return ceil(len(self.reader.dataset) / self._batch_size)

    def state(self) -> dict[str, Any]:
        """Return the number of records read and the seed of their order."""
        return {"position": self.reader.position, "seed": self.reader.seed}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where another run stood."""
        if set(state) != {"position", "seed"}:
            raise DataError(
                f"layer '{self.name}' ({self.type_name}): the snapshot holds {sorted(state)} "
                "where a data position and a seed belong; resume from another snapshot"
            )
        self._ahead.forget()
        self.reader.position = state["position"]
        self.reader.seed = state["seed"]
