"""HDF5 files as a network's data."""

from __future__ import annotations

import numpy as np
import pytest

from minissl import Net
from minissl.errors import ConfigError, DataError
from minissl.formats.prototxt import parse_net

h5py = pytest.importorskip("h5py", reason="h5py is not installed")


@pytest.fixture
def folder(tmp_path):
    """Three files of 3, 1 and 4 rows; row r of all of them holds r, and r squared as its label."""
    first = 0
    for i, rows in enumerate((3, 1, 4)):
        numbers = np.arange(first, first + rows)
        first += rows
        with h5py.File(tmp_path / f"{i}.h5", "w") as file:
            file["x"] = np.broadcast_to(numbers[:, None, None], (rows, 2, 3)).astype(np.float32)
            file["t"] = numbers**2
    (tmp_path / "list.txt").write_text("".join(f"{tmp_path}/{i}.h5\n" for i in range(3)))
    return tmp_path


def net_of(folder, options="", tops="x t", batch_size=5, **more):
    written = " ".join(f'top: "{top}"' for top in tops.split())
    text = f"""layer {{ name: "d" type: "HDF5Data" {written} hdf5_data_param {{
        source: "{folder}/list.txt" batch_size: {batch_size} {options} }} }}"""
    return Net(parse_net(text), backend="numpy", dtype="float64", **more)


def batches(net, count):
    found = []
    for _ in range(count):
        net.forward()
        found.append(net.blobs["t"].data.copy())
        np.testing.assert_array_equal(net.blobs["x"].data[:, 1, 2] ** 2, found[-1])
    return np.concatenate(found)


def test_files_are_read_one_after_the_other_and_again(folder):
    net = net_of(folder)
    assert net.blobs["x"].shape == (5, 2, 3)
    np.testing.assert_array_equal(batches(net, 4), (np.arange(20) % 8) ** 2)


def test_shuffled_epochs(folder):
    found = batches(net_of(folder, "shuffle: true", batch_size=4), 4)
    one, other = found[:8], found[8:]
    assert sorted(one) == sorted(other) == [i**2 for i in range(8)]
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(found, batches(net_of(folder, "shuffle: true", batch_size=4), 4))


@pytest.mark.parametrize("options", ["", "shuffle: true"])
def test_it_goes_on_where_it_stood(options, folder):
    net, again = net_of(folder, options), net_of(folder, options)
    batches(net, 3)
    again.set_state(net.state())
    np.testing.assert_array_equal(batches(net, 3), batches(again, 3))


def test_a_position_of_other_files_is_refused(folder):
    net = net_of(folder)
    for state in ({"epoch": 0, "file": 7, "row": 0, "seed": 0}, {"row": 1}, {"position": 3}):
        with pytest.raises(DataError, match="does not fit the 3 HDF5 files"):
            net.layers[0].set_state(state)


def test_refused(folder):
    with pytest.raises(DataError, match="nothing"):
        net_of(folder, tops="x nothing")
    with pytest.raises(ConfigError, match="batch_size is 0"):
        net_of(folder, batch_size=0)
    with h5py.File(folder / "1.h5", "w") as file:
        file["x"], file["t"] = np.zeros((1, 5)), np.zeros(1)
    with pytest.raises(DataError, match="make all files alike"):
        batches(net_of(folder, batch_size=3), 2)
    with h5py.File(folder / "0.h5", "w") as file:
        file["x"], file["t"] = np.zeros((2, 5)), np.zeros(1)
    with pytest.raises(DataError, match="equally many rows"):
        net_of(folder)
    (folder / "list.txt").write_text(" \n")
    with pytest.raises(DataError, match="lists no files"):
        net_of(folder)
