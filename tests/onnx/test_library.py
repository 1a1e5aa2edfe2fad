"""Without the library onnx: one sentence tells how to get it; minissl never imports it unasked."""

from __future__ import annotations

import subprocess
import sys

import pytest

from minissl.errors import DependencyError
from minissl.onnx import convert, library


@pytest.fixture
def without_onnx(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "onnx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "minissl.onnx.backend", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)


def test_reading_and_writing_without_it(without_onnx, tmp_path):
    with pytest.raises(DependencyError, match=r"pip install 'minissl\[onnx\]'"):
        convert.read(tmp_path / "net.onnx")
    with pytest.raises(DependencyError, match=r"pip install 'minissl\[onnx\]'"):
        library.load()


def test_the_backend_without_it(without_onnx):
    with pytest.raises(DependencyError, match=r"pip install 'minissl\[onnx\]'"):
        import minissl.onnx.backend  # noqa: F401


def test_it_is_imported_on_first_use():
    code = (
        "import sys, minissl.cli.convert, minissl.onnx.convert, minissl.onnx.operators;"
        "print('onnx' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
