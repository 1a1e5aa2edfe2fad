"""HDF5Data: batches from HDF5 files."""

from __future__ import annotations

import sys
from typing import Any, ClassVar

from minissl.backend import assign
from minissl.blob import Blob, Shape
from minissl.data.hdf5_rows import Hdf5Rows
from minissl.layers.base import register
from minissl.layers.records import Source


@register("HDF5Data")
class HDF5Data(Source):
    """Rows of data sets in HDF5 files; each top is the data set of its name.

    ``hdf5_data_param.source`` is a text file with the path of an HDF5 file in each line; files are
    read in this order, again and again, or with ``shuffle`` in another order each time, rows too.
    One file at a time is in memory. Needs h5py.

    Tops: (N, ...), N = ``batch_size``, and the shape of a row.
    """

    n_tops: ClassVar[tuple[int, int]] = (1, sys.maxsize)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Read the first file for its shapes."""
        p = self.param.hdf5_data_param
        if self.param.HasField("transform_param"):
            raise self.config_error("transform_param does not act on HDF5 data; remove it")
        if not p.source:
            raise self.config_error("needs hdf5_data_param.source, a text file")
        options = self.context.data
        shuffle = bool(p.shuffle or options.get("shuffle", False))
        self._batch_size = self.batch_size(p.batch_size)
        self._rows = Hdf5Rows(p.source, list(self.param.top), shuffle, options.get("seed", 0))
        return [(self._batch_size, *shape) for shape in self._rows.row_shapes]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Write the next batch."""
        for blob, values in zip(top, self._rows.next(self._batch_size), strict=True):
            assign(blob.data, values)

    def state(self) -> dict[str, Any]:
        """Return where the next record is."""
        return self._rows.state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where another run stood."""
        self._rows.set_state(state)
