from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minissl.errors import MinisslError, WeightsError
from minissl.formats import caffemodel, proto
from minissl.formats.caffemodel import read_caffemodel, write_caffemodel
from tests.formats.conftest import damaged, result_or_error

LAYERS = [
    ("conv1", "Convolution", [np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2), np.ones(2)]),
    ("relu1", "ReLU", []),
    ("a/ip.1", "InnerProduct", [np.array([[np.nan, np.inf, -0.0]])]),
]


def save(path: Path, net: object) -> Path:
    path.write_bytes(net.SerializeToString())  # type: ignore[attr-defined]
    return path


@pytest.mark.parametrize("suffix", [".caffemodel", ".caffemodel.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip(tmp_path: Path, suffix: str, dtype: type) -> None:
    path = tmp_path / f"w{suffix}"
    write_caffemodel(path, "net", LAYERS, dtype)
    weights = read_caffemodel(path)
    assert list(weights) == ["conv1", "a/ip.1"]
    for name, _, blobs in LAYERS:
        for ours, theirs in zip(weights.get(name, []), blobs, strict=True):
            assert ours.dtype == dtype and ours.flags.writeable and ours.flags.c_contiguous
            np.testing.assert_array_equal(ours, theirs)
            assert np.signbit(ours).tolist() == np.signbit(theirs).tolist()


def test_file_is_what_protobuf_says_it_is(tmp_path: Path) -> None:
    write_caffemodel(tmp_path / "w.caffemodel", "net", LAYERS)
    net = proto.NetParameter.FromString((tmp_path / "w.caffemodel").read_bytes())
    assert [(layer.name, layer.type) for layer in net.layer] == [row[:2] for row in LAYERS]
    blob = net.layer[0].blobs[0]
    assert list(blob.shape.dim) == [2, 1, 2, 2]
    assert list(blob.data) == list(range(8)) and not blob.double_data


def test_equal_weights_are_equal_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_caffemodel(tmp_path / f"{name}.caffemodel.gz", "net", LAYERS)
    a, b = ((tmp_path / f"{name}.caffemodel.gz").read_bytes() for name in ("a", "b"))
    assert a == b


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))
def test_any_array_survives(array: np.ndarray) -> None:
    again = caffemodel.array_of(caffemodel.blob_of(array, np.float64), "blob")
    np.testing.assert_array_equal(again, array)
    assert again.shape == array.shape


@pytest.mark.parametrize("size", [0, 31, 32, 4095, 4096, 300_000])
def test_lengths_around_the_varint_steps(size: int) -> None:
    values = np.arange(size, dtype=np.float32)
    np.testing.assert_array_equal(caffemodel.array_of(caffemodel.blob_of(values), "blob"), values)


def test_old_shape_and_old_layers(tmp_path: Path) -> None:
    net = proto.NetParameter()
    layer = net.layers.add(name="ip", type=proto.V1LayerParameter.INNER_PRODUCT)
    layer.blobs.add(num=1, channels=1, height=2, width=3, data=range(6))
    weights = read_caffemodel(save(tmp_path / "old.caffemodel", net))
    np.testing.assert_array_equal(weights["ip"][0], np.arange(6).reshape(1, 1, 2, 3))


def test_unpacked_and_split_values_are_read(tmp_path: Path) -> None:
    # Legal on the wire, though today's writers pack all values in one piece.
    one, two = np.float32(1).tobytes(), np.float32([2, 3]).tobytes()
    blob = b"\x2d" + one + b"\x2a\x08" + two + b"\x3a\x03\x0a\x01\x03"
    layer = b"\x0a\x01a" + b"\x3a" + bytes([len(blob)]) + blob
    (tmp_path / "w.caffemodel").write_bytes(b"\xa2\x06" + bytes([len(layer)]) + layer)
    assert read_caffemodel(tmp_path / "w.caffemodel")["a"][0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "dims", [[5], [2, 2], [-1, -6], [2**62, 2**62, 0, 6], [2**40, 2**40], [], [6, 0]]
)
def test_shape_that_does_not_fit_is_refused_before_allocation(
    tmp_path: Path, dims: list[int]
) -> None:
    net = proto.NetParameter()
    blob = net.layer.add(name="conv1").blobs.add(data=range(6))
    blob.shape.dim.extend(dims)
    with pytest.raises(WeightsError, match=r"blob 0 of layer 'conv1' has shape .* but 6 values"):
        read_caffemodel(save(tmp_path / "w.caffemodel", net))


def test_two_layers_of_one_name_are_refused(tmp_path: Path) -> None:
    net = proto.NetParameter()
    for _ in range(2):
        net.layer.add(name="conv1").blobs.append(caffemodel.blob_of(np.ones(1)))
    with pytest.raises(WeightsError, match="two layers named 'conv1'"):
        read_caffemodel(save(tmp_path / "w.caffemodel", net))


def test_truncated_foreign_missing_and_empty_files(tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    write_caffemodel(path, "net", LAYERS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(WeightsError, match="not a caffemodel, or it is truncated"):
        read_caffemodel(path)
    path.write_bytes(whole.replace(b"conv1", b"conv\xff"))
    with pytest.raises(WeightsError, match="not a caffemodel"):
        read_caffemodel(path)
    for content in (b"", b"\x0a\x03net"):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="holds no layers"):
            read_caffemodel(path)
    with pytest.raises(WeightsError, match="There is no weight file"):
        read_caffemodel(tmp_path / "none.caffemodel")
    with pytest.raises(WeightsError, match="is a folder"):
        read_caffemodel(tmp_path)


def test_damaged_gzip_and_gzip_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.caffemodel.gz"
    write_caffemodel(path, "net", LAYERS)
    whole = path.read_bytes()
    for content in (b"not gzip", whole[:-9], whole[:20] + b"\xff" * 9 + whole[29:]):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="not a complete gzip file"):
            read_caffemodel(path)
    monkeypatch.setattr(caffemodel, "MAX_UNPACKED_BYTES", 1000)
    path.write_bytes(gzip.compress(bytes(1001)))
    with pytest.raises(WeightsError, match="more than 1000 bytes"):
        read_caffemodel(path)


def test_too_large_for_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caffemodel, "_MAX_MESSAGE_BYTES", 40)
    with pytest.raises(MinisslError, match="ends at 2 GiB"):
        write_caffemodel(tmp_path / "w.caffemodel", "net", LAYERS)
    assert not (tmp_path / "w.caffemodel").exists()


def test_files_of_the_original(original_runs: Path) -> None:
    shapes = {
        "conv1": [(20, 1, 5, 5), (20,)],
        "conv2": [(50, 20, 5, 5), (50,)],
        "ip1": [(500, 800), (500,)],
        "ip2": [(10, 500), (10,)],
    }
    files = sorted((original_runs / "weights").glob("*.caffemodel*"))
    assert len(files) >= 4
    for path in files:
        weights = read_caffemodel(path)
        if not path.name.startswith("tiny"):
            assert {k: [b.shape for b in v] for k, v in weights.items()} == shapes
        for blobs in weights.values():
            assert all(blob.dtype == np.float32 and np.isfinite(blob).all() for blob in blobs)


def test_original_file_survives_a_round_trip(original_runs: Path, tmp_path: Path) -> None:
    theirs = read_caffemodel(
        shutil.copy(original_runs / "weights/tiny_sparse.caffemodel", tmp_path)
    )
    write_caffemodel(tmp_path / "w.caffemodel", "Tiny", [(n, "", b) for n, b in theirs.items()])
    ours = read_caffemodel(tmp_path / "w.caffemodel")
    assert list(ours) == list(theirs)
    for name, blobs in theirs.items():
        for a, b in zip(ours[name], blobs, strict=True):
            np.testing.assert_array_equal(a, b)
    assert any((blobs[0] == 0).any() for blobs in theirs.values())


VALID = proto.NetParameter()
VALID.layer.add(name="conv1", type="Convolution").blobs.append(
    caffemodel.blob_of(np.ones((2, 3), np.float32))
)
VALID.layers.add(name="ip").blobs.add(num=1, channels=1, height=1, width=2, data=[1, 2])


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(damaged(VALID.SerializeToString()), st.booleans())
def test_any_bytes_are_read_or_explained(tmp_path: Path, content: bytes, packed: bool) -> None:
    path = tmp_path / ("w.caffemodel.gz" if packed else "w.caffemodel")
    path.write_bytes(gzip.compress(content) if packed else content)
    result_or_error(read_caffemodel, path)
