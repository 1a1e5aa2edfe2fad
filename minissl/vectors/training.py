"""Test vectors of training: rates, update rules, and ten iterations of LeNet under group Lasso."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf import text_format

from minissl import models
from minissl.blob import Parameter
from minissl.formats import proto
from minissl.formats.prototxt import read_net
from minissl.kernels import reference
from minissl.solvers import learning_rate, update_rules
from minissl.solvers.solver import Solver
from minissl.vectors import values
from minissl.vectors.case import Case, formula_of, name_of

POLICIES = {
    "fixed": "",
    "step": "gamma: 0.5 stepsize: 7",
    "exp": "gamma: 0.9375",
    "inv": "gamma: 0.125 power: 0.75",
    "multistep": "gamma: 0.5 stepvalue: 5 stepvalue: 6 stepvalue: 20",
    "poly": "power: 0.5",
    "sigmoid": "gamma: -0.25 stepsize: 12",
}
RULES = {
    "SGD": "momentum: 0.875",
    "Nesterov": "momentum: 0.875",
    "Adam": "momentum: 0.875 momentum2: 0.9375 delta: 0.0009765625",
    "AdaGrad": "delta: 0.0009765625",
    "RMSProp": "rms_decay: 0.875 delta: 0.0009765625",
    "AdaDelta": "momentum: 0.875 delta: 0.0009765625",
}
ITERATIONS = 10
BATCH = 8
SOLVER = f"""
base_lr: 0.015625 lr_policy: "fixed" momentum: 0.875 weight_decay: 0.0009765625
block_group_decay: 0.5 max_iter: {ITERATIONS}
"""


def cases() -> Iterator[Case]:
    """Yield all vectors of this family."""
    yield from _rates()
    yield from _updates()
    yield _lenet()


def _solver(text: str) -> Any:
    return text_format.Parse(text, proto.SolverParameter())


def _rates() -> Iterator[Case]:
    for policy, fields in POLICIES.items():
        text = f'base_lr: 0.5 max_iter: 25 lr_policy: "{policy}" {fields}'
        yield Case(
            f"training/learning rate/{policy}",
            formula_of(learning_rate),
            name_of(learning_rate.rate),
            {"solver": text},
            {},
            {"rates": np.array(learning_rate.course(_solver(text)))},
            tolerance=1e-7,  # inv multiplies gamma by the iteration in float32, as Caffe does
        )


def _updates() -> Iterator[Case]:
    for name, fields in RULES.items():
        text = f'type: "{name}" {fields}'
        rule = update_rules.create(_solver(text), reference)
        gradients = values.uniform(f"update {name}", (5, 3, 4))  # five iterations
        history = [np.zeros((3, 4)) for _ in range(rule.buffers)]
        parameter = Parameter("ip", 0, (3, 4), "weight", proto.ParamSpec(), dtype=np.float64)
        steps = np.zeros_like(gradients)
        for i, gradient in enumerate(gradients):
            parameter.diff = gradient.copy()
            rule.compute(parameter, history, 0.125, i)
            steps[i] = parameter.diff
        yield Case(
            f"training/update/{name}",
            formula_of(type(rule)),
            name_of(type(rule)),
            {"solver": text, "rate": 0.125},
            {"gradients": gradients},
            {"steps": steps, **{f"history{i}": h for i, h in enumerate(history)}},
        )


def _lenet() -> Case:
    """Train LeNet on the first 80 training digits that come with minissl."""
    net = read_net(models.path("lenet_ssl.prototxt"))
    solver_param = _solver(SOLVER)
    solver_param.net_param.CopyFrom(net)
    solver = Solver(
        solver_param,
        backend="numpy",
        dtype="float64",
        data={"source": "mnist-small", "batch_size": BATCH},
    )
    inputs: dict[str, np.ndarray] = {}
    for parameter in solver.net.parameters:
        fan_in = parameter.size // parameter.shape[0]
        scale = 2.0 ** -(7 + fan_in.bit_length() // 2) if parameter.role == "weight" else 0.0
        parameter.data = values.uniform(f"lenet {parameter.name}", parameter.shape, scale)
        inputs[parameter.name] = parameter.data.copy()
    course: dict[str, list[Any]] = {"loss": [], "regularization": [], "l1": [], "nonzero": []}
    batches: dict[str, list[np.ndarray]] = {"data": [], "label": []}
    for _ in range(ITERATIONS):
        course["regularization"].append(solver.regularization())
        course["loss"].append(float(solver.step()))
        parameters = solver.net.parameters
        course["l1"].append([float(np.abs(p.data).sum()) for p in parameters])
        course["nonzero"].append([int(np.count_nonzero(p.data)) for p in parameters])
        for name, kept in batches.items():
            kept.append(solver.net.blobs[name].data.copy())
    inputs.update({name: np.stack(kept) for name, kept in batches.items()})
    outputs = {name: np.array(kept) for name, kept in course.items()}
    outputs.update({f"{p.name}_after": p.data.copy() for p in solver.net.parameters})
    return Case(
        f"training/LeNet/{ITERATIONS} iterations of SSL",
        "each iteration: loss and its gradient; weight decay; group Lasso; momentum; update; "
        "weights (no biases) below 1e-4 become 0. loss and regularization are those before the "
        "update, l1 and nonzero (of every parameter, in order) those after it",
        name_of(Solver.step),
        {
            "solver": " ".join(SOLVER.split()),
            "net": text_format.MessageToString(net),
            "parameters": [p.name for p in solver.net.parameters],
        },
        inputs,
        outputs,
        tolerance=1e-7,
    )
