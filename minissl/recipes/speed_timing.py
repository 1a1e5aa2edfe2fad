"""Time layers densely and with sparse weights, by turns, and compare.

Two ratios are told of a layer:

speed_up
    of the products alone, as in the paper: neither lowering nor bias count. A mode without lowering
    has no product of its own, so the whole of it is compared with the dense product.
layer_speed_up
    of the whole layer.

The baseline is the dense product at the full speed of BLAS. minissl divides a batch between
threads by images, so with fewer images than threads its dense products leave threads idle. With no
more images than threads they are therefore measured by BLAS alone as well, with all the threads,
and the faster one counts, for dense weights and for packed ones (LOWERED_CCNMM) alike. Of BLAS the
fastest round is taken and not the median: its threads wait for each other, so that a short
disturbance of one of them spoils most rounds, and a baseline must not be slower than it could be.

Dimensions: F filters, G conv groups, K columns, N images, P x Q output pixels.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minissl import backend as backends
from minissl.net import Net
from minissl.timing import BASELINE, LayerTime, time_net

#: mode whose product is a dense one too, of fewer rows and columns
PACKED = "LOWERED_CCNMM"


def time_side_by_side(
    net: Net,
    weights: Mapping[str, np.ndarray],
    mode: str,
    threads: int,
    blocks: int,
    rounds: int,
) -> dict[str, Any]:
    """Time every layer densely and in a mode, and compare.

    Returns
    -------
    dict
        ``layers``, one dict for each as :func:`compare` gives it; ``mean_speed_up`` and
        ``mean_layer_speed_up`` over them; ``peak_gflops``.
    """
    modes = {name: tuple(dict.fromkeys((BASELINE, mode))) for name in weights}
    images = next(iter(net.blobs.values())).shape[0]
    twins = _BlasTwins(net, weights, mode, threads) if images <= threads else None
    timed: list[dict[tuple[str, str], LayerTime]] = []
    for _ in range(blocks):
        measured = time_net(net, modes, rounds, peak=True)
        timed.append({(one.name, str(one.conv_mode)): one for one in measured})
        if twins:
            twins.run(rounds)
    layers: list[dict[str, Any]] = []
    for name in weights:
        dense = _combine([block[name, BASELINE] for block in timed])
        sparse = _combine([block[name, mode] for block in timed])
        if twins:
            dense["blas_product_ms"] = twins.fastest_ms(name, BASELINE)
            sparse["blas_product_ms"] = twins.fastest_ms(name, mode)
        layers.append({"name": name, "dense": dense, "sparse": sparse, **compare(dense, sparse)})
    return {
        "layers": layers,
        **means(layers),
        "peak_gflops": max(one.peak_gflops or 0.0 for block in timed for one in block.values()),
    }


def compare(dense: Mapping[str, Any], sparse: Mapping[str, Any]) -> dict[str, float]:
    """Return ``speed_up`` and ``layer_speed_up`` of what was timed of a layer."""
    product = fastest_product(sparse)
    return {
        "speed_up": _product(dense) / (_whole(sparse) if product is None else product),
        "layer_speed_up": _whole(dense) / _whole(sparse),
    }


def means(layers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the arithmetic means over the layers, as the paper's table has them."""
    return {
        f"mean_{what}": statistics.fmean(one[what] for one in layers)
        for what in ("speed_up", "layer_speed_up")
    }


def fastest_product(times: Mapping[str, Any]) -> float | None:
    """Return the time of the product, minissl's own or that of BLAS; None without lowering."""
    known = [times[key] for key in ("product_ms", "blas_product_ms") if times.get(key)]
    return min(known) if known else None


def _product(dense: Mapping[str, Any]) -> float:
    product = fastest_product(dense)
    assert product is not None  # the dense mode lowers
    return product


def _whole(times: Mapping[str, Any]) -> float:
    """Return the time of the layer; by lowering, product of BLAS and rest, where that is less."""
    product = times.get("blas_product_ms")
    if not product:
        return float(times["total_ms"])
    around = max(0.0, times["total_ms"] - times["lowering_ms"] - times["product_ms"])
    return float(min(times["total_ms"], times["lowering_ms"] + product + around))


def _combine(blocks: Sequence[LayerTime]) -> dict[str, Any]:
    """Return the medians of the blocks' medians and quartiles."""
    found: dict[str, Any] = {}
    for key in ("lowering_ms", "product_ms", "total_ms"):
        values = [getattr(one, key) for one in blocks]
        found[key] = None if None in values else statistics.median(values)
    found["quartiles_ms"] = {
        part: [statistics.median(one.quartiles_ms[part][side] for one in blocks) for side in (0, 1)]
        for part in blocks[0].quartiles_ms
    }
    return found


class _BlasTwins:
    """The dense products of layers by BLAS with all threads, of all columns and of those kept.

    A lowered image is a matrix (K, N * P * Q); random numbers take its place.
    """

    def __init__(
        self, net: Net, weights: Mapping[str, np.ndarray], mode: str, threads: int
    ) -> None:
        self.threads = threads
        self.seconds: dict[tuple[str, str], list[float]] = {}
        #: (layer, mode) -> for each conv group the factors and the product
        self.factors: dict[tuple[str, str], list[tuple[np.ndarray, ...]]] = {}
        rng = np.random.default_rng(0)
        for name, matrix in weights.items():
            layer: Any = net.layer(name)
            N, _, P, Q = net.bottoms_and_tops(layer)[1][0].shape
            bands = layer.shape.bands(matrix)  # (G, F/G, K)
            lowered = rng.random((matrix.shape[1], N * P * Q), np.float32)
            self._add(name, BASELINE, bands, lowered)
            if mode == PACKED:
                packed = [band[np.ix_(band.any(axis=1), band.any(axis=0))] for band in bands]
                self._add(name, mode, packed, lowered)

    def _add(self, name: str, mode: str, bands: Any, lowered: np.ndarray) -> None:
        self.factors[name, mode] = [
            (
                band,
                lowered[: band.shape[1]],
                np.empty((band.shape[0], lowered.shape[1]), band.dtype),
            )
            for band in map(np.ascontiguousarray, bands)
            if band.size
        ]

    def run(self, rounds: int) -> None:
        """Multiply all of them by turns; the first round warms up."""
        with backends.blas_threads(self.threads):
            for number in range(rounds + 1):
                for key, groups in self.factors.items():
                    start = time.perf_counter()
                    for band, lowered, product in groups:
                        np.matmul(band, lowered, out=product)
                    if number:
                        seconds = time.perf_counter() - start
                        self.seconds.setdefault(key, []).append(seconds)

    def fastest_ms(self, name: str, mode: str) -> float | None:
        """Return the fastest of all rounds; None where the mode has no dense product."""
        seconds = self.seconds.get((name, mode))
        return 1e3 * min(seconds) if seconds else None
