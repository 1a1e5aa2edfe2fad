from __future__ import annotations

import csv
import gzip
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minissl.sparsity.groups import Tile
from minissl.sparsity.statistics import log_lines, percentage, statistics_of

from .strategies import conv_shapes, dtypes, tiles_of, weights


def naive_statistics(w, g):
    """Whole-matrix and by-band percentages, counted one weight at a time."""
    F, C, kh, kw = w.shape

    def percent(flags):
        return 100 * sum(flags) / len(flags)

    filters = range(F)
    places = [(c, i, j) for c in range(C) for i in range(kh) for j in range(kw)]
    whole = {
        "element": percent([abs(value) < 1e-4 for value in w.flat]),
        "row": percent([all(w[f][p] == 0 for p in places) for f in filters]),
        "column": percent([all(w[f][p] == 0 for f in filters) for p in places]),
    }
    bands = []
    for group in range(g):
        band = range(group * F // g, (group + 1) * F // g)
        dead = {
            (f, c): all(w[f, c].flat[k] == 0 for k in range(kh * kw))
            for f in band
            for c in range(C)
        }
        bands.append(
            {
                "element": percent([abs(value) < 1e-4 for f in band for value in w[f].flat]),
                "row": percent([all(w[f][p] == 0 for p in places) for f in band]),
                "column": percent([all(w[f][p] == 0 for f in band) for p in places]),
                "filter": percent([all(dead[f, c] for c in range(C)) for f in band]),
                "channel": percent([all(dead[f, c] for f in band) for c in range(C)]),
                "kernel2d": percent(list(dead.values())),
            }
        )
    return whole, bands


@given(conv_shapes(), st.data(), dtypes)
def test_equal_naive_counts(drawn, data, dtype):
    shape, g = drawn
    w = data.draw(weights(shape, dtype))
    w.flat[0] = 9e-5  # small, yet not zero: an element for the first line and no other
    whole, bands = naive_statistics(w, g)
    found = statistics_of("conv1", 0, w, g)
    assert {key: getattr(found, key) for key in whole} == pytest.approx(whole, rel=1e-12)
    assert len(found.bands) == g
    for group, (band, expected) in enumerate(zip(found.bands, bands, strict=True)):
        assert band.group == group
        assert {key: getattr(band, key) for key in expected} == pytest.approx(expected, rel=1e-12)


@given(conv_shapes(), st.data())
def test_blocks_count_tiles_that_are_zero_throughout(drawn, data):
    shape, g = drawn
    w = data.draw(weights(shape))
    matrix = w.reshape(shape[0], -1)
    tile = data.draw(tiles_of(shape, g))
    dead = [
        not matrix[top : top + tile.ydimen, left : left + tile.xdimen].any()
        for top in range(0, matrix.shape[0], tile.ydimen)
        for left in range(0, matrix.shape[1], tile.xdimen)
    ]
    expected = pytest.approx(100 * sum(dead) / len(dead))
    assert statistics_of("conv1", 0, w, g, [tile]).blocks == {str(tile): expected}


def test_conv_groups_have_columns_of_their_own_while_the_whole_matrix_has_not():
    w = np.ones((4, 2, 1, 2))
    w[:2, 0] = 0  # group 0 does not read its first channel
    w[3] = 0  # one of group 1's filters is dead
    found = statistics_of("conv2", 0, w, 2, [Tile(2, 2)])
    assert (found.element, found.row, found.column) == (50.0, 25.0, 0.0)
    first, second = found.bands
    assert (first.column, first.channel, first.filter, first.kernel2d) == (50, 50, 0, 50)
    assert (second.column, second.channel, second.filter, second.kernel2d) == (0, 0, 50, 50)
    assert found.blocks == {"2x2": 25.0}


def test_json_rows_have_the_published_names():
    w = np.zeros((4, 2, 3, 3), np.float32)
    w[0] = 1
    (row,) = statistics_of("conv1", 0, w, 1, [Tile(18, 1), Tile(1, 4)]).to_json()
    assert row == {
        "name": "conv1",
        "blob": 0,
        "shape": [4, 2, 3, 3],
        "group": 0,
        "element": 75.0,
        "row": 75.0,
        "column": 0.0,
        "filter": 75.0,
        "channel": 0.0,
        "kernel2d": 75.0,
        "blocks": {"18x1": 75.0, "1x4": 0.0},
    }
    assert json.loads(json.dumps(row)) == row


def test_json_has_a_row_for_each_conv_group():
    w = np.zeros((4, 1, 1, 1))
    w[:3] = 1
    first, second = statistics_of("conv2", 0, w, 2).to_json()
    assert (first["group"], first["row"], first["column"]) == (0, 0.0, 0.0)
    assert (second["group"], second["row"], second["column"]) == (1, 50.0, 0.0)
    assert first["whole"] == second["whole"] == {"element": 25.0, "row": 25.0, "column": 0.0}


def test_a_bias_is_one_column():
    found = statistics_of("ip1", 1, np.array([0.0, 5e-5, 1.0, 2.0]))
    assert (found.element, found.row, found.column) == (50.0, 25.0, 0.0)
    assert statistics_of("ip1", 1, np.zeros(4)).column == 100.0


def test_log_lines_to_the_letter():
    weight = np.zeros((3, 4))
    weight[0] = [1, 0, 5e-5, 1]
    bias = np.array([[0.0], [0.0], [5e-5]])
    lines = log_lines([(weight, [Tile(4, 1), Tile(2, 3)]), (bias, []), (np.ones((2, 2)), [])])
    assert lines == [
        ("    Element Sparsity %: ", "83.3333\t100\t0\t"),
        ("     Column Sparsity %: ", "25\t0\t0\t"),
        ("        Row Sparsity %: ", "66.6667\t66.6667\t0\t"),
        ("      Block Sparsity %: ", "(4,1):66.6667;(2,3):0;\t\t\t"),
    ]


def test_six_digits_are_those_of_the_precision_of_the_weights():
    """387245 zeros of 400000 are 96.81125 %: the sixth digit depends on the precision."""
    for dtype, digits in ((np.float32, "96.8112"), (np.float64, "96.8113")):
        matrix = np.ones((400, 1000), dtype)
        matrix.flat[:387245] = 0
        assert log_lines([(matrix, [])])[0][1] == f"{digits}\t"


def test_exactly_the_threshold_is_not_small():
    for dtype in (np.float32, np.float64):
        matrix = np.array([[1e-4, -1e-4, 0.99e-4, 0]], dtype)
        assert statistics_of("ip1", 0, matrix).element == 50.0


def test_percentage():
    assert percentage(np.array([[True, False], [False, False]])) == 25.0
    assert percentage(np.array([True, False, False]), np.float32) == float(np.float32(100 / 3))


# --- the recorded runs of the published program ---

RUNS = Path(os.environ.get("MINISSL_ORIGINAL_RUNS", "/nonexistent")) / "runs"
TITLES = ("Element", "Column", "Row", "Block")
needs_runs = pytest.mark.skipif(
    not RUNS.is_dir(), reason="set MINISSL_ORIGINAL_RUNS to the folder of recorded runs"
)


def recorded_runs(*files):
    return sorted(
        folder.name
        for folder in RUNS.glob("*")
        if all((folder / name).exists() for name in ("run.json", *files))
    )


def read_trace(run, name):
    with gzip.open(RUNS / run / name, "rt") as file:
        return list(csv.DictReader(file))


def read_run(run):
    return json.loads((RUNS / run / "run.json").read_text())


@needs_runs
@pytest.mark.parametrize("precision", ["f64", "f32_openblas"])
def test_recorded_sparsity_of_final_weights(precision):
    """The last printed lines, for every blob whose zeros the last updates left as they were."""
    compared = 0
    for run in recorded_runs(f"final_{precision}.npz"):
        record = read_run(run)
        final = np.load(RUNS / run / f"final_{precision}.npz")
        last_updates = read_trace(run, f"trace_{precision}.csv.gz")[-7:]
        printed = record["last_sparsity_lines"]["open64" if precision == "f64" else "open"]
        columns = [printed[title].split("\t") for title in TITLES]
        for index, blob in enumerate(record["blobs"]):
            zeros_moved = len({row[f"w_nnz_{index}"] for row in last_updates}) > 1
            if blob not in final.files or zeros_moved:  # large blobs are recorded in part
                continue
            expected = [column[index] for column in columns]
            tiles = [Tile(int(x), int(y)) for x, y in re.findall(r"\((\d+),(\d+)\)", expected[3])]
            matrix = final[blob].reshape(final[blob].shape[0], -1)
            found = [line.removesuffix("\t") for _, line in log_lines([(matrix, tiles)])]
            assert found == expected, (run, blob)
            compared += 1
    assert compared > 50


@needs_runs
@pytest.mark.parametrize("run", recorded_runs("log.txt.gz", "trace_f32_openblas.csv.gz"))
def test_recorded_element_lines_of_every_iteration(run):
    """The printed digits from the recorded counts of zeros, header included."""
    sizes = {"ip1.0": 500 * 800}  # LeNet's, not recorded in full
    final = np.load(RUNS / run / "final_f64.npz")
    sizes.update({name: final[name].size for name in final.files})
    blobs = read_run(run)["blobs"]
    rows = {int(row["iter"]): row for row in read_trace(run, "trace_f32_openblas.csv.gz")}
    with gzip.open(RUNS / run / "log.txt.gz", "rt") as file:
        log = file.read().splitlines()
    iteration, compared = 0, 0
    for number, line in enumerate(log):
        if match := re.search(r"Iteration (\d+), lr", line):
            iteration = int(match[1])
        if "Element Sparsity" not in line or iteration - 1 not in rows:
            continue
        matrices = []
        for index, blob in enumerate(blobs):
            matrix = np.zeros((sizes[blob], 1), np.float32)
            matrix[: int(rows[iteration - 1][f"w_nnz_{index}"])] = 1
            matrices.append((matrix, []))
        header, values = log_lines(matrices)[0]
        assert line.split("] ", 1)[1] == header
        assert log[number + 1] == values, (run, iteration)
        for title, (header, _) in zip(TITLES, log_lines([]), strict=True):
            position = number + 2 * TITLES.index(title)
            assert log[position].split("] ", 1)[1] == header
        compared += 1
    assert compared >= 4
