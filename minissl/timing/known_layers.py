"""Layers whose weights are recognised by the shape of their matrix, so that no net is needed.

Matrices say nothing about the image a layer sees, its stride or its padding. For nets whose sparse
weights were published these are written down here. AlexNet's layers are those of Caffe's CaffeNet
and of its AlexNet alike; LeNet's are those of Caffe's MNIST example.

Dimensions: C channels of H x W pixels, F filters, G conv groups, K columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minissl.formats.prototxt import parse_net


@dataclass(frozen=True)
class KnownLayer:
    """A convolution, or an inner product where there is no kernel.

    Attributes
    ----------
    net, name : str
    input : tuple of int
        (C, H, W).
    filters : int
    kernel, stride, pad, groups : int
    """

    net: str
    name: str
    input: tuple[int, int, int]
    filters: int
    kernel: int = 0
    stride: int = 1
    pad: int = 0
    groups: int = 1

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(F, K)."""
        C, H, W = self.input
        area = self.kernel**2 if self.kernel else H * W
        return self.filters, C // self.groups * area

    @property
    def band(self) -> KnownLayer:
        """One conv group, as a layer of its own."""
        C, H, W = self.input
        G = self.groups
        return KnownLayer(
            self.net, self.name, (C // G, H, W), self.filters // G,
            self.kernel, self.stride, self.pad,
        )  # fmt: skip

    def add_to(self, net: Any, name: str) -> None:
        """Add the layer to a net (NetParameter) under a name, with an Input of its own."""
        source = net.layer.add(name=f"{name}_input", type="Input", top=[f"{name}_input"])
        source.input_param.shape.add(dim=[1, *self.input])
        layer = net.layer.add(name=name, bottom=[f"{name}_input"], top=[name])
        if self.kernel:
            layer.type = "Convolution"
            fields = layer.convolution_param
            fields.kernel_size.append(self.kernel)
            fields.stride.append(self.stride)
            fields.pad.append(self.pad)
            fields.group = self.groups
        else:
            layer.type = "InnerProduct"
            fields = layer.inner_product_param
        fields.num_output = self.filters


LAYERS = (
    KnownLayer("AlexNet", "conv1", (3, 227, 227), 96, kernel=11, stride=4),
    KnownLayer("AlexNet", "conv2", (96, 27, 27), 256, kernel=5, pad=2, groups=2),
    KnownLayer("AlexNet", "conv3", (256, 13, 13), 384, kernel=3, pad=1),
    KnownLayer("AlexNet", "conv4", (384, 13, 13), 384, kernel=3, pad=1, groups=2),
    KnownLayer("AlexNet", "conv5", (384, 13, 13), 256, kernel=3, pad=1, groups=2),
    KnownLayer("AlexNet", "fc6", (256, 6, 6), 4096),
    KnownLayer("AlexNet", "fc7", (4096, 1, 1), 4096),
    KnownLayer("AlexNet", "fc8", (4096, 1, 1), 1000),
    KnownLayer("LeNet", "conv1", (1, 28, 28), 20, kernel=5),
    KnownLayer("LeNet", "conv2", (20, 12, 12), 50, kernel=5),
    KnownLayer("LeNet", "ip1", (50, 4, 4), 500),
    KnownLayer("LeNet", "ip2", (500, 1, 1), 10),
)


def recognise(name: str, matrix_shape: tuple[int, int]) -> KnownLayer | None:
    """Return the layer that a matrix of this name and shape (F, K) belongs to, or None.

    The shape decides. A name such as ``conv2_1`` is a conv group of ``conv2``. A name that is known
    must be that of the layer; any other name is accepted.
    """
    stem, _, number = name.rpartition("_")
    is_band = number.isdecimal() and stem in {layer.name for layer in LAYERS}
    own = stem if is_band else name
    candidates = [layer.band if is_band else layer for layer in LAYERS]
    fitting = [layer for layer in candidates if layer.matrix_shape == matrix_shape]
    named = [layer for layer in fitting if layer.name == own]
    if named or own in {layer.name for layer in LAYERS}:
        return named[0] if named else None
    return fitting[0] if fitting else None


def net_of(layers: Mapping[str, KnownLayer], name: str = "matrices") -> Any:
    """Return a net (NetParameter) in which every layer has an input of its own, by their names."""
    net: Any = parse_net("")
    net.name = name
    for key, layer in layers.items():
        layer.add_to(net, key)
    return net


def in_words(layers: Sequence[KnownLayer] = LAYERS) -> str:
    """List the layers and the shapes of their matrices."""
    nets = dict.fromkeys(layer.net for layer in layers)
    return "; ".join(
        f"{net} "
        + ", ".join(
            f"{layer.name} {layer.matrix_shape[0]} x {layer.matrix_shape[1]}"
            for layer in layers
            if layer.net == net
        )
        for net in nets
    )
