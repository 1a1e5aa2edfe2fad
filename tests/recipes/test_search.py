"""The search over short runs of a tiny network of digits."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from minissl import Net, Solver
from minissl.errors import ConfigError
from minissl.formats.prototxt import read_net
from minissl.recipes.decays import suggest
from minissl.recipes.measuring import dense_flop, error_of, total_flops_percent
from minissl.recipes.search import Search
from minissl.recipes.stages import Stopped, Watcher
from minissl.recipes.targets import ErrorTarget, FlopsTarget
from minissl.recipes.training import WEIGHTS
from minissl.solvers.display import Silent
from tests.tiny_nets import DIGITS

#: the proximal step, so that a few iterations make exact zeros
SOLVER = """
net: "digits.prototxt" base_lr: 0.1 momentum: 0.5 random_seed: 3 max_iter: 60
lr_policy: "multistep" gamma: 0.1 stepvalue: 36 stepvalue: 48 group_lasso_method: "proximal"
block_group_decay: 0.02 kernel_shape_decay: 0.1 test_iter: 2 test_interval: 25
"""


@pytest.fixture
def solver(tmp_path):
    """conv1 has 3 rows, ip1 has 75 columns; batches of 50 make an epoch of 80 iterations."""
    net = DIGITS.replace(
        'bottom: "conv1" top: "ip1"',
        'bottom: "conv1" top: "ip1" param { kernel_shape_decay_mult: 1 }',
    ).replace("batch_size: 6", "batch_size: 50")
    (tmp_path / "digits.prototxt").write_text(net)
    path = tmp_path / "solver.prototxt"
    path.write_text(SOLVER)
    return path


@pytest.fixture
def search(solver, tmp_path):
    """Make a search; times do not matter here, so trials are short."""

    def make(target, **options):
        given = {
            "iterations": 20,
            "work": tmp_path / "work",
            "data": "mnist-small/validation",
            "backend": "numpy",
            **options,
        }
        return Search(solver, target, **given)

    return make


def run(search, watcher=None):
    told = []
    result = search.run(search.begin(), watcher, told.append)
    assert told == result["trials"]
    return result


def numbers(result):
    """What a result says, but for the times."""
    drop = ("seconds", "kept", "folder")
    return [
        {key: one[key] for key in one if key not in drop}
        for one in [*result["trials"], result["chosen"] or {}]
    ]


def trained(record):
    """The network of a trial, as a user would open it."""
    folder = record["folder"]
    options = {"source": "mnist-small/validation"}
    net = Net(read_net(f"{folder}/net.prototxt"), "TEST", backend="numpy", data=options)
    net.load(f"{folder}/{WEIGHTS}")
    return net


def test_flop_are_reached_and_every_trial_is_told(search):
    result = run(search(FlopsTarget(0.8)))
    chosen = result["chosen"]
    assert result["reached"] and result["nearest"] is None
    assert 72 <= chosen["flops_percent"] <= 88 and chosen["verdict"] == "near"
    assert chosen is result["trials"][-1]
    assert len(result["trials"]) > 2
    for record in result["trials"]:
        # one factor on both, to four digits
        assert record["decays"] == {
            "kernel_shape_decay": float(f"{record['factor'] * float(np.float32(0.1)):.4g}"),
            "block_group_decay": float(f"{record['factor'] * float(np.float32(0.02)):.4g}"),
        }
        assert record["iterations"] == 20
        larger = record["flops_percent"] is not None and record["flops_percent"] > 88
        assert (record["verdict"] == "too small") == larger


def test_a_trial_says_what_its_weights_say(search):
    chosen = run(search(FlopsTarget(0.8)))["chosen"]
    net = trained(chosen)
    dense = dense_flop(net)
    assert chosen["flops_percent"] == total_flops_percent(net, dense)
    assert chosen["grouped_flops_percent"] == chosen["flops_percent"]  # both layers have groups
    assert chosen["error"] == pytest.approx(error_of(net, 2))
    conv1, ip1 = (net.layer(name).parameters[0].matrix for name in ("conv1", "ip1"))
    assert chosen["groups"] == [
        {"layer": "conv1", "decay": "block_group_decay", "tile": "25x1", "groups": 3,
         "left": int(conv1.any(axis=1).sum())},
        {"layer": "ip1", "decay": "kernel_shape_decay", "tile": "1x10", "groups": 75,
         "left": int(ip1.any(axis=0).sum())},
    ]  # fmt: skip
    assert [layer["name"] for layer in chosen["layers"]] == ["conv1", "ip1"]


def test_a_trial_runs_through_the_whole_course_of_rates(search, tmp_path):
    record = run(search(FlopsTarget(0.7), trials=1))["trials"][0]
    ran = Solver(f"{record['folder']}/solver.prototxt", backend="numpy").param
    assert (ran.max_iter, list(ran.stepvalue)) == (20, [12, 16])
    assert (ran.test_interval, ran.test_initialization, ran.snapshot) == (20, False, 0)
    assert ran.block_group_decay == np.float32(0.02)


def test_the_largest_decay_of_an_error(search):
    """Every trial is at or below an error of 75 %, until decays grow."""
    result = run(search(ErrorTarget(0.75), trials=9))
    chosen = result["chosen"]
    assert chosen["error"] <= 0.75
    fitting = [one for one in result["trials"] if not one["lost"] and one["error"] <= 0.75]
    assert chosen["factor"] == max(one["factor"] for one in fitting)
    too_large = [one for one in result["trials"] if one["verdict"] == "too large"]
    assert too_large and all(one["factor"] > chosen["factor"] for one in too_large)
    assert result["bracket"]["too_small"] == chosen["decays"]


def test_a_lost_layer_is_too_large_a_decay(search):
    result = run(search(FlopsTarget(0.7), changes=["kernel_shape_decay=20"], trials=1))
    (record,) = result["trials"]
    assert record["verdict"] == "too large"
    assert record["lost"] == {"layer": "ip1", "iteration": 10}
    assert record["flops_percent"] is record["error"] is None
    assert not result["reached"] and result["nearest"] is None
    assert "every trial lost a whole layer" in result["outcome"]


def test_a_target_that_is_out_of_reach(search):
    result = run(search(ErrorTarget(0.01), trials=3))
    assert not result["reached"] and result["chosen"] is None
    smallest = min(result["trials"], key=lambda one: one["error"])
    assert result["nearest"] is smallest
    assert "no trial has an error at or below 1 %" in result["outcome"]
    assert (
        f"nearest is kernel_shape_decay {smallest['decays']['kernel_shape_decay']:g}"
        in (result["outcome"])
    )


def test_too_few_trials(search):
    result = run(search(FlopsTarget(0.8), trials=2))
    assert not result["reached"] and len(result["trials"]) == 2
    assert "allow more --trials" in result["outcome"]


def test_flop_that_jump_over_the_target(search):
    """A filter of conv1 is a third of nearly all FLOP, and leaves when nothing reads it."""
    result = run(search(FlopsTarget(0.7), trials=20))
    assert not result["reached"] and "no trial comes near 70 %" in result["outcome"]
    ends = result["bracket"]
    for decay, low in ends["too_small"].items():
        assert low < ends["too_large"][decay] < 1.021 * low


# --- what is kept ---


def test_a_second_search_trains_nothing(search):
    first = run(search(FlopsTarget(0.8)))
    assert not any(one["kept"] for one in first["trials"])
    second = run(search(FlopsTarget(0.8)))
    assert all(one["kept"] for one in second["trials"])
    assert numbers(first) == numbers(second)


def test_another_target_takes_what_it_can(search):
    first = run(search(FlopsTarget(0.8)))
    second = run(search(FlopsTarget(0.9)))
    made = {one["factor"] for one in first["trials"]}
    assert [one["kept"] for one in second["trials"]] == [
        one["factor"] in made for one in second["trials"]
    ]
    assert sum(one["kept"] for one in second["trials"]) >= 2


def test_other_settings_have_other_folders(search):
    first = run(search(FlopsTarget(0.7), trials=1))
    second = run(search(FlopsTarget(0.7), trials=1, iterations=15))
    assert not second["trials"][0]["kept"]
    assert run(search(FlopsTarget(0.7), trials=1))["trials"][0]["kept"]
    assert first["trials"][0]["folder"] != second["trials"][0]["folder"]


class Stopper(Watcher):
    """Sends this process a signal in the third trial."""

    def __init__(self):
        self.trials = 0

    def reporter(self, stage):
        self.trials += 1
        watcher = self

        class Reporter(Silent):
            def after_update(self, solver):
                if watcher.trials == 3 and solver.iteration == 7:
                    os.kill(os.getpid(), signal.SIGINT)

        return Reporter()


def test_an_interrupted_search_goes_on(search, tmp_path):
    whole = run(search(FlopsTarget(0.8)))
    parts = search(FlopsTarget(0.8), work=tmp_path / "parts")
    with pytest.raises(Stopped):
        run(parts, Stopper())
    again = run(parts)
    assert [one["kept"] for one in again["trials"][:3]] == [True, True, False]
    assert numbers(again) == numbers(whole)


# --- where it begins ---


def test_without_decays_it_begins_between_the_marks(search, solver):
    zero = ["block_group_decay=0", "kernel_shape_decay=0", "weight_decay=0.01"]
    begin = search(FlopsTarget(0.5), changes=zero).begin()
    marks = suggest(solver, None, 10, zero, "numpy", {"source": "mnist-small/validation"}).decays
    assert begin.decays == {one.decay: one.middle for one in marks}
    for one in marks:
        below = max(one.equal_to_l2, one.equal_to_loss)
        if one.decay_max is None:
            assert one.middle == below
        else:
            assert one.middle == pytest.approx((below * one.decay_max) ** 0.5)
    assert len(begin.decays) == 2


def test_a_decay_of_0_stays_0_beside_another(search):
    begin = search(FlopsTarget(0.5), changes=["block_group_decay=0"]).begin()
    assert list(begin.decays) == ["kernel_shape_decay"]


def test_weights_are_where_every_trial_begins(search, solver, tmp_path):
    net = Net(solver.with_name("digits.prototxt"), "TEST", backend="numpy", seed=9)
    net.save(tmp_path / "dense.caffemodel")
    changes = ["base_lr=0", "test_iter=2"]
    options = {"trials": 1, "changes": changes, "weights": tmp_path / "dense.caffemodel"}
    record = run(search(FlopsTarget(0.5), **options))["trials"][0]
    assert np.array_equal(
        trained(record).layer("ip1").parameters[0].data, net.layer("ip1").parameters[0].data
    )
    net.layer("ip1").parameters[0].data[0] = 1
    net.save(tmp_path / "dense.caffemodel")
    assert not run(search(FlopsTarget(0.5), **options))["trials"][0]["kept"]


def test_what_misleads_is_said_before(search):
    strong = ["block_group_decay=0.8", "kernel_shape_decay=0.4"]
    assert search(FlopsTarget(0.5), changes=strong).begin().warnings == ()
    options = {"changes": strong, "data": "mnist-small"}
    (test_set,) = search(FlopsTarget(0.5), **options).begin().warnings
    assert "test images of mnist-small" in test_set and "mnist-small/validation" in test_set
    fixed = [*strong, "lr_policy=fixed", "group_lasso_method=subgradient"]
    (hovering,) = search(FlopsTarget(0.5), changes=fixed).begin().warnings
    assert "falls from 0.1 to 0.1" in hovering
    (short,) = search(FlopsTarget(0.5)).begin().warnings
    assert "in 20 iterations" in short and "a group of conv1" in short


def test_trials_are_as_long_as_they_must_be(search):
    strong = ["block_group_decay=2", "kernel_shape_decay=2"]
    assert search(FlopsTarget(0.5), changes=strong, iterations=None).begin().iterations == 12
    assert search(FlopsTarget(0.5), iterations=None).begin().iterations == 60


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (
            FlopsTarget(0.5),
            {"iterations": 61},
            "trains for 60 iterations and a trial is to take 61",
        ),
        (FlopsTarget(0.5), {"changes": ["max_iter=0"]}, "max_iter is 0"),
    ],
)
def test_what_cannot_be_searched_is_refused(search, target, options, words):
    with pytest.raises(ConfigError, match=words):
        search(target, **options).begin()


def test_an_error_needs_an_accuracy(search, solver):
    text = SOLVER.replace("test_iter: 2 test_interval: 25", "")
    solver.write_text(text)
    with pytest.raises(ConfigError, match="no output 'accuracy' to take an error from"):
        search(ErrorTarget(0.5)).begin()
    record = run(search(FlopsTarget(0.5), trials=1))["trials"][0]
    assert record["error"] is None and record["flops_percent"] > 0


def test_zero_weights_say_nothing_about_a_beginning(search, solver, tmp_path):
    net = Net(solver.with_name("digits.prototxt"), "TEST", backend="numpy")
    for parameter in net.parameters:
        parameter.data[...] = 0
    net.save(tmp_path / "zero.caffemodel")
    changes = ["block_group_decay=0", "kernel_shape_decay=0"]
    with pytest.raises(ConfigError, match="give one with --set kernel_shape_decay"):
        search(FlopsTarget(0.5), weights=tmp_path / "zero.caffemodel", changes=changes).begin()
