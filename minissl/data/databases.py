"""Data sets in Caffe's databases (LMDB of Datum): read by Data layers, written as Caffe's tools do.

Dimensions: N records, C channels, H rows, W columns.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minissl.data.datasets import Dataset
from minissl.data.images import ImageList, decode
from minissl.errors import DataError
from minissl.formats.datum import datum_of, parse_datum
from minissl.formats.lmdb_file import open_database, write_database
from minissl.formats.reading import read_bytes

#: digits of a key: convert_cifar_data writes five, the other tools eight
KEY_DIGITS = {"cifar10": 5}
#: LMDB's longest key
MAX_KEY = 511
SIGNATURES = {"png": b"\x89PNG", "jpeg": b"\xff\xd8\xff"}


class DatumDataset:
    """The records of a database, read when they are asked for.

    Parameters
    ----------
    path
        The folder of the database.
    color : bool, optional
        Whether encoded images come with three channels or one; as they are by default.

    Attributes
    ----------
    image_shape : tuple
        Shape of the first image, (C, H, W).
    """

    def __init__(self, path: str | Path, color: bool | None = None):
        self.path = path
        self._color = color
        self._database = open_database(path)
        self.image_shape: tuple[int, int, int] = self.record(0)[0].shape  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._database)

    def record(self, number: int) -> tuple[np.ndarray, int]:
        """Return an image, (C, H, W), and its label."""
        where = f"record {number} of {self.path}"
        image, label = parse_datum(self._database[number], where)
        if isinstance(image, bytes):
            image = decode(image, self._color, where)
        return image, label

    def batch(self, chosen: slice | np.ndarray) -> tuple[Any, np.ndarray]:
        """Return the records of some numbers: their images in one array, and their labels.

        Images of different sizes come as a list.
        """
        numbers = range(len(self))[chosen] if isinstance(chosen, slice) else chosen.tolist()
        images, labels = zip(*(self.record(number) for number in numbers), strict=True)
        alike = len({image.shape for image in images}) == 1
        return np.stack(images) if alike else list(images), np.array(labels)


def write_lmdb(
    path: str | Path,
    dataset: Dataset,
    pad: int = 0,
    encode: str | None = None,
    tick: Callable[[], None] | None = None,
) -> int:
    """Write a data set as an LMDB database of Datum; return the number of records.

    Parameters
    ----------
    path
        A folder that is not there yet.
    dataset : Dataset
        Keys are the numbers of the records, with as many digits as Caffe's tool for this data set
        writes, which is also their order.
    pad : int
        Zeros on each side of each image, as ``create_padded_cifar10.sh`` asks for.
    encode : {"png", "jpeg"}, optional
        Store each image as such a file.
    tick : callable, optional
        Called after each record.

    Raises
    ------
    DataError
        If the database cannot be written.
    """
    digits = KEY_DIGITS.get(dataset.name.partition("/")[0], 8)

    def records() -> Iterator[tuple[bytes, bytes]]:
        for number, (image, label) in enumerate(zip(dataset.images, dataset.labels, strict=True)):
            if pad:
                image = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
            stored = _encoded(image, encode) if encode else image
            yield b"%0*d" % (digits, number), datum_of(stored, int(label))
            if tick:
                tick()

    return write_database(path, records())


def write_image_list(
    path: str | Path,
    images: ImageList,
    encode: str | None = None,
    tick: Callable[[], None] | None = None,
) -> int:
    """Write listed image files as an LMDB database of Datum, as Caffe's ``convert_imageset`` does.

    Parameters
    ----------
    path
        A folder that is not there yet.
    images : ImageList
        Keys are eight digits, ``_`` and the path in the list.
    encode : {"png", "jpeg"}, optional
        Store each image as such a file; one that is such a file already, and keeps its size, is
        stored as it is.
    tick : callable, optional
        Called after each record.

    Raises
    ------
    DataError
        If an image cannot be read or the database not be written.
    """

    def records() -> Iterator[tuple[bytes, bytes]]:
        for number, name in enumerate(images.paths):
            image = images.read(number)
            stored: np.ndarray | bytes = image
            if encode:
                content = read_bytes(images.root + name, "image", DataError)
                is_one = content.startswith(SIGNATURES[encode]) and not images.size
                stored = content if is_one else _encoded(image, encode)
            key = b"%08d_" % number + name.encode("utf-8", "surrogateescape")
            yield key[:MAX_KEY], datum_of(stored, int(images.labels[number]))
            if tick:
                tick()

    return write_database(path, records())


def mean_of_records(
    dataset: Dataset | DatumDataset, tick: Callable[[], None] | None = None
) -> np.ndarray:
    """Return the mean image of a data set, (C, H, W), float32, as ``compute_image_mean`` does.

    The sum is exact for bytes, so the only rounding is that of the quotient.

    Raises
    ------
    DataError
        If the images have different sizes.
    """
    shape = dataset.image_shape
    total = np.zeros(shape, np.float64)
    for start in range(0, len(dataset), 1000):
        stop = min(start + 1000, len(dataset))
        images, _ = dataset.batch(slice(start, stop))
        if isinstance(images, list) or images.shape[1:] != shape:
            raise DataError(
                "a mean needs images of one size; bring them to one when the database is made"
            )
        total += images.sum(axis=0, dtype=np.float64)
        if tick:
            tick()
    return (total / len(dataset)).astype(np.float32)


def _encoded(image: np.ndarray, kind: str) -> bytes:
    """Return an image, (C, H, W) in B, G, R or grey, as the bytes of a file."""
    from PIL import Image

    pixels = image[0] if len(image) == 1 else image[::-1].transpose(1, 2, 0)  # (H, W[, 3])
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, kind)
    return file.getvalue()
