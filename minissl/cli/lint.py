"""``minissl lint``: the usual mistakes in a net or a solver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minissl.cli import options

if TYPE_CHECKING:
    from minissl.lint import Finding

EPILOG = """
\b
Examples:
  minissl lint lenet_solver.prototxt
  minissl lint lenet_ssl.prototxt --data mnist --json
"""


@click.command(epilog=EPILOG)
@click.argument("file", type=options.MODEL, metavar="FILE")
@click.option(
    "--weights/--no-weights",
    "weights_given",
    default=None,
    help="Whether the run starts from trained weights.  [default: not known]",
)
@options.data_option
@options.json_option
def command(file: Path, weights_given: bool | None, data: str | None, as_json: bool) -> None:
    """Find the mistakes people make in a net or a solver prototxt, before a run is wasted.

    Which of the two FILE is, is seen from its content; of a solver its net is checked too. Exit
    code 1 when there is an error, 0 when there are only warnings.
    """
    findings = find(file, weights_given, data)
    errors = sum(finding.severity == "error" for finding in findings)
    if as_json:
        options.show_json(
            {"ok": not errors, "findings": [dict(vars(finding)) for finding in findings]}
        )
    else:
        for finding in findings:
            click.echo(str(finding))
        warnings = len(findings) - errors
        click.echo(f"{file}: {errors} errors, {warnings} warnings" if findings else f"{file}: fine")
    if errors:
        click.get_current_context().exit(1)


def find(file: Path, weights_given: bool | None = None, data: str | None = None) -> list[Finding]:
    """Return all findings about a file, a net or a solver with its net."""
    from minissl.errors import ConfigError
    from minissl.formats.prototxt import read_net, read_solver, read_solver_net
    from minissl.formats.reading import read_bytes
    from minissl.lint import lint_solver
    from minissl.lint.kind import is_net

    if is_net(read_bytes(file, "prototxt", ConfigError)):
        return check_net(read_net(file), data)
    solver = read_solver(file)
    net = read_solver_net(solver, file)
    return [*lint_solver(solver, net, weights_given), *check_net(net, data)]


def check_net(net: Any, data: str | None) -> list[Finding]:
    """Lint a net, with the shapes of its weights where it can be built."""
    from minissl.lint import lint_net

    shapes, findings = _weight_shapes(net, data)
    return [*lint_net(net, shapes), *findings]


def _weight_shapes(net: Any, data: str | None) -> tuple[dict[str, tuple[int, ...]], list[Finding]]:
    """Build the net in one of its phases; return its shapes, or why it cannot be built."""
    from minissl.data.catalogue import SOURCES
    from minissl.errors import MinisslError
    from minissl.formats.lmdb_file import is_lmdb
    from minissl.lint import Finding
    from minissl.net import Net

    unknown = [
        layer.data_param.source
        for layer in net.layer
        if layer.type == "Data"
        and layer.data_param.source not in SOURCES
        and not is_lmdb(layer.data_param.source)
    ]
    if unknown and data is None:
        return {}, [
            Finding(
                "warning",
                "net",
                f"Its source '{unknown[0]}' is no data set known here, so shapes are not checked.",
                "Add --data with the name of one, for example --data mnist.",
            )
        ]
    reason = ""
    for phase in ("TEST", "TRAIN"):
        try:
            built = Net(net, phase, backend="numpy", data=options.data_options(data))
        except MinisslError as error:
            reason = str(error)
        else:
            layers = [layer for layer in built.layers if layer.parameters]
            return {layer.name: layer.parameters[0].shape for layer in layers}, []
    return {}, [Finding("error", "net", f"It cannot be built: {reason}.", "Correct it first.")]
