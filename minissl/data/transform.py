"""Pixels to network inputs, as Caffe's data transformation.

    y[n, c, i, j] = (x[n, c, top + i, left + j] - mean[c, top + i, left + j]) * scale

with j counted from the right where the image is mirrored. The mean belongs to the uncropped image.
With ``pad``, training images have so many zeros on each side, put there after the mean is
subtracted, and ``top`` and ``left`` begin at ``-pad``: a crop of the size of the image is then a
random shift (He et al., CVPR 2016, section 4.2).

Dimensions: N images, C channels, H x W pixels before and h x w pixels after cropping.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minissl.errors import ConfigError, ShapeError


@dataclass(frozen=True)
class Transform:
    """What is done to each image.

    Attributes
    ----------
    scale : float
        Factor applied after the mean is subtracted; 0.00390625 = 1/256 in Caffe's LeNet.
    mean : numpy.ndarray, optional
        Subtracted first: (1,) one value for all channels, (C,) one per channel, or (C, H, W).
    crop_size : int
        Side of the square that is cut out, 0 for the whole image: anywhere in the training phase,
        in the centre (by integer division) in the test phase.
    mirror : bool
        Turn every image left to right with probability 1/2, in either phase, as Caffe does.
    pad : int
        Zeros on each side of an image, in the training phase only.
    """

    scale: float = 1.0
    mean: np.ndarray | None = None
    crop_size: int = 0
    mirror: bool = False
    pad: int = 0

    def __post_init__(self) -> None:
        if self.crop_size < 0:
            raise ConfigError(f"crop_size is {self.crop_size}; use 0 (no crop) or more")
        if self.pad and not self.crop_size:
            raise ConfigError(
                f"pad is {self.pad} without a crop_size, so that training images would be larger "
                "than test images; give the crop_size, such as the size of an image"
            )

    def output_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape (C, h, w) that images of shape (C, H, W) come out with.

        Raises
        ------
        ShapeError
            The images are smaller than ``crop_size``, or the mean is of another shape.
        """
        channels, height, width = shape
        if self.mean is not None and self.mean.shape not in ((1,), (channels,), shape):
            raise ShapeError(
                f"the mean is of shape {self.mean.shape} and images are {shape}; give one value, "
                f"{channels} values (one per channel), or a mean image of shape {shape}"
            )
        if not self.crop_size:
            return shape
        if self.crop_size > min(height, width):
            raise ShapeError(
                f"crop_size {self.crop_size} is larger than the images ({height} x {width}); "
                f"use at most {min(height, width)}"
            )
        return channels, self.crop_size, self.crop_size

    def apply(
        self,
        images: np.ndarray,
        train: bool,
        rng: np.random.Generator,
        out: np.ndarray,
    ) -> np.ndarray:
        """Transform a batch.

        Parameters
        ----------
        images : numpy.ndarray
            uint8, (N, C, H, W); not changed.
        train : bool
            Crop anywhere (True) or in the centre (False).
        rng : numpy.random.Generator
            Where to crop and what to mirror; unused when neither is random.
        out : numpy.ndarray
            (N, C, h, w), float32 or float64: overwritten. The arithmetic is done in its type.

        Returns
        -------
        numpy.ndarray
            ``out``.
        """
        n, channels, height, width = images.shape
        _, h, w = self.output_shape((channels, height, width))
        mean = self._mean_image(out.dtype)
        if self.mirror:
            mirrored = rng.integers(2, size=n).astype(bool)
        if train and self.crop_size:
            # corners in the image itself: from -pad on
            tops = rng.integers(height + 2 * self.pad - h + 1, size=n) - self.pad
            lefts = rng.integers(width + 2 * self.pad - w + 1, size=n) - self.pad
        elif not self.mirror:
            # nothing is random: one pass over the batch
            window = _window((height - h) // 2, (width - w) // 2, h, w)
            return self._subtract_and_scale(images[window], mean, window, out)
        else:
            tops = np.full(n, (height - h) // 2)
            lefts = np.full(n, (width - w) // 2)
        if train and self.pad:
            out[...] = 0
        for i in range(n):
            (top, bottom, above), (left, right, before) = (
                _overlap(tops[i], h, height),
                _overlap(lefts[i], w, width),
            )
            window = _window(top, left, bottom - top, right - left)
            target = out[i, :, :, ::-1] if self.mirror and mirrored[i] else out[i]
            target = target[_window(above, before, bottom - top, right - left)]
            self._subtract_and_scale(images[i][window], mean, window, target)
        return out

    def _mean_image(self, dtype: np.dtype) -> np.ndarray | None:
        """Return the mean with three dimensions, in the type of the arithmetic."""
        if self.mean is None:
            return None
        mean = self.mean.astype(dtype)
        return mean if mean.ndim == 3 else mean.reshape(-1, 1, 1)

    def _subtract_and_scale(
        self, pixels: np.ndarray, mean: np.ndarray | None, window: tuple, out: np.ndarray
    ) -> np.ndarray:
        scale = out.dtype.type(self.scale)
        if mean is None or self.mean is None:
            return np.multiply(pixels, scale, out=out, dtype=out.dtype)
        if self.mean.ndim == 3:
            mean = mean[window]
        np.subtract(pixels, mean, out=out, dtype=out.dtype)
        return np.multiply(out, scale, out=out)


def _overlap(first: int, length: int, size: int) -> tuple[int, int, int]:
    """Clip ``length`` pixels from ``first`` on to an image of ``size``.

    Returns
    -------
    start, stop : int
        What of it lies in the image.
    before : int
        How many pixels lie before the image.
    """
    start, stop = max(first, 0), min(first + length, size)
    return start, max(start, stop), start - first


def _window(top: int, left: int, h: int, w: int) -> tuple:
    """Index of an h x w window in the last two dimensions."""
    return (..., slice(top, top + h), slice(left, left + w))
