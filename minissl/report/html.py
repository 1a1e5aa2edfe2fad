"""The pieces a page is made of, as HTML text. Everything that comes from outside is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from minissl.report.pictures import to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SKELETON = Path(__file__).with_name("page.html")


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole page; styles and pictures are inside, it refers to nothing else."""
    skeleton = Template(SKELETON.read_text("utf-8"))
    return skeleton.substitute(title=escape(title), body="\n".join(parts))


def heading(text: str) -> str:
    """Return a heading of the second level."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    """Return a paragraph, of a class if one is given."""
    attribute = f' class="{escape(kind)}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>"


def table(
    caption: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[Any]],
    kinds: Mapping[int, str] | None = None,
) -> str:
    """Return a table with header cells for columns and rows.

    Parameters
    ----------
    caption : str
    headings : sequence of str
        A line feed breaks the line.
    rows : sequence of sequences
        The first cell names the row; None becomes a dash.
    kinds : dict, optional
        Number of a row -> its class.
    """
    broken = [escape(text).replace("\n", "<br>") for text in headings]
    head = "".join(f'<th scope="col">{text}</th>' for text in broken)
    lines = []
    for number, (name, *cells) in enumerate(rows):
        kind = (kinds or {}).get(number)
        attribute = f' class="{escape(kind)}"' if kind else ""
        data = "".join(f"<td>{escape(cell(value))}</td>" for value in cells)
        lines.append(f'<tr{attribute}><th scope="row">{escape(str(name))}</th>{data}</tr>')
    return (
        f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0">'
        f"<table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def picture(figure: Figure, alternative: str, caption: str) -> str:
    """Return a figure with its caption; the alternative text says what it shows."""
    data = base64.b64encode(to_svg(figure).encode()).decode()
    return (
        f'<figure><div class="scroll" tabindex="0"><img alt="{escape(alternative)}" '
        f'src="data:image/svg+xml;base64,{data}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def folded(summary: str, text: str) -> str:
    """Return text in a fixed width that is shown on request."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def facts(pairs: Mapping[str, Any]) -> str:
    """Return a list of names and values."""
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in pairs.items()
    )
    return f"<dl>{items}</dl>"


def cell(value: Any) -> str:
    """Write one value for people; a dash where there is none."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value)
