"""Tables and JSON: nothing is lost in a narrow window, and nothing invalid is printed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import click
import numpy as np
import pytest
from rich.console import Console

from minissl.cli import options
from minissl.errors import NonFiniteError
from minissl.formats.safetensors_file import write_tensors

ROWS = [["convolution1", (20, 1, 5, 5), 123.4567], ["ip", (10, 500), None]]


def printed(width, **settings):
    file = io.StringIO()
    layout = options.table(["layer", "shape", "percent"], ROWS, ["all", "", 7], names=2)
    options.show_table(layout, Console(file=file, width=width, **settings))
    return file.getvalue()


@pytest.mark.parametrize("width", [5, 20, 80])
def test_no_value_is_cut_off(width):
    text = printed(width)
    assert "convolution1" in text and "20x1x5x5" in text and "123.5" in text and "…" not in text
    assert [len(line.split()) for line in text.splitlines()] == [3, 1, 3, 3, 0, 2]


def test_the_width_of_the_console_is_left_alone():
    console = Console(file=io.StringIO(), width=20)
    options.show_table(options.table(["a"], [["x" * 50]]), console)
    assert console.width == 20


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.0, "0"),
        (0.12345, "0.123"),
        (12.345, "12.3"),
        (12345.6, "12,346"),
        ((), "scalar"),
        ([3, 4], "3x4"),
        ("conv", "conv"),
    ],
)
def test_cells(value, text):
    assert options.cell(value) == text


def test_json_is_strict(capsys):
    options.show_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": (2, "é")}})
    text = capsys.readouterr().out
    assert text.isascii() and text.count("\n") == 1
    assert json.loads(text) == {"a": None, "b": [None, 1.5], "c": {"d": [2, "é"]}}


def test_of_a_snapshot_only_the_weights_are_read(tmp_path):
    ones = np.ones((2, 3), np.float32)
    path = tmp_path / "s.safetensors"
    names = ("conv2.0", "conv1.0", "solver/history/conv1.0.0", "solver/mask/conv1.0")
    write_tensors(path, dict.fromkeys(names, ones))
    assert list(options.read_weights_only(path)) == ["conv1", "conv2"]


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "s.npz"
    np.savez(path, **{"conv1.0": np.array([1, np.nan])})
    with pytest.raises(NonFiniteError, match="layer 'conv1' holds NaN"):
        options.read_weights_only(path)


@pytest.mark.parametrize("kind", [options.FILE, options.MODEL, options.NamedPath(str)])
def test_an_empty_name_is_not_the_current_folder(kind):
    with pytest.raises(click.BadParameter, match="the name is empty"):
        kind.convert("", None, None)
    assert Path(kind.convert(".", None, None)) == Path()


def test_a_slash_at_the_end_of_a_name_is_kept_on_demand():
    assert options.NamedPath(str).convert("folder/", None, None) == "folder/"


def test_the_bare_name_of_a_packaged_model_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packaged = options.MODEL.convert("lenet.prototxt", None, None)
    assert packaged.is_file() and packaged.parent.name == "models"
    assert options.MODEL.convert("absent.prototxt", None, None) == Path("absent.prototxt")
    Path("lenet.prototxt").touch()
    assert options.MODEL.convert("lenet.prototxt", None, None) == Path("lenet.prototxt")
