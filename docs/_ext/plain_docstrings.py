"""Let docstrings be read as they are written.

Two things that are plain in a source file mean something else in RST: the bars of |w| would be a
substitution, and an indented formula a quotation, whose lines are joined. A third means something
else to napoleon: what stands before a colon in the comment of a constant would be its type.

Left out are what Python writes about the fields of a named tuple, and values that fill a screen.
"""

from __future__ import annotations

import re
from typing import Any

_LITERAL = re.compile(r"(``.*?``)")
_TYPE = ":type: "
_VALUES = ("attribute", "data", "property")
#: characters of a value that is shown
LONGEST_VALUE = 400


def indent_of(line: str) -> int:
    """Return the number of leading blanks."""
    return len(line) - len(line.lstrip())


def prepare(lines: list[str]) -> list[str]:
    """Make literal blocks of indented formulas, and escape bars everywhere else."""
    result: list[str] = []
    before = ""  # the last line that is not empty
    literal_indent = None  # of the line that a literal block hangs on
    for i, line in enumerate(lines):
        if not line.strip():
            result.append(line)
            continue
        if literal_indent is not None and indent_of(line) <= literal_indent:
            literal_indent = None
        if literal_indent is None and before.endswith("::") and indent_of(line) > indent_of(before):
            literal_indent = indent_of(before)
        if literal_indent is None and _begins_formula(line, before, i > 0 and not lines[i - 1]):
            literal_indent = indent_of(before)
            result += [" " * literal_indent + "::", ""]
        result.append(line if literal_indent is not None else escape_bars(line))
        before = line
    return result


def _begins_formula(line: str, before: str, after_blank: bool) -> bool:
    """Whether a line is indented without being the body of anything."""
    return bool(before) and after_blank and indent_of(line) >= indent_of(before) + 4


def escape_bars(line: str) -> str:
    """Put a backslash before every bar that is not inside double backquotes."""
    parts = _LITERAL.split(line)
    parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
    return "".join(parts)


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Prepare one docstring."""
    lines[:] = prepare(lines)


def join_type(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Put what napoleon took for the type of a value back before its colon."""
    types = [line for line in lines if line.startswith(_TYPE)]
    if what in _VALUES and types:
        lines[0] = f"{types[0].removeprefix(_TYPE)}: {lines[0]}"
        lines.remove(types[0])


def skip(app: Any, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out the fields of a named tuple; its docstring tells of them."""
    return True if str(obj.__doc__).startswith("Alias for field number") else None


def shorten_values(app: Any, doctree: Any) -> None:
    """Replace values of many lines, and modules with their path, by three dots."""
    from docutils import nodes
    from sphinx import addnodes

    for value in doctree.findall(addnodes.desc_annotation):
        text = value.astext()
        long = len(text) > LONGEST_VALUE or "<module" in text
        if text.startswith(" = ") and long:
            value.children = [nodes.Text(" = ...")]


def setup(app: Any) -> dict[str, bool]:
    """Connect to autodoc, before and after napoleon turns sections into fields."""
    app.connect("autodoc-process-docstring", process, priority=100)
    app.connect("autodoc-process-docstring", join_type, priority=900)
    app.connect("autodoc-skip-member", skip)
    app.connect("doctree-read", shorten_values)
    return {"parallel_read_safe": True}
