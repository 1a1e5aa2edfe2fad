"""The decay that reaches a target, by short runs of SSL.

One common factor on all decays of group lasso is searched by bisection
(:mod:`minissl.recipes.bisection`). Every trial (:mod:`minissl.recipes.trials`) starts from the same
weights, and a target (:mod:`minissl.recipes.targets`) judges it. Trials are short and differ by
chance, so FLOP and error need not follow the decay steadily; where they do not, the result says so.

Trials are stages, each in a folder named after its decays. An interrupted search goes on where it
stopped, and a search for another target takes from the folder what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from minissl.data.catalogue import SOURCES, VALIDATION
from minissl.errors import ConfigError
from minissl.recipes import stages, trial_length
from minissl.recipes.bisection import NEAR, TOO_LARGE, TOO_SMALL, Interval, bisect
from minissl.recipes.decays import asked_for, suggest
from minissl.recipes.stages import Watcher
from minissl.recipes.targets import ErrorTarget, Record, Target, unsteady
from minissl.recipes.training import Training
from minissl.recipes.trials import Trial
from minissl.solvers import Solver, learning_rate
from minissl.solvers.regularizer import DECAYS
from minissl.sparsity.proximal import is_proximal

WORK = Path("runs") / "lambda"
TRIALS = 10
#: the last rate of a solver whose groups settle, as a part of its first
FALL = 0.11
VERDICTS = {TOO_SMALL: "too small", NEAR: "near", TOO_LARGE: "too large"}


@dataclass(frozen=True)
class Search:
    """What can be chosen about a search.

    Attributes
    ----------
    solver : Path
    target : FlopsTarget or ErrorTarget
    weights : Path, optional
        To start every trial from; else the fillers' values.
    iterations : int, optional
        Of a trial; without, :mod:`minissl.recipes.trial_length` decides.
    trials : int
        At most.
    work : Path
        Folder of the trials.
    changes, data, backend : see :class:`minissl.recipes.training.Training`
    batches : int
        To work out the marks from, where the solver's decays are 0.
    """

    solver: Path
    target: Target
    weights: Path | None = None
    iterations: int | None = None
    trials: int = TRIALS
    work: Path = WORK
    changes: Sequence[str] = ()
    data: str | None = None
    backend: str = "auto"
    batches: int = 10

    def begin(self) -> Begin:
        """Check solver, net, weights and target; say where the search begins.

        Raises
        ------
        ConfigError, WeightsError
            When they cannot be searched together.
        """
        param = Training("", "", **self._training()).read()
        if param.max_iter < 1:
            raise ConfigError(f"max_iter is {param.max_iter}; use 1 or more")
        if self.iterations is not None and self.iterations > param.max_iter:
            raise ConfigError(
                f"the solver trains for {param.max_iter} iterations and a trial is to take "
                f"{self.iterations}; give fewer --iterations"
            )
        solver = Solver(param, self.weights, backend=self.backend)
        asked = {decay for _, found in asked_for(solver.net) for decay, _ in found}
        if isinstance(self.target, ErrorTarget) and not _tests_accuracy(solver):
            raise ConfigError(
                "the solver's test net has no output 'accuracy' to take an error from; add an "
                "Accuracy layer, test_iter and test_interval, or search with --target-flops"
            )
        given = {name: getattr(param, name) for name in DECAYS if name in asked}
        decays = {name: value for name, value in given.items() if value} or self._marks()
        need = trial_length.need_of(solver, decays)
        iterations = self.iterations or trial_length.default_iterations(param.max_iter, need)
        warnings = [
            _plain_test_set(solver),
            _hovering(solver),
            trial_length.warning(iterations, param.max_iter, need),
        ]
        return Begin(decays, iterations, param.max_iter, tuple(filter(None, warnings)))

    def run(
        self,
        begin: Begin,
        watcher: Watcher | None = None,
        tell: Callable[[Record], None] | None = None,
    ) -> Record:
        """Make trials until the target is reached, or is out of reach.

        Parameters
        ----------
        begin : Begin
            What :meth:`begin` returned.
        watcher : Watcher, optional
            Told of the iterations of each trial.
        tell : callable, optional
            Told of each trial as it comes.

        Returns
        -------
        dict
            ``trials``, one record each, as they came; ``reached``; ``chosen``, the trial that
            reached the target, or None; ``nearest``, the trial that came nearest where none did;
            ``bracket``, the decays that were ``too_small`` and ``too_large``; ``outcome``, a
            sentence; ``notes``, more of them.

        Raises
        ------
        Stopped
            After a signal; the next search goes on from there.
        MinisslError
            Whatever training raises, but a collapse, which only says that a decay is too large.
        """
        made: dict[float, Record] = {}

        def judge(factor: float) -> int:
            record = made[factor] = self._try(factor, begin, watcher)
            verdict = self.target.judge(record)
            record["verdict"] = VERDICTS[verdict]
            if tell:
                tell(record)
            return verdict

        interval = bisect(judge, self.trials, self.target.narrow)
        return result_of(self.target, begin, made, interval)

    def _training(self) -> dict[str, Any]:
        return {
            "solver": self.solver,
            "changes": self.changes,
            "data": self.data,
            "backend": self.backend,
            "weights": self.weights,
        }

    def _marks(self) -> dict[str, float]:
        """Return decays to begin with where the solver's are 0."""
        data = {"source": self.data} if self.data else None
        found = suggest(self.solver, self.weights, self.batches, self.changes, self.backend, data)
        marks = {}
        for one in found.decays:
            if one.middle is None:
                raise ConfigError(
                    f"nothing says where to begin with {one.decay}, since its weights are zero; "
                    f"start from trained --weights, or give one with --set {one.decay}=0.01"
                )
            marks[one.decay] = one.middle
        return marks

    def _try(self, factor: float, begin: Begin, watcher: Watcher | None) -> Record:
        """Make one trial, or take it from the folder."""
        decays = begin.times(factor)
        title = ", ".join(f"{decay} {value:g}" for decay, value in decays.items())
        trial = Trial(
            "", title, decays=decays, iterations=begin.iterations, **self._training()
        ).named()
        done = stages.run([trial], self.work, watcher)[trial.name]
        return {
            "decays": decays,
            "factor": factor,
            "iterations": begin.iterations,
            "seconds": done.seconds,
            "kept": done.skipped,
            "folder": str(done.folder),
            **dict.fromkeys(("flops_percent", "grouped_flops_percent", "error")),
            "groups": [],
            "layers": [],
            **done.figures,
        }


@dataclass(frozen=True)
class Begin:
    """Where a search begins.

    Attributes
    ----------
    decays : dict
        The values of factor 1.
    iterations, whole : int
        Of a trial and of the solver.
    warnings : tuple of str
        What to know before time is spent.
    """

    decays: Mapping[str, float]
    iterations: int
    whole: int
    warnings: tuple[str, ...]

    def times(self, factor: float) -> dict[str, float]:
        """Return the decays times a factor, to four digits: what is shown is what is trained."""
        return {decay: float(f"{value * factor:.4g}") for decay, value in self.decays.items()}


def result_of(
    target: Target, begin: Begin, made: Mapping[float, Record], interval: Interval
) -> dict[str, Any]:
    """Say what the trials of a search have shown; see :meth:`Search.run`.

    Parameters
    ----------
    target : FlopsTarget or ErrorTarget
    begin : Begin
    made : dict
        Factor -> record of every trial, as they came.
    interval : Interval
        Where the bisection ended.
    """
    chosen, nearest = target.choose(made, interval), target.nearest(made)
    bracket = [None if end is None else begin.times(end) for end in (interval.low, interval.high)]
    low, high = (named(decays) if decays else None for decays in bracket)
    between = (low, high, interval.ended)
    if chosen:
        outcome = f"{named(chosen['decays'])}: {measured(chosen)}{target.found(*between)}"
    elif nearest:
        told = f"nearest is {named(nearest['decays'])} with {measured(nearest)}"
        outcome = f"{target.missing(*between)}; {told}"
    else:
        outcome = f"{target.missing(*between)}; every trial lost a whole layer"
    notes = []
    pair = unsteady(target, made)
    if pair:
        told = ", ".join(f"{named(one['decays'])}: {measured(one)}" for one in pair)
        notes.append(f"the trials are not steady ({told}); short runs differ by chance")
    if begin.iterations < begin.whole:
        notes.append(
            f"a trial took {begin.iterations} of the solver's {begin.whole} iterations; the whole "
            "run at the same decay prunes more"
        )
    return {
        "target": {target.kind: target.value},
        "tolerance": target.tolerance,
        "iterations": begin.iterations,
        "start": dict(begin.decays),
        "trials": list(made.values()),
        "reached": chosen is not None,
        "chosen": chosen,
        "nearest": None if chosen else nearest,
        "bracket": dict(zip(("too_small", "too_large"), bracket, strict=True)),
        "outcome": outcome,
        "notes": notes,
    }


def named(decays: Mapping[str, float]) -> str:
    """Write decays as they are written in a solver, ``block_group_decay 0.025``."""
    return " with ".join(f"{decay} {value:g}" for decay, value in decays.items())


def measured(record: Record) -> str:
    """Write what a trial left, ``7.6 % of the FLOP, error 3.4 %``."""
    error = "" if record["error"] is None else f", error {100 * record['error']:.3g} %"
    return f"{record['flops_percent']:.3g} % of the FLOP{error}"


def _tests_accuracy(solver: Solver) -> bool:
    if not solver.test_nets or solver.param.test_iter[0] < 1:
        return False
    net = solver.test_nets[0]
    return "accuracy" in net.outputs and prod(net.blobs["accuracy"].shape) == 1


def _plain_test_set(solver: Solver) -> str | None:
    """Warn where settings would be chosen by the test images."""
    sources = {
        layer.param.data_param.source
        for net in solver.test_nets
        for layer in net.layers
        if layer.type_name == "Data"
    }
    plain = sorted(source for source in sources & set(SOURCES) if not source.endswith(VALIDATION))
    if not plain:
        return None
    return (
        f"the trials are tested on the test images of {plain[0]}; never choose settings by them, "
        f"but with --data {plain[0]}{VALIDATION}"
    )


def _hovering(solver: Solver) -> str | None:
    """Warn where groups do not settle at the end of the schedule."""
    rates = learning_rate.course(solver.param)
    first, last = rates[0], rates[-1]
    if last <= FALL * first or is_proximal(solver.param.group_lasso_method):
        return None
    return (
        f"the rate only falls from {first:g} to {last:g}, so groups that hover about zero will "
        "count as left; end the schedule at a tenth of its first rate or less"
    )
