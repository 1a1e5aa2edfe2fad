"""Libraries that may be missing."""

import sys

import pytest

from minissl import optional
from minissl.errors import DependencyError


def test_a_library_that_is_there():
    assert optional.library("json", "tests", "json") is sys.modules["json"]


@pytest.mark.parametrize("otherwise", ["", "leave it out"])
def test_a_library_that_is_missing(monkeypatch, otherwise):
    monkeypatch.setitem(sys.modules, "absent", None)
    with pytest.raises(DependencyError) as caught:
        optional.library("absent", "tests", "minissl[absent]", otherwise)
    advice = "; run pip install 'minissl[absent]'" + (", or leave it out" if otherwise else "")
    assert str(caught.value).startswith("tests need absent, which is missing (")
    assert str(caught.value).endswith(advice)
