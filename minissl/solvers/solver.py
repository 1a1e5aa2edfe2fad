"""The solver: one iteration of SSL, in the published order.

Open this file first. :meth:`Solver.step` is the paper's training loop, one line per idea.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minissl import backend as backends
from minissl.blob import Parameter
from minissl.errors import ConfigError, NonFiniteError
from minissl.net import Net
from minissl.solvers import (
    caffe_snapshot,
    learning_rate,
    one_pass,
    regularizer,
    snapshot,
    update_rules,
)
from minissl.solvers.collapse import Watch, zero_parameters
from minissl.solvers.display import Silent
from minissl.solvers.nets import test_nets, train_net
from minissl.sparsity import zero_out as zeroing

#: of a backend that does not wait for results: iterations between two looks at the loss, where
#: nothing is displayed more often
LOOK = 100


class Solver:
    """Train a network as a solver prototxt says.

    Parameters
    ----------
    param : str, Path or SolverParameter
        The solver prototxt, which names the net, or its parsed message.
    weights : str, Path or dict, optional
        Weights to start from, matched by layer name; zeros are frozen where the net's
        ``connectivity_mode`` says so.
    resume : str or Path, optional
        A snapshot to go on from, instead of ``weights``.
    backend, dtype, data : see :class:`minissl.net.Net`
    original : bool
        Do as the published program where minissl differs on purpose: zero out every learnable
        blob, count the statistics of BatchNorm in R, compute the gradients of frozen weights,
        never stop for a collapse.
    zero_out : bool
        Whether small weights become exactly zero after each update.
    collapse_check : bool
        Whether :meth:`solve` stops when a layer loses all of its groups within the first epoch
        (:mod:`minissl.solvers.collapse`); it never does with ``original``.
    reporter : Reporter, optional
        Told of everything that happens; writes the log (:mod:`minissl.solvers.display`).
    run : str or Path, optional
        Folder for snapshots; without it none is written.
    lean : bool
        Whether the training net saves time and memory; see :class:`minissl.net.Net`.

    Attributes
    ----------
    net, test_nets : Net, list of Net
        They share their parameters.
    iteration : int
        Updates made so far.

    Examples
    --------
    >>> solver = Solver("lenet_solver.prototxt", data={"source": "mnist"})  # doctest: +SKIP
    >>> solver.solve()  # doctest: +SKIP
    """

    def __init__(
        self,
        param: Any,
        weights: str | Path | Mapping[str, Sequence[Any]] | None = None,
        resume: str | Path | None = None,
        backend: str = "auto",
        dtype: str = "float32",
        data: Mapping[str, Any] | None = None,
        original: bool = False,
        zero_out: bool = True,
        collapse_check: bool = True,
        reporter: Any = None,
        run: str | Path | None = None,
        lean: bool = True,
    ):
        folder = "."
        if isinstance(param, (str, Path)):
            from minissl.formats.prototxt import read_solver

            folder = str(param)
            param = read_solver(param)
        if weights is not None and resume is not None:
            raise ConfigError("give weights to start from or a snapshot to resume, not both")
        self.param = param
        _check_fields(param)
        learning_rate.check(param)
        self.seed = max(0, param.random_seed)
        options = {"backend": backend, "dtype": dtype, "seed": self.seed}
        options["data"] = {"seed": self.seed, **(data or {})}
        self.net = train_net(param, folder, lean=lean and not param.debug_info, **options)
        self.test_nets = test_nets(param, folder, share=self.net, **options)
        self.kernels = self.net.kernels
        self.original = original
        self.zero_out_enabled = zero_out
        self.collapse = Watch() if collapse_check and not original else None
        self.zero_from_the_start: set[str] = set()
        self.rule = update_rules.create(param, self.kernels)
        self.terms = [
            regularizer.terms_of(parameter, param, self.kernels, original)
            for parameter in self.net.parameters
        ]
        self.history: list[list[Any]] = [
            [self.kernels.xp.zeros_like(parameter.data) for _ in range(self.rule.buffers)]
            for parameter in self.net.parameters
        ]
        for parameter in self.net.parameters:
            # the gradients of frozen weights count where all gradients are measured
            parameter.skip_frozen = not (original or param.debug_info or param.clip_gradients >= 0)
        self.iteration = 0
        self.steps_passed = 0
        self.loss_value: Any = math.nan
        self.losses: deque[float] = deque(maxlen=max(1, param.average_loss))
        self.last_test: list[dict[str, float]] = []
        self.tested_after: int | None = None  # iterations
        self.last_snapshot: Path | None = None
        self.stop_requested = False
        self.snapshot_requested = False
        self.reporter = reporter or Silent()
        self.run = Path(run) if run is not None else None
        self.snapshot_suffix = ".safetensors" if run is None else caffe_snapshot.suffix_for(param)
        if weights is not None:
            self.net.load(weights)
        if resume is not None:
            self.restore(resume)

    # --- one iteration ---

    def step(self) -> Any:
        """Make one update; return the loss of the forward pass it is based on.

        It is a number, or with a backend that does not wait for results a scalar of its own, for
        which ``float()`` waits.
        """
        # check_loss and check_weights report what overflows, NumPy need not warn as well
        with backends.single_threaded_blas(), np.errstate(over="ignore", invalid="ignore"):
            self.forward_backward()
            rate = self.learning_rate()
            self.reporter.before_update(self, rate)
            self.clip_gradients()
            self.update_all(rate)
        self.iteration += 1
        return self.loss_value

    def update_all(self, rate: float) -> None:
        """From gradients to weights, parameter by parameter."""
        left, finite = one_pass.update(self, rate)  # what the backend has not done in one pass
        learning = [(number, p) for number, p in left if p.spec.lr_mult != 0]
        for number, parameter in learning:
            self.normalize(parameter)
            self.weight_decay(number, parameter)
            self.group_lasso(number, parameter)
            self.compute_step(number, parameter, rate)
        for number, parameter in learning:
            self.apply_step(parameter)
            self.proximal_step(number, parameter, rate)
        for _, parameter in left:
            self.zero_out(parameter)
        if self.kernels.WAITS:
            finite &= self.kernels.are_finite(parameter.data for _, parameter in left)
            if not finite:
                self.check_weights()

    def forward_backward(self) -> None:
        """Data loss and its gradient, over ``iter_size`` batches."""
        self.net.clear_gradients()
        values = []
        for _ in range(self.param.iter_size):
            self.net.forward()
            values.append(self.net.loss_value())
            self.net.backward()
        self.loss_value = sum(values[1:], start=values[0]) / self.param.iter_size
        if self.looks_now():
            self.net.check()
            self.check_loss()
        self.losses.append(self.loss_value)

    def learning_rate(self) -> float:
        """Return the rate of this iteration, by the solver's ``lr_policy``."""
        self.steps_passed = learning_rate.steps_passed(
            self.param, self.iteration, self.steps_passed
        )
        return learning_rate.rate(self.param, self.iteration, self.steps_passed)

    def clip_gradients(self) -> None:
        """Scale the gradients of what learns when their common norm exceeds ``clip_gradients``."""
        limit = self.param.clip_gradients
        if limit < 0:
            return
        learning = [p for p in self.net.parameters if p.spec.lr_mult != 0]
        squares = sum(self.kernels.sum_of_squares(p.diff) for p in learning)
        norm = math.sqrt(squares)
        if norm > limit:
            for parameter in learning:
                parameter.diff *= self.net.dtype.type(limit / norm)

    def normalize(self, parameter: Parameter) -> None:
        """Average the gradients of ``iter_size`` batches."""
        if self.param.iter_size != 1:
            parameter.diff *= self.net.dtype.type(1 / self.param.iter_size)

    def weight_decay(self, number: int, parameter: Parameter) -> None:
        """R(W): add the gradient of L1 or L2, as set for each parameter."""
        regularizer.add_weight_decay(parameter, self.terms[number], self.kernels)

    def group_lasso(self, number: int, parameter: Parameter) -> None:
        """R_g(W) = lambda * sum of ||w_g||: add lambda * w / ||w_g|| (paper, equation 1)."""
        regularizer.add_group_lasso(parameter, self.terms[number], self.kernels)

    def compute_step(self, number: int, parameter: Parameter, rate: float) -> None:
        """From gradient to step, in its place: momentum, Adam ... (:mod:`.update_rules`)."""
        local_rate = rate * parameter.spec.lr_mult
        self.rule.compute(parameter, self.history[number], local_rate, self.iteration)

    def apply_step(self, parameter: Parameter) -> None:
        """w -= step; where connectivity is frozen, the mask makes the step 0."""
        self.kernels.apply_update(parameter.data, parameter.diff, parameter.mask)

    def proximal_step(self, number: int, parameter: Parameter, rate: float) -> None:
        """||w_g|| -= rate * lambda, instead of the gradient: if ``group_lasso_method`` says so."""
        long_run = self.rule.long_run_rate(rate * parameter.spec.lr_mult)
        regularizer.shorten_groups(parameter, self.terms[number], long_run, self.kernels)

    def zero_out(self, parameter: Parameter) -> None:
        """|w| < 1e-4 becomes exactly 0: weights only, or every blob as in the original."""
        if zeroing.applies_to(
            parameter.role, enabled=self.zero_out_enabled, original=self.original
        ):
            zeroing.zero_out(parameter.data, kernels=self.kernels)

    # --- what a run reports ---

    def regularization(self) -> float:
        """R of all parameters, from the present weights."""
        return sum(
            regularizer.penalty(parameter, terms, self.kernels)
            for parameter, terms in zip(self.net.parameters, self.terms, strict=True)
        )

    def smoothed_loss(self) -> float:
        """Mean loss of the last ``average_loss`` iterations."""
        return float(sum(self.losses) / len(self.losses)) if self.losses else math.nan

    @property
    def loss(self) -> float:
        """Loss of the last iteration."""
        return float(self.loss_value)

    def looks_now(self) -> bool:
        """Whether the results of this iteration are looked at before the next one begins."""
        return self.kernels.WAITS or self.displays() or self.iteration % LOOK == 0

    def displays(self) -> bool:
        """Whether the present iteration is one that is displayed."""
        return bool(self.param.display) and self.iteration % self.param.display == 0

    def check_loss(self) -> None:
        """Stop when the loss is NaN or infinite."""
        if not math.isfinite(self.loss):
            where = self.net.first_non_finite() or "the loss"
            raise self._diverged(
                f"the loss is {self.loss}: {where} is the first that is not finite"
            )

    def check_weights(self) -> None:
        """Stop when a weight is NaN or infinite."""
        if self.kernels.are_finite(parameter.data for parameter in self.net.parameters):
            return
        for parameter in self.net.parameters:
            if not self.kernels.all_finite(parameter.data):
                raise self._diverged(
                    f"layer '{parameter.layer_name}', blob {parameter.index} holds weights that "
                    "are not finite"
                )

    def _diverged(self, what: str) -> NonFiniteError:
        kept = f"; the last snapshot is {self.last_snapshot}" if self.last_snapshot else ""
        return NonFiniteError(
            f"iteration {self.iteration}: {what}; lower base_lr or the decays{kept}"
        )

    # --- the run ---

    def solve(self, iterations: int | None = None) -> None:
        """Train up to ``max_iter``, or for some iterations; test, display and save on the way.

        Ends early, after a whole iteration and with a snapshot, when ``stop_requested`` was set.

        Raises
        ------
        CollapseError
            When a layer loses all of its groups within the first epoch; a snapshot is saved.
        """
        last = self.param.max_iter
        if iterations is not None:
            last = min(last, self.iteration + iterations)
        self.reporter.begin(self, last)
        if self.iteration == 0:
            self.zero_from_the_start = zero_parameters(self.net.parameters)
        elif self.collapse:
            self.collapse.check(self)  # no way around what has stopped a run
        while self.iteration < last and not self.stop_requested:
            if self._tests_now():
                self.test()
            self.step()
            self.reporter.after_update(self)
            if self.run is not None and self._saves_now():
                self.snapshot()
            if self.collapse:
                self.collapse.check(self)
        self._finish()
        self.reporter.end(self)

    def _finish(self) -> None:
        """Save the last state, and test it when the run is complete."""
        saved = self.last_snapshot is not None and self.last_snapshot == self.snapshot_path()
        wanted = self.param.snapshot_after_train or self.stop_requested
        if self.run is not None and wanted and not saved:
            self.snapshot()
        complete = self.iteration >= self.param.max_iter and not self.stop_requested
        if complete and self.param.test_interval and self.test_nets:
            self.test()

    def _tests_now(self) -> bool:
        interval = self.param.test_interval
        return bool(
            interval
            and self.test_nets
            and self.iteration % interval == 0
            and (self.iteration > 0 or self.param.test_initialization)
        )

    def _saves_now(self) -> bool:
        every = self.param.snapshot
        return self.snapshot_requested or bool(every and self.iteration % every == 0)

    def test(self) -> list[dict[str, float]]:
        """Return the mean of every output of each test net over its ``test_iter`` batches."""
        self.last_test, self.tested_after = [], self.iteration
        for number, net in enumerate(self.test_nets):
            net.prepare()
            self.reporter.testing(self, number)
            self.last_test.append(mean_outputs(net, self.param.test_iter[number]))
            self.reporter.tested(self, number, self.last_test[-1])
        return self.last_test

    def snapshot_path(self) -> Path | None:
        """Return where a snapshot of the present iteration belongs."""
        if self.run is None:
            return None
        stem = Path(self.param.snapshot_prefix or self.net.name or "net").name
        return self.run / f"{stem}_iter_{self.iteration}{self.snapshot_suffix}"

    def snapshot(self) -> Path:
        """Save everything that training needs to go on, bitwise."""
        path = self.snapshot_path()
        if path is None:
            raise ConfigError("this solver has no run folder to save snapshots in; give it run=")
        if not self.kernels.WAITS:
            self.net.check()
            self.check_weights()
        snapshot.save(self, path)
        self.last_snapshot = path
        self.snapshot_requested = False
        self.reporter.saved(self, path)
        return path

    def restore(self, path: str | Path) -> None:
        """Go on where a snapshot was saved; MemoryData layers must have their arrays by then."""
        snapshot.restore(self, path)

    def frozen(self) -> dict[str, float]:
        """Return the frozen percentage of each layer that has a connectivity mask."""
        return {
            p.layer_name: 100 * (1 - float(p.mask.mean()))
            for p in self.net.parameters
            if p.mask is not None
        }


def mean_outputs(net: Net, batches: int, tick: Any = None) -> dict[str, float]:
    """Run a network over some batches; return the mean of every element of its outputs.

    An output of several elements appears as ``name[0]``, ``name[1]`` ...
    """
    sums: dict[str, Any] = {}
    for _ in range(batches):
        for name, values in net.forward().items():
            sums[name] = sums.get(name, 0.0) + values.astype("float64")
        if tick:
            tick()
    net.check()
    means: dict[str, float] = {}
    for name, values in sums.items():
        flat = backends.to_host(values).reshape(-1) / batches
        for i, value in enumerate(flat):
            means[name if flat.size == 1 else f"{name}[{i}]"] = float(value)
    return means


#: whole numbers of a solver, and the least that makes sense
LEAST = {
    "iter_size": 1, "average_loss": 1, "max_iter": 0, "display": 0, "snapshot": 0,
    "test_interval": 0, "test_iter": 1,
}  # fmt: skip


def _check_fields(solver: Any) -> None:
    """Refuse numbers that no run can follow."""
    for name, least in LEAST.items():
        given = getattr(solver, name)
        for value in given if name == "test_iter" else (given,):
            if value < least:
                raise ConfigError(f"{name} is {value}; use {least} or more")
    for name in (
        "base_lr",
        "weight_decay",
        "breadth_decay",
        "kernel_shape_decay",
        "block_group_decay",
    ):
        value = getattr(solver, name)
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name} is {value:g}; use a finite number, 0 or more")
