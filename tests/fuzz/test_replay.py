"""Every reader on what the fuzzer found, on mutations of valid files, and on claims of size."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings

from minissl.errors import ConfigError
from minissl.formats import proto
from minissl.formats.wire import header
from tests.formats.conftest import damaged
from tests.fuzz.targets import TARGETS, Target, check, corpus

NEEDS = {
    "caffemodel-h5": "h5py",
    "solverstate-h5": "h5py",
    "lmdb": "lmdb",
    "onnx": "onnx",
    "state-dict": "torch",
}


def target_of(name: str) -> Target:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed")
    return TARGETS[name]


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    target = target_of(name)
    for content in corpus(name):
        check(target, content)


@pytest.mark.parametrize("name", TARGETS)
def test_valid_files_are_read(name: str) -> None:
    """Else the fuzzer would never get beyond the first check."""
    target = target_of(name)
    assert name == "archive" or any(check(target, content) is None for content in target.valid())


@pytest.mark.parametrize("name", TARGETS)
def test_mutations(name: str) -> None:
    target = target_of(name)
    for valid in target.valid()[:2]:

        @settings(max_examples=60, deadline=None, database=None)
        @given(damaged(valid))
        def mutated(content: bytes) -> None:
            check(target, content)

        mutated()


def test_the_check_can_fail() -> None:
    def careless(path: Path) -> object:
        return json.loads(path.read_bytes())

    check(Target(".json", careless, list), b"{}")
    with pytest.raises(ValueError, match="Expecting"):
        check(Target(".json", careless, list), b"{")


def test_names_from_files_do_not_break_a_message() -> None:
    assert str(ConfigError("layer 'a\nb\x1b[2J\udc80'")) == "layer 'a\\nb\\x1b[2J\\udc80'"
    assert str(ConfigError("λ ‖w‖ ü 層")) == "λ ‖w‖ ü 層"


def npz_of(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
        archive.writestr("c.0.npy", content + bytes(16))
    return file.getvalue()


def caffemodel_of(dims: list[int], claimed: int) -> bytes:
    """A layer whose values claim a length that the file does not have."""
    shape = proto.BlobProto()
    shape.shape.dim.extend(dims)
    blob = shape.SerializeToString() + header(5, claimed) + bytes(16)
    layer = b"\x0a\x01c" + header(7, len(blob)) + blob
    return header(100, len(layer)) + layer


def safetensors_of(shape: list[int], end: int) -> bytes:
    entry = {"c.0": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}
    text = json.dumps(entry).encode()
    return struct.pack("<Q", len(text)) + text + bytes(16)


CLAIMS = {
    "caffemodel: values beyond the file": ("caffemodel", caffemodel_of([2**29], 2**31 - 1)),
    "caffemodel: shape beyond the values": ("caffemodel", caffemodel_of([2**40, 2**40], 16)),
    "caffemodel: overflowing shape": ("caffemodel", caffemodel_of([2**62, 4, 0, 4], 16)),
    "mean: negative size": ("mean", bytes.fromhex("08ffffffffffffffffff01") + b"\x10\x01"),
    "solverstate: history beyond the file": ("solverstate", header(3, 2**31)),
    "datum: image of many pixels": (
        "datum",
        proto.Datum(channels=2**20, height=2**20, width=2**20, data=b"1").SerializeToString(),
    ),
    "safetensors: header of 2^60": ("safetensors", struct.pack("<Q", 2**60) + b"{}"),
    "safetensors: offsets beyond the file": ("safetensors", safetensors_of([2**40], 2**42)),
    "npz: shape beyond the file": ("npz", npz_of("(1000000000, 1000)")),
    "npz: negative shape": ("npz", npz_of("(-4, -1)")),
    "npz: deep header": ("npz", npz_of("(" * 50 + ")" * 50)),
    "matrix: many elements": (
        "matrix",
        b"%%MatrixMarket matrix array real general\n1000000000 1000000000\n1\n",
    ),
    "matrix: dense from three numbers": (
        "matrix",
        b"%%MatrixMarket matrix coordinate real general\n99999 99999 1\n1 1 1\n",
    ),
    "idx: many images": ("idx", b"\0\0\x08\x03\x7f\xff\xff\xff\0\0\x7f\xff\0\0\x7f\xff"),
    "net: deep nesting": ("net", b"layer {" + b" include { " * 5000),
    "net: deep unknown nesting": ("net", b"x {" * 100_000),
    "net: brackets": ("net", b"input_dim: " + b"[" * 100_000),
    "experiment: deep nesting": ("experiment", b"x = " + b"[" * 100_000),
    "questions: deep nesting": ("questions", b"[" * 100_000),
    "log: deep nesting": ("log", b"[" * 100_000 + b"\n"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_cost_nothing(claim: str) -> None:
    """A small file takes little memory, whatever it says it holds."""
    name, content = CLAIMS[claim]
    target = target_of(name)
    check(target, target.valid()[0])  # imports are not counted
    tracemalloc.start()
    try:
        check(target, content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**26
