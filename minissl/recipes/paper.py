"""The published rows that ours stand beside; source: SSL paper (arXiv 1608.03665), full MNIST.

Table 1 is LeNet with group Lasso on filters and channels; its columns list conv1 - conv2. It does
not give columns of the weight matrix; its FLOP of conv1 is the part of the filters that is kept.

Table 2 is LeNet with group Lasso on the shape of filters: how many columns are left, and channels.
A filter that conv2 does not read counts as removed in its FLOP, so that conv1's filters, which it
does not give, are conv2's channels.

Table 3 is ConvNet on CIFAR-10 with group Lasso on rows and columns; it gives how many of them are
zero, in per cent, and how many times faster the product of each layer is. The authors published
logs of SSL (``LOGS``) whose networks come near: that beside ConvNet 3 has one filter of conv1 less,
that beside ConvNet 2 fewer columns of conv3.

Figure 6 is ResNet-20 on CIFAR-10 that loses whole layers; it gives how many are left, the inner
product included and shortcuts not, and how many convolutions there are at each image size.

The MLP's table (in Figure 4) gives the neurons that are left of 784-500-300-10; the FLOP of a layer
is the product of what is left at its two ends.
"""

from __future__ import annotations

from typing import Any

DATA = "full MNIST (60,000 + 10,000 digits)"
CIFAR = "CIFAR-10 (50,000 + 10,000 images)"


def _row(name: str, error: float, **layers: tuple) -> dict[str, Any]:
    """Put a row together; a layer is (filters, channels, columns, FLOP %)."""
    keys = ("filters", "channels", "columns", "flops_percent")
    described = [
        {"name": layer, **dict(zip(keys, values, strict=True))} for layer, values in layers.items()
    ]
    return {"name": name, "error": error, "layers": described, "data": DATA}


def _lenet(number: int, error: float, conv1: tuple, conv2: tuple) -> dict[str, Any]:
    return _row(
        f"LeNet {number}",
        error,
        conv1=(*conv1[:2], None, conv1[2]),
        conv2=(*conv2[:2], None, conv2[2]),
    )


def _shapes(number: int, error: float, conv1: tuple, conv2: tuple) -> dict[str, Any]:
    return _row(f"LeNet {number}", error, conv1=(None, *conv1), conv2=(None, *conv2))


def _mlp(number: int, error: float, neurons: tuple, percents: tuple) -> dict[str, Any]:
    layers = {f"ip{i + 1}": (neurons[i + 1], neurons[i], neurons[i], percents[i]) for i in range(3)}
    return _row(f"MLP {number}", error, **layers)


def _convnet(
    number: int, error: float, filters: tuple, columns: tuple, products: tuple
) -> dict[str, Any]:
    names = ("conv1", "conv2", "conv3")
    layers = {
        name: (rows, None, left, None)
        for name, rows, left in zip(names, filters, columns, strict=True)
    }
    row = _row(f"ConvNet {number}", error, **layers)
    return {**row, "data": CIFAR, "products": dict(zip(names, products, strict=True))}


#: error as a fraction; (filters, channels, FLOP %) of conv1 and conv2
LENET_TABLE_1 = [
    _lenet(1, 0.009, (20, 1, 100.0), (50, 20, 100.0)),
    _lenet(2, 0.008, (5, 1, 25.0), (19, 4, 7.6)),
    _lenet(3, 0.010, (3, 1, 15.0), (12, 3, 3.6)),
]

#: (channels, columns, FLOP %) of conv1 and conv2
LENET_TABLE_2 = [
    _shapes(1, 0.009, (1, 25, 100.0), (20, 500, 100.0)),
    _shapes(4, 0.008, (1, 21, 8.4), (2, 41, 8.2)),
    _shapes(5, 0.010, (1, 7, 1.4), (1, 14, 2.8)),
]

#: neurons from the pixels to the classes; FLOP % of ip1, ip2 and ip3
MLP_TABLE = [
    _mlp(1, 0.0143, (784, 500, 300, 10), (100.0, 100.0, 100.0)),
    _mlp(2, 0.0134, (469, 294, 166, 10), (35.18, 32.54, 55.33)),
    _mlp(3, 0.0153, (434, 174, 78, 10), (19.26, 9.05, 26.00)),
]

#: filters and columns that are left of 32, 32 and 64 filters with 75, 800 and 800 columns (12.5 %
#: zero rows of conv1 are 28 filters); how many times faster the products are
CONVNET_TABLE = [
    _convnet(1, 0.179, (28, 32, 64), (75, 800, 800), (1.0, 1.0, 1.0)),
    _convnet(2, 0.179, (16, 23, 63), (75, 326, 519), (1.43, 3.05, 1.57)),
    _convnet(3, 0.169, (22, 32, 63), (75, 458, 722), (1.25, 2.01, 1.18)),
]


def _resnet(name: str, error: float, depth: int, by_size: tuple) -> dict[str, Any]:
    return {**_row(name, error), "data": CIFAR, "depth": depth, "convolutions": list(by_size)}


#: layers that are left, and convolutions at 32x32, 16x16 and 8x8 pixels
DEPTH_TABLE = [
    _resnet("ResNet-20", 0.0882, 20, (7, 6, 6)),
    _resnet("SSL-ResNet-12", 0.0986, 12, (5, 0, 6)),
    _resnet("SSL-ResNet-14", 0.0854, 14, (5, 2, 6)),
    _resnet("SSL-ResNet-16", 0.0824, 16, (5, 4, 6)),
    _resnet("SSL-ResNet-18", 0.0740, 18, (5, 6, 6)),
    _resnet("SSL-ResNet-20", 0.0764, 20, (7, 6, 6)),
]

#: how an experiment's file refers to the tables
TABLES = {
    "table1": LENET_TABLE_1,
    "table2": LENET_TABLE_2,
    "table3": CONVNET_TABLE,
    "depth": DEPTH_TABLE,
    "mlp": MLP_TABLE,
}

#: published logs of SSL by row: its length, and at some iterations the error as a fraction and zero
#: columns and rows in per cent of conv1, conv2 and conv3; source: the authors' repository
LOGS = {
    "ConvNet 2": {
        "about": "both decays 0.004, rate 0.001",
        "iterations": 200_000,
        "points": [
            {"iteration": 0, "error": 0.1788, "column": None, "row": (12.5, 0, 0)},
            {
                "iteration": 200_000,
                "error": 0.1963,
                "column": (0, 61.3, 50.0),
                "row": (50.0, 31.3, 12.5),
            },
        ],
    },
    "ConvNet 3": {
        "about": "both decays 0.002, rate 0.001",
        "iterations": 120_000,
        "points": [
            {"iteration": 0, "error": 0.1788, "column": None, "row": (12.5, 0, 0)},
            {"iteration": 20_000, "error": 0.228, "column": (0, 28.1, 0), "row": None},
            {"iteration": 50_000, "error": 0.180, "column": (0, 38.3, 3.5), "row": None},
            {"iteration": 80_000, "error": 0.175, "column": (0, 41.8, 8.0), "row": None},
            {
                "iteration": 120_000,
                "error": 0.1708,
                "column": (0, 42.9, 10.0),
                "row": (34.4, 0, 1.6),
            },
        ],
    },
}
