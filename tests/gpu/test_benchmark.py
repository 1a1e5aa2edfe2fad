"""The benchmark runs from end to end, rehearsed on the CPU: same numbers on both sides."""

import importlib.util
import json
from pathlib import Path

import pytest

from tests.gpu import double, shim
from tests.tiny_nets import DIGITS

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = pytest.mark.skipif(
    not shim.COMPILER, reason="no C++ compiler to run CUDA sources on the CPU with"
)


def script(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_rehearsal(monkeypatch):
    benchmark = script("gpu")
    monkeypatch.setattr(benchmark, "ALEXNET", {"conv2": benchmark.ALEXNET["conv2"]})
    monkeypatch.setattr(benchmark, "NETS", {"lenet": benchmark.NETS["lenet"]})
    with double.installed():
        result = benchmark.main(["--rehearse"])  # raises where it differs from PyTorch
    assert [one["layer"] for one in result["layers"]] == ["conv2"] * 2
    assert {one["network"] for one in result["training"]} == {"lenet", "resnet20"}
    assert set(result["layers"][0]["ccnmm_speedup"]) == {"product", "whole"}


def test_steps_are_timed_and_told(monkeypatch, tmp_path, capsys):
    benchmark = script("gpu_steps")
    monkeypatch.setattr(benchmark, "WARM", 1)
    (tmp_path / "digits.prototxt").write_text(DIGITS)
    solver = tmp_path / "solver.prototxt"
    solver.write_text('net: "digits.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 99')
    out = tmp_path / "steps.json"
    with double.installed():
        result = benchmark.main([str(solver), "--steps", "5", "--json", str(out)])
    (found,) = result.values()
    assert found["ms"] >= found["ms_queueing"] > 0
    assert found["by"] == "cupy on stand-in" and "cupy on stand-in" in capsys.readouterr().out
    assert json.loads(out.read_text()) == result
