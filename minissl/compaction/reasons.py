"""Why channels stay that seem superfluous: constant ones, and fillers.

Dimensions: F filters, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minissl.channels import (
    WITH_WEIGHTS,
    Flow,
    Value,
    follows,
    joining_axis,
    reads_channels,
)
from minissl.compaction.constants import Constants
from minissl.compaction.plan import LayerPlan, Plan
from minissl.compaction.reading import Reading
from minissl.layers import Layer
from minissl.net import Net

OUTPUTS = "the outputs of the network need every filter"


def find_reasons(
    net: Net, flow: Flow, constants: Constants, reading: Reading, plan: Plan
) -> dict[str, list[str]]:
    """Return, for every layer with weights that stays, one sentence for each reason."""
    tracer = _Tracer(net, flow, constants, reading, plan)
    return {
        name: [*tracer.why_constants_stay(name, mine), *tracer.why_fillers_stay(name, mine)]
        for name, mine in plan.layers.items()
    }


class _Tracer:
    """Follows channels forward to what holds on to them."""

    def __init__(
        self, net: Net, flow: Flow, constants: Constants, reading: Reading, plan: Plan
    ) -> None:
        self.flow, self.constants, self.reading, self.plan = flow, constants, reading, plan
        self.readers: dict[Value, list[Layer]] = {}
        for layer in net.layers:
            if layer.name in plan.runs and layer.type_name != "Split":
                for value in dict.fromkeys(flow.bottoms[layer.name]):
                    self.readers.setdefault(value, []).append(layer)

    def why_constants_stay(self, name: str, mine: LayerPlan) -> Iterator[str]:
        """Say why filters stay although they put out the same for every image."""
        constant = mine.needed & self.constants.seen[name].filters
        if not constant.any():
            return
        if mine.untouched:
            why = "its weights are shared with another layer"
        else:
            why = "; ".join(dict.fromkeys(self._holders(self.flow.tops[name][0], constant)))
        yield f"{_stay(constant, 'constant')}: {why}"

    def why_fillers_stay(self, name: str, mine: LayerPlan) -> Iterator[str]:
        """Say why filters stay although nothing reads what they put out."""
        fillers = mine.filters & ~mine.needed
        if not fillers.any():
            return
        tied = fillers & self.plan.read[self.flow.tops[name][0].terms[0]]
        others = fillers & ~tied
        if tied.any():
            yield f"{_stay(tied, 'unread')}, added to channels that are read elsewhere"
        if others.any() and not mine.needed.any():
            yield f"{_stay(others, 'dead')}: a layer needs one in each conv group"
        elif others.any():
            yield f"{_stay(others, 'dead')}: conv groups need equal numbers"

    def _holders(self, value: Value, channels: np.ndarray) -> Iterator[str]:
        """Say who needs some known channels (C,) of a value, and why."""
        if value in self.flow.outputs:
            yield OUTPUTS
        behind = self.readers.get(value, [])
        readers = [layer.name for layer in behind if self._sees(layer, value, channels)]
        shared = [name for name in readers if self.plan.layers[name].untouched]
        if readers:
            why = "which shares its weights," if shared else "which sees its border (padding),"
            yield f"{' and '.join(readers)}, {why} cannot take that into a bias"
        for layer in behind:
            bottoms, tops = self.flow.bottoms[layer.name], self.flow.tops[layer.name]
            if follows(layer, bottoms):
                for number, bottom in enumerate(bottoms):
                    if bottom is value:
                        yield from self._behind(layer, bottoms, number, channels)
            elif layer.type_name not in WITH_WEIGHTS or not reads_channels(layer, bottoms):
                outputs = all(top in self.flow.outputs for top in tops)
                whole = f"{layer.name} ({layer.type_name}) needs all its channels"
                yield OUTPUTS if outputs else whole

    def _sees(self, layer: Layer, value: Value, channels: np.ndarray) -> bool:
        if layer.type_name not in WITH_WEIGHTS or not reads_channels(layer, [value]):
            return False
        columns = self.reading.columns[layer.name].reshape(len(channels), -1)
        return bool((columns.any(axis=1) & channels).any())

    def _behind(
        self, layer: Layer, bottoms: list[Value], number: int, channels: np.ndarray
    ) -> Iterator[str]:
        """Go on behind a layer that hands channels on."""
        tops = self.flow.tops[layer.name]
        first = 0
        if layer.type_name == "Concat" and joining_axis(layer, bottoms) == 1:
            first = sum(bottom.channels for bottom in bottoms[:number])
            channels = np.pad(channels, (first, tops[0].channels - first - len(channels)))
        slices = layer.type_name == "Slice" and joining_axis(layer, bottoms) == 1
        for top in tops:
            there = channels[first : first + top.channels] if slices else channels
            first += top.channels
            there = np.repeat(there, top.channels // len(there)) & self.reading.read[top]
            if (there & ~self.constants.known[top]).any():
                yield f"{layer.name} ({layer.type_name}) joins this with channels that live"
            if (there & self.constants.known[top]).any():
                yield from self._holders(top, there & self.constants.known[top])


def _stay(filters: np.ndarray, what: str) -> str:
    """Count filters in words."""
    count = int(filters.sum())
    return f"{count} {what} filter{'s stay' if count > 1 else ' stays'}"
