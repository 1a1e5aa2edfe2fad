from tests.report.runs import make_run


def test_plot_writes_and_names_the_pictures(tmp_path, run):
    folder = make_run(tmp_path / "ssl")
    lines = run("plot", folder, "--format", "svg").stdout.splitlines()
    assert str(folder / "pictures" / "loss.svg") in lines and len(lines) == 5
    assert (folder / "pictures" / "loss.svg").read_text().startswith("<?xml")


def test_plot_several_runs_as_json(tmp_path, run_json):
    folders = [make_run(tmp_path / "one"), make_run(tmp_path / "two")]
    result = run_json("plot", *folders, "--out", tmp_path / "out")
    assert str(tmp_path / "out" / "test.png") in result["files"]


def test_plot_draws_what_train_writes(tmp_path, run, solver_file):
    folder = tmp_path / "run"
    run("train", "--solver", solver_file, "--run", folder, "--backend", "numpy")
    names = {line.rsplit("/")[-1] for line in run("plot", folder).stdout.splitlines()}
    assert names == {"loss.png", "sparsity.png", "test.png", "zero-maps.png", "filters.png"}


def test_plot_refuses_in_one_sentence(tmp_path, run):
    assert "name the folder of a training run" in run("plot", tmp_path, code=1).stderr
    run("plot", code=2)
    run("plot", tmp_path, "--format", "bmp", code=2)
    folder = make_run(tmp_path / "run")
    (folder / "weights.caffemodel").write_bytes(b"\xff\xff")
    run("plot", folder, code=1)


def test_help_has_an_example(run):
    assert "minissl plot demo" in run("plot", "--help").stdout
