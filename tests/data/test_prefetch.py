"""Batches made in the background are those that would have been made on demand."""

from __future__ import annotations

import gc
import os
import threading
import time

import numpy as np
import pytest

from minissl import Net
from minissl.data.prefetch import Prefetch
from minissl.errors import DataError
from minissl.formats.prototxt import parse_net

NET = """
layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.5 crop_size: 20 mirror: true mean_value: 3 pad: 2 }
  data_param { source: "mnist-small" batch_size: 700 } }
layer { name: "double" type: "Power" bottom: "data" top: "double" power_param { scale: 2 } }
"""


def batches(net, count):
    found = []
    for _ in range(count):
        net.forward()
        found.append([net.blobs[name].data.copy() for name in ("data", "label", "double")])
    return found


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("minissl-data")]


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_the_same_bit_by_bit(shuffle, monkeypatch):
    """Beyond an epoch too, which has between 8 and 9 batches."""
    data = {"shuffle": shuffle, "seed": 5}
    net = Net(parse_net(NET), "TRAIN", data=data)
    found = batches(net, 10)
    assert net.layer("data")._ahead.is_ahead
    monkeypatch.setattr(Prefetch, "begin", lambda *arguments: None)
    alone = batches(Net(parse_net(NET), "TRAIN", data=data), 10)
    for one, other in zip(found, alone, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(found[0][0], found[1][0])


def test_who_goes_back_or_takes_another_seed_gets_what_belongs_there():
    data = {"shuffle": True}
    net = Net(parse_net(NET), "TRAIN", data=data)
    found = batches(net, 5)
    net.layer("data").set_state({"position": 700, "seed": 0})
    again = batches(net, 2)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(found[1:3], again, strict=True))
    net.layer("data").reader.position = 0
    assert np.array_equal(batches(net, 1)[0][0], found[0][0])
    assert net.state()["layers"]["data"] == {"position": 700, "seed": 0}
    net.layer("data").set_state({"position": 700, "seed": 1})
    assert not np.array_equal(batches(net, 1)[0][0], found[1][0])


def test_one_batch_needs_no_thread_and_no_thread_stays():
    before = set(threads())
    net = Net(parse_net(NET), "TRAIN")
    batches(net, 1)
    assert set(threads()) <= before
    batches(net, 3)
    (mine,) = set(threads()) - before
    net.layer("data")._ahead.forget()  # a batch that is being made holds the layer
    del net
    gc.collect()
    mine.join(10)
    assert not mine.is_alive()


def test_nobody_waits_for_a_batch_that_is_begun():
    """The maker is only released once ``begin`` has returned."""
    released = threading.Event()

    def make(key, out):
        if key >= 2:
            assert released.wait(10)
        out[...] = key
        return key

    ahead, out = Prefetch(make), np.zeros(3)
    for key in range(2):
        assert ahead.take(key, out) == key
        ahead.begin(key + 1, out)
    assert ahead.is_ahead and (out == 1).all()
    released.set()
    assert ahead.take(2, out) == 2
    assert (out == 2).all()


def test_an_error_is_raised_where_the_batch_is_taken():
    def make(key, out):
        if key == 3:
            raise DataError("record 3 is damaged; fetch the data again")
        out[...] = key

    ahead, out = Prefetch(make), np.zeros(3)
    for key in range(3):
        ahead.take(key, out)
        ahead.begin(key + 1, out)
    for _ in range(2):  # and again, for who tries again
        with pytest.raises(DataError, match="record 3 is damaged"):
            ahead.take(3, out)
    ahead.take(4, out)
    assert (out == 4).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_makes_its_batches_itself():
    ahead, out = Prefetch(lambda key, out: out.fill(key)), np.zeros(3)
    for key in range(3):
        ahead.take(key, out)
        ahead.begin(key + 1, out)
    child = os.fork()
    if not child:
        ahead.take(3, out)
        ahead.begin(4, out)
        ahead.take(4, out)
        os._exit(0 if (out == 4).all() else 1)
    for _ in range(500):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.02)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert done and status == 0
