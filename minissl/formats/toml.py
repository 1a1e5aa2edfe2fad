"""TOML files, read; the values are whatever the file says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from minissl.errors import ConfigError
from minissl.formats.reading import read_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def read_toml(path: str | Path, what: str = "TOML file") -> dict[str, Any]:
    """Return the content of a TOML file.

    Parameters
    ----------
    path : path
    what : str
        What the file is to the user, for messages.

    Raises
    ------
    ConfigError
        When it cannot be read, is not UTF-8, or is not TOML; then with the line.
    """
    content = read_bytes(path, what, ConfigError)
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except RecursionError:
        raise ConfigError(f"{path} is not TOML that can be read: it is nested too deeply") from None
    except tomllib.TOMLDecodeError as reason:
        raise ConfigError(f"{path} is not TOML: {reason}") from None
