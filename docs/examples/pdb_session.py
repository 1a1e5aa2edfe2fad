"""Run the debugger session of docs/iteration.md, and write what it shows back into the page.

    python docs/examples/pdb_session.py

A code block of the page that begins with ``(Pdb)`` is a part of the session: a line that begins so
is a command, the lines after it are what the debugger answered. Line numbers are left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = HERE.parent / "iteration.md"
SCRIPT = HERE / "one_iteration.py"

PROMPT = "(Pdb) "
BLOCK = re.compile(r"(?<=```text\n)\(Pdb\).*?(?=```)", re.DOTALL)


def commands_of(page: str) -> list[str]:
    """Return the commands of all blocks, in order."""
    lines = [line for block in BLOCK.findall(page) for line in block.splitlines()]
    return [line.removeprefix(PROMPT) for line in lines if line.startswith(PROMPT)]


def answers_to(commands: list[str]) -> list[str]:
    """Run the script under pdb; return what each command shows, without line numbers."""
    done = subprocess.run(
        [sys.executable, "-m", "pdb", str(SCRIPT)],
        input="\n".join([*commands, "quit", ""]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HOME": str(HERE), "PYTHONPATH": str(ROOT)},  # HOME: no .pdbrc
        check=False,
    )
    answers = done.stdout.split(PROMPT)[1:]
    if len(answers) <= len(commands):
        raise RuntimeError(f"the session ended early:\n{done.stdout}\n{done.stderr}")
    return [without_numbers(answer) for answer in answers[: len(commands)]]


def without_numbers(answer: str) -> str:
    """Shorten paths to those of the repository, and replace line numbers by dots."""
    answer = answer.replace(f"{ROOT}{os.sep}", "").replace(os.sep, "/")
    answer = re.sub(r"(\.py)\(\d+\)", r"\1(...)", answer)
    return re.sub(r"(\.py):\d+", r"\1:...", answer)


def renewed(page: str) -> str:
    """Return the page with every answer replaced by the true one."""
    commands = commands_of(page)
    session = iter(zip(commands, answers_to(commands), strict=True))

    def block(match: re.Match[str]) -> str:
        count = len(commands_of(f"```text\n{match[0]}```"))
        return "".join(f"{PROMPT}{c}\n{a}" for c, a in (next(session) for _ in range(count)))

    return BLOCK.sub(block, page)


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
