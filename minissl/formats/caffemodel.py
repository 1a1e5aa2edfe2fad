"""Weights in Caffe's own format: a binary ``NetParameter`` with a ``BlobProto`` per parameter.

Layers are read from ``layer`` (field 100) or, in models from before 2015, from ``layers``
(field 2); shapes from ``shape`` or from the four old numbers; values from ``data`` (float32) or
``double_data`` (float64). NaN and infinity are let through: whoever uses the weights decides.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minissl.errors import MinisslError, WeightsError
from minissl.formats import proto
from minissl.formats.atomic import atomic_write
from minissl.formats.reading import read_bytes

#: Largest size of an unpacked file. Protocol buffers end at 2 GiB; half of that holds every
#: published Caffe model and keeps a small hostile .gz from filling the memory.
MAX_UNPACKED_BYTES = 2**30
_MAX_MESSAGE_BYTES = 2**31 - 1

# Key byte of a packed field on the wire: (field number << 3) | 2.
_DATA_KEY = bytes([5 << 3 | 2])
_DOUBLE_DATA_KEY = bytes([8 << 3 | 2])


def read_caffemodel(path: str | Path) -> dict[str, list[np.ndarray]]:
    """Read the weights of a ``.caffemodel`` or ``.caffemodel.gz``.

    Returns
    -------
    dict
        Layer name to its blobs in order (weights, then bias), float32 or float64 as stored.
        Layers without blobs are left out.

    Raises
    ------
    WeightsError
        If the file is missing, truncated or not a caffemodel, or if a blob's shape does not fit
        its number of values.
    """
    from google.protobuf.message import DecodeError

    content = read_bytes(path, "weight file", WeightsError)
    if str(path).endswith(".gz"):
        content = _unpack(content, path)
    damaged = WeightsError(
        f"{path} is not a caffemodel, or it is truncated; copy or save it again."
    )
    try:
        net = proto.NetParameter.FromString(content)
    except (DecodeError, UnicodeDecodeError):
        raise damaged from None
    names = [layer.name for layer in [*net.layers, *net.layer]]
    # protobuf refuses a name that is not UTF-8, or hands it over as bytes, by implementation.
    if not all(isinstance(name, str) for name in names):
        raise damaged
    if not net.layer and not net.layers:
        raise WeightsError(f"{path} holds no layers; is it really a caffemodel?")

    weights: dict[str, list[np.ndarray]] = {}
    for name, layer in zip(names, [*net.layers, *net.layer], strict=True):
        if not layer.blobs:
            continue
        if name in weights:
            raise WeightsError(f"{path} holds weights for two layers named {name!r}.")
        weights[name] = [
            array_of(blob, f"{path}: blob {index} of layer {name!r}")
            for index, blob in enumerate(layer.blobs)
        ]
    return weights


def write_caffemodel(
    path: str | Path,
    net_name: str,
    layers: Iterable[tuple[str, str, Sequence[np.ndarray]]],
    dtype: DTypeLike = np.float32,
) -> None:
    """Write weights as a ``.caffemodel`` (``.gz`` packs it), atomically.

    Parameters
    ----------
    path
        The file.
    net_name
        The name of the net.
    layers
        Name, type and blobs of each layer, in order.
    dtype
        float32 fills ``data``, which Caffe reads; float64 fills ``double_data``.

    Raises
    ------
    MinisslError
        If the file cannot be written, or if it would exceed the format's 2 GiB.
    """
    net = proto.NetParameter(name=net_name)
    total = 0
    for name, type_name, blobs in layers:
        layer = net.layer.add(name=name, type=type_name)
        for blob in blobs:
            total += np.size(blob) * np.dtype(dtype).itemsize
            _check_message_size(total, path)
            layer.blobs.append(blob_of(np.asarray(blob), dtype))
    _check_message_size(net.ByteSize(), path)
    content = net.SerializeToString()
    if str(path).endswith(".gz"):
        # mtime=0 makes equal weights equal files.
        content = gzip.compress(content, mtime=0)
    with atomic_write(path) as file:
        file.write(content)


def array_of(blob: Any, where: str) -> np.ndarray:
    """Return a ``BlobProto``'s values as an array of its shape.

    The shape is compared with the number of values before anything is allocated.

    Raises
    ------
    WeightsError
        If a dimension is negative or the shape does not fit the number of values; `where` names
        the blob.
    """
    shape = _shape_of(blob)
    values = blob.double_data or blob.data
    if min(shape, default=0) < 0 or math.prod(shape) != len(values):
        raise WeightsError(
            f"{where} has shape {'x'.join(map(str, shape))} but {len(values)} values; "
            "the file is damaged."
        )
    # Serialising a message that holds these values alone hands over their bytes in one piece,
    # which is many times quicker than reading them one by one.
    single = proto.BlobProto()
    (single.double_data if blob.double_data else single.data).MergeFrom(values)
    dtype: np.dtype = np.dtype("<f8" if blob.double_data else "<f4")
    content = single.SerializeToString()
    start = len(content) - dtype.itemsize * len(values)
    flat = np.frombuffer(content, dtype, offset=start) if len(values) else np.empty(0, dtype)
    return flat.astype(dtype.newbyteorder("=")).reshape(shape)  # a copy, hence writable


def blob_of(array: np.ndarray, dtype: DTypeLike = np.float32) -> Any:
    """Return an array as a ``BlobProto``; the inverse of :func:`array_of`."""
    is_double = np.dtype(dtype) == np.float64
    values = np.ascontiguousarray(array, dtype="<f8" if is_double else "<f4").tobytes()
    key = _DOUBLE_DATA_KEY if is_double else _DATA_KEY
    blob = proto.BlobProto.FromString(key + _varint(len(values)) + values)
    blob.shape.dim.extend(array.shape)
    return blob


def _shape_of(blob: Any) -> tuple[int, ...]:
    # Caffe lets the old numbers win where both are given.
    legacy = ("num", "channels", "height", "width")
    if any(blob.HasField(name) for name in legacy):
        return tuple(getattr(blob, name) for name in legacy)
    return tuple(blob.shape.dim)


def _varint(number: int) -> bytes:
    """Encode a length as protocol buffers do: seven bits a byte, lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _unpack(content: bytes, path: str | Path) -> bytes:
    try:
        with gzip.open(io.BytesIO(content)) as file:
            unpacked = file.read(MAX_UNPACKED_BYTES + 1)
    except (OSError, EOFError, zlib.error):
        raise WeightsError(f"{path} is not a complete gzip file; copy or save it again.") from None
    if len(unpacked) > MAX_UNPACKED_BYTES:
        raise WeightsError(
            f"{path} unpacks to more than {MAX_UNPACKED_BYTES} bytes and was refused; "
            "if you trust it, unpack it yourself with gunzip."
        )
    return unpacked


def _check_message_size(size: int, path: str | Path) -> None:
    if size > _MAX_MESSAGE_BYTES:
        raise MinisslError(
            f"Cannot write {path}: a caffemodel ends at 2 GiB; use .safetensors instead."
        )
