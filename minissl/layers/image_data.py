"""ImageData: batches of image files."""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.blob import Shape
from minissl.data.batches import BatchReader
from minissl.data.images import ImageList
from minissl.data.mean import read_mean
from minissl.data.prefetch import Prefetch
from minissl.data.transform import Transform
from minissl.errors import DataError, ShapeError
from minissl.layers.base import register
from minissl.layers.records import Records


@register("ImageData")
class ImageData(Records):
    """Images that a text file lists, a path and a label in each line; top 1 holds the labels.

    ``image_data_param`` has ``source`` (the text file), ``root_folder``, ``batch_size``,
    ``new_height`` and ``new_width`` (both or none: then images keep their size, which has to be the
    same for all unless they are cropped), ``is_color``, ``shuffle`` and ``rand_skip``;
    ``transform_param`` acts as in :class:`.Data`. Channels come as B, G, R. Where the size of a
    batch is known from the prototxt, nothing is read before the first ``forward``.

    Tops: (N, C, H, W) and, where there is a second one, (N,).
    """

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Work out the shapes; an image is read only where its size is not in the prototxt."""
        p = self.param.image_data_param
        for name in ("scale", "mean_file", "crop_size", "mirror"):
            if p.HasField(name):
                raise self.config_error(
                    f"image_data_param.{name} is the old form; move {name} into transform_param"
                )
        if bool(p.new_height) != bool(p.new_width):
            raise self.config_error("give both new_height and new_width, or none")
        self._size = (p.new_height, p.new_width) if p.new_height else None
        self._batch_size = self.batch_size(p.batch_size)
        self._transform = self._read_transform()
        self._reader: BatchReader | None = None
        self._ahead = Prefetch(self._make)
        crop = self._transform.crop_size
        if self._size or not crop:
            shape = (3 if p.is_color else 1, *(self._size or self._first().shape[1:]))
            try:
                shape = self._transform.output_shape(shape)
            except ShapeError as error:
                raise self.shape_error(str(error)) from error
        else:
            shape = (3 if p.is_color else 1, crop, crop)
        self._top_shape = shape
        tops: list[Shape] = [(self._batch_size, *shape), (self._batch_size,)]
        return tops[: len(self.param.top)]

    def _first(self) -> np.ndarray:
        return self.reader.dataset.read(0)  # type: ignore[attr-defined]

    def _make(self, key: tuple[int, int], out: np.ndarray) -> np.ndarray:
        """Decode and transform the images of a batch; return the labels."""
        _, position = key
        reader, training = self.reader, self.phase == "TRAIN"
        images, labels = reader.read(position)
        rng = reader.rng_at(position)
        for i, image in enumerate(images):
            if self._transform.output_shape(image.shape) != self._top_shape:
                raise DataError(
                    f"layer '{self.name}' (ImageData): an image of shape {image.shape} where "
                    f"{self._top_shape} belongs; set new_height and new_width, or crop_size"
                )
            self._transform.apply(image[None], training, rng, out=out[i : i + 1])
        return labels

    @property
    def reader(self) -> BatchReader:
        """The reader; the first use reads the list."""
        if self._reader is None:
            p, options = self.param.image_data_param, self.context.data
            if not p.source:
                raise self.config_error("needs image_data_param.source, a text file")
            listed: Any = ImageList(p.source, p.root_folder, self._size, p.is_color)
            shuffle = bool(p.shuffle or options.get("shuffle", False))
            seed = options.get("seed", 0)
            self._reader = BatchReader(listed, self._batch_size, shuffle=shuffle, seed=seed)
            if p.rand_skip:
                self._reader.skip_up_to(p.rand_skip)
        return self._reader

    def _read_transform(self) -> Transform:
        p = self.param.transform_param
        if p.mean_file and p.mean_value:
            raise self.config_error("has both mean_file and mean_value; keep one of them")
        mean = None
        if p.mean_file:
            mean = read_mean(p.mean_file)
        elif p.mean_value:
            mean = np.array(p.mean_value, np.float32)
        return Transform(p.scale, mean, p.crop_size, p.mirror, p.pad)
