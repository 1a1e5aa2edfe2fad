"""The fit finds constants that are known; measuring keeps the setting of the machine."""

from __future__ import annotations

import numpy as np
import pytest

from minissl import backend
from minissl import machine as machines
from minissl.conv_modes import ConvShape, calibration
from minissl.conv_modes.auto import product_shape
from minissl.conv_modes.calibration import Sample, Timing, fit, middle
from minissl.conv_modes.cost import CONVOLUTION, Work
from minissl.machine import probes

KNOWN = {"call": 2000.0, "gemm": 0.02, "lower": 0.3}
SMALL = [
    Sample(ConvShape(3, (10, 10), 8, (3, 3)), (0.3, 0.5, 0), 2, False),
    Sample(product_shape(20, 30), (0, 0, 0.8), 3, True),
]


def timings(noise=0.0, constants=KNOWN, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(40):
        amounts = {"call": 1, "gemm": 10 ** rng.uniform(3, 8), "lower": 10 ** rng.uniform(2, 6)}
        nanoseconds = sum(constants[term] * units for term, units in amounts.items())
        disturbed = nanoseconds * (1 + noise * rng.random())
        found.append(Timing(SMALL[0], "LOWERED_GEMM", amounts, 1e-9 * disturbed))
    return found


def test_known_constants_are_found():
    constants, error = fit(timings())
    assert constants == pytest.approx(KNOWN) and error < 1e-9


def test_disturbed_samples_count_less():
    some = timings(noise=0.02)
    some[3] = some[3]._replace(time=20 * some[3].time)
    some[7] = some[7]._replace(time=9 * some[7].time)
    constants, error = fit(some)
    assert constants == pytest.approx(KNOWN, rel=0.05) and error < 0.02


def test_more_threads_are_drawn_to_what_is_expected():
    some = [one._replace(amounts={**one.amounts, "rare": 1e-9}) for one in timings()]
    constants, _ = fit(some, {**KNOWN, "rare": 5.0})
    assert constants["rare"] == pytest.approx(5.0)
    assert constants["gemm"] == pytest.approx(KNOWN["gemm"])
    # ... but not what it takes to begin, which threads change
    twice = timings(constants={**KNOWN, "call": 9000.0})
    assert fit(twice, KNOWN)[0]["call"] == pytest.approx(9000, rel=0.02)


def test_of_several_passes_the_middle_counts():
    passes = [timings(noise=0.5, seed=seed) for seed in (1, 1, 1)]
    factors = [(0.5, 1, 4), (2, 0.1, 1), (1, 7, 0.3)]
    for number, one in enumerate(passes):
        one[:] = [t._replace(time=t.time * factors[i % 3][number]) for i, t in enumerate(one)]
    expected = [one.time for one in timings(noise=0.5, seed=1)]
    assert [one.time for one in middle(passes)] == pytest.approx(expected)


def test_samples_have_the_zeros_that_they_say():
    work = Work.of(SMALL[0].shape, SMALL[0].weights, 2, 1)
    assert work.rows[0] < 8 and work.columns[0] < 27
    scattered = SMALL[1].weights
    assert scattered.shape == (20, 30) and 0.7 < np.mean(scattered == 0) < 0.9
    assert np.array_equal(SMALL[0].weights, SMALL[0].weights)


def test_every_mode_is_among_the_samples():
    conv = [one for one in calibration.samples() if not one.is_product]
    assert {one.shape.stride[0] for one in conv} > {1} and {one.images for one in conv} > {1}
    assert {one.shape.groups for one in conv} > {1} and len({one.zeros for one in conv}) > 3
    small = [one for one in calibration.samples() if one.shape.filters * one.shape.columns < 1e5]
    assert all(one.weights.any() for one in small)


def test_measuring_times_dense_modes_once():
    both = [SMALL[0], SMALL[0]._replace(zeros=(0, 0, 0.9))]
    found = calibration.measure(both, 1, probes.Pace())
    modes = [one.mode for one in found]
    assert modes.count("LOWERED_GEMM") == 1 and modes.count("LOWERED_CSRMM") == 2
    assert set(modes) <= set(CONVOLUTION)
    assert all(one.time > 0 for one in found)


def test_a_calibration_is_kept_and_used(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(calibration, "samples", lambda: iter(SMALL))
    machines.current.cache_clear()
    before, ticks = backend.threads(), []
    try:
        found = calibration.calibrate(lambda: ticks.append(1))
        assert len(ticks) == calibration.steps(before)
        assert backend.threads() == before
        assert set(found.constants) == {1, before} == set(found.error) == set(found.rates)
        machines.save(found)
        assert machines.current() == found and machines.current().calibrated
    finally:
        machines.current.cache_clear()
