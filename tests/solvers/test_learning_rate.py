"""Each policy against its formula, by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minissl.errors import ConfigError
from minissl.formats.prototxt import parse_solver
from minissl.solvers import learning_rate
from tests import tiny_nets


def solver(text):
    return parse_solver(text)


@pytest.mark.parametrize(
    ("text", "iteration", "expected"),
    [
        ('lr_policy: "fixed" base_lr: 0.5', 1000, 0.5),
        ('lr_policy: "step" base_lr: 0.5 gamma: 0.25 stepsize: 10', 9, 0.5),
        ('lr_policy: "step" base_lr: 0.5 gamma: 0.25 stepsize: 10', 10, 0.125),
        ('lr_policy: "step" base_lr: 0.5 gamma: 0.25 stepsize: 10', 29, 0.03125),
        ('lr_policy: "exp" base_lr: 0.5 gamma: 0.5', 3, 0.0625),
        ('lr_policy: "inv" base_lr: 0.5 gamma: 0.25 power: 2', 4, 0.125),
        ('lr_policy: "inv" base_lr: 0.5 gamma: 0.25 power: 0.5', 12, 0.25),
        ('lr_policy: "poly" base_lr: 0.5 power: 2 max_iter: 10', 5, 0.125),
        ('lr_policy: "poly" base_lr: 0.5 power: 1 max_iter: 10', 10, 0.0),
        ('lr_policy: "sigmoid" base_lr: 0.5 gamma: -0.5 stepsize: 10', 10, 0.25),
        ('lr_policy: "sigmoid" base_lr: 0.5 gamma: 0.1 stepsize: 10000', 0, 0.0),
        ('lr_policy: "sigmoid" base_lr: 0.5 gamma: -0.5 stepsize: 10', 9999, 0.0),
        ('lr_policy: "sigmoid" base_lr: 0.5 gamma: -0.5 stepsize: 10', 16, 0.5 / (1 + math.e**3)),
    ],
)
def test_policy(text, iteration, expected):
    assert learning_rate.rate(solver(text), iteration) == pytest.approx(expected, rel=1e-14)


def test_fields_are_float32_and_inv_multiplies_in_float32():
    """0.1f * 3 rounds differently in float32 and in double; the published program uses float32."""
    param = solver('lr_policy: "inv" base_lr: 1 gamma: 0.1 power: 1')
    assert param.gamma == 0.10000000149011612
    assert learning_rate.rate(param, 3) == 1 / (1 + 0.30000001192092896)


def multistep_rates(stepvalues, iterations, start=0):
    param = solver('lr_policy: "multistep" base_lr: 1 gamma: 0.5 ' + stepvalues)
    passed, rates = 0, []
    for i in range(start, start + iterations):
        passed = learning_rate.steps_passed(param, i, passed)
        rates.append(learning_rate.rate(param, i, passed))
    return rates


def test_multistep():
    assert multistep_rates("stepvalue: 2 stepvalue: 3 stepvalue: 5", 7) == [
        1, 1, 0.5, 0.25, 0.25, 0.125, 0.125,
    ]  # fmt: skip


def test_multistep_moves_one_step_in_an_iteration():
    """Two equal stepvalues take effect one after the other, as in Caffe."""
    assert multistep_rates("stepvalue: 1 stepvalue: 1", 4) == [1, 0.5, 0.25, 0.25]
    assert multistep_rates("stepvalue: 1 stepvalue: 2", 3, start=10) == [0.5, 0.25, 0.25]


def test_solver_counts_the_steps():
    run = tiny_nets.make_solver(
        'lr_policy: "multistep" gamma: 0.5 stepvalue: 1 stepvalue: 1', backend="numpy"
    )
    rates = []
    run.reporter.before_update = lambda solver, rate: rates.append(rate)
    for _ in range(4):
        run.step()
    base = run.param.base_lr
    assert rates == [base, base / 2, base / 4, base / 4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('lr_policy: "cosine"', "cosine"),
        ('lr_policy: "step" gamma: 0.1', "stepsize"),
        ('lr_policy: "sigmoid" gamma: 0.1', "stepsize"),
        ('lr_policy: "poly" power: 1', "max_iter"),
        ('lr_policy: "multistep" gamma: 0.1', "stepvalue"),
        ('lr_policy: "exp" gamma: -0.1', "gamma is -0.1; lr_policy 'exp' needs 0 or more"),
    ],
)
def test_missing_fields(text, words):
    with pytest.raises(ConfigError, match=words):
        learning_rate.check(solver(text))


def test_a_rate_beyond_all_numbers():
    growing = solver('lr_policy: "exp" gamma: 1e38 base_lr: 1')
    learning_rate.check(growing)
    with pytest.raises(ConfigError, match="rate of iteration 12 is beyond all numbers"):
        learning_rate.rate(growing, 12)


# --- the same course in other many iterations ---

POLICY_FIELDS = {
    "fixed": "",
    "step": "gamma: 0.5 stepsize: 40",
    "exp": "gamma: 0.99",
    "inv": "gamma: 0.01 power: 0.75",
    "multistep": "gamma: 0.1 stepvalue: 120 stepvalue: 200",
    "poly": "power: 2",
    "sigmoid": "gamma: -0.05 stepsize: 120",
}


@pytest.mark.parametrize("policy", learning_rate.POLICIES)
@pytest.mark.parametrize("times", [2, 5, 8])
def test_a_compressed_course_takes_every_so_many_th_rate(policy, times):
    param = solver(f'lr_policy: "{policy}" base_lr: 0.5 max_iter: 240 {POLICY_FIELDS[policy]}')
    whole = learning_rate.course(param)
    learning_rate.compress(param, 240 // times)
    assert param.max_iter == 240 // times
    assert learning_rate.course(param) == pytest.approx(whole[::times], rel=1e-5)


@settings(deadline=None)
@given(
    steps=st.lists(st.integers(1, 500), min_size=1, max_size=4),
    whole=st.integers(2, 500),
    share=st.floats(0, 1),
)
def test_the_last_rate_is_not_left_out(steps, whole, share):
    values = " ".join(f"stepvalue: {value}" for value in sorted(steps))
    text = f'lr_policy: "multistep" base_lr: 1 gamma: 0.5 max_iter: {whole} {values}'
    param, short = solver(text), solver(text)
    learning_rate.compress(short, max(len(steps) + 1, round(share * whole)))
    reached = sum(value < whole for value in steps)
    assume(
        learning_rate.course(param)[-1] == 0.5**reached
    )  # two steps at once are taken one after the other
    assert learning_rate.course(short)[-1] == 0.5**reached
