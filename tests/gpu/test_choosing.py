"""The cupy backend is chosen by name; where it cannot run, one sentence says why."""

import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from minissl import backend, models
from minissl.cli import main
from minissl.errors import DependencyError
from tests.gpu import double


@pytest.fixture
def afresh():
    """Look for a GPU as a new process does."""
    backend._check_gpu.cache_clear()
    yield
    backend._check_gpu.cache_clear()


def test_without_cupy(afresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DependencyError, match=r"needs CuPy.*pip install 'minissl\[gpu") as caught:
        backend.get("cupy")
    assert "\n" not in str(caught.value)
    assert not backend.has_gpu()


class NoDriver(Exception):
    pass


def cupy_with(count):
    """A CuPy whose runtime finds so many devices; an error for None."""

    def devices():
        if count is None:
            raise NoDriver("driver version is insufficient")
        return count

    modules = double.modules()
    runtime = SimpleNamespace(getDeviceCount=devices, CUDARuntimeError=NoDriver)
    modules["cupy"].cuda.runtime = runtime
    return modules


@pytest.mark.parametrize("count", [None, 0])
def test_without_a_gpu(afresh, monkeypatch, count):
    for name, module in cupy_with(count).items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(DependencyError, match=r"NVIDIA GPU.*use --backend numba") as caught:
        backend.get("cupy")
    assert "\n" not in str(caught.value)


def test_with_a_gpu(afresh, monkeypatch):
    for name, module in cupy_with(1).items():
        monkeypatch.setitem(sys.modules, name, module)
    assert backend.has_gpu()


def test_its_name_and_the_switch(gpu):
    assert backend.name_of(gpu) == "cupy"
    try:
        backend.allow_tf32(True)
        assert backend.get("cupy").uses_tf32()
    finally:
        backend.allow_tf32(False)
    assert not backend.get("cupy").uses_tf32()


@pytest.mark.parametrize("flags", [[], ["--tf32"]])
def test_the_command_line_hands_the_switch_on(monkeypatch, flags):
    seen = []

    def look():
        seen.append(backend._tf32)
        raise DependencyError("backend 'cupy' is looked for")

    monkeypatch.setattr(backend, "_check_gpu", look)
    model = str(models.path("lenet.prototxt"))
    arguments = ["time", "--model", model, "--backend", "cupy", *flags]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert seen == [bool(flags)]
    assert not backend._tf32
