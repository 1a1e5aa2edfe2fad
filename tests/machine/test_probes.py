"""Figures of a machine are positive and restore its setting; how large they are is its own."""

from __future__ import annotations

import os

import numpy as np
import pytest

from minissl import backend
from minissl.machine import penalties, probes


def test_rates_are_positive():
    rates = probes.rates()
    assert set(rates) == {"gemm_gflops", "region_us", *probes.LEVELS}
    assert all(value > 0 for value in rates.values())


def test_reading_adds_up_what_is_there():
    data, sums = np.arange(12, dtype=np.float32).reshape(2, 6), np.empty(2, np.float32)
    probes._read(data, sums)
    assert sums.tolist() == [15, 51]


def test_the_shortest_run_counts():
    calls = []
    assert probes.shortest(lambda: calls.append(1), seconds=0, fewest=5) >= 0
    assert len(calls) == 5


def test_a_pace_compares_a_run_with_the_machine_at_that_moment(monkeypatch):
    clock = iter(np.cumsum([0.0, 2.0, 1.0, 2.0] * 50))  # each product takes 2
    pace = probes.Pace()
    pace.fastest = np.inf
    monkeypatch.setattr(probes.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(probes, "shortest", lambda run, seconds, fewest: 6.0)
    assert pace.times(lambda: None, 0.1) == pytest.approx(3.0)
    assert pace.fastest == pytest.approx(2.0)


def test_threads_of_blas_are_restored():
    before = [pool["num_threads"] for pool in backend.blas_pools().info()]
    assert penalties.threads_in_threads() > 0
    assert [pool["num_threads"] for pool in backend.blas_pools().info()] == before


def test_a_forced_blas_is_measured_against_a_free_one(monkeypatch):
    seen = []

    def rate(environment):
        seen.append(environment.get("OPENBLAS_CORETYPE"))
        return 1.0 + len(seen)

    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setattr(penalties, "_gemm_rate", rate)
    assert penalties.forced_blas(["OPENBLAS_CORETYPE"]) == (2, 3)
    assert seen == ["Haswell", None]


def test_gemm_is_measured_in_a_process_of_its_own():
    assert penalties._gemm_rate(os.environ) > 0.1


def test_a_process_that_fails_gives_no_rates(monkeypatch):
    monkeypatch.setattr(penalties, "_GEMM", "raise SystemExit(1)")
    assert penalties.forced_blas([]) is None


def test_vector_widths():
    has, used = penalties.vector_bits()
    assert used <= has and {has, used} <= {128, 256, 512}
    assert penalties._bits({"sse2"}) == 128 and penalties._bits({"avx2", "avx512f"}) == 512
