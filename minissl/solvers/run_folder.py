"""The folder of one training run: what was asked for, the log, the snapshots, the final weights.

======================  =====================================================================
``solver.prototxt``     the solver as it ran, with every override
``net.prototxt``        the net that it trained (``test_net_0.prototxt`` ... where they differ)
``run.json``            command, versions, backend, threads, seed, machine; results at the end
``train.log``           the lines that Caffe writes
``log.jsonl``           the same for programs: one object for each display and each test
``*_iter_N.*``          snapshots (``.safetensors``, or as ``snapshot_format`` says) and the final
                        weights (``.caffemodel``)
======================  =====================================================================
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from minissl.errors import ConfigError, MinisslError
from minissl.formats import proto
from minissl.formats.atomic import atomic_write
from minissl.formats.prototxt import (
    read_net,
    read_solver,
    read_solver_net,
    resolve_net_path,
    write_prototxt,
)

RECORD = "run.json"
#: one line of JSON for each display and each test
LOG = "log.jsonl"
_SNAPSHOT = re.compile(r"_iter_(\d+)\.(?:safetensors|solverstate|solverstate\.h5)$")
_WEIGHTS = re.compile(r"_iter_(\d+)\.(?:safetensors|caffemodel|caffemodel\.h5)$")


def default_path(solver_path: str | Path) -> Path:
    """Return ``runs/<stem of the solver>-<date>-<time>``."""
    return Path("runs") / f"{Path(solver_path).stem}-{datetime.now():%Y%m%d-%H%M%S}"


def prepare(path: Path, resuming: bool) -> None:
    """Make the folder and see that it can be written.

    Raises
    ------
    ConfigError
        When it cannot, or when it holds another run and this one does not go on with it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"the run folder {path} cannot be written ({error.strerror or error}); "
            "name another with --run"
        ) from None
    if resuming or not ((path / RECORD).exists() or newest_snapshot(path)):
        return
    if newest_snapshot(path):
        other = "or go on with --resume last"
    else:
        other = "or remove it: it stopped before its first snapshot"
    raise ConfigError(f"{path} already holds a run; name another folder with --run, {other}")


def cut_log(path: Path, iteration: int) -> None:
    """Drop the lines of iterations that are about to be run again, and one that is half written.

    Parameters
    ----------
    path : Path
        The folder.
    iteration : int
        Where training goes on.
    """
    if not (path / LOG).exists():
        return
    kept = []
    for line in (path / LOG).read_text("utf-8").splitlines():
        try:
            if json.loads(line)["iteration"] < iteration:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    with atomic_write(path / LOG) as file:
        file.write("".join(kept).encode())


def newest_snapshot(path: Path) -> Path | None:
    """Return the snapshot of a run with the highest iteration, or None."""
    return _newest(path, _SNAPSHOT)


def newest_weights(path: Path) -> Path | None:
    """Return the weights of a run's highest iteration, or None; many snapshots hold theirs."""
    return _newest(path, _WEIGHTS)


def _newest(path: Path, names: re.Pattern[str]) -> Path | None:
    found = [(int(match[1]), file) for file in _files(path) if (match := names.search(file.name))]
    return max(found)[1] if found else None


def _files(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError:
        return []


def inline_nets(solver: Any, solver_path: str | Path, data: str | None = None) -> Any:
    """Return a copy of a solver that holds its nets itself instead of naming files.

    Parameters
    ----------
    solver : SolverParameter
    solver_path : path
        Where it was read from; its nets are looked for beside it.
    data : str, optional
        Name of a data set that every Data layer reads instead of its own source.
    """
    whole = proto.SolverParameter()
    whole.CopyFrom(solver)
    field = "train_net_param" if _has_train_net(solver) else "net_param"
    getattr(whole, field).CopyFrom(read_solver_net(solver, solver_path))
    for name in ("net", "train_net", "test_net"):
        whole.ClearField(name)
    # a solver tests the nets in test_net_param before those in test_net, so they are appended
    for path in solver.test_net:
        named = resolve_net_path(proto.SolverParameter(net=path), solver_path)
        whole.test_net_param.append(read_net(named))
    if data is not None:
        for net in nets_of(whole):
            _set_source(net, data)
    return whole


def nets_of(solver: Any) -> list[Any]:
    """Return the nets that a solver holds (:func:`inline_nets`), that which it trains first."""
    given = "train_net_param" if _has_train_net(solver) else "net_param"
    return [getattr(solver, given), *solver.test_net_param]


def _has_train_net(solver: Any) -> bool:
    return bool(solver.HasField("train_net") or solver.HasField("train_net_param"))


def _set_source(net: Any, data: str) -> None:
    for layer in net.layer:
        if layer.type == "Data":
            layer.data_param.source = data
            layer.data_param.ClearField("backend")


def write_configuration(path: Path, solver: Any) -> None:
    """Write the nets of a solver (:func:`inline_nets`) and the solver, which names those files."""
    named = proto.SolverParameter()
    named.CopyFrom(solver)
    for field, target in (("net_param", "net"), ("train_net_param", "train_net")):
        if solver.HasField(field):
            write_prototxt(getattr(solver, field), path / "net.prototxt")
            setattr(named, target, str(path / "net.prototxt"))
            named.ClearField(field)
    for number, net in enumerate(solver.test_net_param):
        file = path / f"test_net_{number}.prototxt"
        write_prototxt(net, file)
        named.test_net.append(str(file))
    named.ClearField("test_net_param")
    write_prototxt(named, path / "solver.prototxt")


def changes(path: Path, solver: Any) -> list[str]:
    """Say what a run that goes on does otherwise than before.

    Parameters
    ----------
    path : Path
        The folder, with the configuration that :func:`write_configuration` wrote.
    solver : SolverParameter
        With its nets in it (:func:`inline_nets`).

    Returns
    -------
    list of str
        One for each field of the solver, and one if the net is another.
    """
    try:
        before = read_solver(path / "solver.prototxt")
        net = read_net(path / "net.prototxt")
    except MinisslError:
        return []
    nets = {"net", "train_net", "net_param", "train_net_param", "test_net", "test_net_param"}
    told = []
    for field in solver.DESCRIPTOR.fields:
        old, new = (_shown(one, field.name) for one in (before, solver))
        if field.name not in nets and old != new:
            told.append(f"{field.name} was {old} and is {new} now")
            if field.name == "random_seed":
                told[-1] += ", which changes nothing: the random numbers of the snapshot go on"
    trained = nets_of(solver)[0]
    if trained != net:
        old, new = (_sources(one) for one in (net, trained))
        told.append(
            f"the data was {old} and is {new} now" if old != new else "the net is another now"
        )
    return told


def changed_options(last: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """Say which options that are no fields of the solver differ from those of the last record."""
    return [
        f"{name} was {last[name]} and is {record[name]} now"
        for name in ("shuffle", "original", "zero_out", "dtype")
        if name in last and last[name] != record[name]
    ]


def _shown(solver: Any, field: str) -> str:
    value = getattr(solver, field)
    return str(list(value) if hasattr(value, "append") else value)


def _sources(net: Any) -> str:
    return ", ".join(dict.fromkeys(x.data_param.source for x in net.layer if x.type == "Data"))


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write ``run.json``; called again at the end with the results."""
    with atomic_write(path / RECORD) as file:
        file.write(json.dumps(record, indent=2).encode() + b"\n")


def last_record(path: Path) -> dict[str, Any]:
    """Return the record of the newest run of this folder; nothing where there is none."""
    try:
        found = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def earlier_records(path: Path) -> list[dict[str, Any]]:
    """Return the records of the runs that this folder has seen before, oldest first."""
    last = last_record(path)
    return [*last.pop("earlier", []), last] if last else []


def command_line(arguments: Sequence[str]) -> str:
    """Return a command as one would type it."""
    import shlex

    program = Path(arguments[0]).name
    program = "minissl" if program in ("__main__.py", "cli.py") else program
    return shlex.join([program, *arguments[1:]])
