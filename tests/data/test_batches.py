from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minissl.data.batches import BatchReader
from minissl.data.datasets import Dataset
from minissl.errors import ConfigError, DataError


def numbered(n):
    """A data set whose record i is one pixel of value i."""
    images = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1)
    return Dataset("numbered", "train", images, np.arange(n) % 10, tuple("0123456789"))


def read(reader, batches):
    """The record numbers of the next batches, checked against their labels."""
    numbers = []
    for _ in range(batches):
        images, labels = reader.next()
        assert images.shape == (reader.batch_size, 1, 1, 1)
        np.testing.assert_array_equal(labels, images.ravel() % 10)
        numbers += images.ravel().tolist()
    return numbers


SIZES = st.integers(1, 12)


@given(n=SIZES, batch_size=SIZES, batches=st.integers(1, 6))
def test_file_order_wraps_around(n, batch_size, batches):
    reader = BatchReader(numbered(n), batch_size)
    assert read(reader, batches) == [i % n for i in range(batch_size * batches)]
    assert reader.position == batch_size * batches


@given(n=SIZES, batch_size=SIZES, seed=st.integers(0, 2**32))
def test_shuffle_reads_every_record_once_an_epoch(n, batch_size, seed):
    numbers = read(BatchReader(numbered(n), batch_size, shuffle=True, seed=seed), 3 * n)
    for epoch in range(3 * batch_size):
        assert sorted(numbers[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_shuffle_depends_on_seed_and_epoch():
    n = 100
    first = read(BatchReader(numbered(n), 10, shuffle=True, seed=1), 20)
    assert first == read(BatchReader(numbered(n), 10, shuffle=True, seed=1), 20)
    assert first != read(BatchReader(numbered(n), 10, shuffle=True, seed=2), 20)
    assert first[:n] != first[n:]
    assert first[:n] != list(range(n))


@given(
    n=SIZES,
    batch_size=SIZES,
    shuffle=st.booleans(),
    before=st.integers(0, 6),
    elsewhere=st.integers(0, 1000),
)
def test_the_position_alone_restores_the_order(n, batch_size, shuffle, before, elsewhere):
    reader = BatchReader(numbered(n), batch_size, shuffle, seed=3)
    read(reader, before)
    position = reader.position
    random = reader.rng_at(reader.position).integers(2**60)
    expected = read(reader, 4)

    resumed = BatchReader(numbered(n), batch_size, shuffle, seed=3)
    resumed.position = elsewhere
    read(resumed, 1)
    resumed.position = position
    assert resumed.rng_at(resumed.position).integers(2**60) == random
    assert read(resumed, 4) == expected


def test_random_numbers_of_the_transform_differ_by_batch_and_seed():
    reader = BatchReader(numbered(5), 2, seed=1)
    draws = []
    for _ in range(10):
        draws.append(int(reader.rng_at(reader.position).integers(2**60)))
        reader.next()
    draws.append(int(BatchReader(numbered(5), 2, seed=2).rng_at(0).integers(2**60)))
    assert len(set(draws)) == len(draws)


def test_skip():
    positions = set()
    for seed in range(50):
        reader = BatchReader(numbered(5), 2, seed=seed)
        reader.skip_up_to(4)
        positions.add(reader.position)
    assert positions == {0, 1, 2, 3}


def test_file_order_within_an_epoch_is_a_view():
    dataset = numbered(8)
    images, labels = BatchReader(dataset, 4).next()
    assert np.shares_memory(images, dataset.images) and np.shares_memory(labels, dataset.labels)


@pytest.mark.parametrize("position", [-1, 1.5, "7", None, True, 10**30])
def test_positions_that_are_none(position):
    reader = BatchReader(numbered(5), 2)
    with pytest.raises(DataError, match="not a number of records"):
        reader.position = position


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="batch_size is 0"):
        BatchReader(numbered(5), 0)
    for seed in (-1, None, "1", 0.5):
        with pytest.raises(ConfigError, match=f"seed of the data order is {seed!r}"):
            BatchReader(numbered(5), 2, seed=seed)
