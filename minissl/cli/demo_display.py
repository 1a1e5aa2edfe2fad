"""What the demo shows while it runs: a bar for each stage on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from minissl.recipes.stages import Finished, Stage, Watcher
from minissl.solvers.display import Silent

if TYPE_CHECKING:
    from rich.console import Console

    from minissl.solvers import Solver

#: Seconds between two updates of a bar: an iteration takes milliseconds.
PAUSE = 0.1


class DemoDisplay(Watcher):
    """Tells people on standard error what the recipe does; a context manager.

    Parameters
    ----------
    console : Console
        Of standard error.
    shown : bool
        False says nothing at all.
    """

    def __init__(self, console: Console, shown: bool = True):
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self.shown = shown
        self.bar: Any = None
        #: title of a stage that runs -> its bar; stages may run side by side
        self._tasks: dict[str, Any] = {}
        if shown and console.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TaskProgressColumn(),
                TextColumn("{task.fields[state]}"),
                console=console,
                refresh_per_second=5,
            )

    def __enter__(self) -> DemoDisplay:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the screen as it is."""
        if self.bar:
            self.bar.stop()

    def skipped(self, stage: Stage) -> None:
        """Say that the stage is complete already."""
        self._say(f"{stage.title}: complete already")

    def anew(self, stage: Stage, changed: Sequence[str]) -> None:
        """Say what has changed."""
        self._say(f"{stage.title}: starts anew, since this has changed: {', '.join(changed)}")

    def started(self, stage: Stage) -> None:
        """Open the stage's bar."""
        if self.bar:
            self._tasks[stage.title] = self.bar.add_task(f"{stage.title:<34}", total=None, state="")
        else:
            self._say(f"{stage.title} ...")

    def finished(self, stage: Stage, result: Finished) -> None:
        """Close the stage's bar, and keep it in sight."""
        outputs = result.figures.get("outputs") or [{}]
        state = f"{result.seconds:.0f} s"
        if "accuracy" in outputs[0]:
            state += f", test error {100 * (1 - outputs[0]['accuracy']):.1f} %"
        if self.bar:
            self.bar.update(self._tasks[stage.title], total=1, completed=1, state=state)
        else:
            self._say(f"{stage.title}: {state}")

    def reporter(self, stage: Stage) -> Silent:
        """Return what moves the bar with each iteration."""
        return _Iterations(self, stage.title) if self.bar else Silent()

    def move(self, title: str, done: int, total: int, state: str) -> None:
        """Move the bar of a stage."""
        self.bar.update(self._tasks[title], completed=done, total=total, state=state)

    def _say(self, text: str) -> None:
        if self.bar:
            self.bar.console.print(text, soft_wrap=True)
        elif self.shown:
            click.echo(text, err=True)


class _Iterations(Silent):
    """Moves a bar with the iterations of a solver."""

    def __init__(self, display: DemoDisplay, title: str):
        self.display = display
        self.title = title
        self.last = 0
        self.seen = 0.0
        self.error = ""

    def begin(self, solver: Solver, last: int) -> None:
        """Set the length; the first iteration may have to compile the kernels."""
        self.last = last
        self.display.move(
            self.title, solver.iteration, last, "compiling kernels, the first time only"
        )

    def after_update(self, solver: Solver) -> None:
        """Move on, not too often."""
        now = time.perf_counter()
        if now - self.seen > PAUSE:
            self.seen = now
            state = f"iteration {solver.iteration}, loss {solver.smoothed_loss():.3f}{self.error}"
            self.display.move(self.title, solver.iteration, self.last, state)

    def tested(self, solver: Solver, number: int, outputs: dict[str, float]) -> None:
        """Keep the error in sight."""
        if "accuracy" in outputs:
            self.error = f", test error {100 * (1 - outputs['accuracy']):.1f} %"
