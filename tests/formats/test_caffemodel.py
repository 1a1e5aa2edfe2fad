from __future__ import annotations

import gzip
import io
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minissl.errors import MinisslError, WeightsError
from minissl.formats import caffemodel, proto
from minissl.formats.blobs import blob_parts, read_blob
from minissl.formats.caffemodel import read_caffemodel, read_caffemodel_net, write_caffemodel
from minissl.formats.wire import Reader, WireError
from tests.formats.conftest import damaged, result_or_error

LAYERS = [
    ("conv1", "Convolution", [np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2), np.ones(2)]),
    ("relu1", "ReLU", []),
    ("a/ip.1", "InnerProduct", [np.array([[np.nan, np.inf, -0.0]])]),
]


def message_of(array: np.ndarray) -> object:
    blob = proto.BlobProto(data=array.ravel().tolist())
    blob.shape.dim.extend(array.shape)
    return blob


def parse(content: bytes) -> np.ndarray:
    return read_blob(Reader(io.BytesIO(content), len(content)), len(content), "blob")


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
    _, pieces = blob_parts(array, np.float64)
    again = parse(b"".join(pieces))
    np.testing.assert_array_equal(again, array)
    assert again.shape == array.shape


@pytest.mark.parametrize("size", [0, 31, 32, 4095, 4096, 300_000])
def test_lengths_around_the_varint_steps(size: int) -> None:
    values = np.arange(size, dtype=np.float32)
    length, pieces = blob_parts(values)
    content = b"".join(pieces)
    assert len(content) == length
    np.testing.assert_array_equal(parse(content), values)
    assert content == message_of(values).SerializeToString()


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


def test_oldest_layers_stand_inside_old_ones(tmp_path: Path) -> None:
    net = proto.NetParameter()
    net.input.append("x")
    old = net.layers.add(bottom=["x"], top=["y"], name="not this").layer
    old.name, old.type, old.num_output = "ip", "innerproduct", 3
    old.blobs.add(num=1, channels=1, height=3, width=2, double_data=range(6))
    path = save(tmp_path / "v0.caffemodel", net)
    weights = read_caffemodel(path)
    assert list(weights) == ["ip"] and weights["ip"][0].dtype == np.float64
    np.testing.assert_array_equal(weights["ip"][0], np.arange(6).reshape(1, 1, 3, 2))
    layer = read_caffemodel_net(path).layer[0]
    assert (layer.type, layer.inner_product_param.num_output) == ("InnerProduct", 3)
    assert (list(layer.bottom), list(layer.top), len(layer.blobs)) == (["x"], ["y"], 0)


def test_gradients_and_fields_of_other_programs_are_passed_over(tmp_path: Path) -> None:
    net = proto.NetParameter()
    layer = net.layer.add(name="conv1")
    layer.blobs.add(data=[1, 2], diff=[3, 4], double_diff=[5, 6]).shape.dim.append(2)
    content = net.SerializeToString() + bytes.fromhex("fa3f0361626388400789400102030405060708")
    (tmp_path / "w.caffemodel").write_bytes(content)
    assert read_caffemodel(tmp_path / "w.caffemodel")["conv1"][0].tolist() == [1, 2]


@pytest.mark.parametrize(("skimcaffe", "mode"), [(False, "LOWERED_CCNMM"), (True, "DIRECT_SCONV")])
def test_net_of_a_caffemodel(tmp_path: Path, skimcaffe: bool, mode: str) -> None:
    net = proto.NetParameter(name="n", input=["data"])
    layer = net.layer.add(name="conv1", type="Convolution")
    layer.convolution_param.conv_mode = 2
    layer.blobs.append(message_of(np.ones(3)))
    path = save(tmp_path / "w.caffemodel", net)
    found = read_caffemodel_net(path, skimcaffe)
    assert found.name == "n" and not found.input and not found.layer[0].blobs
    conv = found.layer[0].convolution_param
    assert conv.ConvMode.Name(conv.conv_mode) == mode


def test_definitions_are_stored_beside_the_weights(tmp_path: Path) -> None:
    layer = proto.LayerParameter(name="conv1", type="Convolution", bottom=["data"])
    layer.blobs.append(message_of(np.ones(9)))
    path = tmp_path / "w.caffemodel"
    write_caffemodel(path, "net", LAYERS, definitions={"conv1": layer})
    assert read_caffemodel(path)["conv1"][0].shape == (2, 1, 2, 2)
    stored = read_caffemodel_net(path)
    assert [one.name for one in stored.layer] == ["conv1", "relu1", "a/ip.1"]
    assert list(stored.layer[0].bottom) == ["data"]


BLOB = b"\x2d\0\0\x80\x3f\x2a\x08\0\0\0\x40\0\0\x40\x40\x3a\x03\x0a\x01\x03\x42\x08" + bytes(8)


@settings(max_examples=300, deadline=None)
@given(damaged(BLOB))
def test_the_walker_and_the_library_agree(valid: bytes) -> None:
    """What the protobuf library reads as a blob is read alike, or refused for its shape."""
    from google.protobuf.message import DecodeError

    try:
        theirs = proto.BlobProto.FromString(valid)
    except DecodeError:
        return
    try:
        ours = parse(valid)
    except (WeightsError, WireError):
        return
    expected = np.array(theirs.double_data or theirs.data, ours.dtype)
    np.testing.assert_array_equal(ours.ravel(), expected)


def test_two_layers_of_one_name_are_refused(tmp_path: Path) -> None:
    net = proto.NetParameter()
    for _ in range(2):
        net.layer.add(name="conv1").blobs.append(message_of(np.ones(1)))
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
    path.write_bytes(gzip.compress(b"\x0a\xe9\x07" + bytes(1001)))
    with pytest.raises(WeightsError, match="more than 1000 bytes"):
        read_caffemodel(path)


def test_too_large_for_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caffemodel, "_MAX_MESSAGE_BYTES", 40)
    with pytest.raises(MinisslError, match="ends at 2 GiB"):
        write_caffemodel(tmp_path / "w.caffemodel", "net", LAYERS)
    assert not (tmp_path / "w.caffemodel").exists()


def test_reading_takes_the_memory_of_the_values(tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    blobs = [np.ones((1000, 500), np.float32) for _ in range(4)]
    write_caffemodel(path, "net", [("ip", "InnerProduct", blobs)])
    read_caffemodel(path)
    del blobs
    tracemalloc.start()
    try:
        weights = read_caffemodel(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert weights["ip"][3].sum() == 500_000
    assert peak < 1.05 * path.stat().st_size


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
    message_of(np.ones((2, 3), np.float32))
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
