"""Residual networks for CIFAR-10 of any depth 6n + 2, as prototxt text.

The network of He et al. (CVPR 2016, section 4.2), with the shortcuts of the SSL paper: 1x1
convolutions where the shape changes, nothing elsewhere::

    conv1                    3 -> 16 filters, 32x32 pixels
    stage1, n blocks         16 filters, 32x32
    stage2, n blocks         32 filters, 16x16; its first block has stride 2
    stage3, n blocks         64 filters, 8x8; likewise
    pool, fc                 mean of every channel, 10 classes

    a block:  x -> conv1 -> ReLU -> conv2 -> sum -> ReLU
              |                               |
              +------- x, or shortcut(x) -----+

Each convolution has no bias and is followed by BatchNorm and Scale. The statistics that BatchNorm
keeps for testing reach back some 20 batches; the default, 1,000 batches, is too far while the rate
of learning is high: ResNet-20 then tests at 11 % where the statistics of the batches give 76 %.
A network has 6n + 1 convolutions on its main path and one inner product; the two shortcuts do not
count.

To learn the depth (section 3.1 of the SSL paper) all weights of a convolution between the ends of a
shortcut are one group: group Lasso then removes whole layers, and the shortcut carries on. conv1,
the shortcuts and the inner product have no groups: without them nothing would get through.

To learn how wide the blocks are inside, the weights that read one channel in the second convolution
of a block are a group (3 x 3 x filters). Where it is zero, the filter of the first convolution that
made the channel has no reader and leaves as well. A group of the filter's own weights would do
little: BatchNorm undoes whatever makes a filter shorter. The blobs that are added up keep their
channels.
"""

from __future__ import annotations

from collections.abc import Iterator

from minissl.errors import ConfigError

#: filters of the three stages
WIDTHS = (16, 32, 64)
CLASSES = 10
CONNECTIVITY = ("CONNECTED", "DISCONNECTED_ELTWISE", "DISCONNECTED_GRPWISE")

_HEAD = """\
name: "ResNet-{depth}"
layer {{
  name: "cifar"
  type: "Data"
  top: "data"
  top: "label"
  include {{ phase: TRAIN }}
  transform_param {{ mean_file: "cifar10" pad: 4 crop_size: 32 mirror: true }}
  data_param {{ source: "cifar10" batch_size: {batch_size} }}
}}
layer {{
  name: "cifar"
  type: "Data"
  top: "data"
  top: "label"
  include {{ phase: TEST }}
  transform_param {{ mean_file: "cifar10" }}
  data_param {{ source: "cifar10" batch_size: 100 }}
}}
"""

_CONVOLUTION = """\
layer {{
  name: "{name}"
  type: "Convolution"
  bottom: "{bottom}"
  top: "{name}"
{connectivity}\
  param {{ lr_mult: 1{group} }}
  convolution_param {{
    num_output: {filters}
{pad}\
    kernel_size: {kernel}
{stride}\
    bias_term: false
    weight_filler {{ type: "msra" }}
  }}
}}
layer {{
  name: "{name}_bn"
  type: "BatchNorm"
  bottom: "{name}"
  top: "{name}"
  batch_norm_param {{ moving_average_fraction: 0.95 }}
}}
layer {{
  name: "{name}_scale"
  type: "Scale"
  bottom: "{name}"
  top: "{name}"
  scale_param {{ bias_term: true }}
}}
"""

_RELU = """\
layer {{
  name: "{name}"
  type: "ReLU"
  bottom: "{blob}"
  top: "{blob}"
}}
"""

_SUM = """\
layer {{
  name: "{name}"
  type: "Eltwise"
  bottom: "{shortcut}"
  bottom: "{residual}"
  top: "{name}"
}}
"""

_TAIL = """\
layer {{
  name: "pool"
  type: "Pooling"
  bottom: "{bottom}"
  top: "pool"
  pooling_param {{ pool: AVE global_pooling: true }}
}}
layer {{
  name: "fc"
  type: "InnerProduct"
  bottom: "pool"
  top: "fc"
  param {{ lr_mult: 1 }}
  param {{ lr_mult: 2 decay_mult: 0 }}
  inner_product_param {{
    num_output: {classes}
    weight_filler {{ type: "msra" }}
    bias_filler {{ type: "constant" }}
  }}
}}
layer {{
  name: "accuracy"
  type: "Accuracy"
  bottom: "fc"
  bottom: "label"
  top: "accuracy"
  include {{ phase: TEST }}
}}
layer {{
  name: "loss"
  type: "SoftmaxWithLoss"
  bottom: "fc"
  bottom: "label"
  top: "loss"
}}
"""


def resnet(
    depth: int,
    learn_depth: bool = False,
    connectivity_mode: str = "CONNECTED",
    batch_size: int = 128,
    widths: tuple[int, int, int] = WIDTHS,
    learn_channels: bool = False,
) -> str:
    """Return the prototxt of a network that trains and tests.

    Parameters
    ----------
    depth : int
        6n + 2: 8, 14, 20, 26, 32 ...
    learn_depth : bool
        Make each convolution between the ends of a shortcut one group of ``block_group_decay``.
    connectivity_mode : {"CONNECTED", "DISCONNECTED_ELTWISE", "DISCONNECTED_GRPWISE"}
        Of every convolution: what stays zero while the network is trained on.
    batch_size : int
        Of training.
    widths : tuple of int
        Filters of the three stages.
    learn_channels : bool
        Make the weights of each channel between the two convolutions of a block a group of
        ``block_group_decay``.

    Raises
    ------
    ConfigError
        For another depth, an unknown mode, or sizes below 1.
    """
    if depth < 8 or depth % 6 != 2:
        below = max(8, depth - (depth - 2) % 6)
        raise ConfigError(
            f"there is no ResNet of depth {depth}: it is 6n + 2; use {below} or {below + 6}"
        )
    if connectivity_mode not in CONNECTIVITY:
        raise ConfigError(
            f"unknown connectivity_mode '{connectivity_mode}'; use {', '.join(CONNECTIVITY)}"
        )
    if batch_size < 1 or len(widths) != len(WIDTHS) or min(widths) < 1:
        raise ConfigError(
            f"batch_size {batch_size} and widths {widths}: use 1 or more, and three widths"
        )
    writer = _Writer(connectivity_mode, learn_depth, learn_channels)
    return "".join(
        [
            _HEAD.format(depth=depth, batch_size=batch_size),
            *writer.stem(widths[0]),
            *writer.stages(widths, blocks=(depth - 2) // 6),
            _TAIL.format(bottom=writer.blob, classes=CLASSES),
        ]
    )


class _Writer:
    """Writes the layers one after the other; knows the blob that comes next, and its channels."""

    def __init__(self, connectivity_mode: str, learn_depth: bool, learn_channels: bool):
        self.mode = connectivity_mode
        self.learn_depth, self.learn_channels = learn_depth, learn_channels
        self.blob, self.channels = "data", 3

    def stem(self, filters: int) -> Iterator[str]:
        yield self._convolution("conv1", self.blob, self.channels, filters)
        yield _RELU.format(name="conv1_relu", blob="conv1")
        self.blob, self.channels = "conv1", filters

    def stages(self, widths: tuple[int, ...], blocks: int) -> Iterator[str]:
        for stage, filters in enumerate(widths, 1):
            for block in range(1, blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                yield from self._block(f"stage{stage}_block{block}", filters, stride)

    def _block(self, name: str, filters: int, stride: int) -> Iterator[str]:
        first, second, shortcut = f"{name}_conv1", f"{name}_conv2", self.blob
        yield self._convolution(
            first, self.blob, self.channels, filters, stride, whole=self.learn_depth
        )
        yield _RELU.format(name=f"{first}_relu", blob=first)
        yield self._convolution(
            second, first, filters, filters, whole=self.learn_depth, each=self.learn_channels
        )
        if stride != 1 or filters != self.channels:
            shortcut = f"{name}_shortcut"
            yield self._convolution(shortcut, self.blob, self.channels, filters, stride, kernel=1)
        yield _SUM.format(name=name, shortcut=shortcut, residual=second)
        yield _RELU.format(name=f"{name}_relu", blob=name)
        self.blob, self.channels = name, filters

    def _convolution(
        self,
        name: str,
        bottom: str,
        channels: int,
        filters: int,
        stride: int = 1,
        kernel: int = 3,
        whole: bool = False,
        each: bool = False,
    ) -> str:
        """Write a convolution; the whole of it is a group, or each of its input channels is."""
        columns = [channels * kernel * kernel] * whole + [kernel * kernel] * each
        tiles = [f" block_group_lasso {{ xdimen: {width} ydimen: {filters} }}" for width in columns]
        return _CONVOLUTION.format(
            name=name,
            bottom=bottom,
            connectivity="" if self.mode == "CONNECTED" else f"  connectivity_mode: {self.mode}\n",
            group="".join(tiles),
            filters=filters,
            pad=f"    pad: {kernel // 2}\n" if kernel > 1 else "",
            kernel=kernel,
            stride=f"    stride: {stride}\n" if stride > 1 else "",
        )
