"""What is kept in reference_results says what its weights do; MNIST on digits of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from minissl.data.datasets import load
from minissl.errors import DataError
from minissl.recipes.checking import check, read_result
from minissl.recipes.experiments import NAMES
from minissl.recipes.speed_experiments import NAMES as MEASURED

FOLDER = Path(__file__).resolve().parents[1] / "reference_results"


@pytest.mark.parametrize("key", NAMES)
def test_kept_networks_are_as_recorded(key):
    if not (FOLDER / key / "result.json").is_file():
        pytest.skip(f"no result of {key} is kept; minissl reproduce {key}")
    source = read_result(FOLDER / key)["data"]
    small = "mnist-small" if source == "mnist" else None
    if small is None:  # there is no small part of it: all its test images, where they are
        try:
            load(source, "test")
        except DataError as error:
            pytest.skip(str(error))
    for row in check(FOLDER / key, data=small):
        assert row["ok"], row["wrong"]
        # 1,000 of the 10,000 test digits; large dense networks are not kept
        assert "error" not in row or abs(row["error"] - row["recorded_error"]) < 0.01


@pytest.mark.parametrize("key", MEASURED)
def test_kept_speed_ups_follow_from_their_times(key):
    if not (FOLDER / key / "result.json").is_file():
        pytest.skip(f"no result of {key} is kept; minissl reproduce {key}")
    for row in check(FOLDER / key):
        assert row["ok"], row["wrong"]
