from __future__ import annotations

import json
from pathlib import Path

import pytest

from minissl import machine as machines
from minissl.conv_modes.calibration import samples
from minissl.conv_modes.cost import CONVOLUTION, INNER_PRODUCT, Work
from minissl.machine import DEFAULTS, Machine, store
from minissl.machine.constants import TERMS


def machine(**options):
    return Machine({1: {"gemm": 0.02, "csr": 0.03}, 3: {"gemm": 0.04, "csr": 0.03}}, **options)


def test_threads_in_between_are_interpolated():
    assert [machine().nanoseconds("gemm", n) for n in (1, 2, 3, 8)] == [0.02, 0.03, 0.04, 0.04]
    assert machine().nanoseconds("lower", 2) == 0


def test_time_is_units_times_nanoseconds():
    assert machine().seconds({"gemm": 1e9, "csr": 1e9}, 1) == pytest.approx(0.05)


def test_json_brings_back_the_same():
    one = machine(rates={1: {"gemm_gflops": 90.0}}, calibrated=True, error={1: 0.1}, date="today")
    assert Machine.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize("values", [{}, {"constants": {}}, {"constants": {"x": {}}}])
def test_json_of_something_else_is_refused(values):
    with pytest.raises((KeyError, ValueError)):
        Machine.from_json({"rates": {}, "error": {}, **values})


def test_the_stand_ins_know_every_term_that_costs_use():
    used = set()
    for sample in samples():
        work = Work.of(sample.shape, sample.weights, sample.images, 2)
        for cost in (INNER_PRODUCT if sample.is_product else CONVOLUTION).values():
            used |= set(cost(work) or {})
    assert used == set(TERMS)
    for threads, constants in DEFAULTS.constants.items():
        assert set(constants) == set(TERMS), threads
        assert all(value >= 0 for value in constants.values())


def test_the_page_explains_every_term():
    page = (Path(__file__).parents[2] / "docs" / "choosing-a-mode.md").read_text()
    for term, meaning in TERMS.items():
        assert f"| `{term}` | {meaning} |" in page


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machines.current.cache_clear()
    yield tmp_path
    machines.current.cache_clear()


def test_a_machine_that_was_never_measured_has_stand_ins(empty_cache):
    assert machines.load() is None
    assert machines.current() is DEFAULTS and not DEFAULTS.calibrated


def test_what_was_saved_is_found_again(empty_cache):
    one = machine(calibrated=True, key=store.machine_key())
    path = machines.save(one)
    assert path.parent == empty_cache / "minissl" / "calibration"
    assert machines.load() == one and machines.current() == one


def test_it_belongs_to_a_cpu_its_libraries_and_their_setting(empty_cache, monkeypatch):
    machines.save(machine(calibrated=True, key=store.machine_key()))
    monkeypatch.setattr(store, "blas_kernels", lambda: "openblas of another CPU")
    assert machines.load() is None
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(empty_cache))
    assert machines.load() is not None
    monkeypatch.setenv("MINISSL_ISA", "generic")
    assert machines.load() is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"constants": 3}'])
def test_a_broken_file_counts_as_none(empty_cache, text):
    path = machines.save(machine(key=store.machine_key()))
    path.write_text(text)
    assert machines.load() is None


def test_the_key_names_cpu_blas_and_versions():
    key = store.machine_key()
    assert {"cpu", "cores", "blas", "numba", "numpy"} <= set(key)
    assert all(isinstance(value, str) and value for value in key.values())
