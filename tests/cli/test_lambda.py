def test_the_marks_are_shown(run, run_json, solver_file, weights_file):
    arguments = ["lambda", "--solver", solver_file, "--weights", weights_file, "--batches", 2]
    result = run_json(*arguments)
    (mark,), (tiling,) = result["decays"], result["tilings"]
    assert result["batches"] == 2 and mark["decay"] == "block_group_decay"
    assert (tiling["layer"], tiling["tile"], tiling["length"]) == ("conv1", "25x1", 25)
    shown = run(*arguments).stdout
    assert "mean of 2 batches" in shown and "block_group_decay" in shown and "25x1" in shown
    assert f"{mark['equal_to_loss']:.3g}" in shown


def test_the_solver_can_be_changed(run_json, solver_file):
    arguments = ["lambda", "--solver", solver_file, "--batches", 1]
    assert run_json(*arguments)["decays"][0]["equal_to_l2"] is None
    changed = run_json(*arguments, "--set", "weight_decay=0.01")["decays"][0]
    assert changed["equal_to_l2"] > 0


def test_bad_input_is_told_in_one_sentence(run, solver_file, tmp_path, net_file):
    run("lambda", "--solver", tmp_path / "none.prototxt", code=1)
    run("lambda", "--solver", solver_file, "--batches", 0, code=2)
    text = net_file.read_text().replace("block_group_lasso { xdimen: 25 ydimen: 1 }", "")
    net_file.write_text(text)
    told = run("lambda", "--solver", solver_file, code=1).stderr
    assert "asks for no group lasso" in told
