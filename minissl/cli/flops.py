"""``minissl flops``: the operations a network needs, and what its zeros save."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from minissl.cli import options

if TYPE_CHECKING:
    from minissl.sparsity.flops import LayerFlops

EPILOG = """
\b
Examples:
  minissl flops lenet.prototxt
  minissl flops lenet_ssl.prototxt lenet_iter_10000.caffemodel --json

\b
FLOP for one image, a multiply-add counted as 2:
  dense        nothing is skipped
  zeros        every product with a zero weight is skipped
  structured   zero rows and columns are skipped (the paper's Table 1)
  propagated   and dead filters leave with the channels behind them (Table 2)
  executed     what the layer's conv_mode really does
"""

RULES = ("dense", "zeros", "structured", "propagated", "executed")


@click.command(epilog=EPILOG)
@click.argument("model", type=options.MODEL, metavar="NET")
@click.argument("weights", type=options.FILE, metavar="[WEIGHTS]", required=False)
@options.data_option
@options.json_option
def command(model: Path, weights: Path | None, data: str | None, as_json: bool) -> None:
    """Count the operations of every layer with weights, by five rules.

    Without WEIGHTS the network counts as dense.
    """
    from minissl import net_weights
    from minissl.channels import layer_shapes
    from minissl.net import Net
    from minissl.sparsity.flops import count, total

    net = Net(model, "TEST", data=options.data_options(data))
    if weights is not None:
        net.load(weights)
    else:
        net_weights.make_dense(net.layers, net.kernels)
    layers = count(layer_shapes(net))
    whole = total(layers)
    if as_json:
        options.show_json(
            {"layers": [layer.to_json() for layer in layers], "total": whole.to_json()}
        )
    else:
        _show(layers, whole)


def _show(layers: list[LayerFlops], whole: LayerFlops) -> None:
    """Print the counts, and each as a percentage of the dense one."""

    def cells(one: LayerFlops) -> list[object]:
        row: list[object] = [one.name, one.dense]
        for rule in RULES[1:]:
            value = getattr(one, rule)
            percent = 100 * value / one.dense if one.dense else 0.0
            row.append(f"{value:,} {percent:6.2f}%")
        return row

    click.echo("FLOP per image, and percent of dense")
    options.show_table(
        options.table(["layer", *RULES], [cells(layer) for layer in layers], cells(whole))
    )
