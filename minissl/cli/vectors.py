"""``minissl vectors``: numbers for people who check another implementation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minissl.cli import options

if TYPE_CHECKING:
    from minissl.vectors import Verdict

FAMILIES = ("layers", "sparsity", "matrices", "training", "compaction")
EPILOG = """
\b
Examples:
  minissl vectors vectors
  minissl vectors vectors --family sparsity --family matrices
  minissl vectors --check my-answers

Answers are .safetensors or .npz files, whose arrays have the names of the outputs in index.json:
CASE#outputs/NAME. Answers to a part are compared with that part. float32 answers may be off by
2e-5 of the largest value.
"""


@click.command(epilog=EPILOG)
@click.argument("out", type=options.FILE, required=False, metavar="[OUT]")
@click.option(
    "--check",
    "answers",
    type=options.FILE,
    metavar="FOLDER",
    help="Compare the answers in this folder, and write nothing.",
)
@click.option(
    "--family",
    "families",
    type=click.Choice(FAMILIES),
    multiple=True,
    help="Only these; may be given several times.  [default: all]",
)
@options.json_option
def command(
    out: Path | None, answers: Path | None, families: tuple[str, ...], as_json: bool
) -> None:
    """Write test vectors: inputs, outputs, gradients and updates of all that minissl defines.

    OUT gets one safetensors file for each family, and index.json with the shapes, formula,
    settings and tolerance of every vector. Inputs are the same on every machine.
    """
    if (out is None) == (answers is None):
        raise click.UsageError("Give a folder for the vectors, or --check and one with answers.")
    if out is not None:
        _write(out, families, as_json)
    elif answers is not None:
        _check(answers, families, as_json)


def _write(out: Path, families: tuple[str, ...], as_json: bool) -> None:
    from minissl import vectors

    index = vectors.write(out, families)
    if as_json:
        options.show_json(index)
        return
    counts = {
        family: sum(case["name"].startswith(f"{family}/") for case in index["cases"])
        for family in vectors.FAMILIES
    }
    for family, count in counts.items():
        if count:
            click.echo(f"{out / family}.safetensors: {count} vectors")
    click.echo(f"{out / 'index.json'}: version {index['version'][:16]}")


def _check(folder: Path, families: tuple[str, ...], as_json: bool) -> None:
    from minissl import vectors

    answers, questions = vectors.read_answers(folder), vectors.read_questions(folder)
    verdicts, missing = vectors.check(answers, families, questions)
    wrong = [verdict for verdict in verdicts if verdict.reason]
    if as_json:
        options.show_json(
            {
                "ok": not wrong,
                "answers": [verdict.to_json() for verdict in verdicts],
                "missing": missing,
            }
        )
    else:
        _show(verdicts, missing)
    if wrong:
        raise SystemExit(1)


def _show(verdicts: list[Verdict], missing: list[str]) -> None:
    rows: list[list[Any]] = [
        [one.case, one.output, f"{one.error:.1e}", f"{one.tolerance:.0e}", one.reason or "right"]
        for one in verdicts
    ]
    options.show_table(
        options.table(["vector", "output", "error", "tolerance", "verdict"], rows, names=2)
    )
    right = sum(not one.reason for one in verdicts)
    left_out = f", {len(missing)} outputs of the same vectors have no answer" if missing else ""
    click.echo(f"{right} of {len(verdicts)} answers are right{left_out}")
