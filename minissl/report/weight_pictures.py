"""Pictures of weights: filters, their learned shapes, zeros of matrices, what is read of an image.

Dimensions: F filters, C channels, kh x kw kernel; weight matrices have R rows and K columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, isqrt
from typing import TYPE_CHECKING

import numpy as np

from minissl.errors import ConfigError
from minissl.report.pictures import empty_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEAD, ZERO, WEIGHT = "#e8e4da", "#f0a35e", "#1d4f7c"
#: channels side by side in a picture of shapes
_ACROSS = 10
#: networks side by side in a picture; of zeros, more of them stand one below the other
_SIDE_BY_SIDE = 4


@styled
def first_filters(weights: Mapping[str, np.ndarray], layer: str = "conv1") -> Figure:
    """Draw all filters of a layer, side by side for several networks.

    Each picture is one filter (C = 3 as colours, else the mean over the channels it reads), all on
    one scale: blue is negative, red positive. A filter without weights is an empty, crossed frame.

    Parameters
    ----------
    weights : dict of str to ndarray
        Title -> filters (F, C, kh, kw).
    layer : str
        For the heading.
    """
    largest = max(float(np.abs(w).max(initial=0)) for w in weights.values()) or 1.0
    F = max(len(w) for w in weights.values())
    across = min(F, 10)
    down = ceil(F / across)
    figure = empty_figure(7.2, (0.72 * down + 0.5) * len(weights))
    parts = figure.subfigures(len(weights), 1, squeeze=False).ravel()
    for part, (title, w) in zip(parts, weights.items(), strict=True):
        alive = int(np.count_nonzero(np.abs(w).reshape(len(w), -1).max(axis=1)))
        part.suptitle(
            f"{layer}, {title}: {alive} of {len(w)} filters", fontsize=11, x=0.01, ha="left"
        )
        all_axes = part.subplots(down, across, squeeze=False).ravel()
        for number, axes in enumerate(all_axes):
            axes.set(xticks=[], yticks=[])
            if number >= len(w):
                axes.set_visible(False)
                continue
            _draw_filter(axes, w[number], largest)
    return figure


def _draw_filter(axes: Axes, w: np.ndarray, largest: float) -> None:
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#999999", linewidth=0.6)
    if not w.any():
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8)
        axes.plot([0, 1], [1, 0], color="#bbbbbb", linewidth=0.8)
        return
    if len(w) == 3:
        axes.imshow(0.5 + 0.5 * np.moveaxis(w, 0, 2) / largest, interpolation="nearest")
        return
    image = w.mean(axis=0)
    axes.imshow(image, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")


@styled
def filter_shapes(networks: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Draw which positions of which channels the filters of each layer still read.

    Every small square is one input channel with the kh x kw positions of the kernel; the darker a
    position, the larger the norm of its weights over all filters; a dead one is empty.

    Parameters
    ----------
    networks : dict
        Title -> {layer: filters (F, C, kh, kw)}; one block of the picture for each.
    """
    from matplotlib.patches import Rectangle

    blocks = [
        (title, layer, w) for title, layers in networks.items() for layer, w in layers.items()
    ]
    heights = [1 + ceil(w.shape[1] / _ACROSS) for _, _, w in blocks]
    figure = empty_figure(7.2, 0.66 * sum(heights) + 0.3)
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights).ravel()
    for part, (title, layer, w) in zip(parts, blocks, strict=True):
        norms = np.sqrt(np.square(w, dtype=np.float64).sum(axis=0))  # (C, kh, kw)
        C, kh, kw = norms.shape
        alive, channels = np.count_nonzero(norms), np.count_nonzero(norms.any(axis=(1, 2)))
        part.suptitle(
            f"{layer}, {title}: {alive} of {norms.size} positions, {channels} of {C} channels",
            fontsize=11,
            x=0.01,
            ha="left",
        )
        all_axes = part.subplots(ceil(C / _ACROSS), _ACROSS, squeeze=False).ravel()
        shades = np.where(norms > 0, norms, np.nan)
        for number, axes in enumerate(all_axes):
            axes.set(xticks=[], yticks=[])
            axes.set_axis_off()
            if number < C:
                axes.imshow(shades[number], cmap="Blues", vmin=-0.3 * norms.max(), vmax=norms.max())
                axes.set(xlim=(-0.5, kw - 0.5), ylim=(kh - 0.5, -0.5))
                frame = Rectangle((-0.5, -0.5), kw, kh, fill=False, edgecolor="#999999", lw=0.8)
                axes.add_patch(frame)
    return figure


@styled
def zero_maps(networks: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Draw where the weights of every layer are, one map for each layer of each network.

    Parameters
    ----------
    networks : dict
        Title -> {layer: weight matrix (R, K)}; a column of the picture for each, or a row where
        there are many.

    Notes
    -----
    Three colours: a weight; a zero in a row and a column that live; a row or column that is zero
    as a whole.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    layers = list(dict.fromkeys(name for network in networks.values() for name in network))
    if not layers:
        raise ConfigError("there are no weight matrices to draw; the run has saved no weights yet")
    stacked = len(networks) > _SIDE_BY_SIDE
    down, across = (networks, layers) if stacked else (layers, networks)
    figure = empty_figure(7.2, 1.75 * len(down) + 0.7)
    all_axes = figure.subplots(len(down), len(across), squeeze=False)
    all_axes = all_axes.T if stacked else all_axes
    for number, layer in enumerate(layers):
        for axes, (title, network) in zip(all_axes[number], networks.items(), strict=True):
            axes.grid(False)
            if layer not in network:
                axes.set_visible(False)
                continue
            matrix = network[layer]
            R, K = matrix.shape
            axes.imshow(
                kinds_of(matrix),
                cmap=ListedColormap([DEAD, ZERO, WEIGHT]),
                vmin=0,
                vmax=2,
                aspect="auto",
                interpolation="none",
            )
            rows, columns = np.any(matrix, axis=1).sum(), np.any(matrix, axis=0).sum()
            axes.set_title(f"{layer}, {title}", fontsize=10)
            axes.set_xlabel(f"{columns} of {K} columns", fontsize=8.5)
            axes.set_ylabel(f"{rows} of {R}\nrows", fontsize=8.5)
            axes.tick_params(labelsize=7.5)
    keys = [(WEIGHT, "weight"), (ZERO, "single zero"), (DEAD, "zero row or column")]
    handles = [Patch(facecolor=c, edgecolor="#999999", label=text) for c, text in keys]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def kinds_of(matrix: np.ndarray) -> np.ndarray:
    """Return 2 where a weight is, 1 for a zero in a living row and column, 0 elsewhere; (R, K)."""
    alive = matrix != 0
    living = alive.any(axis=1, keepdims=True) & alive.any(axis=0, keepdims=True)  # (R, K)
    return living.astype(np.int8) + alive.astype(np.int8)


@styled
def connections_per_input(networks: Mapping[str, np.ndarray]) -> Figure:
    """Draw how many neurons read each pixel of a square image, one map for each network.

    Parameters
    ----------
    networks : dict
        Title -> weight matrix (R, side * side) of the first layer.

    Raises
    ------
    ConfigError
        When the columns are not those of a square image.
    """
    across = min(len(networks), _SIDE_BY_SIDE)
    down = ceil(len(networks) / across)
    figure = empty_figure(7.2, 2.4 * down + 0.6)
    all_axes = figure.subplots(down, across, squeeze=False).ravel()
    for axes in all_axes[len(networks) :]:
        axes.set_visible(False)
    counts = {title: np.count_nonzero(matrix, axis=0) for title, matrix in networks.items()}
    largest = max(int(count.max()) for count in counts.values()) or 1
    for axes, (title, count) in zip(all_axes[: len(counts)], counts.items(), strict=True):
        side = isqrt(count.size)
        if side * side != count.size:
            raise ConfigError(f"{count.size} inputs are no square image that could be drawn")
        image = axes.imshow(count.reshape(side, side), cmap="viridis", vmin=0, vmax=largest)
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.set_title(f"{title}: {np.count_nonzero(count)} pixels are read", fontsize=10)
    figure.colorbar(image, ax=list(all_axes), label="connections per pixel", shrink=0.8)
    return figure
