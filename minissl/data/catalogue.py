"""The data sets minissl knows: their shapes and classes, their files, where the files come from.

A data set is a folder of official files below the data folder. Every file is listed with its size
and SHA-256, every archive it comes in with its mirrors and SHA-256.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from minissl import optional
from minissl.errors import DataError


@dataclass(frozen=True)
class File:
    """One unpacked file: path below the data folder, size in bytes, SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Archive:
    """One download: its name at every mirror, its SHA-256, and the files it holds.

    A ``.tar.gz`` holds its files under their paths; any other ``.gz`` is one file, compressed.
    """

    name: str
    sha256: str
    files: tuple[File, ...]


@dataclass(frozen=True)
class Entry:
    """A data set: name, image shape (C, H, W), class names, mirrors in order, archives.

    Of the training part, one in ``held_out`` records is for validation, those at the end.
    """

    name: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mirrors: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    held_out: int = 6


DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
OBJECTS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
#: IDX file names by split: (images, labels)
IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
IDX_SIZES = {
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}
CIFAR_FOLDER = "cifar-10-batches-bin"
#: CIFAR-10 binary batches by split
CIFAR_FILES = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}


def _idx_archives(folder: str, sums: dict[str, tuple[str, str]]) -> tuple[Archive, ...]:
    """Four ``.gz`` archives of one IDX file each; ``sums`` are SHA-256 (compressed, unpacked)."""
    return tuple(
        Archive(f"{name}.gz", packed, (File(f"{folder}/{name}", IDX_SIZES[name], unpacked),))
        for name, (packed, unpacked) in sums.items()
    )


MNIST = Entry(
    name="mnist",
    image_shape=(1, 28, 28),
    classes=DIGITS,
    held_out=6,
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    archives=_idx_archives(
        "mnist",
        {
            "train-images-idx3-ubyte": (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            "train-labels-idx1-ubyte": (
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            "t10k-images-idx3-ubyte": (
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            "t10k-labels-idx1-ubyte": (
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        },
    ),
)

FASHION_MNIST = Entry(
    name="fashion-mnist",
    image_shape=(1, 28, 28),
    classes=CLOTHES,
    held_out=6,
    mirrors=(
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    archives=_idx_archives(
        "fashion-mnist",
        {
            "train-images-idx3-ubyte": (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            ),
            "train-labels-idx1-ubyte": (
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            ),
            "t10k-images-idx3-ubyte": (
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            ),
            "t10k-labels-idx1-ubyte": (
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        },
    ),
)

_CIFAR_SUMS = {
    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}

CIFAR10 = Entry(
    name="cifar10",
    image_shape=(3, 32, 32),
    classes=OBJECTS,
    held_out=10,
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
    archives=(
        Archive(
            "cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            tuple(
                File(f"{CIFAR_FOLDER}/{name}", 10_000 * 3_073, sha256)
                for name, sha256 in _CIFAR_SUMS.items()
            ),
        ),
    ),
)

#: The 5,000 + 1,000 digits inside the package; nothing to download.
MNIST_SMALL = Entry(name="mnist-small", image_shape=(1, 28, 28), classes=DIGITS, held_out=5)

CATALOGUE = {entry.name: entry for entry in (MNIST, FASHION_MNIST, CIFAR10, MNIST_SMALL)}

#: ``mnist/validation`` reads the training part of ``mnist`` only, divided in two: what is chosen by
#: trial (rates, decays) is chosen on the second part, so that the test images stay unseen.
VALIDATION = "/validation"
#: Every source that a Data layer can name.
SOURCES = (*CATALOGUE, *(name + VALIDATION for name in CATALOGUE))


def find(name: str) -> Entry:
    """Return the data set called ``name``.

    Raises
    ------
    DataError
        There is none of that name.
    """
    if name not in CATALOGUE:
        raise DataError(f"unknown data set '{name}'; use one of {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def find_source(source: str) -> tuple[Entry, bool]:
    """Return the data set of a source, and whether only its training part is read, divided in two.

    Raises
    ------
    DataError
        There is none of that name.
    """
    return find(source.removesuffix(VALIDATION)), source.endswith(VALIDATION)


def data_folder() -> Path:
    """Return where data sets are kept: ``$MINISSL_DATA``, else the user's cache folder.

    The cache folder is the one ``pooch.os_cache("minissl")`` names: ``~/.cache/minissl`` on Linux,
    ``~/Library/Caches/minissl`` on macOS.
    """
    chosen = os.environ.get("MINISSL_DATA")
    if chosen:
        return Path(chosen).expanduser()
    # pooch asks platformdirs too, and takes ten times as long to import
    folder = "set MINISSL_DATA to the folder of the data"
    platformdirs = optional.library("platformdirs", "data sets in the cache", "pooch", folder)
    return Path(platformdirs.user_cache_dir("minissl"))
