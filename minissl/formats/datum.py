"""``Datum``: one record of Caffe's databases, an image with a label.

The image is ``data`` (one byte a value), ``float_data``, or an encoded file such as a JPEG.
Channels stand one after the other; encoded images have them as B, G, R once decoded.
"""

from __future__ import annotations

import math

import numpy as np

from minissl.errors import DataError
from minissl.formats import proto


def parse_datum(content: bytes, where: str) -> tuple[np.ndarray | bytes, int]:
    """Return image and label of a record.

    Returns
    -------
    ndarray or bytes, int
        (C, H, W), uint8 or float32; an encoded image as the bytes of its file.

    Raises
    ------
    DataError
        If the bytes are no Datum, or its sizes do not fit its values; `where` names the record.
    """
    from google.protobuf.message import DecodeError

    try:
        datum = proto.Datum.FromString(content)
    except DecodeError:
        raise DataError(
            f"{where} is no Datum; the database is damaged, or not one of Caffe's."
        ) from None
    if datum.encoded:
        return datum.data, datum.label
    shape = (datum.channels, datum.height, datum.width)
    count = len(datum.data) or len(datum.float_data)
    if min(shape) < 1 or math.prod(shape) != count:
        raise DataError(
            f"{where} has shape {'x'.join(map(str, shape))} but {count} values; "
            "the database is damaged."
        )
    if datum.data:
        return np.frombuffer(datum.data, np.uint8).reshape(shape), datum.label
    return np.array(datum.float_data, np.float32).reshape(shape), datum.label


def datum_of(image: np.ndarray | bytes, label: int) -> bytes:
    """Return a record with an image, (C, H, W) or the bytes of an encoded file, and its label."""
    datum = proto.Datum(label=label)
    if isinstance(image, bytes):
        datum.data, datum.encoded = image, True
        return datum.SerializeToString()
    datum.channels, datum.height, datum.width = image.shape
    if image.dtype == np.uint8:
        datum.data = image.tobytes()
    else:
        datum.float_data.extend(image.ravel().tolist())
    return datum.SerializeToString()
