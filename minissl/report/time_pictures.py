"""Pictures of times: how long the modes of every layer take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minissl.report.pictures import empty_figure, legend_below, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: what a bar is made of: part of the JSON entry -> label and color
PARTS = {
    "lowering_ms": ("lowering", "#e69f00"),
    "product_ms": ("product", "#0072b2"),
    "rest_ms": ("rest", "#8a8a8a"),
}
WHOLE = ("whole layer", "#009e73")


@styled
def mode_times(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw the time of every layer and mode as a bar, its stages one after the other.

    Parameters
    ----------
    runs : sequence of dict
        What ``minissl time --json`` prints, of one or more runs of the same network; each has a
        panel.
    """
    entries = [one for one in runs[0]["layers"] if one["timed"]]
    labels = [f"{one['name']}  {one['conv_mode'] or one['type']}" for one in entries]
    figure = empty_figure(2.6 + 4.6 * len(runs), 0.19 * len(entries) + 1.3)
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False).ravel()
    for axes, run in zip(panels, runs, strict=True):
        timed = [one for one in run["layers"] if one["timed"]]
        factor, unit = _unit(max(one["total_ms"] for one in timed))
        for y, one in enumerate(timed):
            left = 0.0
            parts = PARTS if one["product_ms"] is not None else {"total_ms": WHOLE}
            # stages are timed apart: their sum may be a little more than the whole layer
            scale = factor * one["total_ms"] / (sum(one[key] for key in parts) or 1)
            for key, (label, color) in parts.items():
                width = scale * one[key]
                axes.barh(y, width, left=left, height=0.72, color=color, label=label)
                left += width
            axes.annotate(
                f"{factor * one['total_ms']:.3g}", (left, y), xytext=(3, 0),
                textcoords="offset points", va="center", fontsize=7, color="#333333",
            )  # fmt: skip
        threads = "1 thread" if run["threads"] == 1 else f"{run['threads']} threads"
        axes.set_title(f"batch {run['batch_size']}, {threads}")
        axes.set_xlabel(unit)
        axes.margins(x=0.12, y=0.01)
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(np.arange(len(labels)), labels, fontsize=8)
    panels[0].invert_yaxis()
    legend_below(figure, panels[0])
    return figure


def _unit(longest_ms: float) -> tuple[float, str]:
    return (1.0, "milliseconds") if longest_ms >= 1 else (1e3, "microseconds")
