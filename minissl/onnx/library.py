"""The library ``onnx``, imported when it is needed."""

from __future__ import annotations

from typing import Any

from minissl.errors import DependencyError


def load() -> Any:
    """Return the module ``onnx``.

    Raises
    ------
    DependencyError
        If it is not installed.
    """
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError as reason:
        raise DependencyError(
            f"ONNX files need the library onnx ({reason}); pip install 'minissl[onnx]'"
        ) from None
    return onnx
