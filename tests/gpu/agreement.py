"""Kernels run on both backends, and compared: what the tests of this room share."""

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from minissl.backend import to_host
from minissl.kernels import reference

TOLERANCE = {"float64": 1e-12, "float32": 2e-5}
DTYPES = st.sampled_from(["float64", "float32"])
SEEDS = st.integers(0, 2**32 - 1)


def few(count):
    """Settings of a property: every example runs a handful of kernels through the shim."""
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


def on_device(gpu, value):
    """A copy of an array on the device, with gaps where it had some; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    if value.flags.c_contiguous:
        return gpu.xp.array(value)
    return gpu.xp.array(np.ascontiguousarray(value.T)).T


def run(gpu, name, arguments, outputs):
    results = [on_device(gpu, output) for output in outputs]
    given = [on_device(gpu, value) for value in arguments]
    getattr(gpu, name)(*given, *results)
    for before, after in zip(arguments, given, strict=True):
        if isinstance(before, np.ndarray):
            assert np.array_equal(to_host(after), before, equal_nan=True), (
                f"{name} changes an input"
            )
    return [to_host(result) for result in results]


def assert_agree(gpu, name, arguments, *outputs, exactly=False):
    expected = [output.copy() for output in outputs]
    getattr(reference, name)(*arguments, *expected)
    for want, found in zip(expected, run(gpu, name, arguments, outputs), strict=True):
        assert found.dtype == want.dtype
        if exactly or want.dtype.kind != "f":
            assert np.array_equal(found, want), name
            continue
        tolerance = TOLERANCE[want.dtype.name]
        scale = max(1.0, float(np.abs(want).max(initial=0)))
        assert np.allclose(found, want, rtol=tolerance, atol=tolerance * scale), name
