"""The directive ``command-help NAME``: what ``minissl NAME --help`` prints."""

from __future__ import annotations

from typing import Any

import click
from docutils import nodes
from docutils.parsers.rst import Directive

from minissl.cli import main

WIDTH = 92


class CommandHelp(Directive):
    """Show the help of one command, as ``train`` or ``data fetch``."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Return one literal block."""
        text = help_of(self.arguments[0].split() if self.arguments else [])
        if text is None:
            raise self.error(f"minissl has no command '{self.arguments[0]}'")
        return [nodes.literal_block(text, text, language="text")]


def help_of(names: list[str]) -> str | None:
    """Return the help text of a command, None where there is no such command."""
    widths = {"max_content_width": WIDTH, "terminal_width": WIDTH, **main.context_settings}
    command: click.Command | None = main
    context = click.Context(main, info_name="minissl", **widths)
    for name in names:
        assert isinstance(command, click.Group)
        command = command.get_command(context, name)
        if command is None:
            return None
        context = click.Context(command, info_name=name, parent=context, **widths)
    assert command is not None
    return command.get_help(context)


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
