"""The published speed-ups of AlexNet that ours stand beside; source: SSL paper (arXiv 1608.03665).

They are of single images, and of the product alone: lowering and the concatenation of rows and
columns are not counted. The dense product is that of MKL on a Xeon E5-2630 v2 ("CPU") and of cuBLAS
on three GPUs, of which Table 4 shows the GTX Titan. Sparsities of layers with conv groups are means
over the groups. The l1 weights of Table 4 were not published; the nearest that were, trained with
l1 decay 9e-5, have fewer zeros: 59.6, 88.6, 95.1, 93.9 and 90.8 % of conv1 to conv5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")


def _row(
    name: str,
    error: float | None = None,
    speed_ups: dict[str, Sequence[float]] | None = None,
    means: dict[str, float] | None = None,
    **percents: Sequence[float],
) -> dict[str, Any]:
    """Put a row together; percentages and speed-ups are given layer by layer."""
    layers = [
        {"name": layer, **{what: values[i] for what, values in percents.items()}}
        for i, layer in enumerate(LAYERS)
    ]
    by_layer = {what: list(values) for what, values in (speed_ups or {}).items()}
    return {
        "name": name,
        "error": error,
        "layers": layers,
        "speed_ups": by_layer,
        "means": means or {},
    }


L1_ZEROS = (67.6, 92.4, 97.2, 96.6, 94.3)
TITAN = (0.25, 0.52, 1.38, 1.04, 1.36)

#: rows 1 and 2 of Table 4
TABLE_4 = [
    _row(
        "AlexNet 1",
        error=0.4467,
        speed_ups={"CPU": (0.80, 2.91, 4.84, 3.83, 2.76), "GPU": TITAN},
        means={"CPU": 3.03, "GPU": 0.91},
        element=L1_ZEROS,
    ),
    _row(
        "AlexNet 2",
        error=0.4466,
        speed_ups={
            "CPU": (1.05, 3.37, 6.27, 9.73, 4.93),
            "GPU": (1.00, 2.37, 4.94, 4.03, 3.05),
        },
        means={"CPU": 5.07, "GPU": 3.08},
        column=(0.0, 63.2, 76.9, 84.7, 80.7),
        row=(9.4, 12.9, 40.6, 46.9, 0.0),
    ),
]

#: cuSPARSE against cuBLAS
FIGURE_1 = [
    _row(
        "l1",
        speed_ups={
            "Quadro K600": (0.19, 0.43, 0.86, 1.00, 0.77),
            "Tesla K40c": (0.21, 0.44, 1.16, 0.88, 1.14),
            "GTX Titan": TITAN,
        },
        means={"Quadro K600": 0.65, "Tesla K40c": 0.77, "GTX Titan": 0.91},
        element=L1_ZEROS,
    )
]

#: means over the layers; "N threads" are of the Xeon
FIGURE_8 = [
    _row(
        "l1",
        means={
            "1 thread": 3.03,
            "2 threads": 2.31,
            "4 threads": 2.17,
            "8 threads": 2.07,
            "Quadro K600": 0.65,
            "Tesla K40c": 0.77,
            "GTX Titan": 0.91,
        },
    ),
    _row(
        "SSL",
        means={
            "1 thread": 5.07,
            "2 threads": 4.78,
            "4 threads": 4.32,
            "8 threads": 4.11,
            "Quadro K600": 2.86,
            "Tesla K40c": 3.07,
            "GTX Titan": 3.08,
        },
    ),
]

#: how an experiment's file refers to them
FIGURES = {"table4": TABLE_4, "fig1": FIGURE_1, "fig8": FIGURE_8}


def ratios_of(row: Mapping[str, Any], platform: str, layers: Sequence[str]) -> list[float | None]:
    """Return a published row's speed-ups of these layers; None where there are none."""
    names = [layer["name"] for layer in row["layers"]]
    known = dict(zip(names, row["speed_ups"].get(platform, ()), strict=False))
    return [known.get(layer) for layer in layers]
