"""The library ``onnx``, imported when it is needed."""

from __future__ import annotations

from typing import Any

from minissl import optional


def load() -> Any:
    """Return the module ``onnx``.

    Raises
    ------
    DependencyError
        If it is not installed.
    """
    onnx = optional.library("onnx", "ONNX files", "minissl[onnx]")
    optional.library("onnx.numpy_helper", "ONNX files", "minissl[onnx]")
    return onnx
