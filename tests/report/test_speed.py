from __future__ import annotations

from pathlib import Path

import pytest

from minissl.report import index, speed, speed_pictures
from tests.recipes.speed_cases import table4


def test_rows_stand_below_the_paper_s():
    result = table4()
    rows = speed.rows(result)
    headings = speed.headings(result)
    assert headings == ["weights and mode", "what", "conv1", "conv2", "mean"]
    assert all(len(row) == len(headings) for row in rows)
    found = {(row[0], row[1]): row[2:] for row in rows}
    assert found["paper's AlexNet 1", "top-1 error %"] == ["", "", "44.67"]
    assert found["paper's AlexNet 1", "x product, CPU"] == ["0.80", "2.91", "3.03"]
    assert found["paper's AlexNet 2", "zero rows %"] == ["9.4", "12.9", ""]
    assert found["ours, l1", "zeros %"] == ["60.0", "90.0", ""]
    assert found["ours, l1", "x product, 1 thread"] == ["1.00", "8.00", "4.50"]
    assert found["ours, l1", "x product, 2 threads"] == ["2.00", "4.00", "3.00"]
    assert found["ours, l1", "x layer, 1 thread"] == ["1.00", "5.00", "3.00"]
    assert found["ours, ssl", "x ideal"] == ["1.10", "3.00", "2.05"]
    assert ("ours, ssl", "zeros %") not in found
    names = [row[0] for row in rows]
    assert names.index("paper's AlexNet 1") < names.index("ours, l1")
    assert names.index("ours, l1") < names.index("paper's AlexNet 2")


def test_a_single_batch_and_thread_is_not_named():
    result = {**table4(), "threads": [1]}
    assert "x product" in {row[1] for row in speed.rows(result)}
    several = {**table4(), "batch_sizes": [1, 32]}
    assert "x layer, batch 1, 2 threads" in {row[1] for row in speed.rows(several)}


def test_the_page_tells_what_a_reader_must_know():
    result = table4()
    text = speed.readme(result, ["by-layer"])
    assert "Left out: 8 threads: this machine has 2." in text
    assert "- **ours, l1**: Special." in text
    assert "Not the matrices that the authors published: ours, ssl." in text
    assert "`minissl reproduce experiment.toml --check --out .`" in text
    text = speed.readme(result, ["by-layer"], Path("reference_results/table4"))
    assert "`minissl reproduce table4 --check`" in text
    assert "![by-layer](pictures/by-layer.png)" in text and "wenwei202/caffe" in text
    assert "BLAS did not choose" not in text
    assert "| ours, l1 | 1, 2 | conv1 | 4.000 | 2.000 | 5.500 | 5.500 | 4.950 - 6.050 |" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in lines)
    # the made-up quartiles are 0.9 and 1.1 of the medians
    assert "Something else ran on the machine while ours, l1, ours, ssl was measured" in text
    assert "Something else" not in speed.readme({**result, "fast": True})
    forced = {**result, "blas_overrides": ["OPENBLAS_CORETYPE=Haswell"]}
    assert "OPENBLAS_CORETYPE=Haswell was set" in speed.readme(forced)


def heights(axes, label):
    (bars,) = (one for one in axes.containers if one.get_label() == label)
    return [bar.get_height() for bar in bars]


def test_the_picture_by_layer_has_a_panel_for_each_of_the_paper_s_rows():
    first, second = speed_pictures.by_layer(table4()).axes
    assert heights(first, "paper, CPU") == [0.80, 2.91, 3.03]
    assert heights(first, "ours, l1: product") == [1.0, 8.0, 4.5]
    assert heights(first, "ours, l1: whole layer") == pytest.approx([1.0, 5.0, 3.0])
    assert [text.get_text() for text in first.get_xticklabels()] == ["conv1", "conv2", "mean"]
    marks = [line.get_ydata()[0] for line in second.lines if len(line.get_xdata()) == 2]
    assert {1.1, 3.0} <= set(marks)
    written = [text.get_text() for text in second.texts]
    assert written.count("4.50") == 1 and len(written) == 12


def test_the_picture_by_zeros_has_a_line_for_each_layer():
    result = table4()
    even = [
        {**result["rows"][0], "matrices": None, "sparsity": [zeros] * 2, "paper": None,
         "layers": [{**layer, "element": zeros} for layer in result["rows"][0]["layers"]]}
        for zeros in (90.0, 50.0)
    ]  # fmt: skip
    (axes,) = speed_pictures.by_zeros({**result, "rows": [result["rows"][0], *even]}).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert tuple(lines["conv2"].get_xdata()) == (50.0, 10.0)
    assert tuple(lines["conv2"].get_ydata()) == (8.0, 8.0)
    assert axes.get_yscale() == "log" and "ours, l1" in lines
    ticks = dict(zip(axes.get_xticks(), axes.get_xticklabels(), strict=True))
    assert ticks[10].get_text() == "90" and axes.get_xlim()[0] > axes.get_xlim()[1]


def test_the_picture_by_threads():
    result = table4()
    paper = {"name": "l1", "means": {"1 thread": 3.03, "8 threads": 2.07}, "speed_ups": {}}
    rows = [{**result["rows"][0], "paper": paper}]
    figures = speed.draw({**result, "rows": rows})
    assert list(figures) == ["by-threads"]
    (axes,) = figures["by-threads"].axes
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels == ["1 thread", "2 threads", "8 threads"]
    assert heights(axes, "paper, l1") == [3.03, 2.07] and heights(axes, "ours, l1") == [4.5, 3.0]


def test_which_pictures_there_are(tmp_path):
    paths = speed.write(table4(), tmp_path)
    assert [path.name for path in paths] == ["by-layer.png", "by-layer.svg", "README.md"]
    assert all(path.stat().st_size > 1000 for path in paths)


def test_the_index_knows_both_kinds(tmp_path):
    import json

    (tmp_path / "table4").mkdir()
    (tmp_path / "table4" / "result.json").write_text(json.dumps(table4()))
    text = index.write_index(tmp_path).read_text()
    assert "## AlexNet, faster" in text and "[Times and pictures](table4/README.md)" in text
