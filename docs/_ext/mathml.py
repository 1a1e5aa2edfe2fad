"""Formulas as MathML, made when the site is built: browsers draw it without any script."""

from __future__ import annotations

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger(__name__)
#: what the converter does not know it leaves as a letter: an environment's ``&``, a command
UNKNOWN = re.compile(r"<m[io]>(&|&amp;|\\[^<]*)</m[io]>")


def converted(node, display: str) -> str:
    """Return a formula as MathML; warn of what the converter does not know."""
    mathml = convert(node.astext(), display=display)
    if unknown := UNKNOWN.search(mathml):
        log.warning("formula with an unknown %s: %s", unknown[1], node.astext(), location=node)
    return mathml


def visit_inline(translator, node) -> None:
    translator.body.append(converted(node, "inline"))
    raise nodes.SkipNode


def visit_display(translator, node) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    translator.body.append(converted(node, "block"))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
