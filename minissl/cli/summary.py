"""``minissl summary``: a network's layers, shapes, parameters and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from minissl.cli import options

EPILOG = """
\b
Examples:
  minissl summary lenet.prototxt
  minissl summary lenet.prototxt --weights lenet.caffemodel --phase TRAIN --json
  minissl summary resnet20.prototxt --phase TRAIN --batch-size 128 --memory
"""


@click.command(epilog=EPILOG)
@click.argument("model", type=options.MODEL, metavar="NET")
@options.weights_option(False, "Weights, to count those that are not zero.")
@click.option(
    "--phase",
    type=click.Choice(["TRAIN", "TEST"]),
    default="TEST",
    show_default=True,
    help="Which of the two networks that a prototxt describes.",
)
@click.option("--memory", is_flag=True, help="Show what needs how much memory.")
@options.data_option
@options.batch_size_option
@options.fuse_option
@options.json_option
def command(
    model: Path,
    weights: Path | None,
    phase: str,
    memory: bool,
    data: str | None,
    batch_size: int | None,
    fuse: bool,
    as_json: bool,
) -> None:
    """Show the layers of NET with their shapes, parameters, operations and memory.

    Also which layers run in the step of another ("fused into"). In phase TRAIN memory is counted as
    a solver uses it: gradients of blobs share what none of them needs at the same time.
    """
    from minissl.net import Net
    from minissl.summary import summarize

    net = Net(
        model,
        phase,
        data=options.data_options(data, batch_size),
        fuse=fuse,
        lean=phase == "TRAIN",
    )
    if weights is not None:
        net.load(weights)
    layers = [layer.to_json() for layer in summarize(net)]
    total = {
        key: sum(layer[key] for layer in layers)
        for key in ("parameters", "nonzero", "flop", "bytes")
    }
    needs = net.needs().to_json()
    result: dict[str, Any] = {
        "name": net.name,
        "phase": phase,
        "layers": layers,
        "total": {**total, "bytes_to_run": net.bytes_needed()},
        "memory": needs,
    }
    if as_json:
        options.show_json(result)
    else:
        _show(result, weights is not None)
        if memory:
            _show_memory(needs)


def _show(result: dict[str, Any], with_weights: bool) -> None:
    from minissl.memory import readable

    is_fused = any(layer["fused_into"] for layer in result["layers"])
    with_modes = any(layer["conv_mode"] not in (None, "LOWERED_GEMM") for layer in result["layers"])

    def cells(one: dict[str, Any]) -> list[Any]:
        row = [one["parameters"], one["flop"], readable(one["bytes"])]
        row += [one["nonzero"]] if with_weights else []
        return [*row, one.get("conv_mode") or ""] if with_modes else row

    names = ["layer", "type", *(["fused into"] if is_fused else []), "output", "weights"]
    headings = ["parameters", "FLOP/image", "memory", *(["not zero"] if with_weights else [])]
    headings += ["conv_mode"] if with_modes else []
    rows = [
        [
            layer["name"],
            layer["type"],
            *([layer["fused_into"]] if is_fused else []),
            ", ".join(options.cell(shape) for shape in layer["tops"].values()),
            layer["weights"],
            *cells(layer),
        ]
        for layer in result["layers"]
    ]
    total = result["total"]
    options.show_table(
        options.table(
            [*names, *headings],
            rows,
            ["total", *[""] * (len(names) - 1), *cells(total)],
            names=len(names),
        )
    )
    phase = result["phase"]
    more = "gradients, momentum and scratch memory" if phase == "TRAIN" else "scratch memory"
    click.echo(
        f"{result['name'] or 'net'} in phase {phase}: running it takes "
        f"{readable(total['bytes_to_run'])}, {more} included"
    )


#: what each part of the memory is for
PARTS = {
    "forward": "values of blobs",
    "backward": "gradients of blobs",
    "parameters": "parameters, and their gradients in phase TRAIN",
    "history": "momentum, one buffer",
    "scratch": "kept by layers and computed with",
    "total": "together",
}


def _show_memory(needs: dict[str, int]) -> None:
    """Print what each part of the memory is for."""
    from minissl.memory import readable

    rows = [[words, readable(needs[part])] for part, words in PARTS.items()]
    click.echo()
    options.show_table(options.table(["what for", "memory"], rows, names=1))
    if needs["backward"]:
        click.echo(f"gradients that shared no memory: {readable(needs['backward_apart'])}")
