"""Show that a compacted network computes what the original does: run both, compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minissl.backend import assign, to_host
from minissl.errors import MinisslError, ShapeError
from minissl.layers import Layer
from minissl.net import Net

#: rounding explains differences up to this part of the largest output, or of 1
ROUNDING = 1e-4
#: Layers that judge scores, and that nobody runs to use a network.
#: Their outputs jump or vanish where scores differ in the last digit: look at the scores instead.
JUDGES = ("Accuracy", "SoftmaxWithLoss")


@dataclass
class Proof:
    """Largest differences of any output.

    Attributes
    ----------
    random : float
        On standard normal inputs.
    real : float or None
        On images; None when there were none.
    largest_output : float
        Largest magnitude of any compared value, to judge the differences by.
    compared : list of str
        Names of the blobs that were compared.
    """

    random: float
    real: float | None
    largest_output: float
    compared: list[str]

    @property
    def max_abs_difference(self) -> float:
        """The larger of the two."""
        return max(self.random, self.real or 0.0)

    def demand(self) -> None:
        """Refuse differences that rounding does not explain.

        Raises
        ------
        MinisslError
        """
        if self.max_abs_difference > ROUNDING * max(1.0, self.largest_output):
            raise MinisslError(
                f"the compacted network differs from the original by {self.max_abs_difference:g} "
                f"where outputs go up to {self.largest_output:.3g}; please report this, with the "
                "weights it was made of"
            )

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {"max_abs_difference": self.max_abs_difference, **vars(self)}


def prove(before: Net, after: Net, images: np.ndarray | None = None, seed: int = 0) -> Proof:
    """Compare the outputs of two networks with the same layers and blobs.

    Compared are the scores that SoftmaxWithLoss and Accuracy read, and all other outputs.

    Parameters
    ----------
    before, after : Net
        With weights and equal batch sizes, TEST phase. Activations are overwritten, the position in
        the data set is not moved.
    images : ndarray, optional
        Real inputs (M, C, H, W), transformed as the network wants them. Default: the first batch
        of the network's own data layers, where their data can be read.
    seed : int
        Of the random inputs.

    Raises
    ------
    ShapeError
        When images do not fit the network's input, or the networks' blobs differ.
    """
    compared = _compared(before)
    rng = np.random.default_rng(seed)
    inputs = _inputs(before)
    if _inputs(after) != inputs:
        raise ShapeError(
            f"the networks take the inputs {inputs} and {_inputs(after)}; build both with the same "
            "batch size"
        )
    classes = _read_as_numbers(before)
    drawn = {name: _draw(rng, shape, classes.get(name)) for name, shape in inputs.items()}
    worst_random, largest = _difference(before, after, drawn, compared)
    worst_real = None
    for batch in _real_batches(before, inputs, images):
        worst, magnitude = _difference(before, after, batch, compared)
        worst_real = max(worst, worst_real or 0.0)
        largest = max(largest, magnitude)
    return Proof(worst_random, worst_real, largest, compared)


def _draw(rng: np.random.Generator, shape: tuple[int, ...], classes: int | None) -> np.ndarray:
    """Return values for an input; labels, which have one axis, stay 0: the first class."""
    if classes is not None:
        return rng.integers(classes, size=shape).astype(np.float64)
    return rng.standard_normal(shape) if len(shape) > 1 else np.zeros(shape)


def _read_as_numbers(net: Net) -> dict[str, int]:
    """Return the inputs that an Embed reads, and how many numbers it knows."""
    found: dict[str, int] = {}
    original: dict[str, str] = {}
    for layer in net.layers:
        bottom, top = net.bottoms_and_tops(layer)
        names = [original.get(blob.name, blob.name) for blob in bottom]
        if layer.type_name in ("Split", "Flatten", "Reshape"):
            original.update((blob.name, names[0]) for blob in top)
        if layer.type_name == "Embed":
            known = layer.param.embed_param.input_dim
            found[names[0]] = min(known, found.get(names[0], known))
    return found


def _is_source(layer: Layer) -> bool:
    return layer.n_bottoms == (0, 0)


def _inputs(net: Net) -> dict[str, tuple[int, ...]]:
    """Return the blobs that data layers make, and their shapes."""
    return {
        blob.name: blob.shape
        for layer in net.layers
        if _is_source(layer)
        for blob in net.bottoms_and_tops(layer)[1]
    }


def _compared(net: Net) -> list[str]:
    """Name the blobs to compare, in net order; one name for the copies of a Split."""
    names = []
    original: dict[str, str] = {}
    for layer in net.layers:
        bottom, top = net.bottoms_and_tops(layer)
        if layer.type_name == "Split":
            original.update((blob.name, bottom[0].name) for blob in top)
        if layer.type_name in JUDGES:
            names.append(original.get(bottom[0].name, bottom[0].name))
        elif not _is_source(layer):
            names.extend(blob.name for blob in top if blob.name in net.outputs)
    if not names:
        raise ShapeError(
            f"net '{net.name}' has no output to compare; give it a layer whose top nothing reads"
        )
    return list(dict.fromkeys(names))


def _real_batches(
    net: Net, inputs: dict[str, tuple[int, ...]], images: np.ndarray | None
) -> list[dict[str, Any]]:
    """Return inputs by blob name, batch by batch."""
    if images is None:
        return _own_data(net)
    name, shape = next(iter(inputs.items()))
    if len(images) == 0 or images.shape[1:] != shape[1:]:
        raise ShapeError(
            f"images of shape {images.shape} where images of {shape[1:]} belong, one or more; "
            f"give what blob '{name}' of the network takes"
        )
    zeros = {other: np.zeros(size) for other, size in inputs.items()}
    batches = -(-len(images) // shape[0])
    padded = np.resize(images, (batches * shape[0], *shape[1:]))  # the first ones once more
    return [{**zeros, name: batch} for batch in np.split(padded, batches)]


def _own_data(net: Net) -> list[dict[str, Any]]:
    """Read one batch from the network's data layers; nothing where there are no data."""
    batch = {}
    try:
        for layer in net.layers:
            if not _is_source(layer):
                continue
            if layer.type_name == "Input":
                return []
            top = net.bottoms_and_tops(layer)[1]
            state = layer.state()
            layer.forward([], top)
            layer.set_state(state)
            batch.update({blob.name: to_host(blob.data).copy() for blob in top})
    except MinisslError:
        return []
    return [batch]


def _difference(
    before: Net, after: Net, inputs: dict[str, Any], compared: list[str]
) -> tuple[float, float]:
    """Return the largest difference and the largest magnitude of the compared blobs."""
    worst = largest = 0.0
    _run(before, inputs)
    _run(after, inputs)
    for name in compared:
        expected = to_host(before.blobs[name].data).astype(np.float64)
        found = after.blobs.get(name)
        if found is None or found.shape != expected.shape:
            raise ShapeError(
                f"blob '{name}' is not the same in both networks; compare a network with the one "
                "that was compacted from it, both with the same batch size"
            )
        worst = max(worst, _largest_difference(to_host(found.data), expected))
        finite = expected[np.isfinite(expected)]
        largest = max(largest, float(np.abs(finite).max(initial=0)))
    return worst, largest


def _largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Return it; infinite where only one of them is no number."""
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        differences = np.abs(found - expected)[~same]
    return float(np.nan_to_num(differences, nan=np.inf, posinf=np.inf).max(initial=0))


def _run(net: Net, inputs: dict[str, Any]) -> None:
    """Run everything behind the data layers."""
    for layer in filter(_is_source, net.layers):
        for blob in net.bottoms_and_tops(layer)[1]:  # another may have its name, made in place
            if blob.name in inputs:
                assign(blob.data, inputs[blob.name])
    for layer in net.layers:
        if not _is_source(layer) and layer.type_name not in JUDGES:
            layer.forward(*net.bottoms_and_tops(layer))
