import threading

import numpy as np
import pytest

pytest.importorskip("numba")

from minissl.kernels.cpu import jit
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


def test_compiling_is_told_at_the_beginning_and_now_and_then(caplog, monkeypatch):
    caplog.set_level("INFO", "minissl")
    announcer = jit._Announcer()
    monkeypatch.setattr(announcer, "clock", iter([0, 1, 9, 10, 11, 25, 500, 501]).__next__)
    for number in range(8):
        announcer.tell(f"kernel {number}")
    first = "compiling kernels for this processor, once; kept in "
    assert [message.removesuffix(jit._FOLDER) for message in caplog.messages] == [
        first,
        "still compiling, kernel 4: kernel 3",
        "still compiling, kernel 6: kernel 5",
        first,
    ]


def test_compiled_functions_of_others_are_not_told_of(caplog):
    numba = pytest.importorskip("numba")
    caplog.set_level("DEBUG", "minissl")
    namespace = {}
    exec("def f(x):\n    return x + 1", namespace)  # has no module
    assert numba.njit(namespace["f"])(1) == 2
    assert not caplog.messages
