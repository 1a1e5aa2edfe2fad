"""Image files: decoding, changes of size, lists, and the layer that reads them."""

from __future__ import annotations

import io

import numpy as np
import pytest

from minissl import Net
from minissl.data.images import ImageList, decode, resize
from minissl.errors import ConfigError, DataError, ShapeError
from minissl.formats.prototxt import parse_net

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def picture(height=6, width=8, seed=0):
    """Random pixels, (H, W, 3) as R, G, B."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def test_channels_come_as_blue_green_red():
    pixels = picture()
    found = decode(png(pixels))
    assert found.shape == (3, 6, 8) and found.dtype == np.uint8 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, pixels[:, :, ::-1].transpose(2, 0, 1))


def test_grey_levels():
    pixels = picture()
    found = decode(png(pixels), color=False)
    assert found.shape == (1, 6, 8)
    np.testing.assert_allclose(found[0], pixels @ [0.299, 0.587, 0.114], atol=1)
    np.testing.assert_array_equal(decode(png(pixels[:, :, 0]))[2], pixels[:, :, 0])


def test_sixteen_bits_of_grey_become_eight():
    levels = np.arange(0, 65536, 4369, np.uint16).reshape(4, 4)
    found = decode(png(levels), color=None)
    assert found.shape == (1, 4, 4)
    np.testing.assert_array_equal(found[0], levels >> 8)
    np.testing.assert_array_equal(decode(png(levels), color=True)[1], levels >> 8)


@pytest.mark.parametrize("label", [2**31, -(2**31) - 1])
def test_a_label_of_more_than_32_bits_is_refused(label, tmp_path):
    (tmp_path / "list.txt").write_text(f"a.png 1\nb.png {label}\n")
    with pytest.raises(DataError, match=rf"list\.txt:2: label {label} does not fit"):
        ImageList(str(tmp_path / "list.txt"))


@pytest.mark.parametrize("content", [b"", b"no image", png(picture())[:60], png(picture())[:-30]])
def test_what_is_no_image_gets_one_sentence(content):
    with pytest.raises(DataError, match=r"x\.png is no image that can be read, or is damaged"):
        decode(content, where="x.png")


def test_a_huge_image_is_refused(monkeypatch):
    monkeypatch.setattr("minissl.data.images.MAX_PIXELS", 40)
    with pytest.raises(DataError, match="8 x 6 pixels"):
        decode(png(picture()))


def test_resize_by_hand():
    """Two columns become four: a quarter and three quarters of the way."""
    image = np.array([[[0, 100]]], np.uint8)
    np.testing.assert_array_equal(resize(image, 1, 4), [[[0, 25, 75, 100]]])
    np.testing.assert_array_equal(resize(image, 1, 1), [[[50]]])
    assert resize(image, 1, 2) is image


@pytest.mark.parametrize("size", [(6, 8), (3, 4), (12, 16), (5, 9), (17, 3), (1, 1)])
def test_resize_is_opencvs(size):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    image = decode(png(picture(9, 7)))
    expected = cv2.resize(image.transpose(1, 2, 0), size[::-1]).transpose(2, 0, 1)
    difference = resize(image, *size).astype(int) - expected
    assert np.abs(difference).max() <= 1  # OpenCV rounds its weights to 11 bits


# --- the layer ---


@pytest.fixture
def folder(tmp_path):
    """Five pictures and their list."""
    lines = []
    for i in range(5):
        (tmp_path / f"a picture {i}.png").write_bytes(png(picture(seed=i)))
        lines.append(f"a picture {i}.png {i % 3}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    return tmp_path


def layer_of(folder, options="", transform="", **more):
    text = f"""layer {{ name: "d" type: "ImageData" top: "x" top: "t"
        transform_param {{ {transform} }} image_data_param {{ source: "{folder}/list.txt"
        root_folder: "{folder}/" batch_size: 2 {options} }} }}"""
    return Net(parse_net(text), backend="numpy", dtype="float64", **more)


def test_batches_in_the_order_of_the_list(folder):
    net = layer_of(folder)
    for batch in ([0, 1], [2, 3], [4, 0]):
        net.forward()
        expected = [decode(png(picture(seed=i))) for i in batch]
        np.testing.assert_array_equal(net.blobs["x"].data, expected)
        np.testing.assert_array_equal(net.blobs["t"].data, [i % 3 for i in batch])
    assert net.layers[0].batches_per_epoch() == 3


def test_transformation_and_size(folder):
    options, transform = "new_height: 4 new_width: 5", "crop_size: 3 mean_value: 7 scale: 0.5"
    net = layer_of(folder, options, transform)
    net.forward()
    image = resize(decode(png(picture(seed=1))), 4, 5)[:, :3, 1:4]
    np.testing.assert_array_equal(net.blobs["x"].data[1], (image - 7.0) / 2)


def test_images_of_different_sizes_are_cropped(folder):
    (folder / "a picture 1.png").write_bytes(png(picture(9, 9)))
    net = layer_of(folder, transform="crop_size: 4")
    net.forward()
    assert net.blobs["x"].shape == (2, 3, 4, 4)
    with pytest.raises(DataError, match="set new_height and new_width, or crop_size"):
        layer_of(folder).forward()


def test_shuffled_images_go_on_where_they_stood(folder):
    net, again = (layer_of(folder, "shuffle: true is_color: false") for _ in range(2))
    seen = []
    for i in range(5):
        if i == 3:
            again.set_state(net.state())
        net.forward()
        seen.append(net.blobs["t"].data.copy())
    again.forward()
    np.testing.assert_array_equal(again.blobs["t"].data, seen[3])
    assert again.blobs["x"].shape == (2, 1, 6, 8)
    order = np.concatenate(seen)[:5]
    assert sorted(order) == [0, 0, 1, 1, 2]


def test_a_net_is_built_before_its_images_are_there(tmp_path):
    net = layer_of(tmp_path, "new_height: 8 new_width: 9", "crop_size: 7")
    assert net.blobs["x"].shape == (2, 3, 7, 7)
    with pytest.raises(DataError, match="There is no list of images"):
        net.forward()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "lists no images"),
        ("a.png 1\nb.png\n", r"list.txt:2: 'b.png' is no path and label"),
        ("a.png one\n", "no path and label"),
        ("nowhere.png 1\n", "There is no image"),
    ],
)
def test_lists_that_cannot_be_used(content, words, tmp_path):
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(DataError, match=words):
        ImageList(str(tmp_path / "list.txt"), f"{tmp_path}/").read(0)


@pytest.mark.parametrize(
    ("options", "transform", "error", "words"),
    [
        ("new_height: 3", "", ConfigError, "give both new_height and new_width"),
        ("mirror: true", "", ConfigError, "old form; move mirror into transform_param"),
        ("", "crop_size: 7", ShapeError, None),
        ("", "crop_size: 3 mean_value: 1 mean_value: 2", None, None),
        ("", 'mean_file: "m" mean_value: 2', ConfigError, "keep one of them"),
        ("new_height: 6 new_width: 8", "crop_size: 9", ShapeError, "crop_size 9 is larger"),
    ],
)
def test_refused(options, transform, error, words, folder):
    if words is None:
        net = layer_of(folder, options, transform)
        with pytest.raises(ShapeError):  # of the first image
            net.forward()
        return
    with pytest.raises(error, match=words):
        layer_of(folder, options, transform)
