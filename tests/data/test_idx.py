from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minissl.data import idx
from minissl.data.idx import read_idx, write_idx
from minissl.errors import DataError

ARRAYS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=5))
IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("idx")


@given(array=ARRAYS, compress=st.booleans())
def test_round_trip(folder, array, compress):
    path = folder / "array"
    write_idx(path, array, compress)
    back = read_idx(path, dimensions=array.ndim)
    assert back.dtype == np.uint8 and back.shape == array.shape
    np.testing.assert_array_equal(back, array)
    assert not back.flags.writeable


def test_layout_is_the_published_one(folder):
    path = folder / "layout"
    write_idx(path, IMAGES)
    expected = bytes([0, 0, 8, 3]) + struct.pack(">III", 2, 3, 4) + bytes(range(24))
    assert path.read_bytes() == expected


def test_compressed_bytes_do_not_depend_on_the_time(folder, monkeypatch):
    write_idx(folder / "a.gz", IMAGES, compress=True)
    monkeypatch.setattr("time.time", lambda: 1.0)
    write_idx(folder / "b.gz", IMAGES, compress=True)
    assert (folder / "a.gz").read_bytes() == (folder / "b.gz").read_bytes()


@pytest.mark.parametrize("compress", [False, True])
def test_every_cut_is_noticed(folder, compress):
    path = folder / "cut"
    write_idx(path, IMAGES, compress)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut[\s\S]*(download the file again|file you meant)"):
            read_idx(path)


@pytest.mark.parametrize("compress", [False, True])
def test_trailing_bytes_are_noticed(folder, compress):
    path = folder / "long"
    write_idx(path, IMAGES)
    content = path.read_bytes() + b"\x07"
    path.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(DataError, match="goes on after the 24 bytes"):
        read_idx(path)


def test_garbage_after_the_gzip_data_is_noticed(folder):
    path = folder / "garbage"
    write_idx(path, IMAGES, compress=True)
    path.write_bytes(path.read_bytes() + b"garbage")
    with pytest.raises(DataError, match="gzip data are damaged"):
        read_idx(path)


@pytest.mark.parametrize(
    ("magic", "message"),
    [
        (b"\x89PNG", "not an IDX file"),
        (b"\0\x01\x08\x03", "not an IDX file"),
        (b"\0\0\x08\0", "not an IDX file"),
        (b"\0\0\x08\x05", "not an IDX file"),
        (b"\0\0\x0d\x03", "type 0x0d"),
    ],
)
def test_wrong_magic(folder, magic, message):
    path = folder / "magic"
    path.write_bytes(magic + bytes(100))
    with pytest.raises(DataError, match=message):
        read_idx(path)


def test_swapped_images_and_labels(folder):
    path = folder / "swapped"
    write_idx(path, IMAGES)
    with pytest.raises(DataError, match="swapped"):
        read_idx(path, dimensions=1)


def test_wrong_count(folder):
    path = folder / "count"
    write_idx(path, IMAGES)
    content = bytearray(path.read_bytes())
    content[7] = 3
    path.write_bytes(content)
    with pytest.raises(DataError, match="promises 36 bytes of data \\(3, 3, 4\\) and 24 are there"):
        read_idx(path)
    content[7] = 0
    path.write_bytes(content)
    with pytest.raises(DataError, match="no records"):
        read_idx(path)


def test_gigantic_claims_are_refused(folder):
    path = folder / "huge"
    path.write_bytes(b"\0\0\x08\x03" + b"\xff" * 12)
    with pytest.raises(DataError, match="more than the 2147483648 accepted"):
        read_idx(path)


def test_a_gzip_bomb_is_not_unpacked_beyond_its_header(folder, monkeypatch):
    path = folder / "bomb"
    path.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x05" + bytes(50_000_000)))
    taken = []
    read = gzip.GzipFile.read

    def count(self, size=-1):
        taken.append(size)
        return read(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", count)
    with pytest.raises(DataError, match="goes on"):
        read_idx(path)
    assert sum(taken) < 100 and min(taken) >= 0


def test_unreadable_paths(folder):
    with pytest.raises(DataError, match="cannot be read \\(No such file"):
        read_idx(folder / "missing")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(folder)


@pytest.mark.parametrize(
    "array", [np.zeros(3), np.zeros((0, 2), np.uint8), np.zeros((1,) * 5, np.uint8), np.uint8(3)]
)
def test_what_cannot_be_written(folder, array):
    with pytest.raises(DataError, match="only non-empty uint8 arrays"):
        write_idx(folder / "no", np.asarray(array))


def test_unwritable_folder(folder):
    with pytest.raises(DataError, match="cannot be written"):
        write_idx(folder / "nowhere" / "file", IMAGES)


@given(
    content=st.one_of(
        st.binary(max_size=64),
        st.builds(
            lambda nd, rest: bytes([0, 0, 8, nd]) + rest, st.integers(0, 6), st.binary(max_size=40)
        ),
        st.builds(lambda rest: b"\x1f\x8b\x08" + rest, st.binary(max_size=40)),
        st.builds(
            lambda nd, rest: gzip.compress(bytes([0, 0, 8, nd]) + rest),
            st.integers(0, 6),
            st.binary(max_size=40),
        ),
    )
)
@example(content=bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]))
def test_any_bytes_give_an_array_or_a_data_error(folder, content):
    path = folder / "any"
    path.write_bytes(content)
    try:
        array = read_idx(path)
    except DataError as error:
        assert str(path) in str(error)
    else:
        assert array.dtype == np.uint8 and array.size > 0
        if not content.startswith(idx.GZIP_MAGIC):
            assert len(content) == 4 + 4 * array.ndim + array.size
