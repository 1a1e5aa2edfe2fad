import threading

import numpy as np
import pytest

pytest.importorskip("numba")

from minissl.kernels.cpu.jit import CACHE_LINE, MOST_VIEWS, scratch


def test_scratch_is_reused_and_grows():
    small = scratch("test", (3, 5), np.float32)
    assert small.shape == (3, 5) and small.dtype == np.float32
    assert scratch("test", (3, 5), np.dtype("f4")) is small
    assert np.shares_memory(scratch("test", (15,), np.float32), small)
    large = scratch("test", (1000,), np.float32)
    assert not np.shares_memory(large, small)
    assert np.shares_memory(scratch("test", (3, 5), np.float32), large)
    assert not np.shares_memory(scratch("test", (3, 5), np.float64), large)
    assert not np.shares_memory(scratch("other", (3, 5), np.float32), large)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_scratch_begins_at_a_cache_line(dtype):
    for size in (1, 7, 1000):
        assert scratch(f"aligned{size}", (size,), dtype).ctypes.data % CACHE_LINE == 0


def test_only_so_many_shapes_are_remembered():
    first = scratch("shapes", (2 * MOST_VIEWS,), np.float32)
    for size in range(1, 2 * MOST_VIEWS):
        again = scratch("shapes", (size,), np.float32)
        assert again.shape == (size,) and np.shares_memory(again, first)


def test_every_python_thread_has_its_own():
    mine, theirs = scratch("thread", (4,), np.float32), []
    thread = threading.Thread(target=lambda: theirs.append(scratch("thread", (4,), np.float32)))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, theirs[0])
