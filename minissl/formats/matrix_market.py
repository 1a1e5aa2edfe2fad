"""Weight matrices as Matrix Market text, the form in which SSL's sparse weights were published.

R rows are filters, C columns are (channel * kh + r) * kw + q; see the SSL repository's
``experiments/sparsity/matrixmarket``. Values are real, indices in the file start at 1.

The text is read here and not by ``scipy.io.mmread``, which crashes the whole process on some
damaged files (seen with SciPy 1.17).
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
_LONGEST_NUMBER = 40  # characters; float64 needs 24


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
    content = read_bytes(path, "Matrix Market file", WeightsError)
    layout, rows, columns, entries, body = _read_header(content, path)
    if layout == "array":
        values = _numbers(body, entries, path)
        return np.ascontiguousarray(values.reshape(columns, rows).T, dtype)  # (R, C)

    triples = _numbers(body, 3 * entries, path).reshape(entries, 3)
    places = triples[:, :2]
    if not ((places == np.floor(places)) & (places >= 1) & (places <= (rows, columns))).all():
        raise WeightsError(f"{path} is damaged: an index is outside its {rows} x {columns} matrix.")
    row, column = places.astype(np.int64).T - 1
    if len(np.unique(row * columns + column)) != entries:
        raise WeightsError(f"{path} is damaged: it repeats an element of its matrix.")
    matrix = np.zeros((rows, columns), dtype)  # (R, C)
    matrix[row, column] = triples[:, 2]
    return matrix


def read_shape(path: str | Path) -> tuple[int, int]:
    """Read only the shape of a matrix, (R, C).

    Raises
    ------
    WeightsError
        If the file is missing, or its header damaged.
    """
    _, rows, columns, _, _ = _read_header(
        read_bytes(path, "Matrix Market file", WeightsError), path
    )
    return rows, columns


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
        If the blob is empty.
    MinisslError
        If the file cannot be written.
    """
    if weights.ndim == 0 or weights.size == 0:
        raise WeightsError(f"Cannot write {path}: the blob is empty.")
    matrix = weights.reshape(weights.shape[0], -1)  # (R, C)
    row, column = np.nonzero(matrix)
    digits = 9 if weights.dtype == np.float32 else 17
    with atomic_write(path) as file:
        file.write(b"%%MatrixMarket matrix coordinate real general\n")
        file.write(b"%d %d %d\n" % (*matrix.shape, len(row)))
        triples = np.column_stack([row + 1, column + 1, matrix[row, column]])  # (non-zeros, 3)
        np.savetxt(file, triples, fmt=["%d", "%d", f"%.{digits}g"])


def _numbers(body: bytes, expected: int, path: str | Path) -> np.ndarray:
    """Return the numbers of the body, whose count the header has announced."""
    words = body.split()
    if len(words) != expected:
        raise WeightsError(f"{path} is damaged: it announces {expected} numbers, not {len(words)}.")
    # NumPy gives every word the room of the longest.
    if max(map(len, words), default=0) > _LONGEST_NUMBER:
        raise WeightsError(f"{path} is damaged: it holds something that is not a number.")
    try:
        return np.array(words, dtype=bytes).astype(np.float64)
    except ValueError:
        raise WeightsError(f"{path} is damaged: it holds something that is not a number.") from None


def _read_header(content: bytes, path: str | Path) -> tuple[str, int, int, int, bytes]:
    """Return layout, rows, columns, number of entries and the text behind the header.

    The sizes are compared with the length of the file, so that nothing large is allocated for a
    small damaged one.
    """
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
    return layout, rows, columns, entries, lines.read()
