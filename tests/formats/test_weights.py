from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from minissl.errors import MinisslError, WeightsError
from minissl.formats import caffemodel
from minissl.formats.safetensors_file import read_tensors, write_tensors
from minissl.formats.weights import SUFFIXES, by_layer, read_weights, write_weights
from tests.formats.conftest import damaged, result_or_error

WEIGHTS = {
    "conv1": [np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2), np.zeros(3, np.float32)],
    "inception.3a/1x1": [np.array([[1e-40, -1.0]], np.float32)],
}
FUZZ = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_format_holds_the_same_weights(tmp_path: Path, suffix: str, dtype: type) -> None:
    path = tmp_path / f"my.weights{suffix}"
    stored = {name: [blob.astype(dtype) for blob in blobs] for name, blobs in WEIGHTS.items()}
    write_weights(path, stored, net_name="n", layer_types={"conv1": "Convolution"})
    again = read_weights(path)
    assert set(again) == set(stored)
    for name, blobs in stored.items():
        for ours, theirs in zip(again[name], blobs, strict=True):
            assert ours.dtype == dtype and ours.flags.writeable
            np.testing.assert_array_equal(ours, theirs)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_transposed_array_is_stored_by_value(tmp_path: Path) -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3).T
    for suffix in SUFFIXES:
        write_weights(tmp_path / f"w{suffix}", {"ip": [matrix]})
        np.testing.assert_array_equal(read_weights(tmp_path / f"w{suffix}")["ip"][0], matrix)


@pytest.mark.parametrize("name", ["w.pth", "w", "w.npz.txt"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    for call in (read_weights, lambda path: write_weights(path, WEIGHTS)):
        with pytest.raises(WeightsError, match=r"must end in \.caffemodel, .* or \.npz"):
            call(tmp_path / name)


@pytest.mark.parametrize("names", [["conv1"], ["conv1.x"], ["conv1.1"], ["a.0", "a.2"], ["a.-1"]])
def test_names_must_be_layer_and_index(names: list[str]) -> None:
    with pytest.raises(WeightsError, match="layer"):
        by_layer({name: np.ones(1) for name in names}, "w.npz")


def test_blob_order_is_by_number_not_by_name() -> None:
    tensors = {f"bn.{index}": np.full(1, index) for index in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)}
    assert [int(blob[0]) for blob in by_layer(tensors, "w")["bn"]] == list(range(11))


# ------------------------------------------------------------------------------------- npz


def npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def test_npz_with_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.npz").write_bytes(npz(**{"a.0": np.array([{}], dtype=object)}))
    with pytest.raises(WeightsError, match="not a complete npz file of numbers"):
        read_weights(tmp_path / "w.npz")


def test_npz_whose_header_claims_more_than_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: reads.append(1))
    header = io.BytesIO()
    claim = {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("a.0.npy", header.getvalue() + bytes(100))
    with pytest.raises(WeightsError, match="not a complete npz"):
        read_weights(tmp_path / "w.npz")
    assert not reads  # refused before memory is taken


def test_npz_whose_header_is_not_python(tmp_path: Path) -> None:
    whole = npz(**{"a.0": np.ones(3)})
    (tmp_path / "w.npz").write_bytes(whole.replace(b"'<f8',", b"'<f8'{"))
    with pytest.raises(WeightsError, match="not a complete npz"):
        read_weights(tmp_path / "w.npz")


def test_npz_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "w.npz", **{"a.0": np.zeros(10_000)})
    monkeypatch.setattr(caffemodel, "MAX_UNPACKED_BYTES", 50_000)
    with pytest.raises(WeightsError, match="more than 50000 bytes"):
        read_weights(tmp_path / "w.npz")


def test_missing_npz_and_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="There is no weight file"):
        read_weights(tmp_path / "none.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(WeightsError, match="is a folder"):
        read_weights(tmp_path / "folder.npz")


@FUZZ
@given(damaged(npz(**{"a.0": np.ones((2, 2)), "a.1": np.ones(2)})))
def test_any_npz_is_read_or_explained(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.npz").write_bytes(content)
    result_or_error(read_weights, tmp_path / "w.npz")


# ----------------------------------------------------------------------------- safetensors


def test_tensors_of_every_kind_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    kinds = ["?", "i1", "u1", "i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8", "f8"]
    tensors = {kind: np.array([[0, 1], [1, 0]], kind) for kind in kinds}
    tensors["scalar"] = np.array(3.5)
    tensors["empty"] = np.zeros((0, 4), np.float32)
    write_tensors(path, tensors, {"iteration": "7", "ünicode": "λ"})
    again, metadata = read_tensors(path)
    assert metadata == {"iteration": "7", "ünicode": "λ"}
    assert set(again) == set(tensors)
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype and again[name].shape == tensor.shape
        np.testing.assert_array_equal(again[name], tensor)


def test_no_metadata(tmp_path: Path) -> None:
    write_tensors(tmp_path / "t.safetensors", {"a": np.ones(1)})
    assert read_tensors(tmp_path / "t.safetensors")[1] == {}


def test_type_without_a_place_in_the_format(tmp_path: Path) -> None:
    with pytest.raises(MinisslError, match="'a' is of type object"):
        write_tensors(tmp_path / "t.safetensors", {"a": np.array([{}], dtype=object)})
    assert list(tmp_path.iterdir()) == []


def safetensors(header: dict, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 20,
        safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(7)),
        safetensors({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)),
        safetensors({"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 8]}}, bytes(8)),
    ],
)
def test_damaged_safetensors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        read_tensors(tmp_path / "t.safetensors")


def test_bfloat16_is_explained(tmp_path: Path) -> None:
    content = safetensors({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, bytes(4))
    (tmp_path / "t.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="BF16"):
        read_tensors(tmp_path / "t.safetensors")


@FUZZ
@given(
    damaged(
        safetensors(
            {
                "__metadata__": {"k": "v"},
                "a.0": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            },
            bytes(8),
        )
    )
)
def test_any_safetensors_is_read_or_explained(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.safetensors").write_bytes(content)
    result_or_error(read_weights, tmp_path / "t.safetensors")
