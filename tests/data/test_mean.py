from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minissl.data.datasets import load
from minissl.data.mean import mean_of, read_mean
from minissl.errors import DataError
from minissl.formats import proto

MEAN = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7


def legacy(values=MEAN):
    """What compute_image_mean writes: the four old numbers."""
    blob = proto.BlobProto(num=1, channels=2, height=3, width=4)
    blob.data.extend(values.ravel().tolist())
    return blob


def test_both_ways_of_writing_the_shape(tmp_path):
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(legacy().SerializeToString())
    np.testing.assert_array_equal(read_mean(path), MEAN)
    blob = proto.BlobProto()
    blob.shape.dim.extend(MEAN.shape)
    blob.double_data.extend((MEAN.astype(float) / 3).ravel().tolist())
    path.write_bytes(blob.SerializeToString())
    np.testing.assert_array_equal(read_mean(path), MEAN.astype(float) / 3)


def test_what_is_no_mean_image(tmp_path):
    path = tmp_path / "mean.binaryproto"
    with pytest.raises(DataError, match="no mean image"):
        read_mean(path)
    path.write_bytes(legacy().SerializeToString()[:-4])
    with pytest.raises(DataError, match="not a mean image"):
        read_mean(path)
    two = legacy()
    two.num, two.channels = 2, 1
    path.write_bytes(two.SerializeToString())
    with pytest.raises(DataError, match=r"shape \(2, 1, 3, 4\)"):
        read_mean(path)
    path.write_bytes(legacy(np.where(MEAN > 1, np.nan, MEAN)).SerializeToString())
    with pytest.raises(DataError, match="NaN or infinite"):
        read_mean(path)


def test_the_mean_of_a_data_set_is_that_of_its_training_images(data_folder, monkeypatch, tmp_path):
    mean = mean_of("cifar10")
    assert mean.shape == (3, 32, 32) and mean.dtype == np.float32 and not mean.flags.writeable
    images = load("cifar10", "train").images
    expected = sum(int(image[1, 2, 3]) for image in images) / len(images)
    assert mean[1, 2, 3] == np.float32(expected)
    assert mean_of("cifar10") is mean
    monkeypatch.setenv("MINISSL_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match="minissl data fetch cifar10"):
        mean_of("cifar10")


@given(content=st.binary(max_size=60))
def test_any_bytes_give_an_image_or_a_data_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.binaryproto"
    path.write_bytes(content)
    try:
        assert read_mean(path).ndim == 3
    except DataError as error:
        assert str(path) in str(error)
