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
    return _folder("MINISSL_MATRICES", "the published sparse matrices")


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """Draw a valid file with some bytes overwritten, inserted or cut off, or arbitrary bytes."""
    kind = draw(st.sampled_from(["overwritten", "spliced", "cut", "arbitrary"]))
    if kind == "arbitrary":
        return draw(st.binary(max_size=200))
    if kind == "cut":
        return valid[: draw(st.integers(0, len(valid)))]
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content) - 1))
        new = draw(st.binary(min_size=1, max_size=8))
        removed = len(new) if kind == "overwritten" else draw(st.integers(0, 6))
        content[start : start + removed] = new
    return bytes(content)


def result_or_error(parse: Callable, *arguments: object) -> object:
    """Call a parser; anything but a result or a one-line MinisslError fails the test."""
    try:
        return parse(*arguments)
    except MinisslError as error:
        assert str(error) and "\n" not in str(error)
        return error
