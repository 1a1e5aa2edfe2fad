"""``minissl compact``: a physically smaller network with the same outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from minissl.cli import options

EPILOG = """
\b
Examples:
  minissl compact --model lenet_ssl.prototxt --weights lenet_iter_10000.caffemodel --out small
  minissl test --model small/net.prototxt --weights small/net.caffemodel --data mnist
"""


@click.command(epilog=EPILOG)
@options.model_option
@options.weights_option(True, "Weights with zero filters, channels or columns.")
@click.option(
    "--out",
    type=options.FILE,
    required=True,
    metavar="DIR",
    help="Folder for net.prototxt, net.safetensors and net.caffemodel.",
)
@options.data_option
@options.backend_option
@options.threads_option
@options.json_option
def command(
    model: Path,
    weights: Path,
    out: Path,
    data: str | None,
    backend: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Remove what zero weights have made superfluous, and prove that the outputs agree.

    Dead filters leave with the next layer's channels, the constants they leave behind are folded
    into its bias, and columns that are zero inside living channels are kept as an index.
    """
    from minissl.compaction import compact, prove, write
    from minissl.net import Net

    options.use_threads(threads, backend)
    given = options.data_options(data)
    before = Net(model, "TEST", backend, data=given)
    before.load(weights)
    compacted = compact(before)
    after = Net(compacted.net_param, "TEST", backend, data=given)
    after.load(compacted.weights)
    proof = prove(before, after)
    files = write(compacted, out)
    result = {
        **proof.to_json(),
        **compacted.report.to_json(),
        "files": {str(path): path.stat().st_size for path in files},
        "weights_file_before": weights.stat().st_size,
    }
    if as_json:
        options.show_json(result)
    else:
        _show(result)


def _show(result: dict[str, Any]) -> None:
    from minissl.memory import readable

    headings = ["layer", "weights before", "after", "bytes before", "after"]
    rows = [
        [
            layer["name"],
            layer["shape_before"],
            layer["shape_after"],
            layer["bytes_before"],
            layer["bytes_after"],
        ]
        for layer in result["layers"]
    ]
    total = ["total", "", "", result["bytes_before"], result["bytes_after"]]
    options.show_table(options.table(headings, rows, total, names=3))
    for layer in result["layers"]:
        for reason in layer["stays"]:
            click.echo(f"{layer['name']}: {reason}")
    where = "random inputs" if result["real"] is None else "random and real inputs"
    click.echo(
        f"largest output difference {result['max_abs_difference']:.1e} on {where} "
        f"(outputs go up to {result['largest_output']:.3g})"
    )
    click.echo(f"the weight file was {readable(result['weights_file_before'])}; written now:")
    for path, size in result["files"].items():
        click.echo(f"  {path} ({readable(size)})")
