"""Mean images: of a data set, or as Caffe's ``compute_image_mean`` writes them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from minissl.data.catalogue import data_folder
from minissl.data.datasets import load
from minissl.errors import DataError, WeightsError
from minissl.formats.blobs import read_binaryproto


def mean_of(name: str) -> np.ndarray:
    """Return the mean of all training images of a data set that minissl knows.

    Returns
    -------
    numpy.ndarray
        (C, H, W), float32, read-only.

    Raises
    ------
    DataError
        The data set is not on this machine.
    """
    return _mean_of(name, data_folder())


@lru_cache(maxsize=4)
def _mean_of(name: str, folder: Path) -> np.ndarray:
    images = load(name, "train", folder).images
    # in float64 the sum of bytes is exact, so that its order does not matter
    mean = images.mean(axis=0, dtype=np.float64).astype(np.float32)
    mean.flags.writeable = False
    return mean


def read_mean(path: str | Path) -> np.ndarray:
    """Read a mean image.

    Parameters
    ----------
    path : path
        A file that holds one binary ``BlobProto`` of shape (C, H, W) or (1, C, H, W).

    Returns
    -------
    numpy.ndarray
        (C, H, W), float32 or float64 as stored.

    Raises
    ------
    DataError
        The file is missing, no ``BlobProto``, not one image, or not finite.
    """
    try:
        mean = read_binaryproto(path, "mean image")
    except WeightsError as error:
        raise DataError(str(error)) from None
    if mean.ndim == 4 and len(mean) == 1:
        mean = mean[0]
    if mean.ndim != 3 or mean.size == 0:
        raise DataError(
            f"{path} holds an array of shape {mean.shape}, and a mean image is (channels, height, "
            "width); make it again"
        )
    if not np.isfinite(mean).all():
        raise DataError(f"{path} holds NaN or infinite values; make it again from the data")
    return mean
