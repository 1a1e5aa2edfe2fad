"""Test vectors of layers: what each computes forward, and every gradient.

The objective of the gradients is L = sum over tops of sum(d_top * top): ``d_top0`` ... are inputs,
``d_bottom0`` ... and ``d_parameter0`` ... outputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from google.protobuf import text_format

from minissl.blob import Blob
from minissl.formats import proto
from minissl.kernels import reference
from minissl.layers import Context, create
from minissl.layers.base import Layer
from minissl.vectors import values
from minissl.vectors.case import Case, formula_of, name_of
from minissl.vectors.layer_table import ROWS_OF_TABLE, Row


def cases() -> Iterator[Case]:
    """Yield one vector for every row of the table."""
    for row in ROWS_OF_TABLE:
        yield _case(row)


def _case(row: Row) -> Case:
    connections = " ".join(
        [f'bottom: "bottom{i}"' for i in range(len(row.bottoms))]
        + [f'top: "top{i}"' for i in range(row.tops)]
    )
    param = text_format.Parse(f'name: "layer" {connections} {row.layer}', proto.LayerParameter())
    name = f"layers/{param.type}/{row.variant}"
    layer = create(param, Context(reference, np.dtype(np.float64), phase=row.phase))
    bottoms = [Blob(f"bottom{i}", shape, np.float64) for i, (_, shape) in enumerate(row.bottoms)]
    tops = [
        Blob(f"top{i}", shape, np.float64)
        for i, shape in enumerate(layer.setup([shape for _, shape in row.bottoms]))
    ]
    inputs = {
        blob.name: fill(f"{name} {blob.name}", blob.shape)
        for blob, (fill, _) in zip(bottoms, row.bottoms, strict=True)
    }
    for blob in bottoms:
        blob.data = inputs[blob.name].copy()
    for i, parameter in enumerate(layer.parameters):
        fill = row.parameters[i] if i < len(row.parameters) else values.uniform
        inputs[f"parameter{i}"] = fill(f"{name} parameter{i}", parameter.shape)
        parameter.data = inputs[f"parameter{i}"].copy()
    layer.forward(bottoms, tops)
    outputs = {top.name: top.data.copy() for top in tops}
    for i, parameter in enumerate(layer.parameters):
        if not np.array_equal(parameter.data, inputs[f"parameter{i}"]):  # running statistics
            outputs[f"parameter{i}_after"] = parameter.data.copy()
    if row.has_gradient:
        _gradients(name, layer, bottoms, tops, inputs, outputs)
    return Case(
        name,
        formula_of(type(layer)),
        name_of(type(layer)),
        {"layer": f"{connections} {row.layer}", "phase": row.phase},
        inputs,
        outputs,
    )


def _gradients(
    name: str,
    layer: Layer,
    bottoms: list[Blob],
    tops: list[Blob],
    inputs: dict[str, np.ndarray],
    outputs: dict[str, np.ndarray],
) -> None:
    """Run the backward pass and add its inputs and outputs."""
    for top in tops:
        inputs[f"d_{top.name}"] = values.uniform(f"{name} d_{top.name}", top.shape)
        top.diff = inputs[f"d_{top.name}"].copy()
    wanted = [i not in layer.no_gradient for i in range(len(bottoms))]
    layer.backward(tops, wanted, bottoms)
    for blob, is_wanted in zip(bottoms, wanted, strict=True):
        if is_wanted:
            outputs[f"d_{blob.name}"] = blob.diff.copy()
    for i, parameter in enumerate(layer.parameters):
        if parameter.role != "statistic":
            outputs[f"d_parameter{i}"] = parameter.diff.copy()
