"""Run one layer by hand: what the tests of single layers share."""

from __future__ import annotations

from typing import Any

import numpy as np

from minissl.backend import to_host
from minissl.blob import Blob
from minissl.layers import Layer
from tests.gradient_cases import make_layer


def set_up(
    text: str, kernels: Any, *arrays: Any, dtype: Any = np.float64, phase: str = "TRAIN"
) -> tuple[Layer, list[Blob], list[Blob]]:
    """Make a layer with bottoms that hold ``arrays`` and tops of the shapes it answers."""
    layer = make_layer(text, kernels, dtype, phase)
    values = [np.array(array, dtype) for array in arrays]
    top_shapes = layer.setup([v.shape for v in values])
    bottom = [Blob(f"bottom{i}", v.shape, dtype, kernels.xp) for i, v in enumerate(values)]
    for blob, v in zip(bottom, values, strict=True):
        blob.data = kernels.xp.asarray(v)
    top = [Blob(f"top{i}", shape, dtype, kernels.xp) for i, shape in enumerate(top_shapes)]
    return layer, bottom, top


def forward(text: str, kernels: Any, *arrays: Any, **more: Any) -> list[np.ndarray]:
    """Return the tops of a layer."""
    layer, bottom, top = set_up(text, kernels, *arrays, **more)
    layer.forward(bottom, top)
    layer.check()
    return [to_host(blob.data) for blob in top]
