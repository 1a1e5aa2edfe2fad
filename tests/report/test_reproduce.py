from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minissl.errors import ConfigError, MinisslError
from minissl.recipes.reproduce import Reproduction
from minissl.report import index, pictures, reproduce, results, weight_pictures
from minissl.report.runs import read_run
from tests.recipes.test_reproduce import OTHERS, experiment


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a complete reproduction, and its result; not to be changed."""
    folder = tmp_path_factory.mktemp("digits")
    recipe = Reproduction(
        experiment(folder), folder / "out", folder / "work", (1, 2), "mnist-small", "numpy"
    )
    return folder, recipe.run("minissl reproduce digits --seeds 1,2")


def test_rows_stand_below_the_paper_s(finished):
    result = finished[1]
    names = [row[0] for row in reproduce.rows(result)]
    assert names == [
        "paper's Digits 1",
        "our Digits 1",
        "paper's Digits 2",
        "our Digits 2, fine-tuned",
        "our Digits 2, compacted",
    ]
    headings = reproduce.headings(result)
    assert headings[2] == "filters conv1 - ip1"
    cells = {row[0]: dict(zip(headings, row, strict=True)) for row in reproduce.rows(result)}
    paper, compacted = cells["paper's Digits 2"], cells["our Digits 2, compacted"]
    assert paper["error %"] == "50.00" and paper["columns conv1 - ip1"] == ""
    assert paper["FLOP % conv1 - ip1"] == "50.0 - 50.0"
    row = result["rows"][1]
    assert compacted["error %"] == f"{100 * row['error']:.2f}"
    assert compacted["filters conv1 - ip1"] == f"{row['layers'][0]['filters']} - 10"


def test_a_table_of_sparsity_tells_which_part_is_zero(finished):
    result = json.loads(json.dumps(finished[1]))
    result["shown"] = "sparsity"
    small = result["rows"][1]
    assert result["dense_sizes"]["conv1"] == {"filters": 3, "columns": 25, "pixels": 25}
    small["paper"]["layers"][0].update(filters=1, columns=5)
    small["paper"]["products"] = {"conv1": 1.5, "ip1": 2.0}
    headings = reproduce.headings(result)
    assert headings[2:] == [
        "zero rows % conv1 - ip1",
        "zero columns % conv1 - ip1",
        "FLOP % conv1 - ip1",
    ]
    cells = {row[0]: dict(zip(headings, row, strict=True)) for row in reproduce.rows(result)}
    assert cells["our Digits 1"]["zero rows % conv1 - ip1"] == "0 - 0"
    paper = cells["paper's Digits 2"]
    # the paper's ip1 has 3 of 10 rows; of its columns nothing is known
    assert paper["zero rows % conv1 - ip1"] == "66.7 - 70.0"
    assert paper["zero columns % conv1 - ip1"] == ""
    left = small["layers_before_compaction"][0]["filters"]
    ours = cells["our Digits 2, fine-tuned"]["zero rows % conv1 - ip1"]
    assert ours == f"{100 * (3 - left) / 3:.1f} - 0"
    speeds = reproduce.speed_rows(result)
    assert speeds[0][:2] == ["paper's Digits 2", "1.50 - 2.00"] and speeds[1][0] == "Digits 2"
    assert "zero rows % conv1 - ip1" in reproduce.readme(result)


def test_times_say_what_they_are_of(finished):
    result = json.loads(json.dumps(finished[1]))
    headings = reproduce.speed_headings(result)
    (cells,) = reproduce.speed_rows(result)
    fastest = dict(zip(headings, cells, strict=True))["fastest modes, batch 64"]
    assert fastest == f"{result['rows'][1]['speed_ups']['64']['fastest']:.2f}"
    text = reproduce.readme(result)
    assert "dense ones by LOWERED_GEMM" in text and "*Fastest modes*" in text
    for ratios in result["rows"][1]["speed_ups"].values():
        del ratios["fastest"]  # as in older results
    assert len(reproduce.speed_rows(result)[0]) == len(headings) - 2
    assert "*Fastest modes*" not in reproduce.readme(result)
    keys = ("date", "machine", "backend", "threads", "versions")
    result["timed"] = {**{key: result[key] for key in keys}, "date": "2031-02-03"}
    told = "Taken on 2031-02-03 by `minissl reproduce {}`"
    assert told.format("experiment.toml --time --out .") in reproduce.readme(result)
    result["experiment"] = "mlp"
    text = reproduce.readme(result, folder=Path("reference_results/mlp"))
    assert told.format("mlp --time") in text
    result["shown"] = "depth"
    assert reproduce.speed_headings(result) == [
        "network", "network, batch 1", "network, batch 64", "weights, kB"
    ]  # fmt: skip


def test_a_kind_of_picture_is_explained_once():
    text = "\n\n".join(results.shown(["filters", "x-error", "y-error", "other"]))
    assert results.drawn_in(text) == ["filters", "x-error", "y-error", "other"]
    assert text.count("crossed frames") == 1 and text.count("Test error while the row") == 1
    assert text.endswith("![other](pictures/other.png)") and not results.shown([])


def test_a_page_with_new_times_keeps_its_pictures(finished, tmp_path):
    text = reproduce.readme(finished[1], ["filters", "zero-maps"])
    assert results.drawn_in(text) == ["filters", "zero-maps"]
    (tmp_path / "README.md").write_text(text)
    reproduce.write_times(finished[1], tmp_path)
    assert (tmp_path / "README.md").read_text() == text


def test_ssl_stands_beside_the_published_log(finished, tmp_path):
    folder, result = finished
    result = json.loads(json.dumps(result))
    result["rows"][1]["paper"]["name"] = "ConvNet 3"
    work = folder / "work" / f"seed{result['rows'][1]['seed']}"
    figure = reproduce.draw(result, folder / "work")["digits2-log"]
    stages = [read_run(work / f"digits2-{name}") for name in ("ssl", "ssl2")]
    iterations = sum(run.last_iteration for run in stages)
    assert f"SSL, {iterations:,} iterations" in figure.axes[0].get_title(loc="left")


def test_the_page_tells_every_run_and_how_it_was_made(finished):
    text = reproduce.readme(finished[1], ["filters"])
    assert "`minissl reproduce digits --seeds 1,2`" in text and "2 seeds" in text
    assert "mean nothing" not in text
    assert text.count("| Digits 1 | ") == text.count("(kept)") == 2
    assert "![filters](pictures/filters.png)" in text
    assert (
        finished[1]["machine"] in text
        and "`minissl reproduce experiment.toml --check --out .`" in text
    )
    assert f"Trained by: numpy, 1 thread; {finished[1]['machine']} (seed 1, 2)." in text
    assert "mean nothing" in reproduce.readme({**finished[1], "fast": True})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in lines)


@pytest.mark.parametrize("option", ["--check", "--time"])
def test_an_experiment_is_named_only_where_its_results_are_kept(tmp_path, monkeypatch, option):
    kept = tmp_path / "reference_results" / "table1"
    kept.mkdir(parents=True)
    result = {"experiment": "table1", "fast": False, "data": "mnist"}
    by_name = f"minissl reproduce table1 {option}"
    by_file = f"minissl reproduce experiment.toml {option} --out ."
    assert results.command_for(option, result, kept) == by_name
    monkeypatch.chdir(kept)
    assert results.command_for(option, result, Path()) == by_name
    # a trial, with other data or an own table1.toml, goes elsewhere
    for folder in ("runs/table1-results", "runs/table1", "reference_results/trial"):
        assert results.command_for(option, result, tmp_path / folder) == by_file
    assert results.command_for(option, {**result, "fast": True}, kept) == by_file
    own = kept.with_name("digits")
    assert results.command_for(option, {**result, "experiment": "digits"}, own) == by_file
    speed = {**result, "experiment": "fig1"}
    assert results.command_for(option, speed, kept.with_name("fig1")) == by_name.replace(
        "table1", "fig1"
    )


def test_every_picture_is_written_twice_and_shown(finished, tmp_path):
    folder, result = finished
    paths = reproduce.write(result, folder / "work", tmp_path)
    names = {path.name for path in paths}
    expected = {"error-and-flop", "filters", "shapes", "zero-maps"}
    expected |= {"digits2-sparsity", "digits2-error"}
    assert names == {f"{name}.{kind}" for name in expected for kind in ("png", "svg")} | {
        "README.md"
    }
    text = (tmp_path / "README.md").read_text()
    assert all(f"pictures/{name}.png" in text for name in expected)
    assert all(path.stat().st_size > 500 for path in paths)


def test_the_index_shows_the_table_of_every_result(finished, tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        result = {**finished[1], "experiment": name, "title": f"The {name}"}
        (tmp_path / name / "result.json").write_text(json.dumps(result))
    (tmp_path / "other").mkdir()
    text = index.write_index(tmp_path).read_text()
    assert text.index("## The first") < text.index("(first/README.md)") < text.index("second")
    assert text.count("| our Digits 2, compacted |") == 2
    (tmp_path / "second" / "result.json").write_text("{}")
    with pytest.raises(ConfigError, match="damaged"):
        index.write_index(tmp_path)


def test_a_folder_that_cannot_be_made(finished, tmp_path):
    (tmp_path / "pictures").touch()
    with pytest.raises(MinisslError, match="Cannot make the folder"):
        reproduce.write(finished[1], finished[0] / "work", tmp_path)


def test_points_are_of_the_table_s_layers(finished):
    result = {
        "layers": ["a", "b"],
        "dense_flop": {"a": 300, "b": 100, "other": 10_000},
        "rows": [
            {
                "name": "x",
                "paper": {"error": 0.01, "layers": [layer("a", 50.0), layer("b", 10.0)]},
                "runs": [
                    {
                        "error": 0.02,
                        "layers": [layer("a", 10.0), layer("b", 50.0), layer("other", 1)],
                    }
                ],
            }
        ],
    }
    ours, paper = reproduce._points(result)
    assert ours == [("x", pytest.approx((3000 + 5000) / 400), pytest.approx(2.0))]
    assert paper == [("x", pytest.approx((15000 + 1000) / 400), pytest.approx(1.0))]


def test_a_paper_s_row_without_flop_is_no_point(finished):
    result = json.loads(json.dumps(finished[1]))
    del result["rows"][0]["paper"]["layers"][1]
    result["rows"][1]["paper"] = None
    ours, paper = reproduce._points(result)
    assert len(ours) == 4 and paper == []


def layer(name, percent):
    return {"name": name, "flops_percent": percent}


def test_every_run_and_every_row_of_the_paper_is_a_point():
    ours = [("x", 100.0, 0.9), ("x", 100.0, 1.0), ("y", 7.0, 0.8)]
    figure = pictures.error_over_flops(ours, [("x", 100.0, 0.9), ("y", 8.0, 0.85)])
    (axes,) = figure.axes
    points = [(*line.get_xydata()[0], line.get_marker()) for line in axes.lines]
    assert sorted(points) == sorted(
        [
            (100.0, 0.9, "s"),
            (8.0, 0.85, "s"),
            *((flop, error, "o") for _, flop, error in ours),
        ]
    )
    colors = {line.get_label().split()[-1]: line.get_color() for line in axes.lines[:2]}
    assert colors["x"] != colors["y"] and axes.lines[4].get_color() == colors["y"]


def test_the_map_of_inputs_counts_connections():
    matrix = np.zeros((3, 16))
    matrix[:, 5], matrix[0, 6] = 1, -2
    figure = weight_pictures.connections_per_input({"dense": np.ones((3, 16)), "sparse": matrix})
    images = [axes.images[0].get_array() for axes in figure.axes[:2]]
    assert (images[0] == 3).all()
    expected = np.zeros((4, 4))
    expected[1, 1], expected[1, 2] = 3, 1
    np.testing.assert_array_equal(images[1], expected)
    assert figure.axes[1].get_title(loc="left") == "sparse: 2 pixels are read"
    with pytest.raises(ConfigError, match="15 inputs are no square image"):
        weight_pictures.connections_per_input({"x": np.ones((3, 15))})


# --- rows of all kinds, and none of them published ---


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """The folder and the result of an experiment of one's own; not to be changed."""
    folder = tmp_path_factory.mktemp("others")
    mine = experiment(folder, OTHERS, fast=True)
    rows = [replace(row, paper=None) for row in (mine.baseline, *mine.rows)]
    mine = replace(mine, baseline=rows[0], rows=tuple(rows[1:]), about="Mine alone.")
    recipe = Reproduction(
        mine, folder / "out", folder / "work", (2,), "mnist-small", "numpy", fast=True
    )
    return folder, recipe.run("minissl reproduce digits.toml")


def test_rows_that_nobody_published_stand_alone(others):
    assert [row[0] for row in reproduce.rows(others[1])] == [
        "Digits 1",
        *(f"Digits 2, {what}" for what in ("fine-tuned", "compacted")),
        *(f"scratch, {what}" for what in ("trained", "compacted")),
        *(f"random, {what}" for what in ("fine-tuned", "compacted")),
        *(f"cut, {what}" for what in ("trained", "compacted")),
        *(f"dense, {what}" for what in ("fine-tuned", "compacted")),
        *(f"further, {what}" for what in ("fine-tuned", "compacted")),
    ]


def test_the_page_says_what_is_special_and_what_came_back(others):
    result = json.loads(json.dumps(others[1]))
    (run,) = result["rows"][1]["runs"]
    run["revived"] = {"conv1 25x1": 2, "ip1 1x10": 3, "ip1 3x1": 4}
    text = reproduce.readme(result)
    assert "\n\nMine alone.\n\n" in text and "- **cut**: pruned, and nothing else." in text
    assert "The trainings of dense read the images in another order in each epoch." in text
    headings = reproduce.seed_headings(result)
    found = {row[0]: dict(zip(headings, row, strict=True)) for row in reproduce.seed_rows(result)}
    assert found["Digits 2"]["came back conv1 - ip1"] == "2 - 7"
    assert found["dense"]["came back conv1 - ip1"] == found["dense"]["error % after SSL"] == ""
    assert found["Digits 2"]["weights, kB"] == f"{run['bytes'] / 1e3:,.0f}"
    assert reproduce.REVIVED in text
    for row in result["rows"]:
        row["runs"][0].pop("revived", None)
    assert "came back" not in reproduce.readme(result).lower()


def test_pictures_of_rows_that_leave_something_out(others, tmp_path):
    folder, result = others
    names = set(reproduce.draw(result, folder / "work"))
    assert {f"{key}-error" for key in ("scratch", "random", "dense", "further")} < names
    assert "cut-error" not in names
    rows = {row["key"]: row for row in result["rows"]}
    courses = {key: reproduce._course(key, rows, folder / "work") for key in rows}
    assert {key: [run.name for run in runs] for key, runs in courses.items()} == {
        "baseline": ["dense"],
        "digits2": ["dense", "SSL", "SSL 2", "fine-tuning"],
        "scratch": ["SSL"],
        "random": ["dense", "fine-tuning"],
        "cut": ["dense", "pruned"],
        "dense": ["dense", "fine-tuning"],
        "further": ["SSL", "SSL 2", "fine-tuning"],
    }
    assert 0 in courses["cut"][-1].weights()["conv1"][0]
