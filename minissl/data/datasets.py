"""Data sets in memory: images and labels as the official files hold them, one byte per pixel.

Dimensions: N records, C channels, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from minissl.data.catalogue import (
    CIFAR_FILES,
    CIFAR_FOLDER,
    IDX_FILES,
    Entry,
    data_folder,
    find_source,
)
from minissl.data.idx import read_idx
from minissl.errors import DataError

SPLITS = ("train", "test")
SMALL_FOLDER = Path(__file__).parent / "mnist_small"
#: Records in each CIFAR-10 file.
CIFAR_RECORDS = 10_000


@dataclass(frozen=True)
class Dataset:
    """Images with their labels, in the order of the files.

    Attributes
    ----------
    name, split : str
        ``"mnist"``, ``"train"``.
    images : numpy.ndarray
        uint8, (N, C, H, W), read-only.
    labels : numpy.ndarray
        uint8, (N,), each below the number of classes, read-only.
    classes : tuple of str
        What the labels stand for.

    Raises
    ------
    DataError
        There are no images, not as many labels as images, or a label is out of range.
    """

    name: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        where = f"data set '{self.name}' ({self.split})"
        if self.images.ndim != 4 or self.images.dtype != np.uint8 or len(self.images) == 0:
            raise DataError(
                f"{where}: images must be uint8 of shape (N, C, H, W) with N > 0, not "
                f"{self.images.dtype} of shape {self.images.shape}; reshape them first"
            )
        if self.labels.shape != (len(self.images),):
            raise DataError(
                f"{where}: {len(self.images)} images but labels of shape {self.labels.shape}; use "
                "image and label files that belong together"
            )
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.classes)))
        if wrong.size:
            raise DataError(
                f"{where}: record {wrong[0]} has label {self.labels[wrong[0]]}, and labels go "
                f"from 0 to {len(self.classes) - 1}; the file is damaged, fetch it again"
            )

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, chosen: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the images and labels of some records; views where they follow one another."""
        return self.images[chosen], self.labels[chosen]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image, (C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width


def load(name: str, split: str, folder: str | Path | None = None) -> Dataset:
    """Load one split of a data set that is on this machine.

    What somebody still has is not read again, unless its files have changed: a mean, a network in
    phase TRAIN and another one share the same memory.

    Parameters
    ----------
    name : {"mnist", "fashion-mnist", "cifar10", "mnist-small"}
        ``mnist-small`` is part of the package: 5,000 and 1,000 digits of MNIST. With
        ``/validation`` behind the name, both splits come from the training part, in the order of
        the files: its last records are ``test``, those before them ``train``.

        =============== ======= =====
        validation      train   test
        =============== ======= =====
        mnist           50,000  10,000
        fashion-mnist   50,000  10,000
        cifar10         45,000  5,000
        mnist-small     4,000   1,000
        =============== ======= =====
    split : {"train", "test"}
        Which part.
    folder : path, optional
        Where the data sets are kept; default :func:`minissl.data.catalogue.data_folder`.

    Returns
    -------
    Dataset
        One byte per pixel: 47 MB for the training part of MNIST, 154 MB for that of CIFAR-10.

    Raises
    ------
    DataError
        The name or split is unknown, or a file is missing or damaged.
    """
    entry, validation = find_source(name)
    if split not in SPLITS:
        raise DataError(f"unknown split '{split}' of data set '{name}'; use train or test")
    root = data_folder() if folder is None else Path(folder)
    key = name, split, _files(_folder_of(entry, root))
    dataset = _loaded.get(key)
    if dataset is None:
        dataset = _loaded[key] = _load(name, split, entry, validation, root)
    return dataset


#: what somebody has
_loaded: WeakValueDictionary[tuple, Dataset] = WeakValueDictionary()


def _folder_of(entry: Entry, root: Path) -> Path:
    if entry.name == "mnist-small":
        return SMALL_FOLDER
    return root / (CIFAR_FOLDER if entry.name == "cifar10" else entry.name)


def _files(folder: Path) -> tuple:
    """Return what tells whether the files of a folder are still the same."""
    try:
        found = [(path, path.stat()) for path in sorted(folder.iterdir())]
    except OSError:  # reading will say what is wrong
        return (folder.absolute(),)
    return folder.absolute(), *((path.name, s.st_mtime_ns, s.st_size) for path, s in found)


def _load(name: str, split: str, entry: Entry, validation: bool, root: Path) -> Dataset:
    images, labels = _read(entry, "train" if validation else split, root)
    if validation:
        first = len(images) - len(images) // entry.held_out
        part = slice(first) if split == "train" else slice(first, None)
        images, labels = images[part], labels[part]
    return Dataset(name, split, images, labels, entry.classes)


def _read(entry: Entry, split: str, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the files of one split, and see that the images have the shape of the data set."""
    folder = _folder_of(entry, root)
    read = _read_cifar if entry.name == "cifar10" else _read_idx_pair
    images, labels = read(folder, entry, split)
    if images.shape[1:] != entry.image_shape:
        raise DataError(
            f"data set '{entry.name}' ({split}): images of shape {images.shape[1:]} where "
            f"{entry.image_shape} belong; run 'minissl data verify {entry.name}'"
        )
    return images, labels


def _read_idx_pair(folder: Path, entry: Entry, split: str) -> tuple[np.ndarray, np.ndarray]:
    image_path, label_path = (_find_file(folder, name, entry) for name in IDX_FILES[split])
    images = read_idx(image_path, dimensions=3)
    labels = read_idx(label_path, dimensions=1)
    return images[:, np.newaxis], labels  # (N, 1, H, W), (N,)


def _find_file(folder: Path, name: str, entry: Entry) -> Path:
    """Return the path of a file, or of its ``.gz``."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise _missing(entry, folder / name)


def _missing(entry: Entry, path: Path) -> DataError:
    return DataError(
        f"data set '{entry.name}': {path} is missing; run 'minissl data fetch {entry.name}', or "
        f"set MINISSL_DATA to the folder that holds '{path.parent.name}'"
    )


def _read_cifar(folder: Path, entry: Entry, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read CIFAR-10's binary batches: records of one label byte and 3 x 32 x 32 pixel bytes."""
    names = CIFAR_FILES[split]
    channels, height, width = entry.image_shape
    pixels = channels * height * width
    images = np.empty((len(names) * CIFAR_RECORDS, channels, height, width), np.uint8)
    labels = np.empty(len(images), np.uint8)
    for i, name in enumerate(names):
        path = folder / name
        if not path.is_file():
            raise _missing(entry, path)
        expected = CIFAR_RECORDS * (1 + pixels)
        try:
            size = path.stat().st_size
            content = np.fromfile(path, np.uint8) if size == expected else None
        except OSError as error:
            raise DataError(
                f"{path}: cannot be read ({error.strerror or error}); check its permissions"
            ) from error
        if content is None or content.size != expected:
            raise DataError(
                f"{path}: has {size} bytes where {expected} belong ({CIFAR_RECORDS} records of "
                f"{1 + pixels}); run 'minissl data fetch {entry.name}'"
            )
        records = content.reshape(CIFAR_RECORDS, 1 + pixels)
        part = slice(i * CIFAR_RECORDS, (i + 1) * CIFAR_RECORDS)
        labels[part] = records[:, 0]
        images[part] = records[:, 1:].reshape(CIFAR_RECORDS, channels, height, width)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels
