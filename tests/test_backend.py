"""BLAS is held to one thread while minissl computes, and has its own number again afterwards."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from minissl import backend


class Library:
    """A BLAS that counts how often it is set."""

    def __init__(self, threads: int):
        self.num_threads, self.set = threads, 0

    def set_num_threads(self, count: int) -> None:
        self.num_threads, self.set = count, self.set + 1


@pytest.fixture
def libraries(monkeypatch):
    found = [Library(4), Library(1)]
    monkeypatch.setattr(backend, "blas_pools", lambda: SimpleNamespace(lib_controllers=found))
    return found


def test_the_outermost_holds_blas_and_restores_it(libraries):
    with backend.single_threaded_blas():
        with backend.single_threaded_blas():
            assert [one.num_threads for one in libraries] == [1, 1]
        assert [one.num_threads for one in libraries] == [1, 1]
    assert [one.num_threads for one in libraries] == [4, 1]
    assert [one.set for one in libraries] == [2, 0]  # asking is cheaper than setting


def test_blas_is_restored_after_an_error(libraries):
    with pytest.raises(ZeroDivisionError), backend.single_threaded_blas():
        raise ZeroDivisionError
    assert libraries[0].num_threads == 4
    with backend.single_threaded_blas():
        assert libraries[0].num_threads == 1


def test_blas_can_have_another_number_for_a_while(libraries):
    with pytest.raises(ZeroDivisionError), backend.blas_threads(3):
        assert [one.num_threads for one in libraries] == [3, 3]
        raise ZeroDivisionError
    assert [one.num_threads for one in libraries] == [4, 1]


def test_a_library_that_cannot_be_set_leaves_no_trace(libraries, monkeypatch):
    def fail(count):
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(libraries[0], "set_num_threads", fail)
        with pytest.raises(OSError), backend.single_threaded_blas():
            pass
    with backend.single_threaded_blas():
        assert libraries[0].num_threads == 1
    assert libraries[0].num_threads == 4
