from __future__ import annotations

import numpy as np
import pytest

from minissl import backend as backends
from minissl import doctor
from minissl.doctor import Check
from minissl.machine import penalties, probes


def by_name():
    return {check.name: check for check in doctor.examine()}


def test_this_machine_is_fit(monkeypatch):
    for name in doctor.BLAS_OVERRIDES:
        monkeypatch.delenv(name, raising=False)
    checks = by_name()
    assert doctor.is_fit(list(checks.values()))
    assert {"python", "numpy", "backend numba", "numba equals numpy", "threads", "blas"} <= set(
        checks
    )
    assert checks["data mnist-small"].ok and checks["blas"].ok
    assert "us to enter" in checks["threading layer"].detail


def test_advice_does_not_make_a_machine_unfit():
    good, advice = Check("a", True, ""), Check("b", False, "", needed=False)
    assert doctor.is_fit([good, advice])
    assert not doctor.is_fit([good, advice, Check("c", False, "")])


def test_a_forced_blas_is_reported(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setattr(penalties, "forced_blas", lambda names: penalties.Rates(55.0, 96.0))
    check = by_name()["blas"]
    assert not check.ok and not check.needed and "OPENBLAS_CORETYPE=Haswell" in check.detail
    assert "55 GFLOP/s with it and 96 without" in check.detail
    monkeypatch.setattr(penalties, "forced_blas", lambda names: None)
    assert "GFLOP/s" not in by_name()["blas"].detail


def test_a_slow_threading_layer_is_reported_with_its_cost(monkeypatch):
    monkeypatch.setattr(probes, "region_us", lambda: 90.0)
    check = by_name()["threading layer"]
    assert not check.ok and "90.0 us" in check.detail and "1.8 ms lost" in check.detail


def test_narrow_vectors_are_reported_with_their_cost(monkeypatch):
    monkeypatch.setattr(penalties, "vector_bits", lambda: (512, 256))
    check = by_name()["vector unit"]
    assert not check.ok and "2 times as long" in check.detail


def test_direct_tiles_that_are_switched_off_are_reported(monkeypatch):
    monkeypatch.setenv("MINISSL_ISA", "generic")
    check = by_name()["vector unit"]
    assert not check.ok and "MINISSL_ISA" in check.detail and "not used" in check.detail


def test_threads_of_blas_beside_those_of_kernels(monkeypatch):
    monkeypatch.setattr(penalties, "threads_in_threads", lambda: 3.0)
    monkeypatch.setattr(doctor, "_usable_cores", lambda: 10**6)
    assert "held to 1" in by_name()["blas threads"].detail
    monkeypatch.setattr(doctor, "_usable_cores", lambda: 0)
    check = by_name()["blas threads"]
    assert check.ok and "3.0 times as long" in check.detail


def test_more_threads_than_cores_are_reported_with_their_cost(monkeypatch):
    monkeypatch.setattr(doctor, "_usable_cores", lambda: 1)
    monkeypatch.setattr(backends, "threads", lambda: 2)
    monkeypatch.setattr(backends, "set_threads", lambda count: None)
    monkeypatch.setattr(probes, "region_us", lambda: 50.0)
    check = by_name()["threads"]
    assert not check.ok and "NUMBA_NUM_THREADS=1" in check.detail and "50" in check.detail


def test_kernels_that_disagree_are_broken(monkeypatch):
    kernels = backends.get("numba")
    right = kernels.conv_forward

    def wrong(*arguments):
        right(*arguments)
        arguments[-1][0, 0, 0, 0] += 1e-6

    monkeypatch.setattr(kernels, "conv_forward", wrong)
    checks = by_name()
    assert not checks["numba equals numpy"].ok
    assert not doctor.is_fit(list(checks.values()))


def test_an_exception_in_a_check_becomes_its_finding(monkeypatch):
    monkeypatch.setattr(backends, "threads", lambda: 1 / 0)
    check = by_name()["threads"]
    assert not check.ok and "ZeroDivisionError" in check.detail


def test_a_missing_library(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "scipy" else real(name))
    check = by_name()["scipy"]
    assert not check.ok and check.needed and "pip install scipy" in check.detail
    assert "scipy" not in doctor.versions()


def test_missing_data_sets_are_advice(monkeypatch, tmp_path):
    monkeypatch.setenv("MINISSL_DATA", str(tmp_path))
    check = by_name()["data mnist"]
    assert not check.ok and not check.needed and "minissl data fetch mnist" in check.detail
    assert len(doctor.missing_files("mnist")) == 4 and doctor.missing_files("mnist-small") == []
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").touch()
    assert len(doctor.missing_files("mnist")) == 3


def test_the_machine_in_words():
    words = doctor.machine_in_words()
    assert "cores" in words and "\n" not in words


def test_versions_name_python_and_minissl():
    found = doctor.versions()
    assert found["numpy"] == np.__version__ and {"python", "minissl", "numba"} <= set(found)


def test_the_cost_of_a_parallel_loop_is_positive():
    assert probes.region_us() > 0


@pytest.mark.parametrize("name", list(doctor.LIBRARIES))
def test_every_library_is_found(name):
    assert doctor._version(name)
