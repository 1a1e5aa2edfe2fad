"""The size of a cache is what the machine tells, and common where it tells nothing."""

from __future__ import annotations

import pytest

from minissl.machine.caches import COMMON, second_level_bytes


def cache_of(folder, index, level, size):
    entry = folder / f"index{index}"
    entry.mkdir()
    (entry / "level").write_text(f"{level}\n")
    if size is not None:
        (entry / "size").write_text(f"{size}\n")


@pytest.mark.parametrize(("size", "expected"), [("2048K", 2**21), ("1M", 2**20), ("512K", 2**19)])
def test_linux_tells(tmp_path, size, expected):
    cache_of(tmp_path, 0, 1, "48K")
    cache_of(tmp_path, 2, 2, size)
    cache_of(tmp_path, 3, 3, "300M")
    assert second_level_bytes(tmp_path) == expected


@pytest.mark.parametrize("size", [None, "", "many", "2X"])
def test_what_cannot_be_read_is_passed_over(tmp_path, size):
    cache_of(tmp_path, 2, 2, size)
    assert second_level_bytes(tmp_path) == COMMON
    assert second_level_bytes(tmp_path / "nowhere") == COMMON
