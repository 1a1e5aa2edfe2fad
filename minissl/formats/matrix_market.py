"""Weight matrices as Matrix Market text, the form in which SSL's sparse weights were published.

R rows are filters, C columns are (channel * kh + r) * kw + q; see the SSL repository's
``experiments/sparsity/matrixmarket``. Values are real, indices in the file start at 1.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from minissl.errors import WeightsError
from minissl.formats.atomic import atomic_write
from minissl.formats.reading import read_bytes

#: Largest matrix that is expanded; the biggest fully connected layer published with Caffe
#: (VGG-16 fc6, 4096 x 25088) has 103 million elements.
MAX_ELEMENTS = 2**28


def read_matrix(path: str | Path, dtype: DTypeLike = np.float32) -> np.ndarray:
    """Read a matrix, zeros included.

    Both ``coordinate real general`` (published weights) and ``array real general`` (the original's
    ``<layer>.weight`` dumps) are understood.

    Returns
    -------
    ndarray
        Shape (R, C).

    Raises
    ------
    WeightsError
        If the file is missing, damaged, not a real matrix, or repeats an element.
    """
    from scipy.io import mmread
    from scipy.sparse import coo_matrix

    content = read_bytes(path, "Matrix Market file", WeightsError)
    rows, columns, entries = _check_header(content, path)
    try:
        matrix = mmread(io.BytesIO(content))
    except (ValueError, TypeError, OverflowError, OSError, IndexError) as reason:
        raise WeightsError(f"{path} is a damaged Matrix Market file: {reason}.") from None
    if not isinstance(matrix, np.ndarray):
        matrix = coo_matrix(matrix)
        places = matrix.row.astype(np.int64) * columns + matrix.col
        if matrix.nnz != entries or len(np.unique(places)) != entries:
            raise WeightsError(f"{path} is damaged: it repeats or lacks elements of its matrix.")
        matrix = matrix.toarray()
    return np.ascontiguousarray(matrix.reshape(rows, columns), dtype)  # (R, C)


def write_matrix(path: str | Path, weights: np.ndarray) -> None:
    """Write the non-zeros of a weight blob in coordinate form, atomically.

    Parameters
    ----------
    path
        The file.
    weights
        Any blob; it is seen as R = shape[0] rows by C = size / R columns. Values keep enough
        digits to be read back without loss.

    Raises
    ------
    WeightsError
        If the blob has no axis to count rows along.
    MinisslError
        If the file cannot be written.
    """
    from scipy.io import mmwrite
    from scipy.sparse import coo_matrix

    if weights.ndim == 0 or weights.size == 0:
        raise WeightsError(f"Cannot write {path}: the blob is empty.")
    matrix = coo_matrix(weights.reshape(weights.shape[0], -1))  # (R, C)
    digits = np.finfo(weights.dtype).precision + 3  # 9 for float32, 18 for float64
    text = io.BytesIO()
    mmwrite(text, matrix, field="real", precision=digits, symmetry="general")
    with atomic_write(path) as file:
        file.write(text.getvalue())


def _check_header(content: bytes, path: str | Path) -> tuple[int, int, int]:
    """Return rows, columns and number of entries, once they are known to fit the file."""
    lines = io.BytesIO(content)
    banner = lines.readline(1000).decode("ascii", "replace").lower().split()
    if len(banner) != 5 or banner[0] != "%%matrixmarket" or banner[1] != "matrix":
        raise WeightsError(f"{path} is not a Matrix Market file: its first line is not the banner.")
    layout, field, symmetry = banner[2:]
    if layout not in ("coordinate", "array") or field not in ("real", "integer", "double"):
        raise WeightsError(
            f"{path} holds a '{layout} {field}' matrix; only real matrices can be read."
        )
    if symmetry != "general":
        raise WeightsError(f"{path} holds a {symmetry} matrix; only general ones can be read.")
    size_line = b"%"
    while size_line.startswith(b"%") or (size_line and not size_line.strip()):
        size_line = lines.readline(1000)
    sizes = size_line.split()
    expected = 3 if layout == "coordinate" else 2
    if len(sizes) != expected or not all(size.isdigit() for size in sizes):
        raise WeightsError(f"{path} is a damaged Matrix Market file: it has no line of sizes.")
    rows, columns = int(sizes[0]), int(sizes[1])
    entries = int(sizes[2]) if layout == "coordinate" else rows * columns
    if rows * columns > MAX_ELEMENTS:
        raise WeightsError(
            f"{path} holds a {rows} x {columns} matrix, more than the {MAX_ELEMENTS} elements "
            "that are expanded."
        )
    # The shortest entry is a digit and a line end, with two more numbers in coordinate form.
    shortest = 6 if layout == "coordinate" else 2
    if rows == 0 or columns == 0 or entries > rows * columns or entries * shortest > len(content):
        raise WeightsError(
            f"{path} is damaged: it announces {entries} elements of a {rows} x {columns} matrix, "
            "which is more than it holds."
        )
    return rows, columns, entries
