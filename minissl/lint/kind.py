"""Is a prototxt a net or a solver? Its own fields tell, also in a file that has a mistake."""

from __future__ import annotations

import re

from minissl.formats import proto

#: What matters of a prototxt to find its fields. The first three, texts and comments, hold none.
_TOKEN = re.compile(
    rb"""
    "(?:\\.|[^"\\\n])*"? | '(?:\\.|[^'\\\n])*'? | \#[^\n]*
    | (?P<sign> [:{}<>] ) | (?P<word> [A-Za-z_]\w* )
    """,
    re.VERBOSE,
)


def is_net(text: bytes) -> bool:
    """Whether a prototxt is a net rather than a solver, by the fields of its own.

    They tell it of a file with a mistake as well. Nets may stand in a solver: what is within braces
    does not count.
    """
    net, solver = (
        set(message.DESCRIPTOR.fields_by_name)
        for message in (proto.NetParameter, proto.SolverParameter)
    )
    fields = own_fields(text)
    of_net, of_solver = (
        sum(name in alone for name in fields) for alone in (net - solver, solver - net)
    )
    return of_net > of_solver


def own_fields(text: bytes) -> list[str]:
    """Return the names of the fields of a prototxt that no other field holds.

    A name is the word before a colon or an opening brace.
    """
    depth, names, word = 0, [], b""
    for token in _TOKEN.finditer(text):
        if token["word"]:
            word = token["word"]
        elif sign := token["sign"]:
            if word and depth == 0 and sign in b":{<":
                names.append(word.decode())
            depth = max(0, depth + (sign in b"{<") - (sign in b"}>"))
            word = b""
    return names
