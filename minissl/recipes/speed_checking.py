"""Check that speed-ups follow from the times that were recorded, and that matrices are the same.

Times cannot be repeated, so nothing is measured again. Every ratio and mean is worked out again
from the times, and every percentage of zeros from the matrices, where these are at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minissl.recipes.published_matrices import as_published, folder_of, read_set
from minissl.recipes.speed import layers_of, random_matrices, structure_of
from minissl.recipes.speed_timing import compare, means
from minissl.timing.known_layers import KnownLayer

#: relative difference of two computations of the same figure
TOLERANCE = 1e-9


def check(result: Mapping[str, Any], matrices: Path | None = None) -> list[dict[str, Any]]:
    """Compare every figure that does not depend on the machine.

    Parameters
    ----------
    result : dict
        ``result.json``.
    matrices : Path, optional
        Folder of the published matrices; else what the environment variable says. Without any,
        the percentages of these rows are not compared.

    Returns
    -------
    list of dict
        For each row ``name``, ``ok``, ``wrong`` (sentences), ``compared`` (in words).
    """
    layers = layers_of(result["net"], result["layers"])
    folder = folder_of(matrices)
    checked = []
    for row in result["rows"]:
        wrong = [sentence for run in row["runs"] for sentence in _ratios(run)]
        compared = "ratios"
        weights = None
        if row["matrices"] is None:
            weights = random_matrices(row["sparsity"], layers, result["seed"])
            compared = "ratios and zeros"
        elif folder is not None:
            weights, digests = read_set(row["matrices"], layers, folder)
            wrong += _digests(row, digests)
            compared = "ratios, zeros and digests of the matrices"
        else:
            compared = "ratios only: no --matrices were given"
        if row["as_published"] != as_published(row["matrices"] or "", row["sha256"]):
            wrong.append("its digests are not those of the published matrices")
        if weights is not None:
            wrong += _zeros(row, layers, weights)
        checked.append({"name": row["name"], "ok": not wrong, "wrong": wrong, "compared": compared})
    return checked


def _ratios(run: Mapping[str, Any]) -> list[str]:
    where = f"batch {run['batch_size']}, threads {run['threads']}"
    wrong = []
    for layer in run["layers"]:
        for key, value in compare(layer["dense"], layer["sparse"]).items():
            if not _same(value, layer[key]):
                wrong.append(f"{where}, {layer['name']}: {key} is {value}, recorded {layer[key]}")
        for mode in ("dense", "sparse"):
            wrong += _quartiles(layer[mode], f"{where}, {layer['name']}, {mode}")
    for key, value in means(run["layers"]).items():
        if not _same(value, run[key]):
            wrong.append(f"{where}: {key} is {value}, recorded is {run[key]}")
    return wrong


def _quartiles(times: Mapping[str, Any], where: str) -> list[str]:
    return [
        f"{where}: the median of {part}, {times[f'{part}_ms']} ms, is not between the quartiles"
        for part, (low, high) in times["quartiles_ms"].items()
        if not low <= times[f"{part}_ms"] <= high
    ]


def _digests(row: Mapping[str, Any], digests: Mapping[str, str]) -> list[str]:
    return [
        f"the file of {layer} has the SHA-256 {value}, recorded is {row['sha256'].get(layer)}"
        for layer, value in digests.items()
        if row["sha256"].get(layer) != value
    ]


def _zeros(
    row: Mapping[str, Any], layers: Sequence[KnownLayer], weights: Mapping[str, np.ndarray]
) -> list[str]:
    wrong = []
    for layer, recorded in zip(layers, row["layers"], strict=True):
        for key, value in structure_of(layer, weights[layer.name]).items():
            same = value == recorded[key] if key == "name" else _same(value, recorded[key])
            if not same:
                wrong.append(f"{layer.name}: {key} is {value}, recorded is {recorded[key]}")
    return wrong


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
