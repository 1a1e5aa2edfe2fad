"""A run beside a published log."""

from __future__ import annotations

import pytest

from minissl.recipes.paper import LOGS
from minissl.report.log_pictures import beside_log
from minissl.report.runs import Run
from tests.report.runs import a_test, display

LOG = {
    "about": "decay 1",
    "iterations": 200,
    "points": [
        {"iteration": 0, "error": 0.5, "column": None, "row": (0, 10)},
        {"iteration": 100, "error": 0.4, "column": (20, 30), "row": None},
    ],
}


def lines(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def test_both_are_drawn_over_the_part_that_has_passed():
    run = Run(
        "SSL", None, [display(0), display(5, percent=40.0)], [a_test(0, 0.1), a_test(10, 0.9)]
    )
    figure = beside_log([run], LOG, ["conv1", "conv2"])
    errors, columns, rows = figure.axes
    assert lines(errors) == {
        "error": [[0, 90], [100, pytest.approx(10)]],
        "error, published": [[0, 50], [50, 40]],
    }
    assert lines(columns)["conv1"] == [[0, 0], [50, 40]]
    assert lines(columns)["conv2"] == [[0, 0], [50, 20]]
    assert lines(columns)["conv2, published"] == [[50, 30]]  # not known at the start
    assert lines(rows)["conv2, published"] == [[0, 10]]
    title = errors.get_title(loc="left")
    assert "10 iterations" in title and "decay 1" in title


def test_stages_follow_each_other():
    first = Run("SSL", None, [display(0), display(5)], [a_test(0, 0.1), a_test(10, 0.9)])
    second = Run("SSL 2", None, [display(3, percent=40.0)], [a_test(0, 0.9), a_test(30, 0.8)])
    errors, columns, _ = beside_log([first, second], LOG, ["conv1"]).axes
    ours = [[0, 90], [25, 10], [25, 10], [100, 20]]
    assert lines(errors)["error"] == [[x, pytest.approx(y)] for x, y in ours]
    assert lines(columns)["conv1"] == [[0, 0], [12.5, 0], [32.5, 40]]
    assert [[25, 0], [25, 1]] in [line.get_xydata().tolist() for line in errors.lines]
    assert "40 iterations" in errors.get_title(loc="left")


@pytest.mark.parametrize("name", LOGS)
def test_published_logs_go_from_start_to_end(name):
    log = LOGS[name]
    at = [point["iteration"] for point in log["points"]]
    assert at == sorted(at) and at[0] == 0 and at[-1] == log["iterations"]
    for point in log["points"]:
        assert 0 < point["error"] < 0.3
        for key in ("row", "column"):
            assert point[key] is None or len(point[key]) == 3
