"""minissl vectors: what it writes, and how it judges answers."""

import json

import numpy as np
from click.testing import CliRunner

from minissl.cli.vectors import FAMILIES, command
from minissl.vectors import FAMILIES as KNOWN


def run(*arguments):
    return CliRunner().invoke(command, [str(one) for one in arguments])


def test_the_choices_are_the_families():
    assert tuple(KNOWN) == FAMILIES


def test_writes_and_accepts_its_own_numbers(tmp_path):
    written = run(tmp_path, "--family", "sparsity")
    assert written.exit_code == 0 and "sparsity.safetensors: 24 vectors" in written.output
    checked = run("--check", tmp_path)
    assert checked.exit_code == 0 and "answers are right" in checked.output
    assert json.loads(run(tmp_path, "--family", "matrices", "--json").output)["version"]


def test_a_wrong_answer_ends_with_1(tmp_path):
    np.savez(tmp_path / "a.npz", **{"sparsity/group lasso/filter#outputs/penalty": np.array(1.0)})
    shown = run("--check", tmp_path)
    assert shown.exit_code == 1 and "0 of 1 answers are right" in shown.output
    told = json.loads(run("--check", tmp_path, "--json").output)
    assert told["ok"] is False and len(told["missing"]) == 2


def test_one_of_the_two_must_be_given(tmp_path):
    assert run().exit_code == 2
    assert run(tmp_path, "--check", tmp_path).exit_code == 2
