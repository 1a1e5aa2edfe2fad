"""A table of a TOML file: its keys are taken out one by one, and mistakes told in one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from minissl.errors import ConfigError

#: what a row's key may look like: it becomes a part of folder names
KEY = re.compile(r"[a-z0-9_]+")
NEEDED = object()


class Table:
    """A table of the file; its keys are taken out one by one, and what is left is unknown.

    Parameters
    ----------
    content
        What TOML gave, which may be no table at all.
    where : str
        For messages.
    """

    def __init__(self, content: Any, where: str):
        if not isinstance(content, Mapping):
            raise ConfigError(f"{where} is no table of keys and values")
        self.left = dict(content)
        self.where = where
        self.known: list[str] = []

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = NEEDED) -> Any:
        """Return the value of a key, which must be of this kind."""
        self.known.append(key)
        value = self.left.pop(key, default)
        if value is NEEDED:
            raise ConfigError(f"{self.where}: '{key}' is missing")
        if value is default:
            return value
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.wrong(key, value, _in_words(kind))
        return value

    def texts(self, key: str, default: Any = NEEDED) -> list[str]:
        """Return a list of texts."""
        values = self.take(key, list, default)
        if not all(isinstance(value, str) for value in values) or (
            default is NEEDED and not values
        ):
            raise self.wrong(key, values, 'a list of texts, such as ["a", "b"]')
        return list(values)

    def one_of(self, key: str, choices: Sequence[str], default: str) -> str:
        """Return one of several texts."""
        value: str = self.take(key, str, default)
        if value not in choices:
            raise self.wrong(key, value, f"one of {', '.join(choices)}")
        return value

    def flag(self, key: str) -> bool:
        """Return true or false; false where it is left out."""
        self.known.append(key)
        value = self.left.pop(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def end(self) -> None:
        """Refuse keys that nobody has asked for."""
        for key in self.left:
            close = get_close_matches(key, self.known, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"use {', '.join(self.known)}"
            raise ConfigError(f"{self.where}: unknown key '{key}'; {hint}")

    def wrong(self, key: str, value: Any, wanted: str) -> ConfigError:
        """Return the error for a value that is not what it should be."""
        return ConfigError(f"{self.where}: '{key}' is {value!r}; make it {wanted}")


def _in_words(kind: type | tuple[type, ...]) -> str:
    words = {str: "a text", list: "a list", dict: "a table", int: "a whole number"}
    return " or ".join(words[one] for one in kind) if isinstance(kind, tuple) else words[kind]
