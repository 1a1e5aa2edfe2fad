"""The readers, each as a function of a path, and what a hostile file may cost.

``TARGETS[name]`` gives the file's suffix, the reader and a few valid files. A reader passes when it
returns, or raises a :class:`minissl.errors.MinisslError` of one line; anything else is a finding.
A new reader gets an entry here, and with that its place in the fuzzer, in the corpus and in the
tests.
"""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minissl.errors import MinisslError

CORPUS = Path(__file__).with_name("corpus")

NET = """name: "n" input: "data" input_dim: 1 input_dim: 1 input_dim: 4 input_dim: 4
layer { name: "c" type: "Convolution" bottom: "data" top: "c" param { lr_mult: 1.5e0 }
  convolution_param { num_output: 2 kernel_size: [2, 1] weight_filler < type: 'xavier' > } }
layer { name: "s" type: "Slice" include { phase: TEST } slice_param { slice_point: 0x1 } } # end
"""
V0 = """layers { layer { name: "p" type: "padding" pad: 1 } bottom: "x" top: "y" } input: "x"
layers { layer { name: "c" type: "conv" num_output: 2 kernelsize: 3 blobs_lr: 1 }
  bottom: "y" top: "c" }
layers { layer { name: "d" type: "data" source: "s" cropsize: 3 } top: "d" }"""
V1 = """layers { name: "c" type: CONVOLUTION blobs_lr: 1 weight_decay: 0 param: "w"
  blob_share_mode: STRICT bottom: "d" convolution_param { num_output: 1 } }
layers { name: "d" type: IMAGE_DATA image_data_param { scale: 2 mirror: true } }"""
SOLVER = """net: "n.prototxt" base_lr: 0.1 lr_policy: "step" solver_type: ADAM test_iter: 3
stepvalue: 1 stepvalue: 2 net_param { layers { type: RELU } } train_state { stage: "a" }"""
MATRIX = """%%MatrixMarket matrix coordinate real general
% a comment
2 3 2
1 2 0.5
2 3 -1e-3
"""
LOG = (
    '{"iteration": 2, "loss": 0.5, "regularization": 0.1, "lr": 0.01, "sparsity": {}}\n'
    '{"iteration": 2, "test": {"accuracy": 0.9}}\n'
)


@dataclass(frozen=True)
class Target:
    """A reader: the suffix its files have, what reads one, and valid files to begin with."""

    suffix: str
    read: Callable[[Path], Any]
    valid: Callable[[], list[bytes]]


def check(target: Target, content: bytes) -> MinisslError | None:
    """Read some bytes as a file; raise for anything but a result or a MinisslError of one line.

    Returns
    -------
    MinisslError or None
        Why they could not be read.
    """
    folder = _folder()
    path = folder / f"any{target.suffix}"
    path.write_bytes(content)
    try:
        target.read(path)
    except MinisslError as error:
        assert str(error), "an error without words"
        assert "\n" not in str(error), "an error of several lines"
        return error
    return None


def corpus(name: str) -> Iterator[bytes]:
    """Yield the valid files of a target, then those that the fuzzer found worth keeping."""
    yield from TARGETS[name].valid()
    folder = CORPUS / name
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield path.read_bytes()


_memory: list[tempfile.TemporaryDirectory[str]] = []


def _folder() -> Path:
    if not _memory:
        fast = "/dev/shm" if os.path.isdir("/dev/shm") else None
        _memory.append(tempfile.TemporaryDirectory(prefix="minissl-fuzz-", dir=fast))
    return Path(_memory[0].name)


# --- readers ---


def _read_net(path: Path) -> Any:
    from minissl.formats.prototxt import read_net

    return read_net(path)


def _read_solver(path: Path) -> Any:
    from minissl.formats.prototxt import read_solver

    return read_solver(path)


def _read_weights(path: Path) -> Any:
    from minissl.formats.weights import read_weights

    return read_weights(path)


def _read_caffemodel(path: Path) -> Any:
    from minissl.formats.caffemodel import read_caffemodel_net

    with suppress(MinisslError):
        _read_weights(path)
    return read_caffemodel_net(path, skimcaffe=True)


def _read_solverstate(path: Path) -> Any:
    from minissl.formats.solverstate import read_solverstate

    return read_solverstate(path)


def _read_mean(path: Path) -> Any:
    from minissl.data.mean import read_mean

    return read_mean(path)


def _read_datum(path: Path) -> Any:
    from minissl.data.images import decode
    from minissl.formats.datum import parse_datum

    image, _ = parse_datum(path.read_bytes(), "record")
    return decode(image, None) if isinstance(image, bytes) else image


def _read_image(path: Path) -> Any:
    from minissl.data.images import decode

    return decode(path.read_bytes(), None)


def _read_matrix(path: Path) -> Any:
    from minissl.formats.matrix_market import read_matrix

    return read_matrix(path)


def _read_idx(path: Path) -> Any:
    from minissl.data.idx import read_idx

    return read_idx(path)


def _read_archive(path: Path) -> Any:
    """Take CIFAR-10's files out of a tar; they are no more than 100 bytes here."""
    import shutil

    from minissl.data import fetch
    from minissl.data.catalogue import File

    wanted = [File(f"cifar/{name}.bin", size, "0" * 64) for name, size in (("a", 3), ("b", 100))]
    root = path.parent / "unpacked"
    root.mkdir(exist_ok=True)
    try:
        return fetch._unpack(path, wanted, root, root)
    finally:
        shutil.rmtree(root)


def _read_toml(path: Path) -> Any:
    from minissl.recipes.experiment_files import find

    return find(path)


def _read_run(path: Path) -> Any:
    from minissl.report.runs import read_run

    folder = path.parent / "run"
    folder.mkdir(exist_ok=True)
    path.replace(folder / "log.jsonl")
    return read_run(folder)


def _read_lmdb(path: Path) -> Any:
    """Read all records of a database in order, and one out of order."""
    from minissl.formats.lmdb_file import DATA_FILE, Database

    folder = path.parent / "lmdb"
    folder.mkdir(exist_ok=True)
    path.replace(folder / DATA_FILE)
    database = Database(folder)
    records = [database[number] for number in range(len(database))]
    return [*records, database[len(records) // 2]]


def _read_state_dict(path: Path) -> Any:
    from minissl.formats.state_dict import read_state_dict

    return read_state_dict(path)


def _read_onnx(path: Path) -> Any:
    from minissl.onnx.convert import read

    return read(path)


def _read_questions(path: Path) -> Any:
    from minissl.vectors.checking import read_questions

    folder = path.parent / "answers"
    folder.mkdir(exist_ok=True)
    path.replace(folder / "index.json")
    return read_questions(folder)


def _read_snapshot(path: Path) -> Any:
    """Resume a tiny solver from a snapshot."""
    from minissl.solvers.snapshot import restore

    solver = _solver()
    restore(solver, path)
    return solver


_solvers: list[Any] = []


def _solver() -> Any:
    from minissl import Solver
    from minissl.formats.prototxt import parse_solver

    if not _solvers:
        text = """base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 max_iter: 9 net_param {
          layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }
          layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
            inner_product_param { num_output: 1 } } }"""
        _solvers.append(Solver(parse_solver(text), backend="numpy"))
    return _solvers[0]


# --- valid files ---


def _weights(suffix: str) -> list[bytes]:
    from minissl.formats.weights import write_weights

    weights = {"c": [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.float32)]}
    path = _folder() / f"valid{suffix}"
    write_weights(path, weights)
    return [path.read_bytes()]


def _caffemodels() -> list[bytes]:
    from google.protobuf.text_format import Parse

    from minissl.formats import proto

    old = Parse(V0.replace("kernelsize: 3", "kernelsize: 3 blobs { num: 1 data: 2 }"),
                proto.NetParameter())  # fmt: skip
    v1 = Parse(V1, proto.NetParameter())
    v1.layers[0].blobs.add(num=1, channels=1, height=1, width=2, double_data=[1, 2], diff=[1, 2])
    return [*_weights(".caffemodel"), old.SerializeToString(), v1.SerializeToString()]


def _states(suffix: str) -> list[bytes]:
    from minissl.formats.solverstate import SolverState, write_solverstate

    path = _folder() / f"valid{suffix}"
    blobs = [np.arange(4, dtype=np.float32).reshape(2, 2), np.ones(1)]
    write_solverstate(path, SolverState(7, "x.caffemodel", 1, blobs, "{}", [b"", b"\x80"]))
    return [path.read_bytes()]


def _means() -> list[bytes]:
    from minissl.formats.blobs import blob_parts, write_binaryproto

    path = _folder() / "valid.binaryproto"
    write_binaryproto(path, np.arange(12.0).reshape(3, 2, 2))
    return [path.read_bytes(), b"".join(blob_parts(np.ones((1, 2, 2)), np.float64)[1])]


def _image(kind: str) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(file, kind)
    return file.getvalue()


def _datums() -> list[bytes]:
    from minissl.formats.datum import datum_of

    image = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    return [
        datum_of(image, 3),
        datum_of(image.astype(np.float32), -1),
        datum_of(_image("PNG"), 2),
    ]


def _idx() -> list[bytes]:
    images = b"\0\0\x08\x03" + bytes([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2]) + b"abcd"
    return [images, gzip.compress(images, mtime=0), b"\0\0\x08\x01\0\0\0\x02xy"]


def _archives() -> list[bytes]:
    import tarfile

    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, size in (("cifar/a.bin", 3), ("../b.bin", 2), ("cifar/b.bin", 100)):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(bytes(size)))
    return [file.getvalue()]


def _experiments() -> list[bytes]:
    from minissl import models

    return [path.read_bytes() for path in sorted(models.FOLDER.glob("*.toml"))[:2]]


def _snapshots() -> list[bytes]:
    from minissl.solvers.snapshot import save

    path = _folder() / "valid.safetensors"
    save(_solver(), path)
    return [path.read_bytes()]


def _databases() -> list[bytes]:
    import shutil

    from minissl.formats.lmdb_file import DATA_FILE, write_database

    folder = _folder() / "valid-lmdb"
    found = []
    for count, size in ((3, 5000), (12, 900)):
        shutil.rmtree(folder, ignore_errors=True)
        write_database(folder, [(b"%08d" % i, bytes([i]) * size) for i in range(count)])
        found.append((folder / DATA_FILE).read_bytes())
    return found


def _state_dicts() -> list[bytes]:
    import torch

    file = io.BytesIO()
    torch.save({"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}, file)
    return [file.getvalue()]


def _onnx_models() -> list[bytes]:
    from minissl import Net
    from minissl.formats.prototxt import parse_net
    from minissl.onnx.convert import to_onnx

    text = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [1, 2, 4, 4] } } }
      layer { name: "c" type: "Convolution" bottom: "x" top: "c"
        convolution_param { num_output: 2 kernel_size: 3 } }
      layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
      layer { name: "ip" type: "InnerProduct" bottom: "c" top: "y"
        inner_product_param { num_output: 2 } }"""
    folder = _folder()
    (folder / "valid.prototxt").write_text(text)
    Net(parse_net(text), backend="numpy").save(folder / "valid.npz")
    to_onnx(folder / "valid.prototxt", folder / "valid.npz", folder / "valid.onnx")
    return [(folder / "valid.onnx").read_bytes()]


def _texts(*texts: str) -> Callable[[], list[bytes]]:
    return lambda: [text.encode() for text in texts]


TARGETS = {
    "net": Target(".prototxt", _read_net, _texts(NET, V0, V1)),
    "solver": Target(".prototxt", _read_solver, _texts(SOLVER)),
    "caffemodel": Target(".caffemodel", _read_caffemodel, _caffemodels),
    "caffemodel-gz": Target(".caffemodel.gz", _read_caffemodel, lambda: _weights(".caffemodel.gz")),
    "caffemodel-h5": Target(".caffemodel.h5", _read_weights, lambda: _weights(".caffemodel.h5")),
    "solverstate": Target(".solverstate", _read_solverstate, lambda: _states(".solverstate")),
    "solverstate-h5": Target(
        ".solverstate.h5", _read_solverstate, lambda: _states(".solverstate.h5")
    ),
    "mean": Target(".binaryproto", _read_mean, _means),
    "datum": Target(".datum", _read_datum, _datums),
    "image": Target(".image", _read_image, lambda: [_image("PNG"), _image("JPEG"), _image("BMP")]),
    "safetensors": Target(".safetensors", _read_weights, lambda: _weights(".safetensors")),
    "snapshot": Target(".safetensors", _read_snapshot, _snapshots),
    "npz": Target(".npz", _read_weights, lambda: _weights(".npz")),
    "matrix": Target(
        ".mtx",
        _read_matrix,
        _texts(MATRIX, "%%MatrixMarket matrix array real general\n2 1\n1\n2\n"),
    ),
    "idx": Target("-idx3-ubyte", _read_idx, _idx),
    "archive": Target(".tar.gz", _read_archive, _archives),
    "experiment": Target(".toml", _read_toml, _experiments),
    "lmdb": Target(".mdb", _read_lmdb, _databases),
    "onnx": Target(".onnx", _read_onnx, _onnx_models),
    "state-dict": Target(".pth", _read_state_dict, _state_dicts),
    "questions": Target(
        ".json", _read_questions, _texts('{"cases": [{"name": "relu", "question": "abc"}]}')
    ),
    "log": Target(".jsonl", _read_run, _texts(LOG)),
}
