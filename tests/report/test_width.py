"""A table that tells how many channels are left inside the blocks of a residual network."""

from __future__ import annotations

import pytest

from minissl.report import reproduce, width
from minissl.report.runs import Run
from tests.report.runs import a_test, display

SIZES = {"conv1": 1024, "a": 1024, "b": 1024, "shortcut": 256, "c": 256}
LAYERS = ["a", "b", "c"]


def a_row(name, error, channels=(16, 16, 32), flop=100.0, key="row"):
    widths = {"conv1": 3, "shortcut": 16, **dict(zip(LAYERS, channels, strict=True))}
    layers = [
        {"name": one, "filters": 16, "channels": count, "flops_percent": flop}
        for one, count in widths.items()
    ]
    row = {"key": key, "name": name, "error": error, "layers": layers, "flops_percent": flop}
    return {**row, "trainings": ["ssl"], "paper": None, "runs": [row]}


def a_result(*rows):
    sizes = {name: {"filters": 16, "columns": 144, "pixels": n} for name, n in SIZES.items()}
    flop = dict.fromkeys(SIZES, 7)
    result = {"shown": "width", "layers": LAYERS, "dense_sizes": sizes, "rows": rows}
    return {**result, "dense_flop": flop}


def test_channels_are_added_up_by_size():
    result = a_result(a_row("whole", 0.1), a_row("small", 0.125, (3, 10, 20), 40.0))
    assert reproduce.headings(result) == [
        "network",
        "error %",
        "channels inside the blocks at 32x32 - 16x16",
        "FLOP %",
        "fewer FLOP",
    ]
    assert reproduce.rows(result) == [
        ["whole", "10.00", "32 - 32", "100.0", "1.00 times"],
        ["small", "12.50", "13 - 20", "40.0", "2.50 times"],
    ]


def test_the_flop_are_those_of_the_layers_that_a_row_tells_of():
    """Before compaction nothing but zero rows and columns counts."""
    small = a_row("small", 0.125, (3, 10, 20), 40.0)
    small["layers_before_compaction"] = [{**one, "flops_percent": 60.0} for one in small["layers"]]
    assert [row[3:] for row in reproduce.rows(a_result(small))] == [
        ["60.0", "1.67 times"],
        ["40.0", "2.50 times"],
    ]


def test_a_layer_that_is_gone_has_no_channels():
    small = a_row("small", 0.125, (3, 10, 20), 40.0)
    small["layers"] = [one for one in small["layers"] if one["name"] != "b"]
    result = a_result(small)
    assert width.channels_inside(small, result) == {"a": 3, "b": 0, "c": 20}
    assert width.cells("small", small, result)[2] == "3 - 20"
    assert float(width.cells("small", small, result)[3]) == 32.0


def test_what_is_not_known_of_a_published_network_is_blank():
    layers = [{"name": one, "channels": 8, "flops_percent": None} for one in LAYERS]
    row = {"error": 0.09, "layers": layers}
    assert width.cells("theirs", row, a_result())[2:] == ["16 - 8", "", ""]
    layers[1]["channels"] = None
    assert width.cells("theirs", row, a_result())[2:] == ["", "", ""]
    for layer in layers:
        layer["flops_percent"] = 25.0
    assert width.cells("theirs", row, a_result())[2:] == ["", "", ""]
    result = {**a_result(), "dense_flop": dict.fromkeys(LAYERS, 7)}
    assert width.cells("theirs", row, result)[2:] == ["", "25.0", "4.00 times"]
    for layer in layers:
        layer["flops_percent"] = 0.0
    assert width.cells("theirs", row, result)[2:] == ["", "0.0", ""]


def test_of_a_published_network_only_the_error_is_known():
    assert width.cells("theirs", {"error": 0.09, "layers": []}, a_result()) == [
        *("theirs", "9.00", "", "", "")
    ]


def test_every_network_is_a_point_and_every_width_has_bars():
    base = a_row("dense", 0.09, key="baseline")
    longer = a_row("longer", 0.08, key="longer")  # as wide as the first: drawn once
    small = a_row("small", 0.1, (3, 10, 20), 40.0, key="small")
    small["runs"] = [small, a_row("small", 0.2, (1, 2, 3), 10.0)]
    result = a_result(base, longer, small)
    run = Run("SSL", None, [display(0), display(5)], [a_test(0, 0.1), a_test(10, 0.9)])
    figures = width.draw(result, {"baseline": [run], "longer": [run], "small": [run]})
    assert list(figures) == ["error-and-flop", "channels-left", "longer-error", "small-error"]
    points = [
        line.get_xydata()[0].tolist()
        for line in figures["error-and-flop"].axes[0].lines
        if len(line.get_xydata()) == 1
    ]
    assert points == [pytest.approx(one) for one in ([100, 9], [100, 8], [40, 10], [10, 20])]
    bars = figures["channels-left"].axes[0].containers
    assert [[bar.get_height() for bar in one] for one in bars] == [[16, 16, 32], [3, 10, 20]]
    assert [one.get_label() for one in bars] == ["dense", "small"]
