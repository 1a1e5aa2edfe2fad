from __future__ import annotations

import json

import numpy as np
import pytest

from minissl.compaction import compact, prove, write
from minissl.compaction.files import refuse_to_replace
from minissl.errors import ConfigError, MinisslError
from minissl.net import Net
from tests.compaction.nets import build, change, conv, data, ip, zeros_at


def example():
    net = build(
        data(channels=4),
        conv("conv1", "data", 4, "kernel_size: 3 group: 2"),
        ip("ip", "conv1", 4),
        dtype="float32",
    )

    def columns(w):
        w[:, 0] = 0

    return change(net, conv1=columns, ip=zeros_at(1))


@pytest.mark.parametrize("suffix", [".safetensors", ".caffemodel"])
def test_written_files_are_a_network(tmp_path, suffix):
    net = example()
    paths = write(compact(net), tmp_path / "new" / "folder")
    assert sorted(path.name for path in paths) == [
        "net.caffemodel",
        "net.prototxt",
        "net.safetensors",
    ]
    weights = next(path for path in paths if path.suffix == suffix)
    smaller = Net(paths[0], backend="numpy")
    assert smaller.load(weights) == ["conv1", "ip"]
    proof = prove(net, smaller)
    assert proof.max_abs_difference < 1e-5 * proof.largest_output
    assert smaller.layer("conv1").parameters[0].data.shape == (4 * 9,)


def test_writing_twice_replaces(tmp_path):
    net = example()
    first = write(compact(net), tmp_path)[1].read_bytes()
    net.layer("ip").parameters[1].data[...] = 7
    assert write(compact(net), tmp_path)[1].read_bytes() != first
    assert len(list(tmp_path.iterdir())) == 3


def test_what_it_is_made_of_is_not_replaced(tmp_path):
    paths = write(compact(example()), tmp_path)
    (tmp_path / "link").symlink_to(paths[1])
    other = tmp_path / "other.prototxt"
    other.touch()
    refuse_to_replace(tmp_path, (other, tmp_path / "missing"))
    refuse_to_replace(tmp_path / "new", paths)
    for inputs in ((paths[0], other), (other, paths[2]), (other, tmp_path / "link")):
        with pytest.raises(ConfigError, match="would be replaced by it; choose another folder"):
            refuse_to_replace(tmp_path, inputs)
    (tmp_path / "run.json").touch()
    with pytest.raises(ConfigError, match="holds a training run"):
        refuse_to_replace(tmp_path, (other,))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MinisslError, match="choose another"):
        write(compact(example()), tmp_path / "file" / "folder")


def test_the_report_is_json():
    report = compact(example()).report.to_json()
    assert json.loads(json.dumps(report)) == report
    (conv1, inner) = report["layers"]
    assert conv1["name"] == "conv1"
    assert (conv1["shape_before"], conv1["shape_after"]) == ([4, 2, 3, 3], [36])
    assert inner["stays"]
    assert conv1["bytes_before"] == 4 * (72 + 4)
    assert conv1["bytes_after"] == 4 * (36 + 4) + 4 * 18
    assert report["bytes_after"] == sum(layer["bytes_after"] for layer in report["layers"])


def test_the_network_is_left_as_it_is():
    net = example()
    before = {name: [b.copy() for b in blobs] for name, blobs in net.weights().items()}
    text = str(net.param)
    compact(net)
    assert str(net.param) == text
    for name, blobs in net.weights().items():
        assert all(map(np.array_equal, blobs, before[name]))
