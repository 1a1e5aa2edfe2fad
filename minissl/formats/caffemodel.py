"""Weights in Caffe's own format: a binary ``NetParameter`` with a ``BlobProto`` per parameter.

All generations are read: layers of field ``layer``, those of ``layers`` (before 2015), and the
oldest, which stand inside those. NaN and infinity are let through: whoever uses the weights
decides. The file is walked through once, and each array is read from it into its own memory
(:mod:`minissl.formats.wire`).
"""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from minissl.errors import MinisslError, WeightsError
from minissl.formats import proto
from minissl.formats.atomic import atomic_write
from minissl.formats.blobs import blob_parts, read_blob
from minissl.formats.reading import explain
from minissl.formats.upgrade import from_skimcaffe, upgrade_net
from minissl.formats.wire import BYTES, VARINT, Reader, WireError, header, varint

if TYPE_CHECKING:
    from minissl.formats.proto import NetParameter

#: Largest size of an unpacked file. Protocol buffers end at 2 GiB; half of that holds every
#: published Caffe model and keeps a small hostile .gz from filling the memory.
MAX_UNPACKED_BYTES = 2**30
_MAX_MESSAGE_BYTES = 2**31 - 1

# field numbers: of a net, and of the layers of each generation (name, blobs)
_NET_NAME, _NET_LAYER, _NET_LAYERS = 1, 100, 2
_CURRENT, _V1, _V0 = (1, 7), (4, 6), (1, 50)
_V0_INSIDE_V1 = 1


@dataclass
class _Stored:
    """A layer as it stands in a file: its name, its blobs, and the bytes of all other fields."""

    name: str = ""
    blobs: list[np.ndarray] = field(default_factory=list)
    rest: bytearray = field(default_factory=bytearray)
    oldest: _Stored | None = None


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
    _, old, current = _read(path)
    weights: dict[str, list[np.ndarray]] = {}
    for layer in [*(one.oldest or one for one in old), *current]:
        if not layer.blobs:
            continue
        if layer.name in weights:
            raise WeightsError(f"{path} holds weights for two layers named {layer.name!r}.")
        weights[layer.name] = layer.blobs
    return weights


def read_caffemodel_net(path: str | Path, skimcaffe: bool = False) -> NetParameter:
    """Read the net that a caffemodel describes, in the current form and without its weights.

    Parameters
    ----------
    path
        ``.caffemodel`` or ``.caffemodel.gz``.
    skimcaffe
        Whether SkimCaffe wrote it, which gives the values of ``conv_mode`` other numbers.

    Raises
    ------
    WeightsError
        As :func:`read_caffemodel`.
    ConfigError
        If the net is of an older form that cannot be upgraded.
    """
    from google.protobuf.message import DecodeError

    rest, old, current = _read(path)
    net = proto.NetParameter()
    try:
        net.MergeFromString(bytes(rest))
        for layer in old:
            net.layers.add().MergeFromString(bytes(layer.rest))
            if layer.oldest:
                net.layers[-1].layer.MergeFromString(bytes(layer.oldest.rest))
        for layer in current:
            net.layer.add().MergeFromString(bytes(layer.rest))
        _read_texts(net)
    except (DecodeError, UnicodeDecodeError, WireError):
        raise _damaged(path) from None
    if skimcaffe:
        from_skimcaffe(net)
    upgrade_net(net, str(path))
    return net


def write_caffemodel(
    path: str | Path,
    net_name: str,
    layers: Iterable[tuple[str, str, Sequence[np.ndarray]]],
    dtype: DTypeLike = np.float32,
    definitions: Mapping[str, Any] | None = None,
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
    definitions
        The LayerParameter of each layer by name, whose fields are stored beside the weights.

    Raises
    ------
    MinisslError
        If the file cannot be written, or if it would exceed the format's 2 GiB.
    """
    name = net_name.encode()
    pieces: list[Any] = [header(_NET_NAME, len(name)), name] if name else []
    total = sum(map(len, pieces))
    for layer_name, type_name, blobs in layers:
        length, body = _layer_parts(layer_name, type_name, blobs, dtype, definitions or {})
        lead = header(_NET_LAYER, length)
        total += len(lead) + length
        if total > _MAX_MESSAGE_BYTES:
            raise MinisslError(
                f"Cannot write {path}: a caffemodel ends at 2 GiB; use .safetensors instead."
            )
        pieces += [lead, *body]
    with atomic_write(path) as file:
        if not str(path).endswith(".gz"):
            file.writelines(pieces)
            return
        # mtime=0 makes equal weights equal files
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
            packed.writelines(pieces)


def _layer_parts(
    name: str,
    type_name: str,
    blobs: Sequence[np.ndarray],
    dtype: DTypeLike,
    definitions: Mapping[str, Any],
) -> tuple[int, list]:
    """Return the length of a layer's message, and its bytes in pieces."""
    layer = proto.LayerParameter(name=name, type=type_name)
    if name in definitions:
        layer.CopyFrom(definitions[name])
        layer.ClearField("blobs")
    before = layer.SerializeToString()
    pieces: list[Any] = [before]
    length = len(before)
    for blob in blobs:
        size, parts = blob_parts(np.asarray(blob), dtype)
        lead = header(_CURRENT[1], size)
        length += len(lead) + size
        pieces += [lead, *parts]
    return length, pieces


# --- reading ---


def _read_texts(message: Any) -> None:
    """Look at every text: one that is not UTF-8 is found only then, or handed over as bytes."""
    for kind, value in message.ListFields():
        if kind.message_type is not None:
            for one in value if hasattr(value, "extend") else [value]:
                _read_texts(one)
        elif kind.type == kind.TYPE_STRING:
            texts = value if hasattr(value, "extend") else [value]
            if not all(isinstance(text, str) for text in texts):
                raise WireError


def _read(path: str | Path) -> tuple[bytearray, list[_Stored], list[_Stored]]:
    """Return the fields of the net, its old layers and its current layers."""
    rest, old, current = bytearray(), [], []
    try:
        with _open(path) as reader:
            for number, kind, value in reader.fields():
                if number == _NET_LAYER and kind == BYTES:
                    current.append(_read_layer(reader, value, _CURRENT, path))
                elif number == _NET_LAYERS and kind == BYTES:
                    old.append(_read_layer(reader, value, _V1, path))
                else:
                    rest += _copied(reader, number, kind, value)
    except WireError:
        raise _damaged(path) from None
    if not old and not current:
        raise WeightsError(f"{path} holds no layers; is it really a caffemodel?")
    return rest, old, current


def _read_layer(reader: Reader, length: int, numbers: tuple[int, int], path: str | Path) -> _Stored:
    name, blobs = numbers
    layer = _Stored()
    for number, kind, value in reader.fields(reader.position + length):
        if number == blobs and kind == BYTES:
            where = f"{path}: blob {len(layer.blobs)} of layer {layer.name!r}"
            layer.blobs.append(read_blob(reader, value, where))
        elif number == _V0_INSIDE_V1 and kind == BYTES and numbers == _V1:
            layer.oldest = _read_layer(reader, value, _V0, path)
        elif number == name and kind == BYTES:
            layer.name = reader.text(value)
            encoded = layer.name.encode()
            layer.rest += header(number, len(encoded)) + encoded
        else:
            layer.rest += _copied(reader, number, kind, value)
    return layer


def _copied(reader: Reader, number: int, kind: int, value: int) -> bytes:
    """Return a field as it stands in the file."""
    if kind == BYTES:
        return header(number, value) + reader.small(value)
    if kind == VARINT:
        return varint(number << 3 | kind) + varint(value)
    return varint(number << 3 | kind) + value.to_bytes(8 if kind == 1 else 4, "little")


@contextmanager
def _open(path: str | Path) -> Iterator[Reader]:
    """Open a weight file, packed or not, and explain what goes wrong on the way."""
    packed = str(path).endswith(".gz")
    try:
        with open(path, "rb") as file:
            if packed:
                with gzip.GzipFile(fileobj=file) as unpacked:
                    yield Reader(_Limited(unpacked, path), _MAX_MESSAGE_BYTES, exact=False)
                return
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                yield Reader(file, status.st_size)
            else:  # a pipe
                yield Reader(_Limited(file, path), _MAX_MESSAGE_BYTES, exact=False)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise WeightsError(f"{path} is not a complete gzip file; copy or save it again.") from None
    except (OSError, ValueError) as reason:
        raise explain(path, "weight file", WeightsError, reason) from None


class _Limited:
    """A stream that refuses to go on for ever."""

    def __init__(self, stream: Any, path: str | Path):
        self._stream, self._path, self._left = stream, path, MAX_UNPACKED_BYTES

    def read(self, size: int) -> bytes:
        content: bytes = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise WeightsError(
                f"{self._path} unpacks to more than {MAX_UNPACKED_BYTES} bytes and was refused; "
                "if you trust it, unpack it yourself with gunzip."
            )
        return content


def _damaged(path: str | Path) -> WeightsError:
    return WeightsError(f"{path} is not a caffemodel, or it is truncated; copy or save it again.")
