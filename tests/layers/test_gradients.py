"""Generic tests of every layer in the registries (tests/gradient_cases*.py)."""

from __future__ import annotations

import numpy as np
import pytest

from minissl import backend
from minissl.blob import Blob
from minissl.gradient_check import check_layer, random_values
from minissl.layers import LAYERS
from tests import gradient_cases, gradient_cases_caffe
from tests.gradient_cases import Case, make_layer

CASES = [*gradient_cases.CASES, *gradient_cases_caffe.CASES]
WITHOUT_GRADIENT = gradient_cases.WITHOUT_GRADIENT | gradient_cases_caffe.WITHOUT_GRADIENT

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def run(
    case: Case, kernels, dtype=np.float64, change=lambda array: array, spoil=lambda blob: None
) -> list[np.ndarray]:
    """Run a case forward and backward; return tops, bottom gradients and parameter gradients.

    ``change`` is applied to the inputs, ``spoil`` to the first top between the two passes.
    """
    rng, xp = np.random.default_rng(1), kernels.xp
    layer = make_layer(case.text, kernels, dtype, case.phase)
    values = [change(v.astype(dtype)) for v in case.values()]
    top_shapes = layer.setup([v.shape for v in values])
    for parameter in layer.parameters:
        parameter.data = xp.asarray(random_values(parameter, rng).astype(dtype))
    bottom = [Blob(f"x{i}", v.shape, dtype, xp) for i, v in enumerate(values)]
    for blob, array in zip(bottom, values, strict=True):
        blob.data = xp.asarray(array)
    top = [Blob(f"y{i}", shape, dtype, xp) for i, shape in enumerate(top_shapes)]
    if case.in_place:
        top[0] = bottom[0]
    layer.forward(bottom, top)
    results = [backend.to_host(blob.data).copy() for blob in top]
    spoil(top[0])
    for blob in top:
        backend.assign(blob.diff, np.asarray(rng.normal(size=blob.shape)))
    wanted = [i not in layer.no_gradient for i in range(len(bottom))]
    layer.backward(top, wanted, bottom)
    results += [blob.diff for blob, yes in zip(bottom, wanted, strict=True) if yes]
    results += [parameter.diff for parameter in layer.parameters]
    return [backend.to_host(array) for array in results]


def assert_close(results, expected, tolerance: float) -> None:
    assert len(results) == len(expected)
    for a, b in zip(results, expected, strict=True):
        scale = max(1.0, float(np.abs(b).max(initial=0)))
        assert a.shape == b.shape
        assert np.abs(a - b).max(initial=0) <= tolerance * scale


@every_case
def test_gradient_agrees_with_finite_differences(case, every_kernels):
    layer = make_layer(case.text, every_kernels, phase=case.phase)
    error = check_layer(
        layer,
        case.values(),
        objective_tops=case.objective_tops,
        in_place=case.in_place,
        step=case.step,
    )
    assert error <= case.tolerance


@every_case
def test_backends_agree(case, every_kernels):
    assert_close(run(case, every_kernels), run(case, backend.get("numpy")), 1e-12)


@every_case
def test_float32_agrees_with_float64(case, every_kernels):
    single, double = run(case, every_kernels, np.float32), run(case, every_kernels)
    assert all(array.dtype == np.float32 for array in single)
    assert_close(single, double, 2e-5)


def overwrite(blob: Blob) -> None:
    """Leave nothing of the values, not even their signs."""
    blob.data = np.full(blob.shape, np.nan)


@pytest.mark.parametrize("case", [c for c in CASES if c.phase == "TRAIN"], ids=lambda c: c.name)
def test_a_layer_says_whether_its_gradient_looks_at_its_output(case):
    kernels = backend.get("numpy")
    layer = make_layer(case.text, kernels)
    tops = layer.setup([values.shape for values in case.values()])
    expected, found = (run(case, kernels, spoil=s) for s in (lambda blob: None, overwrite))
    pairs = zip(found[len(tops) :], expected[len(tops) :], strict=True)
    assert layer.reads_top == (not all(np.array_equal(*pair) for pair in pairs))


@every_case
def test_non_contiguous_input_gives_the_same(case, every_kernels):
    def spread(array):
        wide = np.zeros((*array.shape, 2), array.dtype)
        wide[..., 0] = array
        return wide[..., 0]

    assert_close(run(case, every_kernels, change=spread), run(case, every_kernels), 1e-12)


def test_every_layer_has_a_record():
    assert set(LAYERS) - WITHOUT_GRADIENT == {case.type_name for case in CASES}


def test_names_of_records_are_unique():
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
