"""Records of HDF5 files, in the order of a list of files: what Caffe's HDF5Data reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minissl.data.batches import SHUFFLE_STREAM
from minissl.errors import DataError
from minissl.formats.hdf5 import opened
from minissl.formats.reading import read_bytes


class Hdf5Rows:
    """Reads the files again and again, one in memory at a time.

    Record i is the i-th row of each data set. With ``shuffle`` each epoch has another order of the
    files, and of the rows within each.

    Parameters
    ----------
    source : str
        A text file with the path of an HDF5 file in each line.
    names : sequence of str
        The data sets that are read.
    shuffle, seed : bool, int
        Orders follow from the seed and the number of the epoch.
    """

    def __init__(self, source: str, names: Sequence[str], shuffle: bool = False, seed: int = 0):
        text = read_bytes(source, "list of HDF5 files", DataError).decode("utf-8", "replace")
        self.files = [line.strip() for line in text.splitlines() if line.strip()]
        if not self.files:
            raise DataError(f"{source} lists no files; write the path of one in each line")
        self.names, self.shuffle, self.seed = list(names), shuffle, seed
        self.epoch = self.place = self.row = 0  # the next record: epoch, number in it, row of that
        self._arrays: list[np.ndarray] = []
        self._shapes: list[tuple[int, ...]] = []
        self._loaded: tuple[int, int] | None = None

    @property
    def row_shapes(self) -> list[tuple[int, ...]]:
        """The shape of a record in each data set."""
        self._load()
        return self._shapes

    def next(self, count: int) -> list[np.ndarray]:
        """Return the next ``count`` records of each data set, and move on."""
        parts: list[list[np.ndarray]] = [[] for _ in self.names]
        while count:
            self._load()
            left = len(self._arrays[0]) - self.row
            taken = min(count, left)
            for part, array in zip(parts, self._arrays, strict=True):
                part.append(array[self.row : self.row + taken])
            count -= taken
            self.row += taken
            if taken == left:
                self.row = 0
                self.place += 1
                if self.place == len(self.files):
                    self.place = 0
                    self.epoch += 1
        return [np.concatenate(part) for part in parts]

    def state(self) -> dict[str, Any]:
        """Return where the next record is."""
        return {"epoch": self.epoch, "file": self.place, "row": self.row, "seed": self.seed}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where another run stood."""
        numbers = [state.get(name) for name in ("epoch", "file", "row", "seed")]
        fits = len(state) == 4 and all(type(n) is int and n >= 0 for n in numbers)
        if fits:
            self.epoch, self.place, self.row, self.seed = numbers  # type: ignore[assignment]
            self._loaded = None
            fits = self.place < len(self.files)
        if fits:
            self._load()
            fits = self.row < len(self._arrays[0])
        if not fits:
            raise DataError(
                f"the snapshot's position {state} does not fit the {len(self.files)} HDF5 files; "
                "resume with the files of that run"
            )

    def _load(self) -> None:
        """Have the file of the next record in memory, its rows in this epoch's order."""
        if self._loaded == (self.epoch, self.place):
            return
        number = self.place
        if self.shuffle:
            rng = np.random.default_rng([self.seed, SHUFFLE_STREAM, self.epoch])
            number = int(rng.permutation(len(self.files))[self.place])
        path = self.files[number]
        with opened(path, "data file", DataError) as file:
            self._arrays = [file.array(name) for name in self.names]
        lengths = {len(array) if array.ndim else 0 for array in self._arrays}
        if len(lengths) != 1 or 0 in lengths:
            raise DataError(
                f"{path}: its data sets {', '.join(self.names)} have "
                f"{', '.join(str(array.shape) for array in self._arrays)} values; they need "
                "equally many rows, one or more"
            )
        shapes = [array.shape[1:] for array in self._arrays]
        if shapes != (self._shapes or shapes):
            raise DataError(
                f"{path}: rows of shapes {shapes} where another file of the list has "
                f"{self._shapes}; make all files alike"
            )
        self._shapes = shapes
        if self.shuffle:
            order = np.random.default_rng([self.seed, SHUFFLE_STREAM, self.epoch, number])
            rows = order.permutation(lengths.pop())
            self._arrays = [array[rows] for array in self._arrays]
        self._loaded = (self.epoch, self.place)
