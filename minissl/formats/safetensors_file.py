"""Named arrays with a dictionary of strings, in one ``.safetensors`` file.

The format has a JSON header and plain bytes: nothing in it is executed, and its library checks
that offsets, shapes and sizes agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minissl.errors import MinisslError, WeightsError
from minissl.formats.atomic import atomic_write
from minissl.formats.reading import read_bytes

# NumPy has no type for these; the library would raise from deep inside.
_DTYPES = {
    "BOOL", "U8", "I8", "U16", "I16", "F16", "U32", "I32", "F32", "U64", "I64", "F64",
}  # fmt: skip


def read_tensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read all arrays and the metadata.

    Raises
    ------
    WeightsError
        If the file is missing, damaged or not a safetensors file, or holds a number type that
        NumPy does not know (such as bfloat16).
    """
    from safetensors import SafetensorError, deserialize

    content = read_bytes(path, "safetensors file", WeightsError)
    try:
        entries = deserialize(content)
    except SafetensorError as reason:
        raise WeightsError(
            f"{path} is not a complete safetensors file ({reason}); copy or save it again."
        ) from None
    tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in _DTYPES:
            raise WeightsError(
                f"{path}: tensor {name!r} is of type {entry['dtype']}, which cannot be read; "
                "convert it to F32."
            )
        flat = np.frombuffer(entry["data"], _dtype_of(entry["dtype"]))
        # frombuffer is read-only; the copy belongs to the caller.
        tensors[name] = flat.reshape(entry["shape"]).copy()
    return tensors, _metadata(content)


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays and metadata atomically.

    Raises
    ------
    MinisslError
        If the file cannot be written, or an array's type has no place in the format.
    """
    from safetensors.numpy import save

    # require() keeps zero-dimensional arrays as they are, which ascontiguousarray does not.
    contiguous = {name: np.require(array, requirements="C") for name, array in tensors.items()}
    for name, array in contiguous.items():
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise MinisslError(
                f"Cannot write {path}: {name!r} is of type {array.dtype}, "
                "which safetensors files do not hold."
            )
    content = save(contiguous, dict(metadata) if metadata else None)
    with atomic_write(path) as file:
        file.write(content)


def _dtype_of(name: str) -> np.dtype:
    if name == "BOOL":
        return np.dtype(bool)
    return np.dtype(f"<{name[0].lower()}{int(name[1:]) // 8}")


def _metadata(content: bytes) -> dict[str, str]:
    """Return the header's string entries; the library has checked the header already."""
    import json

    length = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + length]).get("__metadata__") or {})
