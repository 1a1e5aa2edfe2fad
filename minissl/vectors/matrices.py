"""Test vectors of sparse weight matrices: compressed rows, kept rows and columns, convolutions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minissl.conv_modes import ConvShape
from minissl.conv_modes.compressed_rows import compress
from minissl.conv_modes.lowered_ccnmm import LoweredCcnmm
from minissl.conv_modes.lowered_gemm import LoweredGemm
from minissl.kernels import reference
from minissl.vectors import values
from minissl.vectors.case import Case, formula_of, name_of

#: name -> geometry of a convolution whose weights have zero rows and columns
SHAPES = {
    "one group": ConvShape(4, (5, 6), 6, (3, 3), pad=(1, 1)),
    "two conv groups, stride 2": ConvShape(6, (7, 6), 8, (3, 2), stride=(2, 2), groups=2),
}


def cases() -> Iterator[Case]:
    """Yield all vectors of this family."""
    yield _lowering()
    yield _compressed_rows()
    for name, shape in SHAPES.items():
        yield _concatenation(name, shape)
        yield _convolution(name, shape)


def _settings(shape: ConvShape) -> dict:
    names = ("channels", "filters", "kernel", "stride", "pad", "dilation", "groups")
    return {name: getattr(shape, name) for name in names}


def _lowering() -> Case:
    kernel, stride, pad, dilation = (3, 2), (2, 1), (1, 0), (1, 2)
    x = values.uniform("im2col x", (2, 6, 5))  # (C, H, W)
    P, Q = 3, 3
    col = np.zeros((2 * 3 * 2, P * Q))
    reference.im2col(x, kernel, stride, pad, dilation, col)
    d_col = values.uniform("im2col d_col", col.shape)
    d_x = np.zeros_like(x)
    reference.col2im(d_col, kernel, stride, pad, dilation, d_x)
    return Case(
        "matrices/lowering/im2col and col2im",
        "col[(c kh + r) kw + q, p Q + s] = x[c, p stride - pad + r dilation, ...], 0 outside; "
        "col2im is its adjoint",
        name_of(reference.im2col),
        {"kernel": kernel, "stride": stride, "pad": pad, "dilation": dilation},
        {"x": x, "d_col": d_col},
        {"col": col, "d_x": d_x},
        tolerance=1e-12,
    )


def _compressed_rows() -> Case:
    w = values.sparse("compressed rows", (6, 10), zeros=0.7)
    w[3] = 0  # an empty row
    x = values.uniform("compressed rows x", (10, 4))
    row_values, columns, row_start = compress(w)
    return Case(
        "matrices/compressed rows/with an empty row",
        "row f holds values[row_start[f] : row_start[f + 1]], columns rising; y = w @ x",
        name_of(compress),
        {},
        {"w": w, "x": x},
        {
            "values": row_values,
            "columns": columns.astype(np.int64),
            "row_start": row_start,
            "y": w @ x,
        },
        tolerance=1e-12,
    )


def _concatenation(name: str, shape: ConvShape) -> Case:
    w = values.sparse(f"concatenation {name}", shape.weight_shape, zeros=0.7)
    packed = LoweredCcnmm(shape, w, None, reference)
    return Case(
        f"matrices/kept rows and columns/{name}",
        formula_of(LoweredCcnmm),
        name_of(LoweredCcnmm),
        _settings(shape),
        {"w": w},
        {
            "values": packed.values,
            "rows": packed.rows,
            "row_start": packed.row_start,
            "columns": packed.columns,
            "column_start": packed.column_start,
        },
        tolerance=0.0,
    )


def _convolution(name: str, shape: ConvShape) -> Case:
    w = values.sparse(f"sparse convolution {name}", shape.weight_shape, zeros=0.7)
    b = values.uniform(f"sparse convolution b {name}", (shape.filters,))
    x = values.uniform(f"sparse convolution x {name}", (2, shape.channels, *shape.size))
    y = np.zeros((2, shape.filters, *shape.output))
    LoweredGemm(shape, w, b, reference).forward(x, y)
    return Case(
        f"matrices/convolution with sparse weights/{name}",
        "y = w * x + b, whatever the conv_mode",
        name_of(LoweredGemm),
        _settings(shape),
        {"x": x, "w": w, "b": b},
        {"y": y},
        tolerance=1e-12,
    )
