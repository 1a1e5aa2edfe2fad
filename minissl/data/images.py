"""Image files as Caffe's networks see them: bytes (C, H, W), channels in the order B, G, R.

JPEG, PNG and the other formats of Pillow are decoded by it. Sizes are changed as OpenCV does it for
Caffe: linearly between the four nearest pixels, whose centres lie at half numbers,

    x = (x' + 1/2) * W / w - 1/2        for column x' of w new columns,

without averaging where the image shrinks.

Dimensions: C channels, H x W pixels before and h x w pixels after a change of size.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from minissl import optional
from minissl.errors import DataError
from minissl.formats.reading import read_bytes

#: Pixels of the largest image that is decoded.
MAX_PIXELS = 2**26
#: Those of photographs; Pillow's readers of other formats are many, and some call programs.
FORMATS = ("JPEG", "PNG", "BMP", "PPM", "WEBP", "GIF", "TIFF")


def decode(content: bytes, color: bool | None = True, where: str = "the image") -> np.ndarray:
    """Decode an image file.

    Parameters
    ----------
    content : bytes
        Of a JPEG, PNG ... file.
    color : bool or None
        Whether three channels come out, or one of grey levels; None leaves that to the file.
    where : str
        What to name in an error message.

    Returns
    -------
    numpy.ndarray
        uint8, (3, H, W) as B, G, R, or (1, H, W).

    Raises
    ------
    DataError
        It is no image, is damaged, or has more than ``MAX_PIXELS``.
    DependencyError
        Pillow is not installed.
    """
    Image = optional.library("PIL.Image", "images", "pillow")
    try:
        image: Any = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise DataError(
                f"{where} has {image.width} x {image.height} pixels; make it smaller, "
                f"{MAX_PIXELS} are read at most"
            )
        if image.mode.startswith("I"):  # grey of 16 bits; the upper eight are kept
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if color is None:
            color = image.mode not in ("1", "L", "LA")
        pixels = np.asarray(image.convert("RGB" if color else "L"))  # (H, W, 3) or (H, W)
    except DataError:
        raise
    except Exception:  # decoders answer damage with many kinds of exceptions
        raise DataError(f"{where} is no image that can be read, or is damaged") from None
    if not color:
        return pixels[None].copy()
    return np.ascontiguousarray(pixels[:, :, ::-1].transpose(2, 0, 1))  # (3, H, W)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Change the size of an image, linearly between pixels; see the module.

    Parameters
    ----------
    image : numpy.ndarray
        uint8, (C, H, W).
    height, width : int
        h and w.

    Returns
    -------
    numpy.ndarray
        uint8, (C, h, w).
    """
    _, H, W = image.shape
    if (height, width) == (H, W):
        return image
    top, bottom, down = _neighbours(H, height)
    left, right, across = _neighbours(W, width)
    rows = image[:, top] * (1 - down)[:, None] + image[:, bottom] * down[:, None]  # (C, h, W)
    mixed = rows[:, :, left] * (1 - across) + rows[:, :, right] * across  # (C, h, w)
    return np.rint(mixed).astype(np.uint8)


def _neighbours(length: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each new pixel the old ones before and behind it, and the weight of the second."""
    place = (np.arange(wanted) + 0.5) * (length / wanted) - 0.5
    place = np.clip(place, 0, length - 1)
    before = np.floor(place).astype(int)
    return before, np.minimum(before + 1, length - 1), place - before


class ImageList:
    """The images that a text file lists: a path, a blank and a label in each line.

    Parameters
    ----------
    source : str
        The text file. An image's path follows ``root`` directly, as in Caffe: end it with a slash.
    size : (int, int) or None
        Height and width that each image is brought to.
    color : bool
        Three channels, or one.
    """

    def __init__(
        self, source: str, root: str = "", size: tuple[int, int] | None = None, color: bool = True
    ):
        self.source, self.root, self.size, self.color = source, root, size, color
        self.paths: list[str] = []
        labels = []
        text = read_bytes(source, "list of images", DataError).decode("utf-8", "surrogateescape")
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            path, _, label = line.rstrip().rpartition(" ")
            try:
                labels.append(int(label))
            except ValueError:
                raise DataError(
                    f"{source}:{number}: '{line[:80]}' is no path and label; write the path of an "
                    "image, a blank and a whole number"
                ) from None
            if not -(2**31) <= labels[-1] < 2**31:
                raise DataError(
                    f"{source}:{number}: label {label} does not fit into 32 bits; number the "
                    "classes from 0 on"
                )
            self.paths.append(path.rstrip())
        if not self.paths:
            raise DataError(f"{source} lists no images; write a path and a label in each line")
        self.labels = np.array(labels)

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, chosen: slice | np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Return the images and labels of some lines."""
        numbers = np.arange(len(self))[chosen]
        return [self.read(number) for number in numbers], self.labels[chosen]

    def read(self, number: int) -> np.ndarray:
        """Return an image, uint8 (C, H, W)."""
        path = Path(self.root + self.paths[number])
        image = decode(read_bytes(path, "image", DataError), self.color, str(path))
        return resize(image, *self.size) if self.size else image
