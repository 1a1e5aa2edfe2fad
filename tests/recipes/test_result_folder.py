"""What may be written where: asked before hours of work."""

import json
import shlex

import pytest

from minissl.errors import ConfigError
from minissl.recipes import result_folder


def kept(folder, **fields):
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(fields))
    return folder


def test_new_folders_damaged_results_and_results_of_the_same_experiment(tmp_path):
    result_folder.check(tmp_path / "new" / "one", "table1", fast=False)
    assert not (tmp_path / "new").exists()
    for fast in (False, True):
        result_folder.check(
            kept(tmp_path / f"{fast}", experiment="table1", fast=True), "table1", fast
        )
    whole = kept(tmp_path / "whole", experiment="table1", fast=False)
    result_folder.check(whole, "table1", fast=False)
    (whole / "result.json").write_text("{")
    result_folder.check(whole, "table2", fast=True)


def test_a_result_of_another_experiment_stays(tmp_path):
    folder = kept(tmp_path / "kept", experiment="table2", fast=False)
    with pytest.raises(ConfigError, match="holds a result of table2, which one of table1 would"):
        result_folder.check(folder, "table1", fast=False)


def test_a_trial_does_not_replace_a_whole_result(tmp_path):
    folder = kept(tmp_path / "kept", experiment="table1", fast=False)
    with pytest.raises(ConfigError, match="a whole result, which a trial with --fast would"):
        result_folder.check(folder, "table1", fast=True)


def two_files(tmp_path):
    """The command that one was run with, and the other, of the same name."""
    files = [tmp_path / folder / "mine.toml" for folder in ("one", "other")]
    for file in files:
        file.parent.mkdir()
        file.write_text("title = 'Mine'\n")
    return shlex.join(["minissl", "reproduce", str(files[0]), "--seeds", "1"]), *files


def test_files_of_one_name_do_not_replace_each_other_s_results(tmp_path):
    command, one, other = two_files(tmp_path)
    folder = kept(tmp_path / "kept", experiment="mine", fast=False, command=command)
    with pytest.raises(ConfigError, match=r"one/mine.toml, which one of .*other/mine.toml would"):
        result_folder.check(folder, "mine", False, other)
    one.unlink()  # it may be the other one, which has moved
    result_folder.check(folder, "mine", False, other)


def test_an_experiment_that_has_changed_is_still_the_same(tmp_path):
    command, one, other = two_files(tmp_path)
    folder = kept(tmp_path / "kept", experiment="mine", fast=False, command=command)
    one.write_text("title = 'Another'\n")
    result_folder.check(folder, "mine", False, one)
    other.unlink()
    other.symlink_to(one)
    result_folder.check(folder, "mine", False, other)


@pytest.mark.parametrize("command", ["", "minissl reproduce table1", "no 'quote", 3])
def test_a_command_that_names_no_file_says_nothing(tmp_path, command):
    folder = kept(tmp_path / "kept", experiment="mine", fast=False, command=command)
    result_folder.check(folder, "mine", False, two_files(tmp_path)[1])


@pytest.mark.parametrize("place", ["file", "file/below/it"])
def test_what_is_no_folder(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written; name another folder with --out"):
        result_folder.check(tmp_path / place, "table1", fast=False)
