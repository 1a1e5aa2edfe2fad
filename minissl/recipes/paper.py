"""The published rows that ours stand beside; source: SSL paper (arXiv 1608.03665), full MNIST.

Table 1 is LeNet with group Lasso on filters and channels; its columns list conv1 - conv2. It does
not give columns of the weight matrix; its FLOP of conv1 is the part of the filters that is kept.

Table 2 is LeNet with group Lasso on the shape of filters: how many columns are left, and channels.
A filter that conv2 does not read counts as removed in its FLOP, so that conv1's filters, which it
does not give, are conv2's channels.

The MLP's table (in Figure 4) gives the neurons that are left of 784-500-300-10; the FLOP of a layer
is the product of what is left at its two ends.
"""

from __future__ import annotations

from typing import Any

DATA = "full MNIST (60,000 + 10,000 digits)"


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

#: how an experiment's file refers to the tables
TABLES = {"table1": LENET_TABLE_1, "table2": LENET_TABLE_2, "mlp": MLP_TABLE}
