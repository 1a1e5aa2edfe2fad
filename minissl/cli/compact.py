"""``minissl compact``: a physically smaller network with the same outputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minissl.cli import options

if TYPE_CHECKING:
    from minissl.compaction import Compacted

EPILOG = """
\b
Examples:
  minissl compact --model lenet_ssl.prototxt --weights lenet_iter_10000.caffemodel --out small
  minissl compact --model resnet20.prototxt --weights sparse.caffemodel --dry-run
  minissl test --model small/net.prototxt --weights small/net.caffemodel --data mnist
"""


@click.command(epilog=EPILOG)
@options.model_option
@options.weights_option(True, "Weights with zero filters, channels or columns.")
@click.option(
    "--out",
    type=options.FILE,
    metavar="DIR",
    help="Folder for net.prototxt, net.safetensors and net.caffemodel.",
)
@click.option(
    "--fold-batch-norm",
    is_flag=True,
    help="Make BatchNorm, Scale and Bias part of the layer before them: faster, but the network "
    "cannot be trained on as before.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Write nothing; list what leaves of each group of tied layers, and why the rest stays.",
)
@options.data_option
@options.backend_option
@options.threads_option
@options.json_option
def command(
    model: Path,
    weights: Path,
    out: Path | None,
    fold_batch_norm: bool,
    dry_run: bool,
    data: str | None,
    backend: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Remove what zero weights have made superfluous, and prove that the outputs agree.

    Dead filters leave with the next layer's channels, the constants they leave behind are folded
    into its bias, and columns that are zero inside living channels are kept as an index. Residual
    branches that add constants only leave as a whole.
    """
    from minissl.compaction import compact, prove, write
    from minissl.compaction.files import refuse_to_replace
    from minissl.net import Net

    if out is None and not dry_run:
        raise click.UsageError("Give a folder with --out, or --dry-run to write nothing.")
    if out is not None and not dry_run:
        refuse_to_replace(out, (model, weights))
    options.use_threads(threads, backend)
    given = options.data_options(data)
    before = Net(model, "TEST", backend, data=given)
    before.load(weights)
    compacted = compact(before, fold_batch_norm)
    result: dict[str, Any] = compacted.report.to_json()
    if not dry_run:
        after = Net(compacted.net_param, "TEST", backend, data=given)
        after.load(compacted.weights)
        proof = prove(before, after)
        proof.demand()
        result = {**proof.to_json(), **result}
        assert out is not None
        result["weights_file_before"] = weights.stat().st_size
        result["files"] = {str(path): path.stat().st_size for path in write(compacted, out)}
    if as_json:
        options.show_json(result)
        return
    _show_layers(compacted)
    if dry_run:
        _show_groups(compacted)
    else:
        _show_files(result)


def _show_layers(compacted: Compacted) -> None:
    from minissl.channels import WITH_WEIGHTS

    headings = ["layer", "weights before", "after", "bytes before", "after"]
    report = compacted.report
    rows = [
        [x.name, list(x.shape_before) or "-", list(x.shape_after) or "-", *_sizes([x])]
        for x in report.layers
        if x.type in WITH_WEIGHTS or not x.shape_before
    ]
    others = [x for x in report.layers if x.type not in WITH_WEIGHTS and x.shape_before]
    if others:
        names = ", ".join(sorted({x.type for x in others}))
        rows.append([names, "", "", *_sizes(others)])
    total = ["total", "", "", *_sizes(report.layers)]
    options.show_table(options.table(headings, rows, total, names=3))
    if report.removed_layers:
        click.echo(f"{len(report.removed_layers)} layers leave: {', '.join(report.removed_layers)}")
    for name, reasons in report.stays.items():
        for reason in reasons:
            click.echo(f"{name}: {reason}")


def _sizes(layers: list[Any]) -> list[int]:
    return [sum(x.bytes_before for x in layers), sum(x.bytes_after for x in layers)]


def _show_groups(compacted: Compacted) -> None:
    """Print one row for the layers whose filters leave together, one name on a line."""
    headings = ["filters of", "read by", "channels", "leave"]
    rows = [
        ["\n".join(group.layers), "\n".join(group.readers) or "-", group.channels, group.removed]
        for group in compacted.report.groups
    ]
    click.echo()
    options.show_table(options.table(headings, rows, names=2))


def _show_files(result: dict[str, Any]) -> None:
    from minissl.memory import readable

    where = "random inputs" if result["real"] is None else "random and real inputs"
    click.echo(
        f"largest output difference {result['max_abs_difference']:.1e} on {where} "
        f"(outputs go up to {result['largest_output']:.3g})"
    )
    click.echo(f"the weight file was {readable(result['weights_file_before'])}; written now:")
    for path, size in result["files"].items():
        click.echo(f"  {path} ({readable(size)})")
