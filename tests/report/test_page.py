import re

import pytest

from minissl.errors import ConfigError, MinisslError
from minissl.report.page import write_report
from tests.report.runs import LINES, a_test, make_run
from tests.report.test_html import read


def assert_self_contained(text):
    assert not re.search(r'(?:src|href)\s*=\s*["\'](?!data:|#)', text)
    assert "<script" not in text and "@import" not in text and "url(http" not in text
    reader = read(text)
    assert not {"link", "iframe", "object", "script"} & {tag for tag, _ in reader.tags}
    for tag, attrs in reader.tags:
        if tag == "img":
            assert attrs["src"].startswith("data:image/svg+xml;base64,") and len(attrs["alt"]) > 20
    return reader


def test_the_page_of_a_run_needs_nothing_beside_it(tmp_path):
    path = write_report(make_run(tmp_path / "ssl"))
    assert path == tmp_path / "ssl" / "report.html"
    reader = assert_self_contained(path.read_text())
    assert [tag for tag, _ in reader.tags].count("img") == 5
    assert [tag for tag, _ in reader.tags].count("h1") == 1
    assert "Training run ssl" in reader.text
    assert "The last test, after iteration 10, has an error of 10.00 %." in reader.text
    assert "base_lr: 0.01 # <b>&" in reader.text
    assert "prefers-color-scheme: dark" in path.read_text() and "@media print" in path.read_text()


def test_a_run_without_weights_tests_or_displays_still_has_a_page(tmp_path):
    displays = [line for line in LINES if "loss" in line]
    assert_self_contained(
        write_report(make_run(tmp_path / "a", displays, weights=False)).read_text()
    )
    tests = [a_test(0, 0.5)]
    assert_self_contained(write_report(make_run(tmp_path / "b", tests, weights=False)).read_text())


def test_the_page_goes_where_it_is_asked_to(tmp_path):
    out = tmp_path / "page.html"
    assert write_report(make_run(tmp_path / "run"), out) == out and out.exists()
    assert not (tmp_path / "run" / "report.html").exists()


def test_what_is_no_run_has_no_page(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        write_report(tmp_path / "missing")
    with pytest.raises(ConfigError, match="name the folder of a training run"):
        write_report(tmp_path)
    (tmp_path / "result.json").write_text('{"recipe": "demo"}')
    with pytest.raises(ConfigError, match=r"result\.json is damaged"):
        write_report(tmp_path)
    with pytest.raises(MinisslError, match="folder does not exist"):
        write_report(make_run(tmp_path / "run"), tmp_path / "missing" / "page.html")
