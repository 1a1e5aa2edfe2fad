"""minissl lint: what it takes a file for."""

from __future__ import annotations

import pytest

from minissl.lint.kind import is_net
from tests.tiny_nets import DIGITS

RATE = 'block_group_decay: 0.001 base_lr: 0.01 lr_policy: "fixed" max_iter: 10\n'
ONE_LINE = 'name: "n" ' + " ".join(DIGITS.replace('name: "Digits"', "").split())


def test_a_solver_with_its_net_inside(run, run_json, tmp_path):
    file = tmp_path / "inside.prototxt"
    file.write_text("net_param {\n" + DIGITS.replace("layer {", "  layer {") + "}\n" + RATE)
    assert "layer {" in file.read_text().splitlines()[3]
    assert run_json("lint", file) == {"ok": True, "findings": []}
    file.write_text(file.read_text().replace("fixed", "stepp"))
    assert "unknown lr_policy" in run("lint", file, code=1).stdout


def test_a_net_in_one_line(run, run_json, tmp_path):
    file = tmp_path / "line.prototxt"
    file.write_text(ONE_LINE)
    assert run_json("lint", file) == {"ok": True, "findings": []}
    file.write_text(ONE_LINE.replace("num_output: 3", "num_outputs: 3"))
    assert "did you mean 'num_output'?" in run("lint", file, code=1).stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('name: "base_lr: 1 max_iter: 2 display: 3" layer { name: "a" }', True),
        ("# base_lr: 1 max_iter: 3 display: 2 net: 'a'\ninput: 'data' input_dim: 1", True),
        ("layer # the first\n{ name: 'a' }", True),
        ("debug_info: true layers { }", True),
        ("layer: [{ name: 'a' }, { name: 'b' }] debug_info: true", True),
        ("solver_mode: GPU net: 'a' layer { }", False),
        ("layer < name: 'a' > display: 0", False),
        ('name: "not closed { \nlayer { }', True),
        ("#" * 100_000 + '\n"' + '\\"' * 100_000 + "\n" + "layer" * 100_000 + "\nlayer {}", True),
        ("layer { name: ", True),
        ("} layer { name: 'a' }", True),
        ("net_param < layer { } > base_lr: 1", False),
        ("test_net_param { name: 'a' } test_net_param { name: 'b' } net: 'layer {'", False),
        ("base_rl: 1", False),
        ("", False),
    ],
)
def test_a_net_is_known_by_its_own_fields(text, expected):
    assert is_net(text.encode()) == expected


def test_a_solver_without_its_rate_is_told(run_json, solver_file):
    text = solver_file.read_text()
    solver_file.write_text(text.replace('lr_policy: "fixed"', ""))
    (finding,) = run_json("lint", solver_file, code=1)["findings"]
    assert finding["severity"] == "error" and "unknown lr_policy" in finding["message"]
    solver_file.write_text(text.replace("test_iter: 2", ""))
    (finding,) = run_json("lint", solver_file)["findings"]
    assert finding["severity"] == "warning" and "no test is run" in finding["message"]
