"""LMDB of Datum: what is written, what a Data layer reads, what is refused."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings

from minissl import Net
from minissl.data.databases import (
    DatumDataset,
    mean_of_records,
    write_image_list,
    write_lmdb,
)
from minissl.data.datasets import Dataset, load
from minissl.data.images import ImageList
from minissl.data.mean import read_mean
from minissl.errors import ConfigError, DataError, MinisslError
from minissl.formats import proto
from minissl.formats.blobs import write_binaryproto
from minissl.formats.datum import datum_of, parse_datum
from minissl.formats.lmdb_file import DATA_FILE, open_database, write_database
from minissl.formats.prototxt import parse_net
from tests.formats.conftest import damaged, result_or_error

lmdb = pytest.importorskip("lmdb", reason="lmdb is not installed")


def images(count=7, channels=3, height=4, width=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, channels, height, width), dtype=np.uint8)


def dataset(name="any", **shape):
    pixels = images(**shape)
    labels = np.arange(len(pixels), dtype=np.uint8) % 10
    return Dataset(name, "train", pixels, labels, tuple("0123456789"))


def raw(path):
    """Read a database by nothing but the library."""
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as t:
        return list(t.cursor())


def net(path, batch_size=3, phase="TEST", transform="", backend="LMDB", **options):
    return Net(
        parse_net(
            'layer { name: "d" type: "Data" top: "x" top: "label" '
            f'data_param {{ source: "{path}" batch_size: {batch_size} backend: {backend} }} '
            f"transform_param {{ {transform} }} }}"
        ),
        phase,
        backend="numpy",
        **options,
    )


# --- writing ---


@pytest.mark.parametrize(("name", "digits"), [("mnist", 8), ("cifar10", 5)])
def test_records_are_those_of_caffes_tools(tmp_path, name, digits):
    source = dataset(name)
    assert write_lmdb(tmp_path / "db", source) == 7
    records = raw(tmp_path / "db")
    assert [key for key, _ in records] == [b"%0*d" % (digits, i) for i in range(7)]
    for i, (_, value) in enumerate(records):
        datum = proto.Datum.FromString(value)
        assert (datum.channels, datum.height, datum.width, datum.label) == (3, 4, 5, i)
        assert datum.data == source.images[i].tobytes() and not datum.HasField("encoded")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["db"]
    with pytest.raises(DataError, match="is there already"):
        write_lmdb(tmp_path / "db", source)


def test_padding(tmp_path):
    source = dataset("cifar10")
    write_lmdb(tmp_path / "db", source, pad=4)
    padded, label = DatumDataset(tmp_path / "db").record(6)
    assert padded.shape == (3, 12, 13) and label == 6
    np.testing.assert_array_equal(padded[:, 4:8, 4:9], source.images[6])
    assert padded.sum() == source.images[6].sum()


@pytest.mark.parametrize("channels", [1, 3])
def test_encoded_images(tmp_path, channels):
    source = dataset(channels=channels)
    write_lmdb(tmp_path / "db", source, encode="png")
    datum = proto.Datum.FromString(raw(tmp_path / "db")[2][1])
    assert datum.encoded and datum.data.startswith(b"\x89PNG")
    found, labels = DatumDataset(tmp_path / "db").batch(np.array([2, 0]))
    np.testing.assert_array_equal(found, source.images[[2, 0]])
    assert labels.tolist() == [2, 0]
    assert DatumDataset(tmp_path / "db", color=True).image_shape == (3, 4, 5)
    assert DatumDataset(tmp_path / "db", color=False).image_shape == (1, 4, 5)


def test_colours_are_blue_green_red(tmp_path):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (2, 2), (250, 20, 3)).save(file, "png")
    write_database(tmp_path / "db", [(b"0", datum_of(file.getvalue(), 1))])
    assert DatumDataset(tmp_path / "db").record(0)[0][:, 0, 0].tolist() == [3, 20, 250]


def test_mean_as_compute_image_mean_writes_it(tmp_path):
    source = dataset()
    write_lmdb(tmp_path / "db", source)
    expected = source.images.astype(np.float64).mean(axis=0)
    for one in (source, DatumDataset(tmp_path / "db")):
        np.testing.assert_array_equal(mean_of_records(one), expected.astype(np.float32))
    path = tmp_path / "mean.binaryproto"
    write_binaryproto(path, mean_of_records(source))
    blob = proto.BlobProto.FromString(path.read_bytes())
    assert (blob.num, blob.channels, blob.height, blob.width) == (1, 3, 4, 5)
    assert not blob.HasField("shape") and blob.SerializeToString() == path.read_bytes()
    np.testing.assert_array_equal(read_mean(path), expected.astype(np.float32))


def test_listed_images_as_convert_imageset_writes_them(tmp_path):
    from PIL import Image

    pixels = images(3)
    for i, image in enumerate(pixels):
        Image.fromarray(image[::-1].transpose(1, 2, 0)).save(tmp_path / f"{i} a.png")
    (tmp_path / "list.txt").write_text("0 a.png 5\n2 a.png 0\n1 a.png 12\n")
    listed = ImageList(str(tmp_path / "list.txt"), f"{tmp_path}/")
    assert write_image_list(tmp_path / "db", listed) == 3
    assert [key for key, _ in raw(tmp_path / "db")] == [
        b"00000000_0 a.png", b"00000001_2 a.png", b"00000002_1 a.png"]  # fmt: skip
    found, labels = DatumDataset(tmp_path / "db").batch(slice(0, 3))
    np.testing.assert_array_equal(found, pixels[[0, 2, 1]])
    assert labels.tolist() == [5, 0, 12]
    write_image_list(tmp_path / "as_is", listed, "png")
    datum = proto.Datum.FromString(raw(tmp_path / "as_is")[1][1])
    assert datum.encoded and datum.data == (tmp_path / "2 a.png").read_bytes()
    sized = ImageList(str(tmp_path / "list.txt"), f"{tmp_path}/", (8, 6), color=False)
    write_image_list(tmp_path / "sized", sized, "png")
    assert DatumDataset(tmp_path / "sized").image_shape == (1, 8, 6)


# --- reading ---


def test_a_data_layer_reads_a_database(tmp_path):
    source = dataset()
    write_lmdb(tmp_path / "db", source)
    network = net(tmp_path / "db", transform="scale: 0.5 mean_value: 7")
    seen, labels = [], []
    for _ in range(3):  # nine records: the last two are the first again
        network.forward()
        seen.append(network.blobs["x"].data.copy())
        labels += network.blobs["label"].data.tolist()
    expected = (source.images[[0, 1, 2, 3, 4, 5, 6, 0, 1]].astype(np.float32) - 7) * 0.5
    np.testing.assert_array_equal(np.concatenate(seen), expected)
    assert labels == [0, 1, 2, 3, 4, 5, 6, 0, 1]


def test_a_database_gives_what_the_files_give(tmp_path):
    write_lmdb(tmp_path / "db", load("mnist-small", "test"))
    options = {"batch_size": 64, "phase": "TEST", "transform": "scale: 0.00390625 crop_size: 20"}
    ours, theirs = net(tmp_path / "db", **options), net("mnist-small", **options)
    for _ in range(3):
        for name, values in theirs.forward().items():
            np.testing.assert_array_equal(ours.forward()[name] if name == "x" else
                                          ours.blobs[name].data, values)  # fmt: skip


def test_shuffled_and_resumed(tmp_path):
    write_lmdb(tmp_path / "db", dataset(count=11))
    options = {"data": {"shuffle": True, "seed": 3}, "phase": "TRAIN"}
    straight = net(tmp_path / "db", 4, transform="crop_size: 3 mirror: true", **options)
    resumed = net(tmp_path / "db", 4, transform="crop_size: 3 mirror: true", **options)
    straight.forward()
    resumed.set_state(straight.state())
    for _ in range(4):
        expected = {name: values.copy() for name, values in straight.forward().items()}
        for name, values in resumed.forward().items():
            np.testing.assert_array_equal(values, expected[name])
    first = [net(tmp_path / "db", 11, **options).forward()["label"].tolist() for _ in range(2)]
    assert first[0] == first[1] != sorted(first[0])


def test_threads_read_the_same_database_side_by_side(tmp_path):
    write_lmdb(tmp_path / "db", dataset(count=40))
    records = DatumDataset(tmp_path / "db")
    expected = [records.record(number)[0].tobytes() for number in range(40)]

    def read(seed):
        order = np.random.default_rng(seed).integers(40, size=1500)
        return [n for n in order if records.record(n)[0].tobytes() != expected[n]]

    with ThreadPoolExecutor(4) as pool:
        assert not [wrong for found in pool.map(read, range(4)) for wrong in found]


def test_float_values_and_sizes_that_differ(tmp_path):
    sizes = [(1, 6, 8), (1, 5, 4), (1, 7, 7)]
    records = [np.random.default_rng(i).normal(size=s).astype(np.float32)
               for i, s in enumerate(sizes)]  # fmt: skip
    write_database(
        tmp_path / "db",
        [(b"%d" % i, datum_of(image, -i)) for i, image in enumerate(records)],
    )
    network = net(tmp_path / "db", 3, transform="crop_size: 4")
    found = network.forward()
    np.testing.assert_array_equal(found["x"][0], records[0][:, 1:5, 2:6])
    np.testing.assert_array_equal(found["x"][2], records[2][:, 1:5, 1:5])
    assert network.blobs["label"].data.tolist() == [0, -1, -2]
    with pytest.raises(DataError, match=r"an image of shape \(1, 5, 4\) follows others"):
        net(tmp_path / "db", 3).forward()
    with pytest.raises(DataError, match="crop_size 5 is larger"):
        net(tmp_path / "db", 3, transform="crop_size: 5 mean_value: 0", backend="LMDB").forward()
    with pytest.raises(DataError, match="images of one size"):
        mean_of_records(DatumDataset(tmp_path / "db"))


# --- what is refused ---


def test_sources_that_are_not_there(tmp_path):
    (tmp_path / "level").mkdir()
    (tmp_path / "level" / "CURRENT").touch()
    with pytest.raises(ConfigError, match="is a LevelDB database, and only LMDB is read"):
        net(tmp_path / "level")
    with pytest.raises(ConfigError, match=r"there is no LMDB database .*minissl data lmdb"):
        net(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="both force_color and force_gray"):
        write_lmdb(tmp_path / "db", dataset())
        net(tmp_path / "db", transform="force_color: true force_gray: true")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:100], "is not an LMDB database"),
        (lambda content: content[:4096], "or it is cut short"),
        (lambda content: content[:5000], "is cut short"),
        (lambda content: b"", "is not an LMDB database"),
        (lambda content: content[:-4096], "is cut short"),
        (lambda content: b"\0" * len(content), "is not an LMDB database"),
        (lambda content: content[:40] + b"\x07" + content[41:], "is damaged: its pages have"),
    ],
)
def test_damaged_files(tmp_path, damage, words):
    write_lmdb(tmp_path / "db", dataset(count=40, height=40))
    file = tmp_path / "db" / DATA_FILE
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=words) as error:
        net(tmp_path / "db")
    assert "\n" not in str(error.value)


def test_an_empty_database(tmp_path):
    write_database(tmp_path / "db", [])
    with pytest.raises(DataError, match="is empty"):
        open_database(tmp_path / "db")


@pytest.mark.parametrize(
    ("datum", "words"),
    [
        (proto.Datum(channels=1, height=2, width=3, data=b"12345"), "shape 1x2x3 but 5 values"),
        (proto.Datum(channels=-1, height=-5, width=1, data=b"12345"), "shape -1x-5x1"),
        (proto.Datum(channels=2**30, height=2**30, width=2**30, data=b"1"), "but 1 values"),
        (proto.Datum(encoded=True, data=b"\x89PNG\r\n\x1a\n"), "no image"),
        (proto.Datum(), "shape 0x0x0 but 0 values"),
    ],
)
def test_hostile_records(tmp_path, datum, words):
    write_database(tmp_path / "db", [(b"0", datum.SerializeToString())])
    with pytest.raises(DataError, match=words) as error:
        DatumDataset(tmp_path / "db")
    assert "record 0 of" in str(error.value)


VALID = datum_of(images(1)[0], 3)


@settings(max_examples=200, deadline=None)
@given(damaged(VALID))
def test_any_bytes_are_a_record_or_explained(content):
    result_or_error(parse_datum, content, "record")


def test_without_the_library(tmp_path, monkeypatch):
    import sys

    write_lmdb(tmp_path / "db", dataset())
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(MinisslError, match=r"pip install 'minissl\[lmdb\]'"):
        net(tmp_path / "db")
