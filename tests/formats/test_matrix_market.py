from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from minissl.errors import MinisslError, WeightsError
from minissl.formats import matrix_market
from minissl.formats.matrix_market import read_matrix, write_matrix
from tests.formats.conftest import damaged, result_or_error

SMALL = """%%MatrixMarket matrix coordinate real general
% a comment

2 3 3
1 1 1.5
2 3 -2e-4
1 2 7
"""


def save(folder: Path, text: str) -> Path:
    path = folder / "coo_conv1.weight"
    path.write_text(text)
    return path


def test_small_file(tmp_path: Path) -> None:
    matrix = read_matrix(save(tmp_path, SMALL))
    assert matrix.dtype == np.float32 and matrix.flags.c_contiguous
    np.testing.assert_array_equal(matrix, np.float32([[1.5, 7, 0], [0, 0, -2e-4]]))


def test_dense_dump_is_column_by_column(tmp_path: Path) -> None:
    path = save(tmp_path, "%%MatrixMarket matrix array real general\n2 2\n1\n2\n3\n4\n")
    np.testing.assert_array_equal(read_matrix(path), [[1, 3], [2, 4]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip_is_exact(tmp_path: Path, dtype: type) -> None:
    weights = np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype(dtype)
    weights[1] = 0
    weights[:, :, 2] = 0
    weights.flat[0] = np.finfo(dtype).tiny
    write_matrix(tmp_path / "conv.mtx", weights)
    again = read_matrix(tmp_path / "conv.mtx", dtype)
    np.testing.assert_array_equal(again, weights.reshape(4, 18))


def test_scipy_reads_what_we_write_and_the_reverse(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    weights = np.random.default_rng(1).standard_normal((5, 7)) * np.eye(5, 7)
    write_matrix(tmp_path / "ours.mtx", weights)
    np.testing.assert_array_equal(scipy_io.mmread(tmp_path / "ours.mtx").toarray(), weights)
    scipy_io.mmwrite(tmp_path / "theirs.mtx", weights, precision=17)
    np.testing.assert_array_equal(read_matrix(tmp_path / "theirs.mtx", np.float64), weights)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not a Matrix Market file"),
        ("hello\n", "not a Matrix Market file"),
        (SMALL.replace("real", "complex"), "'coordinate complex' matrix"),
        (SMALL.replace("real", "pattern"), "'coordinate pattern' matrix"),
        (SMALL.replace("general", "symmetric"), "symmetric matrix"),
        (SMALL.replace("2 3 3", "2 x 3"), "no line of sizes"),
        (SMALL.replace("2 3 3", "2 3"), "no line of sizes"),
        (SMALL.replace("2 3 3", "2 3 4"), "announces 12 numbers, not 9"),
        (SMALL.replace("2 3 3", "2 3 2"), "damaged"),
        (SMALL.replace("2 3 3", "1000 1000 999999"), "announces 999999 elements"),
        (SMALL.replace("2 3 3", "99999999 99999999 3"), "more than the"),
        (SMALL.replace("2 3 3", "0 0 0"), "announces 0 elements"),
        (SMALL.replace("2 3 -2e-4", "3 3 1"), "outside its 2 x 3 matrix"),
        (SMALL.replace("2 3 -2e-4", "0 3 1"), "outside its 2 x 3 matrix"),
        (SMALL.replace("2 3 -2e-4", "2 2.5 1"), "outside its 2 x 3 matrix"),
        (SMALL.replace("-2e-4", "1" * 41), "not a number"),
        (SMALL.replace("2 3 -2e-4", "1 1 1"), "repeats"),
        (SMALL.replace("2 3 -2e-4", "2 3 abc"), "not a number"),
    ],
)
def test_bad_files_are_explained(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(WeightsError) as raised:
        read_matrix(save(tmp_path, text))
    assert expected in str(raised.value) and "\n" not in str(raised.value)


def test_missing_file_and_empty_blob(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="There is no Matrix Market file"):
        read_matrix(tmp_path / "none.mtx")
    with pytest.raises(MinisslError, match="empty"):
        write_matrix(tmp_path / "w.mtx", np.zeros((0, 3)))


# Shape, non-zeros, all-zero rows and columns, as listed with the published files.
PUBLISHED = {
    "alexnet/0.54214_1.0e-3/coo_conv1.weight": ((96, 363), 22721, 9, 0),
    "alexnet/0.54214_1.0e-3/coo_conv3.weight": ((384, 2304), 51635, 156, 1772),
    "alexnet/0.56256_l1_9.0e-5/coo_conv5_2.weight": ((128, 1728), 24840, None, None),
    "lenet/0.9846_1.0e-2/coo_conv2.weight": ((50, 500), 1039, 0, 475),
    "lenet/0.9865_1.0e-2/coo_conv1.weight": ((20, 25), 20, 13, 14),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_matrices(ssl_matrices: Path, name: str) -> None:
    shape, non_zeros, zero_rows, zero_columns = PUBLISHED[name]
    matrix = read_matrix(ssl_matrices / name)
    assert matrix.shape == shape
    assert np.count_nonzero(matrix) == non_zeros
    if zero_rows is not None:
        assert np.count_nonzero(~matrix.any(axis=1)) == zero_rows
        assert np.count_nonzero(~matrix.any(axis=0)) == zero_columns


def test_published_bands_are_the_halves_of_the_matrix(ssl_matrices: Path) -> None:
    folder = ssl_matrices / "alexnet/0.54214_1.0e-3"
    bands = [read_matrix(folder / f"coo_conv2_{band}.weight") for band in (1, 2)]
    np.testing.assert_array_equal(np.concatenate(bands), read_matrix(folder / "coo_conv2.weight"))


def test_reading_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_market, "MAX_ELEMENTS", 5)
    with pytest.raises(WeightsError, match="more than the 5 elements"):
        read_matrix(save(tmp_path, SMALL))


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(damaged(SMALL.encode()))
def test_any_bytes_are_read_or_explained(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fuzz.mtx"
    path.write_bytes(content)
    result_or_error(read_matrix, path)
