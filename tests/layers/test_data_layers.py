from __future__ import annotations

import json

import numpy as np
import pytest
from google.protobuf import text_format

from minissl import backend
from minissl.blob import Blob
from minissl.data.catalogue import IDX_FILES
from minissl.data.datasets import load
from minissl.data.idx import write_idx
from minissl.errors import ConfigError, DataError, ShapeError
from minissl.formats import proto
from minissl.layers.base import LAYERS, Context
from minissl.layers.data_layers import Data, Input, MemoryData

SMALL = 'data_param { source: "mnist-small" batch_size: 64 }'


def build(kind, text, tops=("data", "label"), phase="TRAIN", dtype=np.float32, **data):
    """A layer that is set up, and its tops."""
    param = text_format.Parse(text, proto.LayerParameter())
    param.name, param.type = "input", kind.type_name
    param.top.extend(tops)
    layer = kind(param, Context(backend.get("numpy"), np.dtype(dtype), phase=phase, data=data))
    shapes = layer.setup([])
    return layer, [Blob(name, shape, dtype) for name, shape in zip(tops, shapes, strict=True)]


def forward(layer, tops):
    layer.forward([], tops)
    return [top.data.copy() for top in tops]


def test_they_are_registered_as_data_layers():
    assert LAYERS["Data"] is Data and LAYERS["MemoryData"] is MemoryData
    assert LAYERS["Input"] is Input
    assert all(kind.is_data and kind.n_bottoms == (0, 0) for kind in (Data, MemoryData, Input))


@pytest.mark.parametrize(("size", "batches"), [(64, 79), (1000, 5), (5000, 1), (6000, 1)])
def test_how_many_batches_hold_every_digit(size, batches):
    layer, _ = build(Data, SMALL.replace("64", str(size)))
    assert layer.batches_per_epoch() == batches
    shape = "input_param { shape { dim: 2 dim: 1 dim: 4 dim: 4 } shape { dim: 2 } }"
    assert build(Input, shape)[0].batches_per_epoch() is None


# --- Data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_batches_in_file_order(phase, dtype):
    text = "transform_param { scale: 0.1 } " + SMALL
    layer, tops = build(Data, text, phase=phase, dtype=dtype)
    assert [top.shape for top in tops] == [(64, 1, 28, 28), (64,)]
    dataset = load("mnist-small", phase.lower())
    scale = dtype(np.float32(0.1))
    for i in range(20):  # 1,280 images: the test part begins again
        images, labels = forward(layer, tops)
        numbers = np.arange(i * 64, (i + 1) * 64) % len(dataset)
        np.testing.assert_array_equal(images, dataset.images[numbers].astype(dtype) * scale)
        np.testing.assert_array_equal(labels, dataset.labels[numbers])
        assert images.dtype == labels.dtype == dtype


def test_one_top():
    layer, tops = build(Data, SMALL, tops=("data",))
    assert len(tops) == 1
    (images,) = forward(layer, tops)
    np.testing.assert_array_equal(images, load("mnist-small", "train").images[:64])


def test_the_command_line_replaces_source_and_batch_size():
    text = 'data_param { source: "examples/mnist/mnist_train_lmdb" batch_size: 64 backend: LMDB }'
    layer, tops = build(Data, text, source="mnist-small", batch_size=5)
    images, labels = forward(layer, tops)
    assert images.shape == (5, 1, 28, 28)
    np.testing.assert_array_equal(labels, load("mnist-small", "train").labels[:5])


@pytest.mark.parametrize(
    ("phase", "records"), [("TRAIN", slice(4000)), ("TEST", slice(4000, 5000))]
)
def test_validation_reads_the_training_part_in_both_phases(phase, records):
    layer, tops = build(Data, SMALL, phase=phase, source="mnist-small/validation")
    labels = load("mnist-small", "train").labels[records]
    found = [forward(layer, tops)[1] for _ in range(len(labels) // 64 + 1)]
    np.testing.assert_array_equal(np.concatenate(found)[: len(labels)], labels)
    assert found[-1][-1] == labels[-len(labels) % 64 - 1]  # and then from the beginning


def test_a_database_without_an_override():
    text = 'data_param { source: "examples/mnist/mnist_train_lmdb" batch_size: 64 backend: LMDB }'
    message = "'input'.*'examples/mnist/mnist_train_lmdb'.*add --data mnist to read"
    with pytest.raises(ConfigError, match=message):
        build(Data, text)
    with pytest.raises(ConfigError, match="add --data cifar10"):
        build(Data, 'data_param { source: "cifar10_train_lmdb" batch_size: 100 }')
    with pytest.raises(ConfigError, match="unknown data set 'imagenet'; use one of mnist"):
        build(Data, SMALL, source="imagenet")


def test_set_up_needs_no_data_and_forward_does(monkeypatch, tmp_path):
    monkeypatch.setenv("MINISSL_DATA", str(tmp_path))
    text = 'transform_param { crop_size: 28 } data_param { source: "cifar10" batch_size: 2 }'
    layer, tops = build(Data, text)
    assert tops[0].shape == (2, 3, 28, 28)
    with pytest.raises(DataError, match=r"data_batch_1.bin is missing; run 'minissl data fetch"):
        forward(layer, tops)


def test_truncated_data(monkeypatch, tmp_path):
    monkeypatch.setenv("MINISSL_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    for name, shape in zip(IDX_FILES["train"], ((3, 28, 28), (3,)), strict=True):
        write_idx(tmp_path / "mnist" / name, np.zeros(shape, np.uint8))
    path = tmp_path / "mnist" / IDX_FILES["train"][0]
    path.write_bytes(path.read_bytes()[:-1])
    layer, tops = build(Data, 'data_param { source: "mnist" batch_size: 2 }')
    with pytest.raises(DataError, match="cut short"):
        forward(layer, tops)


RANDOM = "transform_param { crop_size: 20 mirror: true mean_value: 33 scale: 0.5 } " + SMALL


def test_transformation():
    layer, tops = build(Data, RANDOM, phase="TEST")
    images, _ = forward(layer, tops)
    centre = (load("mnist-small", "test").images[:64, :, 4:24, 4:24].astype(float) - 33) * 0.5
    plain = (images == centre).all(axis=(1, 2, 3))
    mirrored = (images == centre[:, :, :, ::-1]).all(axis=(1, 2, 3))
    assert (plain ^ mirrored).all()
    assert 15 < mirrored.sum() < 49


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_restored_state_goes_on_bitwise(shuffle):
    options = {"shuffle": shuffle, "seed": 7}
    layer, tops = build(Data, RANDOM, **options)
    for _ in range(3):
        forward(layer, tops)
    state = json.loads(json.dumps(layer.state()))
    expected = [forward(layer, tops) for _ in range(80)]  # beyond the end of the epoch

    # another run starts with another seed; the snapshot's counts
    resumed, tops = build(Data, RANDOM, shuffle=shuffle, seed=8)
    forward(resumed, tops)
    resumed.set_state(state)
    for images, labels in expected:
        again = forward(resumed, tops)
        assert again[0].tobytes() == images.tobytes()
        assert again[1].tobytes() == labels.tobytes()


def test_shuffle_changes_the_order_and_the_seed_decides():
    labels = []
    for options in ({}, {"shuffle": True}, {"shuffle": True, "seed": 1}):
        layer, tops = build(Data, SMALL, **options)
        labels.append(forward(layer, tops)[1].tolist())
    assert labels[0] != labels[1] != labels[2] != labels[0]


@pytest.mark.parametrize("state", [{}, {"position": 1}, {"position": -1, "seed": 0}])
def test_states_that_do_not_fit(state):
    layer, _ = build(Data, SMALL)
    with pytest.raises(DataError, match="resume from another snapshot"):
        layer.set_state(state)


def test_rand_skip():
    positions = set()
    for seed in range(20):
        layer, _ = build(
            Data, 'data_param { source: "mnist-small" batch_size: 2 rand_skip: 3 }', seed=seed
        )
        positions.add(layer.state()["position"])
    assert positions == {0, 1, 2}


def test_mean_file(tmp_path):
    mean = np.arange(784, dtype=np.float32).reshape(1, 28, 28) / 3
    blob = proto.BlobProto(num=1, channels=1, height=28, width=28)
    blob.data.extend(mean.ravel().tolist())
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(blob.SerializeToString())
    text = f'transform_param {{ mean_file: "{path}" scale: 0.5 crop_size: 20 }} '
    layer, tops = build(Data, text + SMALL, phase="TEST")
    images, _ = forward(layer, tops)
    pixels = load("mnist-small", "test").images[:64].astype(np.float32)
    expected = ((pixels - mean) * np.float32(0.5))[:, :, 4:24, 4:24]
    np.testing.assert_array_equal(images, expected)

    with pytest.raises(ConfigError, match="both mean_file and mean_value"):
        build(Data, text.replace("scale", "mean_value: 3 scale") + SMALL)
    with pytest.raises(DataError, match="no mean image"):
        build(Data, text.replace("mean.b", "other.b") + SMALL)


def test_the_mean_of_a_data_set(monkeypatch, tmp_path):
    text = 'transform_param { mean_file: "mnist-small" } ' + SMALL
    layer, tops = build(Data, text, phase="TEST")
    images, _ = forward(layer, tops)
    mean = load("mnist-small", "train").images.mean(axis=0).astype(np.float32)
    expected = load("mnist-small", "test").images[:64].astype(np.float32) - mean
    np.testing.assert_array_equal(images, expected)
    # nothing is read before it is needed, and a mean of another shape is refused at once
    monkeypatch.setenv("MINISSL_DATA", str(tmp_path))
    with pytest.raises(ShapeError, match="the mean is of shape"):
        build(Data, text.replace('mean_file: "mnist-small"', 'mean_file: "cifar10"'))
    cifar = text.replace("mnist-small", "cifar10")
    assert build(Data, cifar)[1][0].shape == (64, 3, 32, 32)


def test_padded_crops_only_while_training():
    text = "transform_param { pad: 4 crop_size: 28 } " + SMALL
    found = {}
    for phase, split in (("TRAIN", "train"), ("TEST", "test")):
        layer, tops = build(Data, text, phase=phase)
        pixels = load("mnist-small", split).images[:64]
        found[phase] = (forward(layer, tops)[0] == pixels).all(axis=(1, 2, 3)).mean()
    assert found["TEST"] == 1.0 and found["TRAIN"] < 0.2


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('data_param { source: "mnist-small" }', ConfigError, "batch_size is 0"),
        ("transform_param { crop_size: 29 } " + SMALL, ShapeError, "'input'.*crop_size 29"),
        (
            "transform_param { mean_value: 1 mean_value: 2 } " + SMALL,
            ShapeError,
            "'input'.*the mean is of shape",
        ),
        (
            'data_param { source: "mnist-small" batch_size: 2 crop_size: 3 }',
            ConfigError,
            "data_param.crop_size is the old form",
        ),
    ],
)
def test_prototxt_mistakes(text, error, message):
    with pytest.raises(error, match=message):
        build(Data, text)


# --- MemoryData ---------------------------------------------------------------------------------

MEMORY = "memory_data_param { batch_size: 2 channels: 1 height: 2 width: 3 }"
IMAGES = np.arange(36.0).reshape(6, 1, 2, 3)
LABELS = np.arange(6)


def test_memory_data_goes_round():
    layer, tops = build(MemoryData, MEMORY)
    layer.set_arrays(IMAGES, LABELS)
    for first in (0, 2, 4, 0, 2):
        images, labels = forward(layer, tops)
        np.testing.assert_array_equal(images, IMAGES[first : first + 2])
        np.testing.assert_array_equal(labels, LABELS[first : first + 2])
    state = layer.state()
    resumed, tops = build(MemoryData, MEMORY)
    with pytest.raises(DataError, match="call set_arrays"):
        resumed.set_state(state)
    resumed.set_arrays(IMAGES, LABELS)
    resumed.set_state(state)
    assert forward(resumed, tops)[1].tolist() == [4, 5]
    resumed.set_arrays(IMAGES)
    assert forward(resumed, tops)[1].tolist() == [0, 0]


@pytest.mark.parametrize("position", [None, 1, 6, -2, "0"])
def test_memory_positions_that_do_not_fit(position):
    layer, _ = build(MemoryData, MEMORY)
    layer.set_arrays(IMAGES, LABELS)
    with pytest.raises(DataError, match="does not fit 6 records"):
        layer.set_state({"position": position})


def test_memory_data_batch_size_override():
    layer, tops = build(MemoryData, MEMORY, batch_size=3)
    layer.set_arrays(IMAGES, LABELS)
    assert forward(layer, tops)[1].tolist() == [0, 1, 2]


def test_memory_data_without_arrays():
    layer, tops = build(MemoryData, MEMORY)
    with pytest.raises(DataError, match=r"'input'.*has no data; call its set_arrays"):
        forward(layer, tops)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (IMAGES[:5], LABELS[:5]),
        (IMAGES[:0], LABELS[:0]),
        (IMAGES.reshape(6, 1, 3, 2), LABELS),
        (IMAGES, LABELS[:2]),
        (np.array(1.0), LABELS),
    ],
)
def test_memory_arrays_of_other_shapes(images, labels):
    layer, _ = build(MemoryData, MEMORY)
    with pytest.raises(ShapeError, match=r"layer 'input'"):
        layer.set_arrays(images, labels)


def test_memory_data_mistakes():
    with pytest.raises(ConfigError, match="transform_param does not act on arrays"):
        build(MemoryData, MEMORY + " transform_param { scale: 2 }")
    with pytest.raises(ConfigError, match="each must be 1 or more"):
        build(MemoryData, "memory_data_param { batch_size: 2 channels: 1 height: 2 }")


# --- Input --------------------------------------------------------------------------------------

SHAPE = "input_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } }"


def test_input_leaves_the_values_to_the_caller():
    layer, tops = build(Input, SHAPE, tops=("data",))
    tops[0].data[...] = 7
    (values,) = forward(layer, tops)
    assert values.shape == (2, 3, 4, 5) and (values == 7).all()


def test_input_shapes():
    _, tops = build(Input, SHAPE)
    assert [top.shape for top in tops] == [(2, 3, 4, 5)] * 2
    two = "input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } }"
    _, tops = build(Input, two, batch_size=9)
    assert [top.shape for top in tops] == [(9, 3), (9,)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "2 tops and 0 shapes"),
        (SHAPE + SHAPE + SHAPE, "2 tops and 3 shapes"),
        ("input_param { shape { dim: 2 dim: 0 } }", "every dimension must be 1 or more"),
        ("input_param { shape { dim: -1 } }", "every dimension must be 1 or more"),
        ("input_param { shape { } }", "every dimension must be 1 or more"),
    ],
)
def test_input_mistakes(text, message):
    with pytest.raises(ConfigError, match=message):
        build(Input, text.replace("} }input_param {", "}"))


def test_backward_is_nothing():
    layer, tops = build(Input, SHAPE)
    layer.backward(tops, [], [])
