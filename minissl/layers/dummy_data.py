"""DummyData: blobs filled with constants or random numbers."""

from __future__ import annotations

from typing import Any, ClassVar

from minissl.backend import assign
from minissl.blob import Blob, Shape
from minissl.formats.proto import FillerParameter
from minissl.layers.base import register
from minissl.layers.fillers import fill
from minissl.layers.records import Source


@register("DummyData")
class DummyData(Source):
    """Data for a network that is tried out or timed.

    ``dummy_data_param`` has one ``shape`` for all tops or one for each (or in the old form ``num``,
    ``channels``, ``height`` and ``width``), and no ``data_filler`` (zeros), one for all or one for
    each. Constant tops are filled once, random ones anew in each forward pass.
    """

    n_tops: ClassVar[tuple[int, int]] = (1, 1000)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Read shapes and fillers."""
        p, tops = self.param.dummy_data_param, len(self.param.top)
        fillers = list(p.data_filler) or [FillerParameter()]  # constant, 0
        if len(fillers) not in (1, tops):
            raise self.config_error(
                f"has {len(fillers)} fillers for {tops} tops; give none, one for all, or one each"
            )
        shapes = self._shapes(p, tops)
        fillers = fillers * tops if len(fillers) == 1 else fillers
        self._tops = list(zip(fillers, shapes, strict=True))
        self._is_filled = False
        return shapes

    def _shapes(self, p: Any, tops: int) -> list[Shape]:
        """Return the shape of each top."""
        old = [list(getattr(p, name)) for name in ("num", "channels", "height", "width")]
        if p.shape and any(old):
            raise self.config_error("has shape and the old num, channels ...; keep shape")
        if p.shape:
            shapes = [tuple(shape.dim) for shape in p.shape]
        else:
            lengths = {len(values) for values in old}
            if len(lengths) != 1:
                raise self.config_error("needs num, channels, height and width equally often")
            shapes = list(zip(*old, strict=True))
        if len(shapes) not in (1, tops):
            raise self.config_error(
                f"has {len(shapes)} shapes for {tops} tops; give one for all, or one each"
            )
        if any(n < 1 for shape in shapes for n in shape):
            raise self.config_error("has a shape with a dimension below 1; use 1 or more")
        sized = [(self.batch_size(shape[0]), *shape[1:]) if shape else () for shape in shapes]
        return sized * tops if len(sized) == 1 else sized

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Draw random tops; the first time fill constant ones."""
        for blob, (filler, shape) in zip(top, self._tops, strict=True):
            if not self._is_filled or filler.type != "constant":
                values = fill(filler, shape, self.rng, where=f"layer '{self.name}'")
                assign(blob.data, values)
        self._is_filled = True
