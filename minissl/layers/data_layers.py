"""Layers without bottoms, where a network's input comes from: Data, MemoryData and Input.

Dimensions: N images of a batch, C channels, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from minissl.backend import assign
from minissl.blob import Blob, Shape
from minissl.data.batches import BatchReader
from minissl.data.catalogue import CATALOGUE, SOURCES, find_source
from minissl.data.databases import DatumDataset
from minissl.data.datasets import load
from minissl.data.mean import mean_of, read_mean
from minissl.data.prefetch import Prefetch
from minissl.data.transform import Transform
from minissl.errors import DataError, ShapeError
from minissl.formats.lmdb_file import is_leveldb, is_lmdb
from minissl.layers.base import register
from minissl.layers.records import Records, Source

SPLIT_OF_PHASE = {"TRAIN": "train", "TEST": "test"}


@register("Data")
class Data(Records):
    """Batches of a data set, in file order, transformed; top 0 the images, top 1 the labels.

    ``data_param.source`` names a data set that minissl knows (``mnist``, ``cifar10`` ...), or the
    folder of an LMDB database, unless the context names a data set, which then replaces it. The
    TRAIN phase reads the training part, TEST the test part; with ``/validation`` behind the name
    both read the training part, divided in two (:func:`minissl.data.datasets.load`). They are
    loaded by the first ``forward``: a network can be looked at without. Of a database the first
    record is read at once, for its shape. ``transform_param.mean_file`` is a file, or names a data
    set whose training images the mean is taken of.

    Tops: (N, C, H, W) and, where there is a second one, (N,); labels are numbers of the network's
    type, as in Caffe.
    """

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Find the data set in the catalogue and work out the shapes.

        Of the data only a mean file and a database's first record are read.
        """
        param = self.param.data_param
        for name in ("scale", "mean_file", "crop_size", "mirror"):
            if param.HasField(name):
                raise self.config_error(
                    f"data_param.{name} is the old form; move {name} into transform_param"
                )
        self._source = self._find_source(param.source)
        self._reader: BatchReader | None = None
        self._ahead = Prefetch(self._make)
        self._batch_size = self.batch_size(param.batch_size)
        self._transform = self._read_transform()
        self._database = self._open_database()
        stored = (self._database or find_source(self._source)[0]).image_shape
        try:
            self._image_shape = self._transform.output_shape(stored)
        except ShapeError as error:
            raise self.shape_error(str(error)) from error
        tops: list[Shape] = [(self._batch_size, *self._image_shape), (self._batch_size,)]
        return tops[: len(self.param.top)]

    def _make(self, key: tuple[int, int], out: np.ndarray) -> np.ndarray:
        """Write the images of a batch, transformed; return the labels."""
        _, position = key
        reader, training = self.reader, self.phase == "TRAIN"
        images, labels = reader.read(position)
        rng = reader.rng_at(position)
        if isinstance(images, list):  # of different sizes
            for i, image in enumerate(images):
                self._check_shape(image)
                self._transform.apply(image[None], training, rng, out=out[i : i + 1])
        else:
            self._check_shape(images[0])
            self._transform.apply(images, training, rng, out=out)
        return labels

    @property
    def reader(self) -> BatchReader:
        """The reader; the first use loads the data set."""
        if self._reader is None:
            options = self.context.data
            dataset = self._database or load(self._source, SPLIT_OF_PHASE[self.phase])
            if self._mean_source:
                self._transform = replace(self._transform, mean=mean_of(self._mean_source))
            self._reader = BatchReader(
                dataset,
                self._batch_size,
                shuffle=bool(options.get("shuffle", False)),
                seed=options.get("seed", 0),
            )
            if self.param.data_param.rand_skip:
                self._reader.skip_up_to(self.param.data_param.rand_skip)
        return self._reader

    def _find_source(self, source: str) -> str:
        override = self.context.data.get("source")
        name: str = override or source
        if name in SOURCES:
            return name
        known = ", ".join(CATALOGUE)
        if override:
            raise self.config_error(f"unknown data set '{override}'; use one of {known}")
        if is_lmdb(source):
            return source
        guess = "cifar10" if "cifar" in source.lower() else "mnist"
        instead = (
            f"add --data {guess} to read the official files instead, or name one of {known} "
            "as the source"
        )
        if is_leveldb(source):
            raise self.config_error(
                f"the source '{source}' is a LevelDB database, and only LMDB is read; make it "
                f"again as LMDB, {instead}"
            )
        raise self.config_error(
            f"there is no LMDB database '{source}', its source; make it with minissl data lmdb, "
            f"{instead}"
        )

    def _open_database(self) -> DatumDataset | None:
        """Open the source where it is a database."""
        if self._source in SOURCES:
            return None
        param = self.param.transform_param
        if param.force_color and param.force_gray:
            raise self.config_error("has both force_color and force_gray; keep one of them")
        colored = param.force_color or self.param.data_param.force_encoded_color  # the old place
        color = True if colored else False if param.force_gray else None
        return DatumDataset(self._source, color)

    def _check_shape(self, image: np.ndarray) -> None:
        """Refuse an image that does not come out as the first one did."""
        try:
            shape = self._transform.output_shape(image.shape)  # type: ignore[arg-type]
        except ShapeError as error:
            raise DataError(f"layer '{self.name}' (Data): {error}") from None
        if shape != self._image_shape:
            raise DataError(
                f"layer '{self.name}' (Data): an image of shape {image.shape} follows others that "
                f"come out as {self._image_shape}; set crop_size, or make the database again with "
                "images of one size"
            )

    def _read_transform(self) -> Transform:
        param = self.param.transform_param
        if param.mean_file and param.mean_value:
            raise self.config_error("has both mean_file and mean_value; keep one of them")
        mean = None
        self._mean_source = param.mean_file if param.mean_file in CATALOGUE else None
        if self._mean_source:  # a place of its shape, until the data are loaded
            mean = np.broadcast_to(np.float32(0), CATALOGUE[self._mean_source].image_shape)
        elif param.mean_file:
            mean = read_mean(param.mean_file)
        elif param.mean_value:
            mean = np.array(param.mean_value, np.float32)
        return Transform(param.scale, mean, param.crop_size, param.mirror, param.pad)


@register("MemoryData")
class MemoryData(Source):
    """Batches of arrays that a program hands over with :meth:`set_arrays`.

    Tops: (N, C, H, W) and, where there is a second one, (N,).
    """

    n_tops: ClassVar[tuple[int, int]] = (1, 2)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Take the shapes from ``memory_data_param``."""
        param = self.param.memory_data_param
        if self.param.HasField("transform_param"):
            raise self.config_error(
                "transform_param does not act on arrays; transform them before set_arrays"
            )
        self._image_shape = (param.channels, param.height, param.width)
        if min(self._image_shape) < 1:
            raise self.config_error(
                f"channels, height and width are {self._image_shape}; each must be 1 or more"
            )
        self._batch_size = self.batch_size(param.batch_size)
        self._images: np.ndarray | None = None
        self._labels: np.ndarray | None = None
        self._position = 0
        tops: list[Shape] = [(self._batch_size, *self._image_shape), (self._batch_size,)]
        return tops[: len(self.param.top)]

    def set_arrays(self, images: np.ndarray, labels: np.ndarray | None = None) -> None:
        """Set what the next batches are taken from, beginning at the first record.

        Parameters
        ----------
        images : numpy.ndarray
            (M, C, H, W), M a multiple of the batch size; not copied.
        labels : numpy.ndarray, optional
            (M,); zeros where they are not given.

        Raises
        ------
        ShapeError
            The arrays have other shapes.
        """
        count = len(images) if images.ndim else 0
        if images.shape[1:] != self._image_shape or not count or count % self._batch_size:
            raise self.shape_error(
                f"images of shape {images.shape} where M images of {self._image_shape} belong, M a "
                f"multiple of the batch size {self._batch_size}; reshape or cut them"
            )
        if labels is None:
            labels = np.zeros(count, self.dtype)
        if labels.shape != (count,):
            raise self.shape_error(
                f"labels of shape {labels.shape} for {count} images; give ({count},)"
            )
        self._images, self._labels = images, labels
        self._position = 0

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Write the next batch; after the last one comes the first again."""
        if self._images is None or self._labels is None:
            raise DataError(
                f"layer '{self.name}' (MemoryData) has no data; call its set_arrays(images, labels)"
            )
        batch = slice(self._position, self._position + self._batch_size)
        assign(top[0].data, self._images[batch])
        if len(top) > 1:
            assign(top[1].data, self._labels[batch])
        self._position = batch.stop % len(self._images)

    def batches_per_epoch(self) -> int | None:
        """Return how many batches hold every record once; None before ``set_arrays``."""
        return None if self._images is None else len(self._images) // self._batch_size

    def state(self) -> dict[str, Any]:
        """Return the number of the next record."""
        return {"position": self._position}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on where another run stood; call it after ``set_arrays``."""
        position: Any = state.get("position")
        count = 0 if self._images is None else len(self._images)
        if position not in range(0, max(count, 1), self._batch_size):
            raise DataError(
                f"layer '{self.name}' (MemoryData): the snapshot's position {position!r} does not "
                f"fit {count} records; call set_arrays with the arrays of that run first"
            )
        self._position = int(position)


@register("Input")
class Input(Source):
    """Blobs that a program fills itself: ``net.blobs["data"].data[...] = images``.

    Tops: of the shapes in ``input_param``, one for each top, or one for all. A batch size of the
    command line replaces the first dimension.
    """

    n_tops: ClassVar[tuple[int, int]] = (1, 1000)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Take the shapes from ``input_param``."""
        shapes = [tuple(shape.dim) for shape in self.param.input_param.shape]
        tops = len(self.param.top)
        if len(shapes) not in (1, tops):
            raise self.config_error(
                f"has {tops} tops and {len(shapes)} shapes; write one input_param shape for all "
                "tops or one for each"
            )
        for shape in shapes:
            if not shape or min(shape) < 1:
                raise self.config_error(
                    f"input_param has the shape {shape}; every dimension must be 1 or more"
                )
        sized = [(self.batch_size(shape[0]), *shape[1:]) for shape in shapes]
        return sized * tops if len(sized) == 1 else sized

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Do nothing: the values are the caller's."""
