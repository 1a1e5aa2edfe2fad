"""Mean images as Caffe's ``compute_image_mean`` writes them (``.binaryproto``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minissl.errors import DataError, WeightsError
from minissl.formats.blobs import read_binaryproto


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
