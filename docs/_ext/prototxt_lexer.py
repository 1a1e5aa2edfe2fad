"""Colours for code blocks of language ``prototxt``, the text form of Caffe's messages."""

from __future__ import annotations

from typing import Any, ClassVar

from pygments.lexer import RegexLexer
from pygments.token import Comment, Keyword, Name, Number, Punctuation, String, Whitespace


class PrototxtLexer(RegexLexer):
    """``name { field: value }``, comments from # to the end of the line."""

    name = "Prototxt"
    aliases: ClassVar[list[str]] = ["prototxt"]
    tokens: ClassVar[dict[str, list[tuple]]] = {
        "root": [
            (r"\s+", Whitespace),
            (r"#.*", Comment.Single),
            (r'"[^"\n]*"', String),
            (r"-?\d[\w.+-]*", Number),
            (r"[a-z]\w*(?=\s*\{)", Name.Tag),
            (r"[a-z]\w*(?=\s*:)", Name.Attribute),
            (r"\w+", Keyword.Constant),
            (r"[{}:,]", Punctuation),
        ]
    }


def setup(app: Any) -> dict[str, bool]:
    """Register the lexer."""
    app.add_lexer("prototxt", PrototxtLexer)
    return {"parallel_read_safe": True}
