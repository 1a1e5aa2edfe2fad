"""The benchmark runs from end to end, rehearsed on the CPU: same numbers on both sides."""

import importlib.util
from pathlib import Path

import pytest

from tests.gpu import double, shim

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.slow
@pytest.mark.skipif(not shim.COMPILER, reason="no C++ compiler to run CUDA sources on the CPU with")
def test_rehearsal(monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmark_gpu", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    monkeypatch.setattr(benchmark, "ALEXNET", {"conv2": benchmark.ALEXNET["conv2"]})
    monkeypatch.setattr(benchmark, "NETS", {"lenet": benchmark.NETS["lenet"]})
    with double.installed():
        result = benchmark.main(["--rehearse"])  # raises where it differs from PyTorch
    assert [one["layer"] for one in result["layers"]] == ["conv2"] * 2
    assert {one["network"] for one in result["training"]} == {"lenet", "resnet20"}
    assert set(result["layers"][0]["ccnmm_speedup"]) == {"product", "whole"}
