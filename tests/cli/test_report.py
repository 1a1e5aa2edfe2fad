from tests.report.runs import make_run
from tests.report.test_page import assert_self_contained


def test_report_writes_the_page_and_names_it(tmp_path, run):
    folder = make_run(tmp_path / "ssl")
    assert run("report", folder).stdout.strip() == str(folder / "report.html")
    assert_self_contained((folder / "report.html").read_text())


def test_report_as_json(tmp_path, run_json):
    result = run_json("report", make_run(tmp_path / "run"), "--out", tmp_path / "page.html")
    assert result["report"] == str(tmp_path / "page.html") and result["bytes"] > 10_000


def test_report_reads_what_train_writes(tmp_path, run, solver_file):
    folder = tmp_path / "run"
    run("train", "--solver", solver_file, "--run", folder, "--backend", "numpy")
    run("report", folder)
    reader = assert_self_contained((folder / "report.html").read_text())
    assert [tag for tag, _ in reader.tags].count("img") == 5
    assert "max_iter: 4" in reader.text


def test_report_refuses_in_one_sentence(tmp_path, run):
    assert "is no folder" in run("report", tmp_path / "missing", code=1).stderr
    assert "name the folder of a training run" in run("report", tmp_path, code=1).stderr
    run("report", code=2)


def test_help_has_an_example(run):
    assert "minissl report demo" in run("report", "--help").stdout
