"""Say what is wrong with a prototxt, where, and where a misplaced field belongs.

The protobuf library reports a line, a column and the message type. What a user wants to know is
the layer's name and the right place: ``conv_mode`` directly in a layer is unknown there, and
belongs inside ``convolution_param { ... }``.
"""

from __future__ import annotations

import difflib
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from minissl.formats import proto

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

_UNKNOWN_FIELD = re.compile(r'Message type "(?:caffe\.)?([\w.]+)" has no field named "([^"]*)"')
_REPEATED = re.compile(r'Message type "(?:caffe\.)?[\w.]+" should not have multiple "(\w+)" fields')
_UNKNOWN_ENUM = re.compile(r'Enum type "([\w.]+)" has no value (?:named|with number) (-?\w+)')
_TOKEN = re.compile(
    r"""\#[^\n]* | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' | [\w.+-]+ | \S""", re.X
)

# Reached only from messages that are still read but no longer written.
_OLD_MESSAGES = {"V1LayerParameter", "V0LayerParameter"}
_NET_MESSAGES = {"NetParameter", "V1LayerParameter", "V0LayerParameter"}


@dataclass
class Block:
    """One ``field { ... }`` around a place in a text, with the plain values directly inside it."""

    opened_by: str
    values: dict[str, str] = field(default_factory=dict)


def describe(text: str, line: int, column: int, problem: str) -> str:
    """Turn the protobuf library's complaint into one sentence.

    Parameters
    ----------
    text
        The whole prototxt.
    line, column
        The place, both counted from 1.
    problem
        The library's message.
    """
    blocks = enclosing_blocks(text, line, column)
    place = _place(blocks)
    if match := _UNKNOWN_FIELD.search(problem):
        message, name = match[1], match[2]
        around = f" in {place}" if place else ""
        hint = where_it_belongs(name, message, blocks)
        return f"field '{name}' is unknown{around} ({message}); {hint}"
    around = f"in {place}, " if place else ""
    if match := _REPEATED.search(problem):
        return f"{around}field '{match[1]}' is given twice; keep one"
    if match := _UNKNOWN_ENUM.search(problem):
        names = list(proto.pool().FindEnumTypeByName(match[1]).values_by_name)
        return f"{around}'{match[2]}' is not a known value; it is one of {', '.join(names)}"
    return around + _shorten(problem)


def where_it_belongs(name: str, message: str, blocks: list[Block]) -> str:
    """Say where the field `name`, not known to `message`, may stand; else the nearest name."""
    start = proto.descriptor(message)
    # What belongs in the net's own file is not looked for inside a solver's net_param.
    skip = _NET_MESSAGES if message == "SolverParameter" else _OLD_MESSAGES
    paths = _paths(name, start, skip)
    if paths:
        return f"it belongs inside {_written(_for_this_layer(paths, blocks))}"
    nearest = _nearest(name, [field.name for field in start.fields])
    if nearest:
        return f"did you mean '{nearest}'?"
    if name in proto.descriptor("SolverParameter").fields_by_name:
        return "it belongs in the solver file"
    if name in proto.descriptor("NetParameter").fields_by_name:
        return "it belongs at the top level of the net file"
    paths = _paths(name, proto.descriptor("NetParameter"), skip=_OLD_MESSAGES)
    if paths:
        return f"in a net it belongs inside {_written(_for_this_layer(paths, blocks))}"
    everywhere = {f.name for m in proto.message_names() for f in proto.descriptor(m).fields}
    nearest = _nearest(name, sorted(everywhere))
    if nearest:
        return f"did you mean '{nearest}'?"
    return "remove it or correct its name"


def enclosing_blocks(text: str, line: int, column: int) -> list[Block]:
    """Return the blocks around a place, outermost first.

    The values of a block are collected up to its end, since ``name`` may follow the place.
    """
    lines = text.split("\n")
    offset = sum(len(before) + 1 for before in lines[: line - 1]) + column - 1
    stack: list[Block] = []
    found: list[Block] | None = None
    key, after_colon = "", False
    for match in _TOKEN.finditer(text):
        if found is None and match.start() >= offset:
            found = list(stack)
        token = match[0]
        if token.startswith("#"):
            continue
        if token in "{<":
            stack.append(Block(key))
        elif token in "}>":
            if stack:
                stack.pop()
            if found is not None and not stack:
                break
        elif after_colon:
            if stack:
                stack[-1].values.setdefault(key, token.strip("\"'"))
        elif token != ":":
            key = token
        after_colon = token == ":"
    return stack if found is None else found


def _place(blocks: list[Block]) -> str:
    for block in blocks:
        if block.opened_by in ("layer", "layers"):
            name = block.values.get("name")
            return f"layer '{name}'" if name else "a layer without a name"
    return f"{blocks[-1].opened_by} {{ ... }}" if blocks else ""


def _paths(name: str, start: Descriptor, skip: set[str]) -> list[list[str]]:
    """Return the ways from a message down to those that have the field, nearest first."""
    paths: list[list[str]] = []
    queue: deque[tuple[Descriptor, list[str]]] = deque([(start, [])])
    seen = {start.name}
    while queue:
        message, path = queue.popleft()
        if path and name in message.fields_by_name:
            paths.append(path)
        for step in message.fields:
            kind = step.message_type
            if kind is not None and kind.name not in seen and kind.name not in skip:
                seen.add(kind.name)
                queue.append((kind, [*path, step.name]))
    nearest = min(map(len, paths), default=0)
    return [path for path in paths if len(path) == nearest]


def _for_this_layer(paths: list[list[str]], blocks: list[Block]) -> list[list[str]]:
    """Keep the paths through the parameters of the surrounding layer's type, if there are any."""
    types = {
        block.values.get("type", "").lower().replace("_", "")
        for block in blocks
        if block.opened_by in ("layer", "layers")
    }
    own = [p for p in paths if {s.removesuffix("_param").replace("_", "") for s in p} & types]
    return own or paths


def _written(paths: list[list[str]], most: int = 4) -> str:
    written = []
    for path in paths[:most]:
        text = "..."
        for step in reversed(path):
            text = f"{step} {{ {text} }}"
        written.append(text)
    if len(paths) > most:
        written.append(f"{len(paths) - most} more")
    return " or ".join(written)


def _nearest(name: str, known: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.75)), None)


def _shorten(problem: str, most: int = 160) -> str:
    """Drop what the library repeats: the place and the whole source line."""
    problem = re.sub(r"^\d+:\d+ : ", "", problem)
    problem = re.sub(r"^'.*': ", "", problem, flags=re.DOTALL).rstrip(".")
    return problem if len(problem) <= most else problem[:most] + "..."
