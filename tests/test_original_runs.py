"""Every recorded run of the published program is followed, number by number."""

from __future__ import annotations

import numpy as np
import pytest

from minissl.data.datasets import load
from minissl.errors import MinisslError
from minissl.solvers.display import CaffeLog, Together
from tests import original_runs
from tests.conftest import needs_compiler
from tests.original_runs import LENET_RUNS, SMALL_RUNS, Tracer, make_solver


def full_mnist() -> bool:
    try:
        return len(load("mnist", "train")) == 60_000
    except MinisslError:
        return False


@pytest.fixture
def first_digits(monkeypatch):
    """The digits that come with the recorded runs stand in for the whole of MNIST."""
    monkeypatch.setenv("MINISSL_DATA", str(original_runs.FOLDER / "data"))


def follow(run, **options):
    """Train as recorded; return the tracer, the log's lines and the solver."""
    tracer, lines = Tracer(), []
    solver = make_solver(run, reporter=Together(tracer, CaffeLog(lines.append)), **options)
    solver.solve()
    assert solver.iteration == len(tracer.rows) == original_runs.record(run)["iterations"]
    return tracer, lines, solver


def check_trace(run, rows):
    recorded = original_runs.trace(run)
    assert max(recorded) == len(rows) - 1
    for i, expected in recorded.items():
        tolerance = 1e-9 if i <= 100 else 1e-6
        for name, value in rows[i].items():
            where = f"iteration {i}, {name}"
            if name.startswith("w_nnz"):
                assert value == int(expected[name]), where
            else:
                assert value == pytest.approx(float(expected[name]), rel=tolerance, abs=0), where


def check_final(run, solver):
    recorded = original_runs.final(run)
    parameters = {parameter.name: parameter for parameter in solver.net.parameters}
    compared = set()
    for key, expected in recorded.items():
        name, _, part = key.partition("@")
        found = parameters[name].data
        if part.startswith("every"):
            found = found[:: int(part.removeprefix("every"))]
        elif part:
            found = np.linalg.norm(parameters[name].matrix, axis={"row_l2": 1, "col_l2": 0}[part])
        assert found.shape == expected.shape
        assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected), key
        np.testing.assert_array_equal(found == 0, expected == 0, err_msg=key)
        compared.add(name)
    assert compared == set(parameters)


def check_log(run, lines):
    """The last four sparsity lines and the accuracies of the test net."""
    record = original_runs.record(run)
    for title, expected in record["last_sparsity_lines"].items():
        headers = [i for i, line in enumerate(lines) if f"{title} Sparsity %" in line]
        assert lines[headers[-1] + 1] == expected, title
    tested = [line.rpartition("= ")[2] for line in lines if "Test net output #0" in line]
    count = len(record["test_accuracy"])
    assert tested[:count] == record["test_accuracy"]


def check_everything(run, **options):
    tracer, lines, solver = follow(run, **options)
    check_trace(run, tracer.rows)
    check_final(run, solver)
    check_log(run, lines)


@pytest.mark.parametrize("run", SMALL_RUNS)
@needs_compiler
def test_small_run(run, first_digits):
    check_everything(run, backend="numba")


@pytest.mark.parametrize("run", ["t_lasso_adam", "t_grpwise"])
def test_small_run_by_the_readable_backend(run, first_digits):
    check_everything(run, backend="numpy")


@pytest.mark.slow
@pytest.mark.parametrize("run", LENET_RUNS)
@needs_compiler
def test_lenet_run(run):
    if not full_mnist():
        pytest.skip("the full MNIST is not on this machine; run 'minissl data fetch mnist'")
    check_everything(run, backend="numba")


@pytest.mark.parametrize("run", SMALL_RUNS)
@needs_compiler
def test_first_iterations_in_float32(run, first_digits):
    tracer = Tracer()
    make_solver(run, dtype="float32", backend="numba", reporter=tracer).solve(10)
    recorded = original_runs.trace(run)
    for i, row in enumerate(tracer.rows):
        assert row["loss"] == pytest.approx(float(recorded[i]["loss"]), rel=1e-5), i


@pytest.mark.parametrize("run", SMALL_RUNS)
@needs_compiler
def test_without_the_switch_until_a_quirk_acts(run, first_digits):
    """The one quirk that changes numbers is the zero-out of biases."""
    with_quirks, without = Tracer(), Tracer()
    make_solver(run, reporter=with_quirks).solve()
    solver = make_solver(run, reporter=without, original=False)
    for parameter in solver.net.parameters:
        parameter.skip_frozen = False  # the tracer sums the gradients of frozen weights as well
    solver.solve()
    quirk = next(i for i, small in enumerate(with_quirks.zeroed_biases) if small)
    assert without.rows[:quirk] == with_quirks.rows[:quirk]
    assert without.rows[quirk] != with_quirks.rows[quirk]
    assert not any(without.zeroed_biases)
    # the tracer sees what happens, or this test would compare nothing
    if run in ("t_eltwise", "t_grpwise"):
        assert quirk == 6


@pytest.mark.slow
@pytest.mark.parametrize("run", LENET_RUNS)
@needs_compiler
def test_first_iterations_of_lenet_in_float32(run):
    if not full_mnist():
        pytest.skip("the full MNIST is not on this machine; run 'minissl data fetch mnist'")
    tracer = Tracer()
    make_solver(run, dtype="float32", backend="numba", reporter=tracer).solve(10)
    recorded = original_runs.trace(run)
    for i, row in enumerate(tracer.rows):
        assert row["loss"] == pytest.approx(float(recorded[i]["loss"]), rel=1e-5), i
