"""A table that tells how many layers are left."""

from __future__ import annotations

from matplotlib.colors import to_hex

from minissl.recipes.paper import DEPTH_TABLE
from minissl.report import depth
from minissl.report.runs import Run
from tests.report.runs import a_test, display

LAYERS = ["conv1", "a", "b", "c", "fc"]
SIZES = {"conv1": 1024, "a": 1024, "shortcut": 256, "b": 256, "c": 256, "fc": 1}


def a_row(name, error, *dead, key="row"):
    layers = [
        {"name": one, "filters": 4 * left, "flops_percent": 100.0 * left}
        for one, left in {one: one not in dead for one in SIZES}.items()
    ]
    row = {"key": key, "name": name, "error": error, "layers": layers}
    return {**row, "trainings": ["ssl", "finetune"], "runs": [row]}


def a_result(*rows):
    sizes = {name: {"filters": 4, "columns": 9, "pixels": n} for name, n in SIZES.items()}
    flop = {"conv1": 40, "a": 20, "shortcut": 10, "b": 15, "c": 10, "fc": 5}
    result = {"shown": "depth", "layers": LAYERS, "dense_sizes": sizes, "rows": rows}
    return {**result, "dense_flop": flop}


def test_layers_are_counted_without_shortcuts_and_by_size():
    result = a_result()
    assert depth.headings(result) == [
        "network",
        "error %",
        "layers",
        "convolutions at 32x32 - 16x16",
        "FLOP %",
    ]
    whole = a_row("whole", 0.1)
    assert depth.cells("whole", whole, result) == ["whole", "10.00", "5", "2 - 2", "100.0"]
    small = a_row("small", 0.125, "a", "c")
    assert depth.cells("small", small, result)[1:] == ["12.50", "3", "1 - 1", "70.0"]
    # a compacted network does not have them any more
    small["layers"] = [one for one in small["layers"] if one["filters"]]
    assert depth.layers_left(small, result) == ["conv1", "b", "fc"]
    assert depth.flops_percent(small, result) == 70


def test_published_rows_tell_their_own_figures():
    eighteen = DEPTH_TABLE[4]
    cells = depth.cells("paper's", eighteen, a_result())
    assert cells == ["paper's", "7.40", "18", "5 - 6 - 6", ""]
    for row in DEPTH_TABLE:  # every convolution, and the inner product
        assert sum(row["convolutions"]) + 1 == row["depth"]


def test_what_is_not_known_of_a_published_network_is_blank():
    def theirs(**figures):
        unknown = {"filters": None, "channels": None, "flops_percent": None}
        layers = [{"name": one, **unknown, **figures} for one in LAYERS]
        return {"error": 0.1, "layers": layers}

    result = a_result()
    for row in (theirs(), {"error": 0.1, "layers": []}):
        assert depth.cells("theirs", row, result) == ["theirs", "10.00", "", "", ""]
    # its shortcuts are not among the layers that a table tells of, so the whole is not known
    row = theirs(filters=4, flops_percent=50)
    assert depth.cells("theirs", row, result)[2:] == ["5", "2 - 2", ""]
    row["layers"].pop()
    assert depth.cells("theirs", row, result)[2:] == ["", "", ""]
    result["dense_flop"].pop("shortcut")
    row = theirs(flops_percent=50)
    assert depth.cells("theirs", row, result)[2:] == ["", "", "50.0"]


def test_every_network_is_a_point_and_a_row():
    base = a_row("dense", 0.09, key="baseline")
    small = a_row("small", 0.1, "b", key="small")
    small["runs"] = [small, a_row("small", 0.2, "a", "b")]
    longer = {**a_row("longer", 0.05, key="longer"), "trainings": ["finetune"]}
    base["trainings"], small["trainings"] = ["baseline"], ["ssl", "finetune"]
    result = a_result(base, longer, small)
    run = Run("SSL", None, [display(0), display(5)], [a_test(0, 0.1), a_test(10, 0.9)])
    figures = depth.draw(result, {"baseline": [run], "longer": [run], "small": [run, run]})
    assert list(figures)[:2] == ["error-and-layers", "layers-left"]
    assert list(figures)[2:] == ["longer-error", "small-error"]
    assert figures["small-error"].axes[0].get_title(loc="left").startswith("small: error")
    lines = {line.get_label(): line for line in figures["error-and-layers"].axes[0].lines}
    ours = lines["our networks after SSL"].get_xydata().tolist()
    assert ours == [[3, 20], [4, 10]]
    assert lines["our dense"].get_ydata()[0] == 9 and lines["our longer"].get_ydata()[0] == 5
    assert [18, 7.4] in lines["the paper's networks after SSL"].get_xydata().round(2).tolist()
    axes = figures["layers-left"].axes[0]
    assert axes.images[0].get_array().tolist() == [[1] * 5, [1] * 5, [1, 1, 0, 1, 1]]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["dense: 5", "longer: 5", "small: 4"]
    assert to_hex(axes.images[0].cmap(1.0)) == depth.LEFT
