import pytest

from minissl.errors import ConfigError, MinisslError
from minissl.report.plots import plot
from tests.report.runs import LINES, make_run


def names(paths):
    return {path.name for path in paths}


def test_a_run_has_all_its_pictures(tmp_path):
    folder = make_run(tmp_path / "ssl")
    files = plot([folder])
    assert names(files) == {"loss.png", "sparsity.png", "test.png", "zero-maps.png", "filters.png"}
    assert all(path.parent == folder / "pictures" and path.stat().st_size for path in files)


def test_a_run_without_weights_or_tests_has_fewer(tmp_path):
    displays = [line for line in LINES if "loss" in line]
    files = plot([make_run(tmp_path / "ssl", displays, weights=False)], kind="svg")
    assert names(files) == {"loss.svg", "sparsity.svg"}


def test_several_runs_are_overlaid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [make_run(tmp_path / "seed1"), make_run(tmp_path / "seed2")]
    expected = {"loss", "test", "sparsity-filters", "sparsity-channels", "sparsity-columns"}
    assert names(plot(folders)) == {f"{name}.png" for name in expected}
    assert (tmp_path / "pictures" / "loss.png").exists()
    assert (tmp_path / "other" / "loss.pdf") in plot(folders, tmp_path / "other", "pdf")


def test_runs_of_equal_name_keep_their_paths_and_one_run_twice_is_refused(tmp_path):
    folders = [make_run(tmp_path / "a" / "run"), make_run(tmp_path / "b" / "run")]
    assert plot(folders, tmp_path / "out")
    with pytest.raises(ConfigError, match="given twice"):
        plot([folders[0], folders[0]], tmp_path / "out")


def test_a_demo_among_several_runs_is_refused(tmp_path):
    folders = [make_run(tmp_path / "run"), tmp_path / "demo"]
    folders[1].mkdir()
    (folders[1] / "result.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"demo is a demo, .* such as .*demo/finetune"):
        plot(folders)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MinisslError, match="Cannot make the folder"):
        plot([make_run(tmp_path / "run")], tmp_path / "file" / "out")
