"""What a table says about a network: error, structure, FLOP, time and size.

Dimensions: N images of a batch, F filters, C input channels, K columns of the weight matrix.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from minissl import compaction
from minissl.channels import layer_shapes
from minissl.compaction.proof import JUDGES
from minissl.errors import ConfigError
from minissl.formats.prototxt import read_net
from minissl.net import Net
from minissl.solvers.solver import mean_outputs
from minissl.sparsity import flops
from minissl.timing import automatic, own_modes, time_net, time_passes, without_modes

#: images of a batch that errors are measured with
TEST_BATCH = 100
#: files of a compacted network
NET, COMPACT_WEIGHTS = "net.prototxt", "net.caffemodel"


@dataclass(frozen=True)
class Network:
    """A network on disk.

    Attributes
    ----------
    name : str
        Of its row in the table.
    model : Path
        The net's prototxt.
    weights : Path or None
        Its weight file; None for those that its fillers draw.
    options : dict
        ``backend``, ``dtype`` and ``data`` of :class:`minissl.net.Net`.
    """

    name: str
    model: Path
    weights: Path | None
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(
        self,
        batch_size: int | None = None,
        modes: Callable[[Any], Any] = lambda param: param,
        fuse: bool = True,
    ) -> Net:
        """Build the test network, with its weights.

        Parameters
        ----------
        batch_size : int, optional
            N, in place of the prototxt's.
        modes : callable
            Changes the modes of the layers, such as :func:`minissl.timing.without_modes`.
        fuse : bool
            Run chains of layers as one step.
        """
        options = dict(self.options)
        if batch_size:
            options["data"] = {**options.get("data", {}), "batch_size": batch_size}
        net = Net(modes(read_net(self.model)), phase="TEST", fuse=fuse, **options)
        if self.weights is not None:
            net.load(self.weights)
        return net


def figures_of(network: Network, dense: Mapping[str, int], batches: int) -> dict[str, Any]:
    """Return what a table says of a network whose weights are on disk.

    Parameters
    ----------
    dense : dict
        FLOP of the original layers, :func:`dense_flop`.
    batches : int
        Test batches of ``TEST_BATCH`` images.

    Returns
    -------
    dict
        ``error``, ``layers`` (:func:`structure_of`), ``flops_percent``, and ``bytes`` of the
        weights.
    """
    assert network.weights is not None
    net = network.open(TEST_BATCH)
    return {
        "error": error_of(net, batches),
        "layers": structure_of(net, dense),
        "flops_percent": total_flops_percent(net, dense),
        "bytes": network.weights.stat().st_size,
    }


def error_of(net: Net, batches: int) -> float:
    """Return the classification error over some batches, as a fraction.

    Raises
    ------
    ConfigError
        When the network has no output named ``accuracy``.
    """
    if "accuracy" not in net.outputs:
        raise ConfigError(f"net '{net.name}' has no output 'accuracy' to take its error from")
    return 1.0 - mean_outputs(net, batches)["accuracy"]


def dense_flop(net: Net) -> dict[str, int]:
    """Return the FLOP of every layer with weights when nothing is skipped, by name."""
    return {one.name: one.dense for one in flops.count(layer_shapes(net))}


def sizes_of(net: Net) -> dict[str, dict[str, int]]:
    """Return the ``filters``, ``columns`` and output ``pixels`` of every layer with weights."""
    return {
        shape.name: {
            "filters": shape.nonzero[:, :, 0].size,
            "columns": shape.nonzero[:, 0].size,
            "pixels": shape.pixels,
        }
        for shape in layer_shapes(net)
    }


def structure_of(net: Net, dense: Mapping[str, int]) -> list[dict[str, Any]]:
    """Describe every layer with weights as the tables of the SSL paper do.

    Parameters
    ----------
    net : Net
    dense : dict
        FLOP of the original layers, :func:`dense_flop`; what percentages refer to.

    Returns
    -------
    list of dict
        ``name``; ``filters``, ``channels`` and ``columns`` that are not zero as a whole in the
        layer's own weights; ``flops_percent`` of what is left when dead filters leave with the
        next layer's channels and back again (the rule ``propagated`` of
        :mod:`minissl.sparsity.flops`).
    """
    shapes = layer_shapes(net)
    rows = []
    for shape, count in zip(shapes, flops.count(shapes), strict=True):
        columns = shape.nonzero.any(axis=1)  # (g, K)
        # every value of the data that an inner product reads is an input neuron
        of_data = shape.weight.ndim == 2 and all(x.producer is None for x in shape.inputs)
        number = columns.size if of_data else shape.input_channels
        channels = columns.reshape(number, -1).any(axis=1)  # (C,)
        rows.append(
            {
                "name": shape.name,
                "filters": int(np.count_nonzero(shape.nonzero.any(axis=2))),
                "channels": int(np.count_nonzero(channels)),
                "columns": int(np.count_nonzero(columns)),
                "flops_percent": 100.0 * count.propagated / dense[shape.name],
            }
        )
    return rows


def structured_percent(net: Net, dense: Mapping[str, int]) -> dict[str, float]:
    """Return the FLOP of every layer by its own zero rows and columns, in percent of dense.

    It is the rule ``structured`` of :mod:`minissl.sparsity.flops`: filters that nothing reads still
    count.
    """
    counted = flops.count(layer_shapes(net))
    return {one.name: 100.0 * one.structured / dense[one.name] for one in counted}


def total_flops_percent(
    net: Net, dense: Mapping[str, int], layers: Collection[str] | None = None
) -> float:
    """Return the FLOP of the whole network, or of some layers, in percent of the original's.

    Layers that compaction has removed count with those of the original.
    """
    asked = set(dense) if layers is None else set(layers) & set(dense)
    left = sum(one.propagated for one in flops.count(layer_shapes(net)) if one.name in asked)
    return 100.0 * left / sum(dense[name] for name in asked)


def time_side_by_side(
    networks: Sequence[Network], batch_size: int, blocks: int = 5, iterations: int = 20
) -> dict[str, dict[str, Any]]:
    """Time networks by turns, so that a disturbance of the machine hits all of them alike.

    Returns
    -------
    dict
        Name of the network -> ``total_ms``, ``layers`` {name: ms}, and ``products`` {name: ms} of
        the convolutions' products alone, where the backend can run them alone: each layer by
        itself, in the mode that its net asks for, LOWERED_GEMM where it asks for none.
        ``fastest_ms`` is the whole network as fast as it runs: by ``AUTO``, chains of layers as one
        step. All are medians over ``blocks`` turns of the medians over ``iterations`` forward
        passes. Data layers, losses and accuracies are left out.
    """
    opened = {one.name: one.open(batch_size, without_modes, fuse=False) for one in networks}
    free = {one.name: one.open(batch_size, automatic) for one in networks}
    modes = {one.name: own_modes(read_net(one.model)) for one in networks}
    layers: dict[str, dict[str, list[float]]] = {name: {} for name in opened}
    products: dict[str, dict[str, list[float]]] = {name: {} for name in opened}
    passes: dict[str, list[float]] = {name: [] for name in opened}
    for _ in range(blocks):
        for name, net in opened.items():
            used = {layer: (mode,) for layer, mode in modes[name].items()}
            for one in time_net(net, used, iterations):
                if one.timed and one.type not in ("Split", *JUDGES):
                    layers[name].setdefault(one.name, []).append(one.total_ms)
                if one.product_ms is not None:
                    products[name].setdefault(one.name, []).append(one.product_ms)
        for name, net in free.items():
            passes[name].append(time_passes(net, JUDGES, iterations))
    result: dict[str, dict[str, Any]] = {}
    for name in opened:
        whole = _medians(layers[name])
        result[name] = {
            "total_ms": sum(whole.values()),
            "layers": whole,
            "products": _medians(products[name]),
            "fastest_ms": statistics.median(passes[name]),
        }
    return result


def _medians(durations: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {layer: statistics.median(ms) for layer, ms in durations.items()}


def write_compacted(before: Net, folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Write the compacted network, and show that its outputs are the same.

    Returns
    -------
    dict
        What compaction did, and the largest difference of the outputs.

    Raises
    ------
    MinisslError
        When outputs differ by more than rounding explains.
    """
    small = compaction.compact(before)
    compaction.write(small, folder)
    after = Network("compacted", folder / NET, folder / COMPACT_WEIGHTS, options).open()
    proof = compaction.prove(before, after)
    proof.demand()
    return {**small.report.to_json(), **proof.to_json()}
