"""What compaction did, layer by layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class LayerReport:
    """One layer with weights.

    Attributes
    ----------
    name : str
    shape_before, shape_after : tuple of int
        Of the stored weights; (F, kept) where ``kept_columns`` leaves columns out.
    bytes_before, bytes_after : int
        Weights and bias, and 4 bytes for the index of each kept column.
    filters_removed, channels_removed : int
    columns_removed : int
        Left out by ``kept_columns`` inside channels that stay.
    folded : int
        Filters whose bias took constants of removed ones.
    stays : list of str
        What is dead and yet there, and why.
    """

    name: str
    shape_before: tuple[int, ...]
    shape_after: tuple[int, ...]
    bytes_before: int
    bytes_after: int
    filters_removed: int = 0
    channels_removed: int = 0
    columns_removed: int = 0
    folded: int = 0
    stays: list[str] = field(default_factory=list)


@dataclass
class Report:
    """All layers with weights, in net order; sizes in bytes."""

    layers: list[LayerReport]

    @property
    def bytes_before(self) -> int:
        """Bytes of all weights and biases of the network that was given."""
        return sum(layer.bytes_before for layer in self.layers)

    @property
    def bytes_after(self) -> int:
        """Bytes of the compacted network."""
        return sum(layer.bytes_after for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        layers = [asdict(layer) for layer in self.layers]
        for layer in layers:
            layer["shape_before"] = list(layer["shape_before"])
            layer["shape_after"] = list(layer["shape_after"])
        return {
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "layers": layers,
        }
