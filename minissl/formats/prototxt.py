"""Nets and solvers as text: Caffe's prototxt, read strictly and written atomically.

Float fields are float32 in this format. Python shows the widened value, so ``base_lr: 0.01`` reads
as 0.009999999776482582; the original computes with the same number, and so does minissl.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from minissl.errors import ConfigError
from minissl.formats import proto
from minissl.formats.atomic import atomic_write
from minissl.formats.prototxt_errors import describe
from minissl.formats.reading import read_bytes
from minissl.formats.solver_fields import set_fields, upgrade_solver
from minissl.formats.upgrade import upgrade_net

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from minissl.formats.proto import NetParameter, SolverParameter

__all__ = [
    "parse_net",
    "parse_solver",
    "read_net",
    "read_solver",
    "read_solver_net",
    "resolve_net_path",
    "set_fields",
    "to_text",
    "upgrade_solver",
    "write_prototxt",
]

#: Larger texts are refused; the longest published nets have half a megabyte.
MAX_TEXT_BYTES = 2**24

PACKAGED_MODELS = Path(__file__).resolve().parents[1] / "models"

_Message = TypeVar("_Message", bound="Message")


def read_net(path: str | Path) -> NetParameter:
    """Read a net.

    Raises
    ------
    ConfigError
        If the file is missing or not UTF-8, or for anything :func:`parse_net` refuses.
    """
    return parse_net(_read_text(path, "net file"), str(path))


def read_solver(path: str | Path) -> SolverParameter:
    """Read a solver; see :func:`parse_solver`.

    Raises
    ------
    ConfigError
        If the file is missing or not UTF-8, or for anything :func:`parse_solver` refuses.
    """
    return parse_solver(_read_text(path, "solver file"), str(path))


def parse_net(text: str, source: str = "<text>") -> NetParameter:
    """Parse the text of a net; the older forms become the current one.

    Raises
    ------
    ConfigError
        With file, line and column: for text that is not prototxt, and for a field that is unknown
        or stands in the wrong place, with the right one. Without line: for anything that
        :func:`minissl.formats.upgrade.upgrade_net` refuses.
    """
    net = _parse(text, proto.NetParameter(), source)
    upgrade_net(net, source)
    return net


def parse_solver(text: str, source: str = "<text>") -> SolverParameter:
    """Parse the text of a solver; the old enum ``solver_type`` becomes the string ``type``.

    The nets that stand in it are brought to the current form as well.

    Raises
    ------
    ConfigError
        As :func:`parse_net`, and if both ``solver_type`` and ``type`` are given.
    """
    solver = _parse(text, proto.SolverParameter(), source)
    try:
        upgrade_solver(solver)
    except ConfigError as reason:
        raise ConfigError(f"{source}: {reason}") from None
    for name in ("net_param", "train_net_param"):
        if solver.HasField(name):
            upgrade_net(getattr(solver, name), f"{source}: {name}")
    for net in solver.test_net_param:
        upgrade_net(net, f"{source}: test_net_param")
    return solver


def to_text(message: Message) -> str:
    """Return a message as prototxt."""
    from google.protobuf.text_format import MessageToString

    return MessageToString(message, as_utf8=True)


def write_prototxt(message: Message, path: str | Path) -> None:
    """Write a message as prototxt, atomically.

    Raises
    ------
    MinisslError
        If the file cannot be written.
    """
    with atomic_write(path) as file:
        file.write(to_text(message).encode("utf-8"))


def read_solver_net(solver: SolverParameter, solver_path: str | Path) -> NetParameter:
    """Return the net that a solver trains, from inside the solver or from the file it names.

    Raises
    ------
    ConfigError
        If the solver names no net or several, or its file cannot be found or read.
    """
    inline = [name for name in ("net_param", "train_net_param") if solver.HasField(name)]
    named = [name for name in ("net", "train_net") if solver.HasField(name)]
    if len(inline) + len(named) > 1:
        raise ConfigError(
            f"{solver_path} gives {' and '.join(inline + named)}, but trains one net; keep one."
        )
    if inline:
        return getattr(solver, inline[0])
    return read_net(resolve_net_path(solver, solver_path))


def resolve_net_path(solver: SolverParameter, solver_path: str | Path) -> Path:
    """Find the file of a solver's net (``net``, else ``train_net``).

    Looked for, in this order: relative to the current folder, as Caffe does; in the folder of the
    solver file, under its whole name and under its last part; among the models that come with
    minissl, under its last part.

    Raises
    ------
    ConfigError
        If the solver names no file, or it is in none of these places; the error lists them.
    """
    name = solver.net or solver.train_net
    if not name:
        raise ConfigError(f'{solver_path} names no net; add a line such as net: "lenet.prototxt".')
    beside, last = Path(solver_path).parent, Path(name).name
    places = [Path(name), beside / name, beside / last, PACKAGED_MODELS / last]
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(dict.fromkeys(map(str, places)))
    raise ConfigError(f"There is no net '{name}', which {solver_path} names; looked at {looked}.")


def _read_text(path: str | Path, what: str) -> str:
    content = read_bytes(path, what, ConfigError)
    if len(content) > MAX_TEXT_BYTES:
        raise ConfigError(
            f"The {what} {path} has {len(content):,} bytes, more than the {MAX_TEXT_BYTES:,} that "
            "are read as prototxt; is it the right file?"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line = content.count(b"\n", 0, reason.start) + 1
        raise ConfigError(
            f"{path}:{line}: this {what} is not UTF-8 text; is it the right file?"
        ) from None


def _parse(text: str, message: _Message, source: str) -> _Message:
    from google.protobuf.text_format import Parse, ParseError

    try:
        text.encode()  # the library crashes inside on lone surrogates
        return Parse(text, message)
    except ParseError as error:
        line, column = error.GetLine() or 1, error.GetColumn() or 1
        problem = describe(text, line, column, str(error))
        raise ConfigError(f"{source}:{line}:{column}: {problem}.".replace("?.", "?")) from None
    except (ValueError, UnicodeError, RecursionError) as error:
        raise ConfigError(f"{source} is not a prototxt: {str(error)[:160]}.") from None
