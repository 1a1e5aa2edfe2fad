"""The GPU backend as a whole: the names it offers, results that repeat, TF32."""

import inspect

import numpy as np
import pytest

from minissl.backend import to_host
from minissl.conv_modes import ConvShape
from minissl.conv_modes.compressed_rows import compress
from minissl.kernels import reference
from minissl.kernels.names import NAMES
from tests.gpu import double, shim
from tests.gpu.agreement import run
from tests.kernels.test_cpu import FUNCTIONS


def test_every_function_is_there_with_the_same_arguments(gpu):
    assert not [name for name in NAMES if not hasattr(gpu, name)]
    for name in FUNCTIONS:
        ours = list(inspect.signature(getattr(gpu, name)).parameters.values())
        expected = list(inspect.signature(getattr(reference, name)).parameters)
        assert [p.name for p in ours[: len(expected)]] == expected, name
        assert all(p.default is not p.empty for p in ours[len(expected) :]), name


def test_arrays_of_the_host_are_refused(gpu):
    """What the other tests rely on: nothing is copied between host and device unseen."""
    with pytest.raises(TypeError):
        gpu.xp.ones(3) + np.ones(3)
    with pytest.raises(TypeError):
        np.asarray(gpu.xp.ones(3))


def test_results_repeat_bitwise_and_chunks_do_not_matter_much(gpu, monkeypatch):
    """The same call twice gives the same bits, and many chunks give what one gives."""
    from minissl.kernels.gpu import convolution

    shape = ConvShape(4, (9, 9), 6, (3, 3), (1, 1), (1, 1), (1, 1), 2)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((7, 4, 9, 9)).astype("float32")
    w = rng.standard_normal(shape.weight_shape).astype("float32")
    arguments = ((1, 1), (1, 1), (1, 1), 2)
    y = np.empty((7, 6, 9, 9), "float32")
    d_w, d_x = np.zeros_like(w), np.empty_like(x)

    def all_three():
        (found,) = run(gpu, "conv_forward", (x, w, None, *arguments), (y,))
        (weights,) = run(gpu, "conv_backward_weights", (x, found, *arguments), (d_w,))
        (inputs,) = run(gpu, "conv_backward_input", (found, w, *arguments), (d_x,))
        return found, weights, inputs

    whole, again = all_three(), all_three()
    monkeypatch.setattr(convolution, "CHUNK_BYTES", 40000)  # three images, then four in two chunks
    parts = all_three()
    for one, two, three in zip(whole, again, parts, strict=True):
        assert np.array_equal(one, two)
        assert np.allclose(one, three, rtol=1e-4, atol=1e-4)


def test_the_order_of_threads_changes_nothing(gpu, monkeypatch):
    """Threads that race, or a barrier that is missing, give other bits when their order turns."""
    if gpu.xp.ndarray is not double.Array:
        pytest.skip("only the shim can turn the order of threads round")
    rng = np.random.default_rng(8)
    x, d_y = (rng.standard_normal(shape) for shape in ((3, 4, 9, 8), (3, 6, 9, 8)))
    w, y = rng.standard_normal((6, 2, 3, 3)), np.empty_like(d_y)
    geometry = ((1, 1), (1, 1), (1, 1), 2)
    pooled, argmax = np.empty((3, 4, 4, 4)), np.empty((3, 4, 4, 4), "int32")
    matrix = compress(w.reshape(6, -1))
    labels, valid = rng.integers(0, 8, (4, 9)), rng.random((4, 9)) < 0.8
    p = rng.dirichlet(np.ones(8), (4, 9)).transpose(0, 2, 1).copy()
    calls = [
        ("conv_forward", (x, w, None, *geometry), (y,)),
        ("conv_backward_input", (d_y, w, *geometry), (np.empty_like(x),)),
        ("conv_backward_bias", (d_y,), (np.zeros(6),)),
        ("inner_product_csr", (x[:, 0, 0, :], *compress(w[:, 0].reshape(6, -1)[:, :8]), np.ones(6)),
         (np.empty((3, 6)),)),
        ("csr_times_dense", (*matrix, rng.standard_normal((18, 70))), (np.empty((6, 70)),)),
        ("max_pool_forward", (x, (3, 3), (2, 2), (0, 0)), (pooled, argmax)),
        ("softmax_forward", (p,), (np.empty_like(p),)),
        ("softmax_backward", (p, p[::-1].copy()), (np.empty_like(p),)),
        ("label_loss", (p, labels, valid, 1e-30, None), (np.empty(()), np.empty(()))),
        ("tile_square_sums", (rng.standard_normal((6, 80)), 3, 40), (np.empty((2, 2)),)),
        ("tile_square_sums", (rng.standard_normal((40, 66)), 20, 2), (np.empty((2, 33)),)),
    ]  # fmt: skip
    large = gpu.xp.asarray(rng.standard_normal(700))
    found = []
    for backwards in (False, True):
        monkeypatch.setattr(shim, "backwards", backwards)
        results = [run(gpu, *call) for call in calls]
        results.append([np.array([gpu.sum_of_squares(large), gpu.sum_of_magnitudes(large)])])
        found.append(results)
    for call, one, other in zip([*calls, ("sums",)], *found, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True)), call[0]


def test_tf32_is_off_until_it_is_asked_for(gpu):
    from minissl.kernels.gpu import products

    assert not gpu.uses_tf32()
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(-1, 1, (64, 64)).astype("float32") for _ in range(2))
    results = {}
    try:
        for enabled in (False, True):
            gpu.use_tf32(enabled)
            out = gpu.xp.empty((64, 64), "float32")
            products.multiply(gpu.xp.asarray(a), gpu.xp.asarray(b), out)
            results[enabled] = to_host(out)
    finally:
        gpu.use_tf32(False)
    exact = a.astype(float) @ b.astype(float)
    magnitudes = np.abs(a).astype(float) @ np.abs(b)
    assert (np.abs(results[False] - exact) <= 1e-6 * magnitudes).all()
    assert (np.abs(results[True] - exact) <= 1e-3 * magnitudes).all()
