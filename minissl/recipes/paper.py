"""The published rows that ours stand beside.

Source: SSL paper (arXiv 1608.03665), Table 1: LeNet on the full MNIST, group Lasso on filters and
channels; its columns list conv1 - conv2. The table does not give columns of the weight matrix; its
FLOP of conv1 is the part of the filters that is kept.
"""

from __future__ import annotations

from typing import Any

DATA = "full MNIST (60,000 + 10,000 digits)"


def _lenet(number: int, error: float, conv1: tuple, conv2: tuple) -> dict[str, Any]:
    layers = [
        {
            "name": name,
            "filters": filters,
            "channels": channels,
            "columns": None,
            "flops_percent": percent,
        }
        for name, (filters, channels, percent) in (("conv1", conv1), ("conv2", conv2))
    ]
    return {"name": f"LeNet {number}", "error": error, "layers": layers, "data": DATA}


#: error as a fraction; (filters, channels, FLOP %) of conv1 and conv2
LENET_TABLE_1 = [
    _lenet(1, 0.009, (20, 1, 100.0), (50, 20, 100.0)),
    _lenet(2, 0.008, (5, 1, 25.0), (19, 4, 7.6)),
    _lenet(3, 0.010, (3, 1, 15.0), (12, 3, 3.6)),
]
