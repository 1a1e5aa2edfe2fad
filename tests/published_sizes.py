"""Parameters and multiply-adds of published networks, added up from the tables of their papers.

Nothing of minissl is used here: a second account of what its networks must have.

A convolution with F filters of k x k pixels over C channels, in g groups, has F C/g k^2 weights
and F biases; each of its h x w outputs of a filter takes C/g k^2 multiply-adds. A fully connected
layer is one of 1 x 1 pixels on an image of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass
class Size:
    """What has been added up: numbers that are learned, and multiply-adds of one image."""

    parameters: int = 0
    multiply_adds: int = 0

    def product(self, filters, channels, kernel=1, pixels=1, groups=1, biases=1):
        """Add a convolution whose outputs have `pixels` x `pixels` pixels, or a product."""
        weights = filters * (channels // groups) * kernel**2
        self.parameters += weights + biases * filters
        self.multiply_adds += weights * pixels**2
        return filters

    def chain(self, *widths):
        """Add fully connected layers from each width to the next."""
        for channels, filters in pairwise(widths):
            self.product(filters, channels)


def vgg(convolutions: tuple[int, ...]) -> Size:
    """Simonyan and Zisserman 2014, table 1: 3 x 3 everywhere, columns D (16) and E (19)."""
    size, channels, pixels = Size(), 3, 224
    for count, width in zip(convolutions, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            channels = size.product(width, channels, 3, pixels)
        pixels //= 2
    size.chain(512 * 7 * 7, 4096, 4096, 1000)
    return size


#: Szegedy et al. 2014, table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj, and the pixels
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32, 28),
    "3b": (128, 128, 192, 32, 96, 64, 28),
    "4a": (192, 96, 208, 16, 48, 64, 14),
    "4b": (160, 112, 224, 24, 64, 64, 14),
    "4c": (128, 128, 256, 24, 64, 64, 14),
    "4d": (112, 144, 288, 32, 64, 64, 14),
    "4e": (256, 160, 320, 32, 128, 128, 14),
    "5a": (256, 160, 320, 32, 128, 128, 7),
    "5b": (384, 192, 384, 48, 128, 128, 7),
}


def googlenet(auxiliary: bool) -> Size:
    """Szegedy et al. 2014; the two classifiers on the side, of section 5, if asked for."""
    size = Size()
    size.product(64, 3, 7, 112)
    size.product(64, 64, 1, 56)
    channels = size.product(192, 64, 3, 56)
    for name, (one, reduce3, three, reduce5, five, projection, pixels) in INCEPTION.items():
        size.product(one, channels, 1, pixels)
        size.product(reduce3, channels, 1, pixels)
        size.product(three, reduce3, 3, pixels)
        size.product(reduce5, channels, 1, pixels)
        size.product(five, reduce5, 5, pixels)
        size.product(projection, channels, 1, pixels)
        channels = one + three + five + projection
        if auxiliary and name in ("4a", "4d"):
            size.product(128, channels, 1, 4)
            size.chain(128 * 4 * 4, 1024, 1000)
    size.chain(channels, 1000)
    return size


def resnet50() -> Size:
    """He et al. 2015, table 1: bottlenecks whose first 1 x 1 strides; factors and shifts of norms.

    torchvision counts 25,557,032 parameters as well; its 4.09 billion multiply-adds are of the
    variant that strides in the 3 x 3.
    """
    size = Size()

    def normed(*args):
        size.parameters += args[0]  # the factors; the shifts take the place of biases
        return size.product(*args)

    channels = normed(64, 3, 7, 112)
    for count, width, pixels in ((3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7)):
        for number in range(count):
            if number == 0:
                normed(4 * width, channels, 1, pixels)
            normed(width, channels, 1, pixels)
            normed(width, width, 3, pixels)
            channels = normed(4 * width, width, 1, pixels)
    size.chain(channels, 1000)
    return size


def caffenet() -> Size:
    """Krizhevsky et al. 2012, section 3.5, of two towers that are conv groups here."""
    size = Size()
    size.product(96, 3, 11, 55)
    size.product(256, 96, 5, 27, 2)
    size.product(384, 256, 3, 13)
    size.product(384, 384, 3, 13, 2)
    size.product(256, 384, 3, 13, 2)
    size.chain(256 * 6 * 6, 4096, 4096, 1000)
    return size


def cifar10_quick() -> Size:
    """Caffe's example: 5 x 5 convolutions that keep the pixels, each before a halving."""
    size = Size()
    size.product(32, 3, 5, 32)
    size.product(32, 32, 5, 16)
    size.product(64, 32, 5, 8)
    size.chain(64 * 4 * 4, 64, 10)
    return size


def cifar_resnet(n: int, projections: bool = True) -> Size:
    """He et al. 2015, section 4.2: 6n + 2 layers, each convolution with a norm and no bias.

    Where the width doubles, a 1 x 1 projection (option B); the paper's own counts, in table 6, are
    of shortcuts without weights (option A).
    """
    size, channels = Size(), 16

    def normed(*args):
        size.parameters += 2 * args[0]
        size.product(*args, biases=0)

    normed(16, 3, 3, 32)
    for width, pixels in ((16, 32), (32, 16), (64, 8)):
        for _ in range(n):
            if width != channels and projections:
                normed(width, channels, 1, pixels)
            normed(width, channels, 3, pixels)
            normed(width, width, 3, pixels)
            channels = width
    size.chain(64, 10)
    return size


def mnist_autoencoder() -> Size:
    """Hinton and Salakhutdinov 2006: 784-1000-500-250-30 and back."""
    size = Size()
    size.chain(784, 1000, 500, 250, 30, 250, 500, 1000, 784)
    return size


SIZES = {
    "googlenet_deploy": googlenet(auxiliary=False),
    "googlenet": googlenet(auxiliary=True),
    "vgg16_deploy": vgg((2, 2, 3, 3, 3)),
    "vgg16": vgg((2, 2, 3, 3, 3)),
    "vgg19_deploy": vgg((2, 2, 4, 4, 4)),
    "resnet50_deploy": resnet50(),
    "resnet50": resnet50(),
    "caffenet_deploy": caffenet(),
    "cifar10_quick": cifar10_quick(),
    "mnist_autoencoder": mnist_autoencoder(),
    "resnet20": cifar_resnet(3),
    "resnet32": cifar_resnet(5),
    "resnet56": cifar_resnet(9),
}
