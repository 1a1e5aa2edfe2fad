"""debug_info writes what the published program wrote."""

from __future__ import annotations

import re

import pytest

from minissl.solvers.display import CaffeLog
from tests import original_runs, tiny_nets
from tests.conftest import needs_compiler

NUMBER = re.compile(r"-?\b\d+(?:\.\d+)?(?:e[+-]\d+)?")


@needs_compiler
def test_whole_log_of_the_recorded_run(monkeypatch):
    """All lines up to the last snapshot, in order.

    The numbers may differ by one in the sixth digit: the log is that of the float32 program.
    """
    monkeypatch.setenv("MINISSL_DATA", str(original_runs.FOLDER / "data"))
    lines = []
    original_runs.make_solver("t_plain", reporter=CaffeLog(lines.append)).solve()
    found = [re.sub(r"^I\d{4} [\d:.]* minissl\] ", "", line) for line in lines]
    found = [re.sub(r" \([\d.e+-]+ iter/s, .* iters\)", "", line) for line in found]
    recorded = original_runs.log_lines("t_plain")
    end = next(i for i, line in enumerate(recorded) if line.startswith("Snapshotting"))
    assert end > 300
    for line, expected in zip(found[:end], recorded[:end], strict=True):
        assert NUMBER.sub("#", line) == NUMBER.sub("#", expected)
        values = [float(x) for x in NUMBER.findall(line)]
        assert values == pytest.approx([float(x) for x in NUMBER.findall(expected)], rel=1e-5)


def lines_of(net_text, iterations=1, fields=""):
    lines = []
    solver = tiny_nets.make_solver(
        f"debug_info: true {fields}",
        net_text,
        reporter=CaffeLog(lines.append),
        dtype="float64",
        backend="numpy",
    )
    solver.solve(iterations)
    return [line.partition("] ")[2] for line in lines if "ward] " in line], solver


def test_frozen_and_shared_parameters():
    net = tiny_nets.net_text(
        conv1="param { lr_mult: 0 } param { lr_mult: 0 }", ip1='param { name: "common" }'
    )
    lines, _ = lines_of(net)
    assert any("Layer ip1, param blob common data" in line for line in lines)
    assert any("Layer conv1, param blob 0 data" in line for line in lines)
    assert not any("[Backward] Layer conv1" in line for line in lines)
    assert sum("All net params" in line for line in lines) == 1
    assert lines[-1].startswith("    [Backward] All net params (data, diff): L1 norm = (")


def test_every_batch_of_iter_size_is_shown():
    lines, _ = lines_of(tiny_nets.net_text(), fields="iter_size: 3")
    assert sum("All net params" in line for line in lines) == 3


def test_silent_without_debug_info():
    lines = []
    solver = tiny_nets.make_solver(reporter=CaffeLog(lines.append), backend="numpy")
    solver.solve(1)
    assert solver.net.watcher is None
    assert not any("ward] " in line for line in lines)


@pytest.mark.parametrize("name", ["top", "bottom"])
def test_values_are_mean_magnitudes(name):
    lines, solver = lines_of(tiny_nets.net_text())
    blob = solver.net.blobs["ip2"]
    array, kind = (blob.data, "data") if name == "top" else (blob.diff, "diff")
    layer = "ip2" if name == "top" else "loss"
    expected = f"Layer {layer}, {name} blob ip2 {kind}: {abs(array).mean():g}"
    assert any(line.endswith(expected) for line in lines)
