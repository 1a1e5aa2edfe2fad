from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minissl.data.transform import Transform
from minissl.errors import ConfigError, ShapeError


def naive(images, transform, tops, lefts, mirrored, dtype):
    """Caffe's loop, one pixel at a time."""
    n, channels, height, width = images.shape
    crop = transform.crop_size
    h, w = (crop, crop) if crop else (height, width)
    out = np.empty((n, channels, h, w), dtype)
    for image in range(n):
        for c in range(channels):
            for i in range(h):
                for j in range(w):
                    row, column = tops[image] + i, lefts[image] + j
                    target = w - 1 - j if mirrored[image] else j
                    if not (0 <= row < height and 0 <= column < width):
                        out[image, c, i, target] = 0
                        continue
                    value = dtype(images[image, c, row, column])
                    mean = transform.mean
                    if mean is not None and mean.ndim == 3:
                        value -= dtype(mean[c, row, column])
                    elif mean is not None:
                        value -= dtype(mean[c if len(mean) > 1 else 0])
                    out[image, c, i, target] = value * dtype(transform.scale)
    return out


@st.composite
def cases(draw):
    n, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    images = rng.integers(256, size=(n, channels, height, width), dtype=np.uint8)
    kind = draw(st.sampled_from(["none", "one", "channel", "image"]))
    shape = {"one": (1,), "channel": (channels,), "image": images.shape[1:]}.get(kind)
    mean = None if shape is None else rng.uniform(50, 200, shape).astype(np.float32)
    crop_size = draw(st.integers(0, min(height, width)))
    transform = Transform(
        scale=float(np.float32(draw(st.sampled_from([1.0, 0.00390625, 0.1, -2.5])))),
        mean=mean,
        crop_size=crop_size,
        mirror=draw(st.booleans()),
        pad=draw(st.integers(0, 3 if crop_size else 0)),
    )
    return images, transform


@given(case=cases(), dtype=st.sampled_from([np.float32, np.float64]), train=st.booleans())
def test_equals_the_naive_loop_bit_by_bit(case, dtype, train):
    images, transform = case
    n, _, height, width = images.shape
    h, w = transform.output_shape(images.shape[1:])[1:]
    # the documented draws: mirror first, then the top and left of each crop
    rng = np.random.default_rng(5)
    mirrored = rng.integers(2, size=n) if transform.mirror else np.zeros(n, int)
    tops, lefts = np.full(n, (height - h) // 2), np.full(n, (width - w) // 2)
    if train and transform.crop_size:
        pad = transform.pad
        tops = rng.integers(height + 2 * pad - h + 1, size=n) - pad
        lefts = rng.integers(width + 2 * pad - w + 1, size=n) - pad
    expected = naive(images, transform, tops, lefts, mirrored, dtype)

    before = images.copy()
    out = np.full(expected.shape, np.nan, dtype)
    result = transform.apply(images, train, np.random.default_rng(5), out)
    assert result is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(images, before)


def test_float64_is_the_exact_product_with_the_float32_scale():
    scale = float(np.float32(0.1))  # what a prototxt's 0.1 is
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    out = Transform(scale).apply(images, True, np.random.default_rng(0), np.empty(images.shape))
    expected = [pixel * scale for pixel in range(256)]
    assert out.ravel().tolist() == expected
    assert expected[3] != 3 * 0.1 and expected[3] != float(np.float32(3 * 0.1))


def test_read_only_views_are_fine():
    images = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)[:, ::2]
    images.flags.writeable = False
    out = np.empty(images.shape, np.float32)
    Transform(2.0).apply(images, False, np.random.default_rng(0), out)
    np.testing.assert_array_equal(out, images * 2.0)


def test_centre_crop_rounds_down():
    images = np.arange(25, dtype=np.uint8).reshape(1, 1, 5, 5)
    out = np.empty((1, 1, 2, 2), np.float32)
    Transform(crop_size=2).apply(images, False, np.random.default_rng(0), out)
    assert out[0, 0].tolist() == [[6, 7], [11, 12]]


def test_random_crop_reaches_every_window_and_mirror_about_half():
    n = 4000
    images = np.broadcast_to(np.arange(9, dtype=np.uint8).reshape(3, 3), (n, 1, 3, 3))
    out = np.empty((n, 1, 2, 2), np.float32)
    Transform(crop_size=2, mirror=True).apply(images, True, np.random.default_rng(1), out)
    corners, counts = np.unique(out[:, 0].min(axis=(1, 2)), return_counts=True)
    assert corners.tolist() == [0, 1, 3, 4]
    assert counts.min() > n / 4 - 150
    mirrored = (out[:, 0, 0, 0] > out[:, 0, 0, 1]).sum()
    assert abs(mirrored - n / 2) < 150


def test_a_padded_crop_of_the_whole_size_shifts_the_image():
    n = 3000
    images = np.broadcast_to(np.arange(1, 10, dtype=np.uint8).reshape(3, 3), (n, 1, 3, 3))
    out = np.full((n, 1, 3, 3), np.nan, np.float32)
    shift = Transform(crop_size=3, pad=1, mean=np.ones((1, 3, 3)))
    shift.apply(images, True, np.random.default_rng(3), out)
    seen, counts = np.unique(out[:, 0].reshape(n, 9), axis=0, return_counts=True)
    # zeros come in, the mean having been subtracted before
    assert [0, 0, 0, 0, 0, 1, 0, 3, 4] in seen.tolist()  # down and to the right
    assert [4, 5, 0, 7, 8, 0, 0, 0, 0] in seen.tolist()  # up and to the left
    assert len(seen) == 9 and counts.min() > n / 9 - 80
    shift.apply(images, False, np.random.default_rng(3), out)
    np.testing.assert_array_equal(out, images - 1.0)  # images that test stay where they are


def test_mirror_acts_in_the_test_phase_too():
    images = np.broadcast_to(np.arange(3, dtype=np.uint8), (200, 1, 1, 3))
    out = np.empty((200, 1, 1, 3), np.float32)
    Transform(mirror=True).apply(images, False, np.random.default_rng(2), out)
    mirrored = (out[:, 0, 0, 0] == 2).sum()
    assert 60 < mirrored < 140


@pytest.mark.parametrize("shape", [(2,), (3, 4, 4), (2, 4, 5)])
def test_mean_of_another_shape(shape):
    with pytest.raises(ShapeError, match="the mean is of shape"):
        Transform(mean=np.zeros(shape)).output_shape((3, 4, 5))


def test_crop_larger_than_the_image():
    with pytest.raises(ShapeError, match="crop_size 5 is larger than the images \\(4 x 6\\)"):
        Transform(crop_size=5).output_shape((1, 4, 6))
    with pytest.raises(ConfigError, match="crop_size is -1"):
        Transform(crop_size=-1)
    with pytest.raises(ConfigError, match="pad is 4 without a crop_size"):
        Transform(pad=4)
