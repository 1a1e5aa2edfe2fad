"""Change solver fields from the command line, and bring old spellings up to date."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from minissl.errors import ConfigError

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

    from minissl.formats.proto import SolverParameter

# solver_type, an enum until 2015, and the string that took its place.
_TYPE_OF_ENUM = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}
_TRUE, _FALSE = ("true", "True", "t", "1"), ("false", "False", "f", "0")


def set_fields(message: Message, assignments: Iterable[str]) -> None:
    """Set fields from strings of the form ``key=value``, as ``--set`` passes them.

    ``base_lr=0.001``, ``type=Adam``, ``solver_mode=CPU``, ``stepvalue=100,200`` (a list replaces
    the old one; nothing after ``=`` empties it), ``train_state.level=1`` (a field of a group).
    As everywhere in this format, a float is kept as float32: 0.001 becomes 0.0010000000474974513.

    Raises
    ------
    ConfigError
        If a key is unknown (the nearest is suggested) or a value is not of the field's type.
    """
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        key, value = key.strip(), value.strip()
        if not equals:
            raise ConfigError(f"--set {assignment!r}: write key=value, for example base_lr=0.01.")
        owner, field = _find(message, key)
        if _is_repeated(field):
            parts = [part.strip() for part in value.split(",")] if value else []
            values = [_convert(field, part, key) for part in parts]
            owner.ClearField(field.name)
            getattr(owner, field.name).extend(values)
        else:
            setattr(owner, field.name, _convert(field, value, key))
    if message.DESCRIPTOR.name == "SolverParameter":
        upgrade_solver(message)  # type: ignore[arg-type]


def upgrade_solver(solver: SolverParameter) -> None:
    """Replace the old enum ``solver_type`` by the string ``type``.

    Raises
    ------
    ConfigError
        If both are given.
    """
    if not solver.HasField("solver_type"):
        return
    if solver.HasField("type"):
        raise ConfigError("The solver gives both type and solver_type; keep type.")
    solver.type = _TYPE_OF_ENUM[solver.SolverType.Name(solver.solver_type)]
    solver.ClearField("solver_type")


def _find(message: Message, key: str) -> tuple[Any, FieldDescriptor]:
    """Follow a dotted key to the message that owns its last part."""
    owner: Any = message
    *groups, last = key.split(".")
    for group in groups:
        step = _field_of(owner, group, key)
        if step.message_type is None or _is_repeated(step):
            raise ConfigError(
                f"--set {key!r}: {group!r} is not a single group of fields; "
                "change it in the file instead."
            )
        owner = getattr(owner, group)
    field = _field_of(owner, last, key)
    if field.message_type is not None:
        raise ConfigError(
            f"--set {key!r}: this is a group of fields; set one of them, "
            f"for example {key}.{field.message_type.fields[0].name}=..., or change the file."
        )
    return owner, field


def _field_of(owner: Any, name: str, key: str) -> FieldDescriptor:
    fields = owner.DESCRIPTOR.fields_by_name
    if name in fields:
        return fields[name]
    nearest = difflib.get_close_matches(name, list(fields), n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'?" if nearest else "see caffe.proto for the names."
    raise ConfigError(f"--set {key!r}: {owner.DESCRIPTOR.name} has no field {name!r}; {hint}")


def _is_repeated(field: Any) -> bool:
    # is_repeated came with protobuf 6.31, which deprecates label.
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return field.label == field.LABEL_REPEATED


def _convert(field: FieldDescriptor, text: str, key: str) -> Any:
    """Turn text into a value of the field's type."""
    if field.cpp_type == field.CPPTYPE_STRING:
        # Arguments that are not UTF-8 reach Python as lone surrogates, which protobuf refuses.
        if not text.isprintable():
            raise _refused(key, "printable text", text)
        return text
    if field.cpp_type == field.CPPTYPE_BOOL:
        if text not in _TRUE + _FALSE:
            raise _refused(key, "true or false", text)
        return text in _TRUE
    if field.enum_type is not None:
        names = field.enum_type.values_by_name
        if text not in names:
            raise _refused(key, "one of " + ", ".join(names), text)
        return names[text].number
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return _float(text, key)
    return _integer(field, text, key)


def _float(text: str, key: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _refused(key, "a number", text) from None
    if not math.isfinite(value) or abs(value) > float(np.finfo(np.float32).max):
        raise _refused(key, "a finite number that fits float32", text)
    return value


def _integer(field: FieldDescriptor, text: str, key: str) -> int:
    bits = 64 if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else 32
    unsigned = field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64)
    limits = np.iinfo(f"{'u' if unsigned else ''}int{bits}")
    try:
        value = int(text)
    except ValueError:
        raise _refused(key, "a whole number", text) from None
    if not limits.min <= value <= limits.max:
        raise _refused(key, f"a whole number from {limits.min} to {limits.max}", text)
    return value


def _refused(key: str, expected: str, text: str) -> ConfigError:
    return ConfigError(f"--set {key!r}: expected {expected}, got {text[:80]!r}.")
