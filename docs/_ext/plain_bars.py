"""Let docstrings write |w| and ||w_g|| as they are: RST would take the bars for a substitution."""

from __future__ import annotations

import re
from typing import Any

_LITERAL = re.compile(r"(``.*?``)")


def escape_bars(line: str) -> str:
    """Put a backslash before every bar that is not inside double backquotes."""
    parts = _LITERAL.split(line)
    parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
    return "".join(parts)


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape the text of a docstring; indented lines are formulas, left as they are."""
    lines[:] = [line if line.startswith("    ") else escape_bars(line) for line in lines]


def setup(app: Any) -> dict[str, bool]:
    """Connect to autodoc, before napoleon turns sections into fields."""
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"parallel_read_safe": True}
