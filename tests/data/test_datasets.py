from __future__ import annotations

import gzip
import os
import shutil
import sys

import numpy as np
import pytest

from minissl.data import catalogue, datasets
from minissl.data.catalogue import CATALOGUE, CIFAR_FOLDER, IDX_FILES
from minissl.data.datasets import Dataset, load
from minissl.data.idx import read_idx, write_idx
from minissl.errors import DataError, DependencyError


def make(images=None, labels=None, classes=("a", "b")):
    images = np.zeros((2, 1, 3, 3), np.uint8) if images is None else images
    labels = np.array([0, 1], np.uint8) if labels is None else labels
    return Dataset("toy", "train", images, labels, classes)


def test_length_and_shape():
    dataset = make(np.zeros((2, 3, 4, 5), np.uint8))
    assert len(dataset) == 2
    assert dataset.image_shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 2], np.uint8), "record 1 has label 2, and labels go from 0 to 1"),
        (np.array([-1, 0]), "record 0 has label -1"),
        (np.array([0], np.uint8), "2 images but labels of shape \\(1,\\)"),
        (np.zeros((2, 1), np.uint8), "2 images but labels of shape \\(2, 1\\)"),
    ],
)
def test_wrong_labels(labels, message):
    with pytest.raises(DataError, match=message):
        make(labels=labels)


@pytest.mark.parametrize(
    "images", [np.zeros((2, 9), np.uint8), np.zeros((2, 1, 3, 3)), np.zeros((0, 1, 3, 3), np.uint8)]
)
def test_wrong_images(images):
    with pytest.raises(DataError, match="images must be uint8"):
        make(images, np.zeros(len(images), np.uint8))


@pytest.mark.parametrize(("split", "count"), [("train", 12), ("test", 6)])
def test_idx_pair(data_folder, split, count):
    dataset = load("mnist", split)
    image_name, label_name = IDX_FILES[split]
    assert dataset.images.shape == (count, 1, 28, 28)
    np.testing.assert_array_equal(
        dataset.images[:, 0], read_idx(data_folder / "mnist" / image_name)
    )
    np.testing.assert_array_equal(dataset.labels, read_idx(data_folder / "mnist" / label_name))
    assert dataset.classes[7] == "7"
    assert not dataset.images.flags.writeable


def test_what_somebody_has_is_not_read_again(data_folder):
    mine = load("cifar10", "train", data_folder)
    assert load("cifar10", "train", data_folder) is mine
    assert load("cifar10", "test", data_folder) is not mine
    (data_folder / "cifar-10-batches-bin" / "data_batch_1.bin").write_bytes(b"")
    with pytest.raises(DataError):  # the files are others now
        load("cifar10", "train", data_folder)
    assert len(mine) > 0


def test_compressed_files_will_do(data_folder):
    before = load("mnist", "test")
    for name in IDX_FILES["test"]:
        path = data_folder / "mnist" / name
        path.with_name(f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    after = load("mnist", "test")
    np.testing.assert_array_equal(after.images, before.images)
    np.testing.assert_array_equal(after.labels, before.labels)


def test_fashion_mnist_has_the_same_format_and_other_classes(data_folder):
    shutil.copytree(data_folder / "mnist", data_folder / "fashion-mnist")
    assert load("fashion-mnist", "test").classes[9] == "ankle boot"


def test_cifar10(data_folder):
    dataset = load("cifar10", "train")
    assert dataset.images.shape == (20, 3, 32, 32)
    third = np.fromfile(data_folder / CIFAR_FOLDER / "data_batch_3.bin", np.uint8).reshape(4, 3073)
    for i in range(4):
        assert dataset.labels[8 + i] == third[i, 0]
        for c in range(3):
            plane = third[i, 1 + c * 1024 : 1 + (c + 1) * 1024].reshape(32, 32)
            np.testing.assert_array_equal(dataset.images[8 + i, c], plane)
    assert load("cifar10", "test").images.shape == (4, 3, 32, 32)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b[:-3073]])
def test_damaged_cifar10(data_folder, change):
    path = data_folder / CIFAR_FOLDER / "data_batch_2.bin"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=r"data_batch_2.bin: has .* bytes where 12292 belong"):
        load("cifar10", "train")


def test_label_out_of_range_in_a_file(data_folder):
    path = data_folder / CIFAR_FOLDER / "test_batch.bin"
    content = bytearray(path.read_bytes())
    content[3073] = 10
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"'cifar10' \(test\): record 1 has label 10"):
        load("cifar10", "test")


@pytest.mark.parametrize(
    ("name", "missing"),
    [("mnist", "mnist/t10k-labels-idx1-ubyte"), ("cifar10", f"{CIFAR_FOLDER}/test_batch.bin")],
)
def test_missing_file(data_folder, name, missing):
    path = data_folder / missing
    path.unlink()
    with pytest.raises(DataError) as caught:
        load(name, "test")
    sentence = str(caught.value)
    assert str(path) in sentence
    assert f"minissl data fetch {name}" in sentence
    assert "MINISSL_DATA" in sentence


def test_truncated_file(data_folder):
    path = data_folder / "mnist" / IDX_FILES["train"][0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="cut short"):
        load("mnist", "train")


def test_images_and_labels_of_different_sets(data_folder):
    image_name, label_name = IDX_FILES["train"]
    write_idx(data_folder / "mnist" / label_name, np.zeros(11, np.uint8))
    with pytest.raises(DataError, match="12 images but labels of shape"):
        load("mnist", "train")
    write_idx(data_folder / "mnist" / label_name, np.zeros(12, np.uint8))
    write_idx(data_folder / "mnist" / image_name, np.zeros((12, 27, 28), np.uint8))
    with pytest.raises(DataError, match=r"\(1, 27, 28\) where \(1, 28, 28\) belong"):
        load("mnist", "train")


def test_unknown_names():
    with pytest.raises(DataError, match="unknown data set 'imagenet'; use one of mnist"):
        load("imagenet", "train")
    with pytest.raises(DataError, match="use train or test"):
        load("mnist-small", "validation")


@pytest.mark.parametrize(
    ("name", "records", "held_out"),
    [("mnist", 12, 2), ("cifar10", 20, 2), ("mnist-small", 5000, 1000)],
)
def test_validation_divides_the_training_part(data_folder, name, records, held_out):
    whole = load(name, "train")
    first, last = (load(f"{name}/validation", split) for split in ("train", "test"))
    assert (len(whole), len(first), len(last)) == (records, records - held_out, held_out)
    np.testing.assert_array_equal(np.concatenate([first.images, last.images]), whole.images)
    np.testing.assert_array_equal(np.concatenate([first.labels, last.labels]), whole.labels)
    assert first.name == f"{name}/validation" and (first.split, last.split) == ("train", "test")


def test_validation_parts_of_the_official_files():
    parts = {name: (entry.held_out, len(entry.archives)) for name, entry in CATALOGUE.items()}
    assert parts == {
        "mnist": (6, 4),  # 10,000 of 60,000
        "fashion-mnist": (6, 4),
        "cifar10": (10, 1),  # 5,000 of 50,000
        "mnist-small": (5, 0),  # 1,000 of 5,000
    }


@pytest.mark.parametrize(
    "name", ["imagenet/validation", "mnist-small/validation/validation", "mnist/test"]
)
def test_unknown_sources(name):
    with pytest.raises(DataError, match="unknown data set"):
        load(name, "train")


def test_folder_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MINISSL_DATA", str(tmp_path))
    assert catalogue.data_folder() == tmp_path
    monkeypatch.delenv("MINISSL_DATA")
    pooch = pytest.importorskip("pooch")
    assert catalogue.data_folder() == pooch.os_cache("minissl")


def test_no_platformdirs(monkeypatch):
    monkeypatch.delenv("MINISSL_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(DependencyError, match="pip install 'pooch'"):
        catalogue.data_folder()


@pytest.mark.parametrize(("split", "count", "step"), [("train", 5000, 12), ("test", 1000, 10)])
def test_embedded_digits(monkeypatch, split, count, step):
    monkeypatch.setenv("MINISSL_DATA", os.devnull)  # nothing outside the package is needed
    dataset = load("mnist-small", split)
    assert dataset.images.shape == (count, 1, 28, 28)
    # every class is there in about its share, and the pictures are bright in the middle only
    share = np.bincount(dataset.labels, minlength=10) / count
    assert len(share) == 10 and share.min() > 0.08 and share.max() < 0.13
    assert dataset.images[:, :, :2].mean() < 1 < 50 < dataset.images[:, :, 8:20, 8:20].mean()
    assert dataset.images.max() == 255


@pytest.mark.parametrize(("split", "step"), [("train", 12), ("test", 10)])
def test_embedded_digits_are_the_picked_records(split, step):
    try:
        full = load("mnist", split)
    except DataError:
        pytest.skip("the full MNIST is not on this machine (minissl data fetch mnist)")
    small = load("mnist-small", split)
    np.testing.assert_array_equal(small.images, full.images[::step])
    np.testing.assert_array_equal(small.labels, full.labels[::step])


def test_embedded_licence_is_beside_the_digits():
    text = (datasets.SMALL_FOLDER / "LICENSE.txt").read_text()
    for word in ("LeCun", "Cortes", "Burges", "CC BY-SA 3.0", "0, 12, 24", "0, 10, 20"):
        assert word in text
    size = sum(path.stat().st_size for path in datasets.SMALL_FOLDER.iterdir())
    assert size < 1_200_000


def test_catalogue_is_consistent():
    for entry in CATALOGUE.values():
        assert len(entry.classes) == 10
        for archive in entry.archives:
            assert len(archive.sha256) == 64
            assert archive.name.endswith(".tar.gz") or len(archive.files) == 1
            for file in archive.files:
                assert len(file.sha256) == 64
        assert all(mirror.endswith("/") for mirror in entry.mirrors)
