"""The command line: one module for each command, loaded only when it runs.

A command parses its options, calls the function that does the work, and prints; what it computes
lives in the rooms below. Exit codes: 0 fine, 1 failed, 2 wrong usage, 130 and 143 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from keyword import iskeyword
from typing import Any

import click

from minissl import __version__
from minissl.errors import MinisslError

#: Command -> what it does, so that the list of commands is printed without loading any of them.
COMMANDS = {
    "demo": "The whole method on LeNet, in a few minutes, without any download.",
    "reproduce": "Earn a table of the paper again, or check a result that was kept.",
    "train": "Train a network as a solver prototxt says.",
    "test": "Run a network over a test set and print the mean of its outputs.",
    "time": "Time a network layer by layer, in every conv_mode.",
    "sparsity": "Show how sparse weights are: elements, rows, columns, blocks.",
    "flops": "Count the operations that a network needs and its zeros save.",
    "summary": "Show a network's layers, shapes, parameters and memory.",
    "compact": "Make a physically smaller network with the same outputs.",
    "resnet": "Print a residual network for CIFAR-10, of any depth 6n + 2.",
    "data": "Fetch, verify and describe data sets.",
    "convert": "Convert weights between file formats.",
    "vectors": "Write test vectors for other implementations, or check their answers.",
    "plot": "Draw the pictures of a run.",
    "report": "Write one self-contained HTML page about a run.",
    "lambda": "Suggest decays for group lasso, or search for the one that reaches a target.",
    "lint": "Find the usual mistakes in a net or a solver.",
    "doctor": "Check this machine and the libraries minissl stands on.",
}

EPILOG = """
\b
Start here:
  minissl demo
  minissl train --solver lenet_solver.prototxt --data mnist-small

\b
Completion of commands and options with the Tab key (bash; zsh and fish alike):
  echo 'eval "$(_MINISSL_COMPLETE=bash_source minissl)"' >> ~/.bashrc
"""


def module_of(name: str) -> str:
    """Return the module of a command; ``lambda``, a word of the language, lives in ``lambda_``."""
    return f"minissl.cli.{name}_" if iskeyword(name) else f"minissl.cli.{name}"


class Commands(click.Group):
    """A group that imports the module of a command when it is used, and no sooner."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, those used first in front."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a command."""
        if name not in COMMANDS or find_spec(module_of(name)) is None:
            return None
        command: click.Command = import_module(module_of(name)).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, *args: Any, standalone_mode: bool = True, **options: Any) -> Any:
        """Run a command; every way to end becomes an exit code and at most one sentence."""
        plain: Callable[..., Any] = super().main
        if not standalone_mode:
            return plain(*args, standalone_mode=False, **options)
        sys.exit(_run(partial(plain, *args, standalone_mode=False, **options)))


def _run(command: Callable[[], Any]) -> int:
    """Call a command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # a name that the terminal's encoding lacks is shown by its code instead of ending the run
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = command()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 130
    except BrokenPipeError:
        _forget_stdout()
        return 1
    except MinisslError as error:
        return _fail(str(error))
    except MemoryError:
        return _fail("There is not enough memory; make the batch smaller, or the network.")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}; check the path, its rights and the disk.")
    except Exception as error:
        return _fail(
            f"Unexpected {type(error).__name__}: {_one_line(error)}; please report it, with what "
            "MINISSL_DEBUG=1 shows when you run the command again."
        )


def _fail(sentence: str) -> int:
    """Print the sentence, or the whole traceback where it was asked for."""
    if os.environ.get("MINISSL_DEBUG") or logging.getLogger("minissl").level == logging.DEBUG:
        import traceback

        traceback.print_exc()
    click.echo(f"Error: {sentence}", err=True)
    return 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or "no message"


def _forget_stdout() -> None:
    """Keep the interpreter from flushing into a pipe that nobody reads any more."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Messages(logging.Handler):
    """Log records as plain lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        click.echo(f"{prefix}{record.getMessage()}", err=True)


@click.command(
    cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="minissl")
@click.option("-v", "--verbose", is_flag=True, help="Say more, and show tracebacks of errors.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors.")
def main(verbose: bool, quiet: bool) -> None:
    """Learn structured sparsity in deep neural networks (SSL).

    Train networks with group lasso, see which filters, channels and shapes became zero, and make
    networks smaller and faster that give the same outputs.
    """
    log = logging.getLogger("minissl")
    log.handlers = [_Messages()]
    if verbose and quiet:
        raise click.UsageError("--verbose and --quiet exclude each other.")
    log.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO)
