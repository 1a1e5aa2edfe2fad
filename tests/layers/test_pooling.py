from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minissl import Net, backend, fusion
from minissl.backend import to_host
from minissl.errors import ConfigError, ShapeError
from minissl.formats.prototxt import parse_net
from minissl.kernels.geometry import pooling_output
from tests.gradient_cases import make_layer
from tests.layers.running import forward, set_up


def text(options: str, tops: str = "") -> str:
    return f'name: "pool1" type: "Pooling" top: "y" {tops} pooling_param {{ {options} }}'


def naive_windows(
    size: int, kernel: int, stride: int, pad: int, rounded=math.ceil
) -> list[tuple[int, int]]:
    """First and last pixel + 1 of each window along one axis, padding included."""
    count = rounded((size + 2 * pad - kernel) / stride) + 1
    starts = [i * stride - pad for i in range(count)]
    return [(start, start + kernel) for start in starts if start < size]


def naive_max(x, kernel, stride, pad, rounded=math.ceil):
    rows = naive_windows(x.shape[2], kernel[0], stride[0], pad[0], rounded)
    columns = naive_windows(x.shape[3], kernel[1], stride[1], pad[1], rounded)
    y = np.full((*x.shape[:2], len(rows), len(columns)), -np.inf)
    where = np.zeros(y.shape)
    for n, c, p, q in np.ndindex(y.shape):
        for h in range(*rows[p]):
            for w in range(*columns[q]):
                if 0 <= h < x.shape[2] and 0 <= w < x.shape[3] and x[n, c, h, w] > y[n, c, p, q]:
                    y[n, c, p, q] = x[n, c, h, w]
                    where[n, c, p, q] = h * x.shape[3] + w
    return y, where


def naive_ave(x, kernel, stride, pad, rounded=math.ceil):
    rows = naive_windows(x.shape[2], kernel[0], stride[0], pad[0], rounded)
    columns = naive_windows(x.shape[3], kernel[1], stride[1], pad[1], rounded)
    y = np.zeros((*x.shape[:2], len(rows), len(columns)))
    for n, c, p, q in np.ndindex(y.shape):
        total, area = 0.0, 0
        for h in range(*rows[p]):
            for w in range(*columns[q]):
                if h < x.shape[2] + pad[0] and w < x.shape[3] + pad[1]:
                    area += 1
                    if 0 <= h < x.shape[2] and 0 <= w < x.shape[3]:
                        total += x[n, c, h, w]
        y[n, c, p, q] = total / area
    return y


# --- sizes ---


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pad", "windows"),
    [
        (28, 2, 2, 0, 14),
        (32, 3, 2, 0, 16),  # CIFAR-10 quick: floor would give 15
        (6, 3, 2, 0, 3),
        (5, 2, 2, 1, 3),
        (4, 2, 2, 1, 3),
        (3, 2, 2, 1, 2),  # the third window would begin at 4 = size + pad
        (2, 4, 1, 1, 1),  # the kernel just covers the padded input
        (2, 5, 3, 1, 1),  # ... and here it hangs over
        (2, 9, 1, 1, -4),  # nothing fits
        (5, 1, 3, 0, 2),  # a third window would begin at 6 and be empty
    ],
)
def test_number_of_windows(size, kernel, stride, pad, windows):
    assert pooling_output(size, kernel, stride, pad) == windows


def test_number_of_windows_rounded_down():
    assert pooling_output(112, 3, 2, 1, round_down=True) == 56  # ResNet as PyTorch pools; ceil: 57
    assert pooling_output(2, 5, 3, 1, round_down=True) == 0


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    h=st.integers(1, 7),
    w=st.integers(1, 7),
    name=st.sampled_from(["numpy", "numba"]),
    mode=st.sampled_from(["CEIL", "FLOOR"]),
)
def test_pooling_equals_naive_loops(data, h, w, name, mode):
    rounded = {"CEIL": math.ceil, "FLOOR": math.floor}[mode]
    kernel = tuple(data.draw(st.integers(1, 4), label=f"kernel_{a}") for a in "hw")
    stride = tuple(data.draw(st.integers(1, 4), label=f"stride_{a}") for a in "hw")
    pad = tuple(data.draw(st.integers(0, k - 1), label="pad") for k in kernel)
    geometry = kernel, stride, pad
    assume(all(naive_windows(s, *g, rounded) for s, *g in zip((h, w), *geometry, strict=True)))
    options = f"round_mode: {mode} " + " ".join(
        f"{field}_h: {value[0]} {field}_w: {value[1]}"
        for field, value in (("kernel", kernel), ("stride", stride), ("pad", pad))
    )
    # no value near 0 and none above 0, so that neither padding nor a zero start can pass for one
    x = -1 - np.random.default_rng(h * 10 + w).permutation(2 * h * w).reshape(1, 2, h, w)
    kernels = backend.get(name)

    y, positions = forward(text(options, 'top: "m"'), kernels, x)
    expected, expected_positions = naive_max(x, *geometry, rounded)
    assert np.array_equal(y, expected)
    assert np.array_equal(positions, expected_positions)

    (y,) = forward(text(options), kernels, x, phase="TEST")  # without positions
    assert np.array_equal(y, expected)

    (y,) = forward(text("pool: AVE " + options), kernels, x)
    assert y.shape == expected.shape
    assert np.allclose(y, naive_ave(x, *geometry, rounded), rtol=1e-12, atol=0)


# --- values worth knowing by heart ---


def test_ave_divides_by_the_window_clipped_at_the_padded_edge(kernels):
    x = np.full((1, 1, 4, 4), 36.0)
    (y,) = forward(text("pool: AVE kernel_size: 3 stride: 2 pad: 1"), kernels, x)
    # windows begin at -1, 1, 3: corner windows hold 2x2 pixels of an area of 3x3; the last ones
    # begin at 3 and end at 5 (= 4 + pad), an area of 2, with one pixel inside
    sides, areas = np.array([2, 3, 1]), np.array([3, 3, 2])
    expected = 36 * np.outer(sides, sides) / np.outer(areas, areas)
    assert np.allclose(y[0, 0], expected, rtol=1e-14)


def test_ave_of_a_last_partial_window_divides_by_its_pixels(kernels):
    x = np.arange(5.0).reshape(1, 1, 1, 5)
    (y,) = forward(text("pool: AVE kernel_h: 1 kernel_w: 2 stride: 2"), kernels, x)
    assert y.ravel().tolist() == [0.5, 2.5, 4.0]


def test_first_of_equal_maxima_wins(kernels):
    layer, bottom, top = set_up(
        text("kernel_size: 2 stride: 2", 'top: "m"'), kernels, [[[[1, 7, 3], [7, 7, 3]]]]
    )
    layer.forward(bottom, top)
    assert top[1].data.tolist() == [[[[1, 2]]]]
    top[0].diff[...] = [[[[10, 20]]]]
    layer.backward(top, [True], bottom)
    assert bottom[0].diff.tolist() == [[[[0, 10, 20], [0, 0, 0]]]]


def test_overlapping_windows_add_their_gradients(kernels):
    x = np.zeros((1, 1, 3, 3))
    x[0, 0, 1, 1] = 5
    layer, bottom, top = set_up(text("kernel_size: 2 stride: 1"), kernels, x)
    layer.forward(bottom, top)
    top[0].diff[...] = [[[[1, 10], [100, 1000]]]]
    layer.backward(top, [True], bottom)
    assert bottom[0].diff[0, 0, 1, 1] == 1111
    assert bottom[0].diff.sum() == 1111


def test_global_pooling_takes_the_whole_input(kernels):
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    (y,) = forward(text("global_pooling: true"), kernels, x)
    assert y.tolist() == [[[[11]], [[23]]]]
    (y,) = forward(text("pool: AVE global_pooling: true"), kernels, x)
    assert y.tolist() == [[[[5.5]], [[17.5]]]]


def test_backward_leaves_the_bottom_alone_unless_asked(kernels):
    layer, bottom, top = set_up(text("kernel_size: 2"), kernels, np.ones((1, 1, 3, 3)))
    bottom[0].diff[...] = 7
    layer.forward(bottom, top)
    layer.backward(top, [False], bottom)
    assert (bottom[0].diff == 7).all()


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "either kernel_size or both kernel_h and kernel_w; found neither"),
        ("kernel_h: 2", "found kernel_h"),
        ("kernel_size: 2 kernel_h: 2", "found kernel_size and kernel_h"),
        ("kernel_size: 2 stride: 1 stride_h: 2 stride_w: 2", "either stride or both"),
        ("kernel_size: 2 pad_w: 1", "either pad or both"),
        ("kernel_size: 0", "at least 1"),
        ("kernel_size: 2 stride: 0", "at least 1"),
        ("kernel_size: 2 pad: 2", "smaller than the kernel"),
        ("kernel_h: 3 kernel_w: 2 pad: 2", "smaller than the kernel"),
        ("global_pooling: true kernel_size: 2", "remove the kernel size"),
        ("global_pooling: true pad: 1", "pad 0 and stride 1"),
        ("global_pooling: true stride: 2", "pad 0 and stride 1"),
    ],
)
def test_geometry_that_cannot_be_followed(options, words, kernels):
    with pytest.raises(ConfigError, match=words) as error:
        make_layer(text(options), kernels).setup([(1, 1, 4, 4)])
    assert "layer 'pool1' (Pooling): " in str(error.value)


def test_only_max_has_positions(kernels):
    with pytest.raises(ConfigError, match="second top"):
        make_layer(text("pool: AVE kernel_size: 2", 'top: "m"'), kernels).setup([(1, 1, 4, 4)])


@pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3, 4, 5)])
def test_bottom_without_four_axes(shape, kernels):
    with pytest.raises(ShapeError, match="four axes"):
        make_layer(text("kernel_size: 2"), kernels).setup([shape])


def test_window_that_does_not_fit(kernels):
    with pytest.raises(ShapeError, match="no 9x9 window fits an input of 2x4"):
        make_layer(text("kernel_size: 9 stride: 1"), kernels).setup([(1, 1, 2, 4)])


def test_testing_looks_for_no_positions_and_finds_them_for_a_gradient(kernels):
    x = np.random.default_rng(2).permutation(2 * 7 * 7).reshape(1, 2, 7, 7)
    gradients = {}
    for phase in ("TRAIN", "TEST"):
        options = text("kernel_size: 3 stride: 2")
        layer, bottom, top = set_up(options, kernels, x, phase=phase)
        assert bool(layer.workspace_bytes()) == (phase == "TRAIN")
        layer.forward(bottom, top)
        top[0].diff[...] = np.arange(1, 19).reshape(1, 2, 3, 3)
        layer.backward(top, [True], bottom)
        gradients[phase] = bottom[0].diff
    assert np.array_equal(gradients["TRAIN"], gradients["TEST"])
    assert gradients["TEST"].sum() == 171


def test_testing_gives_the_second_top_all_the_same(kernels):
    x = np.random.default_rng(3).permutation(16).reshape(1, 1, 4, 4)
    options = text("kernel_size: 3 stride: 1", 'top: "mask"')
    train = forward(options, kernels, x, phase="TRAIN")
    test = forward(options, kernels, x, phase="TEST")
    assert all(np.array_equal(a, b) for a, b in zip(train, test, strict=True))
    assert len(test) == 2 and test[1].max() > 0


def test_workspace_of_max_pooling_are_the_positions(kernels):
    layer = make_layer(text("kernel_size: 2 stride: 2"), kernels)
    layer.setup([(2, 3, 4, 4)])
    assert layer.workspace_bytes() == 4 * 2 * 3 * 2 * 2


# --- stochastic ---


STOCHASTIC = "pool: STOCHASTIC kernel_size: 2 stride: 2"


def test_stochastic_pooling_draws_in_proportion(every_kernels):
    """Of (1, 3; 0, 6) a tenth, three tenths, never, six tenths."""
    x = np.broadcast_to(np.array([[1.0, 3.0], [0.0, 6.0]]), (1, 1, 2, 2))
    layer_text = f'type: "Pooling" pooling_param {{ {STOCHASTIC} }}'
    many = np.tile(x, (1, 1, 60, 60))
    layer, bottom, top = set_up(layer_text, every_kernels, many)
    layer.forward(bottom, top)
    y = to_host(top[0].data)
    shares = [np.mean(y == value) for value in (1, 3, 0, 6)]
    np.testing.assert_allclose(shares, [0.1, 0.3, 0, 0.6], atol=0.05)
    backend.assign(top[0].diff, y)
    layer.backward(top, [True], bottom)
    d_x = to_host(bottom[0].diff)
    assert d_x.sum() == y.sum()
    np.testing.assert_array_equal(d_x[d_x > 0], many[d_x > 0])  # each to where it was drawn


def test_stochastic_pooling_averages_in_phase_test(every_kernels):
    x = [[[[1, 3, 0], [0, 6, 0], [2, 2, 5]]]]
    layer_text = f'type: "Pooling" pooling_param {{ {STOCHASTIC} }}'
    layer, bottom, top = set_up(layer_text, every_kernels, x, phase="TEST")
    layer.forward(bottom, top)
    np.testing.assert_allclose(to_host(top[0].data), [[[[46 / 10, 0], [2, 5]]]])


def test_stochastic_pooling_has_no_padding(kernels):
    with pytest.raises(ConfigError, match="no padding; remove pad"):
        set_up('type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 pad: 1 }', kernels,
               np.ones((1, 1, 4, 4)))  # fmt: skip


def test_stochastic_pooling_within_a_fused_step(monkeypatch):
    """A chain brings a few images at a time."""
    monkeypatch.setattr(fusion, "BLOCK_BYTES", 1)
    net = """
        layer { name: "x" type: "Input" top: "x"
          input_param { shape { dim: 5 dim: 2 dim: 6 dim: 6 } } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {
          num_output: 3 kernel_size: 3 weight_filler { type: "gaussian" } } }
        layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
        layer { name: "p" type: "Pooling" bottom: "c" top: "p"
          pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 } }"""
    x = np.random.default_rng(0).normal(size=(5, 2, 6, 6))
    one, other = (Net(parse_net(net), fuse=fuse, dtype="float64") for fuse in (True, False))
    assert len(one.steps) < len(other.steps)
    found, expected = (each.forward({"x": x})["p"] for each in (one, other))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert expected.max() > 0
