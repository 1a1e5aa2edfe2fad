"""ONNX models as files; any bytes give a model or a MinisslError, in bounded time and memory.

Sizes that a tensor claims are compared with the bytes that are there before an array is made.
Tensors kept in other files ("external data") are read from the folder of the model only.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from minissl.errors import MinisslError, WeightsError
from minissl.formats.atomic import atomic_write
from minissl.formats.reading import explain, read_bytes
from minissl.onnx import library

#: What all arrays that a file only describes (sparse, or computed from constants) may take.
MAX_DESCRIBED_BYTES = 2**30
#: Protocol buffers end at 2 GiB.
MAX_MESSAGE_BYTES = 2**31 - 1


def read_model(path: str | Path) -> Any:
    """Read a ``ModelProto``; tensors in other files stay there until they are asked for.

    Raises
    ------
    WeightsError
        If the file is missing, truncated or not an ONNX model.
    DependencyError
        If the library onnx is not installed.
    """
    onnx = library.load()
    content = read_bytes(path, "ONNX model", WeightsError)
    return parse_model(onnx, content, path)


def parse_model(onnx: Any, content: bytes, source: str | Path) -> Any:
    """Return the bytes of a file as a ``ModelProto``; `source` names the file in errors."""
    from google.protobuf.message import DecodeError

    damaged = WeightsError(
        f"{source} is not an ONNX model, or it is truncated; copy or save it again."
    )
    try:
        model = onnx.ModelProto.FromString(content)
    except (DecodeError, UnicodeDecodeError):
        raise damaged from None
    if not model.HasField("graph") or not model.opset_import:
        raise damaged
    return model


def write_model(model: Any, path: str | Path) -> None:
    """Write a model, atomically, once the checker of ONNX has accepted it.

    Raises
    ------
    MinisslError
        If the model is larger than 2 GiB or the file cannot be written.
    """
    onnx = library.load()
    if model.ByteSize() > MAX_MESSAGE_BYTES:
        raise MinisslError(f"Cannot write {path}: an ONNX model ends at 2 GiB.")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as reason:
        first = str(reason).splitlines()[0]
        raise MinisslError(
            f"Cannot write {path}: the checker of ONNX refuses it: {first}"
        ) from None
    with atomic_write(path) as file:
        file.write(model.SerializeToString(deterministic=True))


def array_of(tensor: Any, folder: Path | None, where: str) -> np.ndarray:
    """Return a ``TensorProto`` as an array.

    Parameters
    ----------
    tensor : TensorProto
    folder : Path, optional
        Where tensors in other files are looked for; None forbids them.
    where : str
        Names the tensor in errors.

    Raises
    ------
    WeightsError
        If its type is unknown, its shape does not fit its values, or its file is not there.
    """
    onnx = library.load()
    shape = tuple(tensor.dims)
    if min(shape, default=0) < 0:
        raise WeightsError(f"{where} has the shape {shape}; the file is damaged.")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        tensor = _with_external_data(tensor, folder, where)
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, TypeError, ValueError):
        raise WeightsError(
            f"{where} has the unknown element type {tensor.data_type}; the file is damaged."
        ) from None
    bits = _bits(dtype)
    if tensor.HasField("raw_data") and dtype.kind != "O":
        there, needed = len(tensor.raw_data), (math.prod(shape) * bits + 7) // 8
    else:
        field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
        there = len(getattr(tensor, field))
        per_value = 2 if dtype.kind == "c" else 1
        packed = 8 // bits if bits < 8 else 1
        needed = -(-math.prod(shape) * per_value // packed)
    if there != needed:
        raise WeightsError(
            f"{where} has the shape {'x'.join(map(str, shape))}, which needs {needed:,} values or "
            f"bytes, but {there:,} are there; the file is damaged."
        )
    try:
        return np.array(onnx.numpy_helper.to_array(tensor))
    except Exception as reason:  # typed fields that hold numbers beyond their type, and the like
        raise WeightsError(f"{where} cannot be read: {str(reason)[:160]}.") from None


def dense_of(sparse: Any, folder: Path | None, where: str, budget: int) -> np.ndarray:
    """Return a ``SparseTensorProto`` as an array that is not sparse.

    Raises
    ------
    WeightsError
        If it would take more than `budget` bytes, or indices lie outside its shape.
    """
    values = array_of(sparse.values, folder, where)
    indices = array_of(sparse.indices, folder, f"the indices of {where}")
    shape = tuple(sparse.dims)
    if min(shape, default=0) < 0 or math.prod(shape) * values.dtype.itemsize > budget:
        raise WeightsError(
            f"{where} has the shape {'x'.join(map(str, shape))}, which is negative or too large."
        )
    if values.ndim != 1 or indices.dtype != np.int64:
        raise WeightsError(f"{where} is no list of values with whole numbers as places.")
    if indices.shape == (len(values), len(shape)) and indices.ndim == 2:
        inside = bool(((indices >= 0) & (indices < np.array(shape, dtype=np.int64))).all())
        places: Any = tuple(indices.T)
    elif indices.shape == values.shape:
        inside = bool(((indices >= 0) & (indices < math.prod(shape))).all())
        places = np.unravel_index(indices, shape) if inside and len(indices) else ()
    else:
        inside = False
    if not inside:
        raise WeightsError(f"{where} has values outside its shape; the file is damaged.")
    dense = np.zeros(shape, values.dtype)
    if len(values):
        dense[places] = values
    return dense


def _bits(dtype: Any) -> int:
    """Return the bits of one element; those of 2 and 4 bits are packed."""
    name = np.dtype(dtype).name
    if name.endswith("int2"):
        return 2
    return 4 if name.endswith("int4") or name.startswith("float4") else 8 * dtype.itemsize


def _with_external_data(tensor: Any, folder: Path | None, where: str) -> Any:
    """Return a copy of the tensor with the bytes that another file holds."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise WeightsError(f"{where} lies in another file, '{location}'; read the model by path.")
    root = folder.resolve()
    outside = WeightsError(
        f"{where} lies in '{location}', which is not a file in the model's own folder; "
        "put the file beside the model."
    )
    try:
        path = (root / location).resolve()
        if not location or not path.is_relative_to(root) or not path.is_file():
            raise outside
        start, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
        size = path.stat().st_size
        if length < 0:
            length = size - start
        if start < 0 or length < 0 or start + length > size:
            raise WeightsError(f"{where} lies beyond the end of '{location}'; copy it again.")
        with path.open("rb") as file:
            file.seek(start)
            content = file.read(length)
    except (ValueError, RuntimeError):  # NUL characters, numbers that are none, loops of links
        raise outside from None
    except OSError as reason:
        raise explain(location, "file of weights", WeightsError, reason) from None
    copy = type(tensor)()
    copy.CopyFrom(tensor)
    copy.data_location = 0
    del copy.external_data[:]
    copy.raw_data = content
    return copy
