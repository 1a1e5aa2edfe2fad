"""``minissl resnet``: print the prototxt of a residual network for CIFAR-10."""

from __future__ import annotations

import click

from minissl.cli import options
from minissl.models.resnet import CONNECTIVITY, resnet

EPILOG = """
\b
Examples:
  minissl resnet 20 > resnet20.prototxt
  minissl resnet 32 --learn-depth > resnet32_depth.prototxt
  minissl resnet 20 --learn-channels > resnet20_channels.prototxt
  minissl resnet 44 --connectivity-mode DISCONNECTED_GRPWISE > resnet44_ft.prototxt

resnet20.prototxt, resnet32.prototxt and resnet56.prototxt come with minissl.
"""


@click.command(epilog=EPILOG)
@click.argument("depth", type=int)
@click.option(
    "--learn-depth",
    is_flag=True,
    help="Make every convolution between the ends of a shortcut one group of block_group_decay, "
    "so that group Lasso removes whole layers.",
)
@click.option(
    "--learn-channels",
    is_flag=True,
    help="Make the weights of each channel between the two convolutions of a block one group of "
    "block_group_decay, so that group Lasso narrows the blocks inside.",
)
@click.option(
    "--connectivity-mode",
    type=click.Choice(CONNECTIVITY),
    default=CONNECTIVITY[0],
    show_default=True,
    help="What stays zero in each convolution while it is trained on.",
)
@click.option(
    "--batch-size",
    type=options.POSITIVE,
    default=128,
    show_default=True,
    help="Images of a batch in training.",
)
def command(
    depth: int, learn_depth: bool, learn_channels: bool, connectivity_mode: str, batch_size: int
) -> None:
    """Print the residual network of DEPTH layers, 6n + 2 (8, 14, 20, 26, 32 ...), for CIFAR-10.

    Three stages of n blocks with 16, 32 and 64 filters; 1x1 convolutions as shortcuts where the
    shape changes.
    """
    text = resnet(depth, learn_depth, connectivity_mode, batch_size, learn_channels=learn_channels)
    click.echo(text, nl=False)
