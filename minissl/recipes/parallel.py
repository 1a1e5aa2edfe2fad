"""Jobs side by side, by ``dask.distributed``: on this machine or on a cluster.

A job writes into folders of its own and does the same wherever it runs, so that side by side they
give what they give one after the other. Workers tell what they do as events of the scheduler. When
a signal comes, or a job fails, the others finish their iteration and save; whoever runs them again
goes on from there.

Each worker does one job at a time: the kernels are parallel themselves. Workers on other machines
must see the folder the jobs write into, under the same path, and have the data set.
"""

from __future__ import annotations

import gc
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minissl import __version__, optional
from minissl import backend as backends
from minissl.errors import ConfigError, MinisslError
from minissl.formats.folders import make_folder
from minissl.recipes.stages import Done, Finished, Stage, Stopped, Watcher, Work
from minissl.solvers.display import Silent
from minissl.solvers.signals import catching

#: seconds between two looks at the jobs
PAUSE = 0.2
#: seconds until a scheduler that does not answer counts as missing
PATIENCE = 10


@dataclass(frozen=True)
class Workers:
    """Who does the jobs.

    Attributes
    ----------
    count : int
        Processes on this machine, which share its threads.
    scheduler : str, optional
        Address of a running scheduler, whose workers do the jobs instead.
    threads : int, optional
        Of each of the scheduler's workers; as many as it likes when left out.
    """

    count: int = 1
    scheduler: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Job:
    """A piece of work that other processes can do.

    Attributes
    ----------
    name : str
        Unlike those of the other jobs.
    do : callable
        Takes a watcher to tell of its stages; must be picklable, and free to be called again.
    needs : sequence of str
        Names of the jobs that must be complete before.
    """

    name: str
    do: Callable[[Watcher], None]
    needs: Sequence[str] = ()


def run(
    jobs: Sequence[Job], workers: Workers, folder: Path, watcher: Watcher | None = None
) -> None:
    """Do all jobs, each after those that it needs.

    Parameters
    ----------
    jobs : sequence of Job
        In an order in which they could be done one after the other.
    workers : Workers
    folder : Path
        Where the jobs write; it is made, and every worker must see it.
    watcher : Watcher, optional
        Is told of all stages.

    Raises
    ------
    Stopped
        After a signal, when all jobs have saved their state.
    MinisslError
        What a job raises, or when there are no workers.
    DependencyError
        Without dask.distributed.
    """
    _import_distributed()
    make_folder(folder)
    with _client(workers, len(jobs)) as (client, threads):
        _see_that_workers_fit(client, folder.resolve())
        _Run(client, watcher or Watcher()).do(jobs, threads)


def _import_distributed() -> Any:
    without = "leave out --parallel and --scheduler"
    return optional.library("distributed", "jobs side by side", "minissl[parallel]", without)


# --- in the process that was started ---


@contextmanager
def _client(workers: Workers, jobs: int) -> Iterator[tuple[Any, int | None]]:
    """Yield a client of the workers, and how many threads each of them uses."""
    distributed = _import_distributed()
    if workers.scheduler is not None:
        client, reason = None, ""
        try:
            client = distributed.Client(
                workers.scheduler, timeout=PATIENCE, set_as_default=False, name="minissl"
            )
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:100]
        if client is None:
            # what is left of the client closes itself when it is collected: here, and not while a
            # later one is made under a lock that both take
            gc.collect()
            raise ConfigError(
                f"no dask scheduler answers at '{workers.scheduler}' ({reason}); "
                "give the address that 'dask scheduler' printed, such as tcp://10.0.0.1:8786"
            )
        with client:
            yield client, workers.threads
        return
    count = max(1, min(workers.count, jobs))
    threads = max(1, backends.threads() // count)
    with (
        tempfile.TemporaryDirectory(prefix="minissl-") as scratch,
        distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address=None,
            local_directory=scratch,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        client.run(_ignore_interrupts)
        yield client, threads


def _see_that_workers_fit(client: Any, folder: Path) -> None:
    """Refuse workers that have another version, or do not see the folder."""
    token = folder / f".workers-{uuid.uuid4().hex}"
    token.touch()
    try:
        found = client.run(_introduce, str(token))
    except MinisslError:
        raise
    except Exception as error:
        raise MinisslError(
            f"a worker cannot load minissl ({' '.join(str(error).split())[:100]}); install version "
            f"{__version__} where the workers run"
        ) from None
    finally:
        token.unlink()
    if not found:
        raise ConfigError("the scheduler has no workers; start some with 'dask worker ADDRESS'")
    for address, (version, sees) in found.items():
        if version != __version__:
            raise ConfigError(
                f"the worker at {address} has minissl {version}, here it is {__version__}; "
                "install the same version"
            )
        if not sees:
            raise ConfigError(
                f"the worker at {address} does not see the folder {folder}; choose one with "
                "--work that all machines share, under the same path"
            )


class _Run:
    """The jobs of one call, from here to the last answer."""

    def __init__(self, client: Any, watcher: Watcher):
        self.client = client
        self.watcher = watcher
        self.id = f"minissl-{uuid.uuid4().hex}"
        #: as a solver has them, for the signals
        self.stop_requested = False
        self.snapshot_requested = False

    def do(self, jobs: Sequence[Job], threads: int | None) -> None:
        """Hand the jobs out and wait for all of them."""
        self.client.subscribe_topic(self.id, self._tell)
        futures: dict[str, Any] = {}
        with catching(self) as caught:
            for number, job in enumerate(jobs):
                needed = [futures[name] for name in job.needs]
                futures[job.name] = self.client.submit(
                    _work, job.do, self.id, threads, *needed, key=f"{self.id}-{number}"
                )
            self._wait(list(futures.values()))
        for name, future in futures.items():
            if future.status != "finished":
                raise _failure(name, future)
        if not all(self.client.gather(list(futures.values()))):
            raise Stopped(caught.exit_code or 130)

    def _wait(self, futures: Sequence[Any]) -> None:
        """Return when no job is pending any more; let all stop when one has to."""
        told = False
        while any(future.status == "pending" for future in futures):
            time.sleep(PAUSE)
            failed = any(future.status not in ("pending", "finished") for future in futures)
            if (self.stop_requested or failed) and not told:
                self.client.run(_stop, self.id, on_error="ignore")
                told = True

    def _tell(self, event: tuple[Any, Mapping[str, Any]]) -> None:
        """Pass on what a worker tells."""
        _, said = event
        stage = Work(said["name"], said["title"], _elsewhere)
        if said["what"] == "finished":
            result = Finished(stage.name, Path(), said["figures"], said["seconds"])
            self.watcher.finished(stage, result)
        elif said["what"] == "anew":
            self.watcher.anew(stage, said["changed"])
        elif said["what"] == "skipped":
            self.watcher.skipped(stage)
        else:
            self.watcher.started(stage)


def _elsewhere(folder: Path, done: Done) -> dict[str, Any]:
    raise NotImplementedError("another process does this")


def _failure(name: str, future: Any) -> BaseException:
    """Return what a job raised, or in a sentence why it has no result."""
    error = future.exception() if future.status == "error" else None
    if error is None:
        return MinisslError(
            "the scheduler has lost the jobs; what is complete stays so, run the same command again"
        )
    if type(error).__name__ == "KilledWorker":
        return MinisslError(
            f"the workers that were given {name} died, perhaps for want of memory; use fewer "
            "workers, and run the same command again to go on"
        )
    return error  # type: ignore[no-any-return]


# --- in the workers ---

#: runs that are to stop
_stopping: set[str] = set()
_one_at_a_time = threading.Lock()


def _work(do: Callable[[Watcher], None], run: str, threads: int | None, *needed: bool) -> bool:
    """Do a job; return whether it is complete, which it cannot be when what it needs is not."""
    if not all(needed) or run in _stopping:
        return False
    with _one_at_a_time:
        if threads is not None:
            backends.set_threads(threads)
        try:
            do(_Messenger(run))
        except Stopped:
            return False
    return True


def _stop(run: str) -> None:
    _stopping.add(run)


def _introduce(token: str) -> tuple[str, bool]:
    return __version__, Path(token).exists()


def _ignore_interrupts() -> None:
    """Leave Ctrl-C, which reaches all processes of a terminal, to the one that was started."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Messenger(Watcher):
    """Tells the process that was started, and stops when it says so."""

    def __init__(self, run: str):
        self.run = run

    def skipped(self, stage: Stage) -> None:
        """Pass on."""
        self._tell("skipped", stage)

    def anew(self, stage: Stage, changed: Sequence[str]) -> None:
        """Pass on."""
        self._tell("anew", stage, changed=list(changed))

    def started(self, stage: Stage) -> None:
        """Pass on, unless the stage is not to start any more."""
        if self.run in _stopping:
            raise Stopped(130)
        self._tell("started", stage)

    def finished(self, stage: Stage, result: Finished) -> None:
        """Pass on."""
        self._tell("finished", stage, figures=result.figures, seconds=result.seconds)

    def reporter(self, stage: Stage) -> Silent:
        """Return who stops a training."""
        return _Stopper(self.run)

    def _tell(self, what: str, stage: Stage, **more: Any) -> None:
        from distributed import get_worker

        told = {"what": what, "name": stage.name, "title": stage.title, **more}
        get_worker().log_event(self.run, told)


class _Stopper(Silent):
    """Stops a solver after an iteration."""

    def __init__(self, run: str):
        self.run = run

    def after_update(self, solver: Any) -> None:
        """Look whether the run is to stop."""
        if self.run in _stopping:
            solver.stop_requested = True
