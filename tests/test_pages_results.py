"""Figures of kept results on the front page and in docs/experiments.md are those of the results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = "README.md"
EXPERIMENTS = "docs/experiments.md"
#: tables of the front page with a row for each network: what the columns tell after the error
TABLES = {
    "table1": ("filters", "channels", "flops_percent", "times"),
    "table2": ("columns", "channels", "flops_percent", "times"),
    "mlp": ("neurons", "flops_percent"),
    "table3": ("zero rows", "zero columns"),
}
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def page(name: str) -> str:
    return (ROOT / name).read_text()


def result(key: str) -> dict[str, Any]:
    return json.loads((ROOT / "reference_results" / key / "result.json").read_text())


def row_of(name: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return the table, the result and the row of a network by its name on the front page."""
    for key in TABLES:
        kept = result(key)
        for row in kept["rows"]:
            if row["name"] == name:
                return key, kept, row
    raise AssertionError(f"no result is kept of {name}")


def agree(shown: list[str], values: list[float]) -> bool:
    """Whether each shown number is the value, rounded to its places (a half either way)."""
    return len(shown) == len(values) and all(
        abs(float(text) - value) <= 0.5 * 10 ** -len(text.partition(".")[2]) + 1e-5
        for text, value in zip(shown, values, strict=True)
    )


def told(what: str, key: str, kept: dict[str, Any], row: dict[str, Any]) -> list[float]:
    """Return the figures of one column: of each layer, or of both batch sizes."""
    before = row.get("layers_before_compaction") if what.startswith("zero") else None
    layers = [one for one in before or row["layers"] if one["name"] in kept["layers"]]
    dense = kept.get("dense_sizes", {})
    if what == "times":
        return [row["speed_ups"][batch]["fastest"] for batch in ("1", "64")]
    if what == "neurons":
        return [layers[0]["channels"], *(one["filters"] for one in layers)]
    if what.startswith("zero"):
        size = {"zero rows": "filters", "zero columns": "columns"}[what]
        return [100 - 100 * one[size] / dense[one["name"]][size] for one in layers]
    return [one[what] for one in layers]


def cells(line: str) -> list[list[str]]:
    """Return the numbers of each cell of a table's line, without the first cell."""
    return [NUMBER.findall(cell) for cell in line.strip().strip("|").split("|")[1:]]


def lines(kind: str) -> list[tuple[str, str]]:
    """Return networks of the front page with their lines: ours, the dense ones, or the paper's."""
    patterns = {
        "ours": r"\| \*\*our (.+?)\*\* \|.*",
        "dense": r"\| paper's (.+?) \(ours\) \|.*",
        "paper": r"\| paper's ([^(|]+?) \|.*",
    }
    found = re.finditer(patterns[kind], page(README))
    return [(one[1], one[0]) for one in found]


def ids(kind: str) -> list[str]:
    return [name for name, _ in lines(kind)]


@pytest.mark.parametrize(("name", "line"), lines("ours"), ids=ids("ours"))
def test_our_networks(name, line):
    key, kept, row = row_of(name)
    shown = [number for cell in cells(line) for number in cell]
    values = [100 * row["error"]]
    values += [value for what in TABLES[key] for value in told(what, key, kept, row)]
    assert agree(shown, values), (shown, values)


@pytest.mark.parametrize(("name", "line"), lines("dense"), ids=ids("dense"))
def test_dense_networks_beside_the_papers(name, line):
    key, kept, row = row_of(name)
    error, *rest = cells(line)
    assert agree(error, [100 * row["paper"]["error"], 100 * row["error"]]), error
    if key == "table3":  # theirs (ours); the other tables show sizes, which are the same for both
        shown = [number for cell in rest for number in cell]
        sizes = [told(what, key, kept, one) for what in TABLES[key] for one in (row["paper"], row)]
        theirs_zero_columns, ours_zero_columns = sizes[2:]
        assert theirs_zero_columns == ours_zero_columns
        assert agree(shown, [*sizes[0], *sizes[1], *ours_zero_columns]), shown


@pytest.mark.parametrize(("name", "line"), lines("paper"), ids=ids("paper"))
def test_networks_of_the_paper(name, line):
    key, kept, row = row_of(name)
    shown = [number for cell in cells(line) for number in cell]
    columns = [what for what in TABLES[key] if what != "times"]
    values = [100 * row["paper"]["error"]]
    values += [value for what in columns for value in told(what, key, kept, row["paper"])]
    assert agree(shown, values), (shown, values)


def test_all_kept_networks_of_these_tables_are_on_the_front_page():
    kept = {row["name"] for key in TABLES for row in result(key)["rows"]}
    assert {*ids("ours"), *ids("dense")} == kept


def test_speed_ups_of_table4():
    ssl = next(row for row in result("table4")["rows"] if row["key"] == "ssl")
    run = next(run for run in ssl["runs"] if (run["batch_size"], run["threads"]) == (1, 1))
    published = [*ssl["paper"]["speed_ups"]["CPU"], ssl["paper"]["means"]["CPU"]]
    ours = {
        kind: [*(layer[kind] for layer in run["layers"]), run[f"mean_{kind}"]]
        for kind in ("speed_up", "layer_speed_up")
    }
    for start, values in [
        ("| paper, product |", published),
        ("| **ours, product** |", ours["speed_up"]),
        ("| **ours, whole layer** |", ours["layer_speed_up"]),
    ]:
        line = next(line for line in page(README).splitlines() if line.startswith(start))
        shown = [number for cell in cells(line) for number in cell]
        assert agree(shown, values), (shown, values)


def errors(key: str, *rows: str) -> list[float]:
    """Return errors of a result's rows in %."""
    found = {row["key"]: 100 * row["error"] for row in result(key)["rows"]}
    return [found[row] for row in rows]


#: sentences with figures: the page, a pattern with a group for each figure, and where they are from
SENTENCES = {
    "depth": (
        README,
        r"ends at (\S+) % error .*? with 18 of its layers at (\S+) % .*? with 16 at (\S+) % "
        r".*? two more gone at (\S+) %",
        lambda: errors("depth", "longest", "layers18", "layers16", "more"),
    ),
    "channels": (
        README,
        r"fewer multiply-adds has (\S+) % error in place of (\S+) %",
        lambda: errors("channels", "channels", "longer"),
    ),
    "variants": (
        README,
        r"the dense LeNet gets (\S+) % that way.*?: (\S+) % by proximal group Lasso, (\S+) % with "
        r"SSL from random weights; removing as much at random and fine-tuning gives (\S+) %",
        lambda: errors("variants", "dense", "proximal", "scratch", "random"),
    ),
    "table3": (
        EXPERIMENTS,
        r"By the median, ConvNet 1 has (\S+) % error .*?, ConvNet 2 (\S+) % .*? and "
        r"ConvNet 3 (\S+) %",
        lambda: errors("table3", "baseline", "convnet2", "convnet3"),
    ),
    "depth, at length": (
        EXPERIMENTS,
        r"ResNet-20 has (\S+) % error after 16 epochs, (\S+) % after 16 more, and (\S+) % after "
        r"another 72 .*? leave 18 layers with (\S+) % .*? and 16 with (\S+) % ",
        lambda: errors("depth", "baseline", "longer", "longest", "layers18", "layers16"),
    ),
    "channels, at length": (
        EXPERIMENTS,
        r"The compacted network has (\S+) times fewer multiply-adds and (\S+) % error",
        lambda: [
            100 / result("channels")["rows"][-1]["flops_percent"],
            *errors("channels", "channels"),
        ],
    ),
}


@pytest.mark.parametrize("key", SENTENCES)
def test_sentences(key):
    name, pattern, values = SENTENCES[key]
    found = re.search(pattern, " ".join(page(name).split()))
    assert found, f"{name} has no such sentence any more: {pattern}"
    assert agree(list(found.groups()), values()), (found.groups(), values())


def test_the_kept_row_among_the_tries_of_convnet_2():
    start = "| the kept result"
    line = next(one for one in page(EXPERIMENTS).splitlines() if one.startswith(start))
    by_seed, zeros = cells(line)[1:]
    row = row_of("ConvNet 2")[2]
    assert agree(by_seed, [100 * run["error"] for run in row["runs"]]), by_seed
    values = [v for what in TABLES["table3"] for v in told(what, "table3", result("table3"), row)]
    assert agree(zeros, values), (zeros, values)


@pytest.mark.parametrize(
    ("shown", "values"),
    [(["18.1"], [18.21]), (["18"], [18.6]), (["1", "2"], [1.0]), (["56.3"], [56.35001])],
)
def test_a_wrong_figure_would_be_seen(shown, values):
    assert agree(["18.1", "56.3", "56.2"], [18.13, 56.25, 56.25])
    assert not agree(shown, values)
