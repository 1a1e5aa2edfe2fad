"""Shared by the format tests: where optional material lies, and how parsers are fuzzed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st

from minissl.errors import MinisslError


def _folder(variable: str, what: str) -> Path:
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} does not name the folder of {what}")
    return Path(folder)


@pytest.fixture
def original_runs() -> Path:
    return _folder("MINISSL_ORIGINAL_RUNS", "the original's recorded runs")


@pytest.fixture
def ssl_matrices() -> Path:
    return _folder("MINISSL_SSL_MATRICES", "the published sparse matrices")


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """Draw arbitrary bytes, or a valid file with some bytes replaced, cut or doubled."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.binary(max_size=200))
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 6))
        content[start : start + length] = draw(st.binary(max_size=8))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


def result_or_error(parse: Callable, *arguments: object) -> object:
    """Call a parser; anything but a result or a one-line MinisslError fails the test."""
    try:
        return parse(*arguments)
    except MinisslError as error:
        assert str(error) and "\n" not in str(error)
        return error
