"""What training shows on a terminal: a progress bar, and a table by layer at each display.

Caffe's log prints four lines of bare numbers; here the same numbers have names and stand in the row
of their layer.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minissl.cli import options
from minissl.solvers.display import Silent, sparsity_by_layer

if TYPE_CHECKING:
    from rich.console import Console

    from minissl.solvers import Solver

COMPILING = "compiling kernels, once; cached afterwards"
#: Seconds between two updates of the bar: an iteration of a small network takes milliseconds.
PAUSE = 0.1


class TerminalDisplay(Silent):
    """A reporter for people who watch; a context manager, so that the bar always goes away.

    Parameters
    ----------
    console : Console
        Where to print.
    compiles : bool
        Whether the first iteration compiles the kernels.
    """

    def __init__(self, console: Console, compiles: bool):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        self.console = console
        self.first_word = COMPILING if compiles else "starting"
        self.bar = Progress(
            "{task.description}",
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            "{task.fields[speed]}",
            TimeRemainingColumn(),
            console=console,
            transient=True,
            refresh_per_second=4,
        )
        self._task: Any = None
        self._last = (0.0, 0)

    def __enter__(self) -> TerminalDisplay:
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def begin(self, solver: Solver, last: int) -> None:
        """Open the bar."""
        self._task = self.bar.add_task(
            self.first_word, total=last, completed=solver.iteration, speed=""
        )
        self._last = (time.perf_counter(), solver.iteration)

    def before_update(self, solver: Solver, rate: float) -> None:
        """Print loss, rate and regularization, and how sparse each layer is."""
        if not solver.displays():
            return
        self._say(
            f"iteration {solver.iteration}: loss {solver.smoothed_loss():.4g}, "
            f"R {solver.regularization():.4g}, lr {rate:.4g}"
        )
        options.show_table(sparsity_table(solver), self.console)

    def after_update(self, solver: Solver) -> None:
        """Move the bar, not too often."""
        before, done = self._last
        now = time.perf_counter()
        if now - before < PAUSE:
            return
        speed = f"{(solver.iteration - done) / (now - before):.0f} it/s"
        self._last = (now, solver.iteration)
        self.bar.update(self._task, description="training", completed=solver.iteration, speed=speed)

    def tested(self, solver: Solver, number: int, outputs: dict[str, float]) -> None:
        """Print the means of a test net."""
        values = ", ".join(f"{name} {value:.4g}" for name, value in outputs.items())
        which = f" (net {number})" if len(solver.test_nets) > 1 else ""
        self._say(f"iteration {solver.iteration}: test{which} {values}")

    def saved(self, solver: Solver, path: Path) -> None:
        """Name the snapshot."""
        self._say(f"iteration {solver.iteration}: saved {path}")

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)


def sparsity_table(solver: Solver) -> Any:
    """Lay out the percentages of zeros of every layer, each beside the size of its matrix."""
    matrices = {p.layer_name: p.matrix_shape for p in solver.net.parameters if p.index == 0}
    names = ("element", "row", "column", "channel")
    rows = [
        [
            layer,
            matrices[layer],
            *(values[name] for name in names),
            options.blocks_cell(values["blocks"]),
        ]
        for layer, values in sparsity_by_layer(solver).items()
    ]
    return options.table(["% zero in", "matrix", *names, "blocks"], rows, names=2)
