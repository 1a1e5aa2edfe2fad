"""Networks exported by PyTorch: minissl gives what onnxruntime gives."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install torch")
onnx = pytest.importorskip("onnx", reason="onnx is not installed; pip install 'minissl[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")

from minissl import Net  # noqa: E402
from minissl.onnx.convert import from_onnx, to_onnx  # noqa: E402
from tests.conftest import needs_compiler  # noqa: E402
from tests.peers.architectures import FULL, SMALL, build  # noqa: E402

pytestmark = needs_compiler

TOLERANCE = 1e-4


def write(name, path, dynamo=False, opset=17, open_batch=False, table=None, batch=2):
    """Export a network; return its input."""
    module, size = build(name, table), (table or SMALL)[name][1]
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))
    settings = {"input_names": ["images"], "opset_version": opset, "dynamo": dynamo}
    if dynamo:
        pytest.importorskip("onnxscript", reason="pip install onnxscript")
        settings |= {"external_data": False, "verbose": False}
        if open_batch:
            settings["dynamic_shapes"] = ({0: torch.export.Dim("N")},)
    elif open_batch:
        settings["dynamic_axes"] = {"images": {0: "N"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (images,), str(path), **settings)
    return images.numpy()


def theirs(path, images):
    session = onnxruntime.InferenceSession(str(path))
    (name,) = (value.name for value in session.get_inputs())
    return session.run(None, {name: images})[0]


def ours(folder, images):
    net = Net(folder / "net.prototxt", "TEST")
    net.load(folder / "net.caffemodel")
    (blob,) = net.layers[0].param.top
    (output,) = net.forward({blob: images}).values()
    return output


def agree(one, other):
    assert one.shape == other.shape
    differs = np.ptp(other, axis=1).min()  # the images matter to every output
    assert differs > 0
    error = np.abs(one - other).max() / np.abs(other).max()
    assert error <= TOLERANCE, f"relative error {error:.1e}"


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    ("opset", "open_batch"),
    [pytest.param(9, False, marks=pytest.mark.slow), (17, True)],
)
def test_what_pytorch_exports(name, opset, open_batch, tmp_path):
    images = write(name, tmp_path / "net.onnx", opset=opset, open_batch=open_batch)
    from_onnx(tmp_path / "net.onnx", tmp_path / "net", batch=2)
    agree(ours(tmp_path / "net", images), theirs(tmp_path / "net.onnx", images))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_what_pytorch_exports_by_tracing_anew(name, tmp_path):
    images = write(name, tmp_path / "net.onnx", dynamo=True, opset=20, open_batch=True)
    from_onnx(tmp_path / "net.onnx", tmp_path / "net", batch=2)
    agree(ours(tmp_path / "net", images), theirs(tmp_path / "net.onnx", images))


@pytest.mark.parametrize("name", ["resnet20", "squeezenet"])
def test_there_and_back(name, tmp_path):
    images = write(name, tmp_path / "net.onnx")
    from_onnx(tmp_path / "net.onnx", tmp_path / "net", batch=2)
    files = tmp_path / "net" / "net.prototxt", tmp_path / "net" / "net.caffemodel"
    to_onnx(*files, tmp_path / "again.onnx")
    error = np.abs(theirs(tmp_path / "again.onnx", images) - ours(tmp_path / "net", images)).max()
    assert error <= 1e-5 * np.abs(ours(tmp_path / "net", images)).max()


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", FULL)
def test_full_size(name, batch, tmp_path):
    images = write(name, tmp_path / "net.onnx", table=FULL, batch=batch)
    from_onnx(tmp_path / "net.onnx", tmp_path / "net", batch=batch)
    agree(ours(tmp_path / "net", images), theirs(tmp_path / "net.onnx", images))
