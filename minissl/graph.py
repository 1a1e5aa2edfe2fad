"""From the prototxt a person writes to the list of layers that runs: phase rules and fan-out."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from minissl.errors import ConfigError
from minissl.formats.fused_types import plain_layers
from minissl.formats.upgrade import upgraded

PHASES = ("TRAIN", "TEST")
#: layers whose weights a file keeps by the layer's name
STORED = (
    "BatchNorm",
    "Bias",
    "Convolution",
    "Deconvolution",
    "Embed",
    "InnerProduct",
    "PReLU",
    "Scale",
)

log = logging.getLogger("minissl")


def select_layers(net: Any, phase: str, level: int = 0, stages: tuple[str, ...] = ()) -> list[Any]:
    """Return the layers that belong to a phase, copies of those of ``net`` (NetParameter).

    A layer with ``include`` rules stays when any of them is met; one with ``exclude`` rules stays
    when none is; a layer may not have both. Caffe's older forms are upgraded first, and SkimCaffe's
    fused layers become their parts. Where two layers have one name, as both losses of Caffe's
    autoencoder have, those without weights get one of their own.
    """
    net = upgraded(net, f"net '{net.name}'")
    chosen = []
    for layer in net.layer:
        if belongs(layer, phase, level, stages):
            copy = type(layer)()
            copy.CopyFrom(layer)
            chosen += plain_layers(copy)
    _tell_apart(chosen, phase)
    return chosen


def belongs(layer: Any, phase: str, level: int = 0, stages: tuple[str, ...] = ()) -> bool:
    """Whether a layer's include or exclude rules let it take part."""
    if layer.include and layer.exclude:
        raise ConfigError(f"layer '{layer.name}': give include rules or exclude rules, not both")
    if layer.include:
        return any(_meets(rule, phase, level, stages) for rule in layer.include)
    return not any(_meets(rule, phase, level, stages) for rule in layer.exclude)


def _tell_apart(layers: list[Any], phase: str) -> None:
    """Rename layers without weights, in place, where their name is taken: ``loss_2``."""
    count = Counter(layer.name for layer in layers)
    taken = set(count)
    seen: set[str] = set()
    kept = {layer.name for layer in layers if layer.type in STORED}
    for layer in layers:
        name = layer.name
        if count[name] == 1 or layer.type in STORED:
            continue
        if name not in seen and name not in kept:
            seen.add(name)
            continue
        number = 2
        while f"{name}_{number}" in taken:
            number += 1
        layer.name = f"{name}_{number}"
        taken.add(layer.name)
        log.info(
            "two layers of phase %s are named '%s'; the %s is '%s' here",
            phase,
            name,
            layer.type,
            layer.name,
        )


def _meets(rule: Any, phase: str, level: int, stages: tuple[str, ...]) -> bool:
    """Whether the network's state satisfies a NetStateRule."""
    return (
        not (rule.HasField("phase") and PHASES[rule.phase] != phase)
        and not (rule.HasField("min_level") and level < rule.min_level)
        and not (rule.HasField("max_level") and level > rule.max_level)
        and all(stage in stages for stage in rule.stage)
        and all(stage not in stages for stage in rule.not_stage)
    )


def insert_splits(layers: list[Any]) -> list[Any]:
    """Insert a Split layer behind every top that several bottoms read.

    The gradient of such a blob is the sum of its readers' gradients; with a layer of its own for
    that, every other layer has to deal with one reader only. Names follow Caffe:
    ``{blob}_{layer}_{top index}_split``.

    Raises
    ------
    ConfigError
        For a bottom that no earlier layer makes, or a top made twice (unless in place).
    """
    producers, readers = _readings(layers)
    result: list[Any] = []
    used: Counter = Counter()
    for number, layer in enumerate(layers):
        copy = type(layer)()
        copy.CopyFrom(layer)
        for i in range(len(layer.bottom)):
            source = producers[number, i]
            if readers[source] > 1:
                copy.bottom[i] = f"{_split_name(layers, source)}_{used[source]}"
                used[source] += 1
        result.append(copy)
        for j, blob in enumerate(layer.top):
            count = readers[number, j]
            if count > 1:
                name = _split_name(layers, (number, j))
                tops = [f"{name}_{k}" for k in range(count)]
                result.append(type(layer)(name=name, type="Split", bottom=[blob], top=tops))
    return result


def _readings(layers: list[Any]) -> tuple[dict, Counter]:
    """Who makes each bottom, as (layer number, top index), and how often each top is read."""
    current: dict[str, tuple[int, int]] = {}
    producers: dict[tuple[int, int], tuple[int, int]] = {}
    readers: Counter = Counter()
    for number, layer in enumerate(layers):
        for i, blob in enumerate(layer.bottom):
            if blob not in current:
                known = ", ".join(current) or "none yet"
                raise ConfigError(
                    f"layer '{layer.name}': no earlier layer makes its bottom '{blob}' "
                    f"(blobs so far: {known})"
                )
            producers[number, i] = current[blob]
            readers[current[blob]] += 1
        for j, blob in enumerate(layer.top):
            if blob in current and blob not in layer.bottom:
                raise ConfigError(
                    f"layer '{layer.name}': its top '{blob}' is made by an earlier layer; "
                    "rename it, or read it as a bottom too to compute in place"
                )
            current[blob] = number, j
    return producers, readers


def _split_name(layers: list[Any], source: tuple[int, int]) -> str:
    layer = layers[source[0]]
    return f"{layer.top[source[1]]}_{layer.name}_{source[1]}_split"


def check_names(layers: list[Any], phase: str) -> None:
    """See that no two layers have one name, after those without weights were told apart.

    Raises
    ------
    ConfigError
        When two have: weights are matched by name.
    """
    seen: set[str] = set()
    for layer in layers:
        if layer.name in seen:
            raise ConfigError(
                f"two layers of phase {phase} are named '{layer.name}'; rename one, "
                "weights are matched by name"
            )
        seen.add(layer.name)


def unread(layers: list[Any]) -> list[str]:
    """Return the tops that no later layer reads; the top of a last, in-place layer is one."""
    outputs: dict[str, None] = {}
    for layer in layers:
        for name in layer.bottom:
            outputs.pop(name, None)
        outputs.update(dict.fromkeys(layer.top))
    return list(outputs)
