"""Test vectors of what SSL is: groups, group Lasso, zero-out, frozen connectivity, counting.

A weight blob of shape (R, ...) is seen as a matrix of R rows; ``tile`` in the settings is
(xdimen, ydimen): a group is ``ydimen`` rows by ``xdimen`` columns of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minissl.sparsity import flops, group_lasso, weight_decay
from minissl.sparsity.connectivity import MODES, mask_of
from minissl.sparsity.groups import KINDS, Tile, tile_of
from minissl.sparsity.proximal import proximal_step
from minissl.sparsity.statistics import statistics_of
from minissl.sparsity.zero_out import ZERO_THRESHOLD, zero_out
from minissl.vectors import values
from minissl.vectors.case import Case, name_of

SHAPE = (6, 4, 3, 2)  # F, C/g, kh, kw
#: binary fractions, so that a strength is the same number in float32 and float64
STRENGTH = 0.375
AMOUNT = 4.0  # longer than some groups and shorter than others
FORMULAS = {
    "L2": "R = strength / 2 * sum of m w^2, dR/dw = strength * m w",
    "L1": "R = strength * sum of |m w|, dR/dw = strength * m sign(w), sign(0) = 0",
}
FREE = Tile(4, 3)  # straddles kernels and channels


def cases() -> Iterator[Case]:
    """Yield all vectors of this family."""
    yield from _group_lasso()
    yield from _proximal()
    yield from _weight_decay()
    yield _zero_out()
    yield from _masks()
    yield from _statistics()
    yield from _flops()


def _tiles() -> Iterator[tuple[str, int, Tile]]:
    """Yield (name, conv groups, tile) of every kind of group."""
    for kind in KINDS:
        yield kind, 1, tile_of(kind, SHAPE)
    for kind in ("column", "channel"):
        yield f"{kind} of two conv groups", 2, tile_of(kind, SHAPE, 2)
    yield "free tile", 1, FREE


def _group_lasso() -> Iterator[Case]:
    for name, groups, tile in _tiles():
        w = values.sparse(f"group lasso {name}", SHAPE)
        matrix = w.reshape(SHAPE[0], -1)  # (R, C)
        d_w = np.zeros_like(w)
        group_lasso.add_gradient(d_w.reshape(matrix.shape), matrix, tile, STRENGTH)
        yield Case(
            f"sparsity/group lasso/{name}",
            "R = strength * sum over groups of ||w_g||, dR/dw = strength * w / ||w_g||; a group of "
            "norm 0 has gradient 0; no factor for the size of a group",
            name_of(group_lasso.add_gradient),
            {"strength": STRENGTH, "tile": [tile.xdimen, tile.ydimen], "conv_groups": groups},
            {"w": w},
            {
                "penalty": np.array(group_lasso.penalty(matrix, tile, STRENGTH)),
                "norms": group_lasso.group_norms(matrix, tile),
                "gradient": d_w,
            },
        )


def _proximal() -> Iterator[Case]:
    for kind in ("filter", "channel"):
        tile = tile_of(kind, SHAPE)
        w = values.sparse(f"proximal {kind}", SHAPE)
        after = w.copy()
        proximal_step(after.reshape(SHAPE[0], -1), tile, AMOUNT)
        yield Case(
            f"sparsity/proximal step/{kind}",
            "w_g = w_g * max(0, 1 - amount / ||w_g||)",
            name_of(proximal_step),
            {"amount": AMOUNT, "tile": [tile.xdimen, tile.ydimen]},
            {"w": w},
            {"w_after": after},
        )


def _weight_decay() -> Iterator[Case]:
    for kind in ("L1", "L2"):
        w = values.sparse(f"weight decay {kind}", SHAPE)
        multiplier = values.positive(f"multiplier {kind}", SHAPE)
        for name, m in (("plain", None), ("with multipliers", multiplier)):
            d_w = np.zeros_like(w)
            weight_decay.add_gradient(d_w, w, kind, STRENGTH, m)
            yield Case(
                f"sparsity/weight decay/{kind} {name}",
                FORMULAS[kind],
                name_of(weight_decay.add_gradient),
                {"kind": kind, "strength": STRENGTH},
                {"w": w} if m is None else {"w": w, "multiplier": m},
                {"penalty": np.array(weight_decay.penalty(w, kind, STRENGTH, m)), "gradient": d_w},
            )


def _zero_out() -> Case:
    edge = np.array([ZERO_THRESHOLD, np.nextafter(ZERO_THRESHOLD, 0), 0.0, 5e-5, 2e-4])
    w = np.concatenate([edge, -edge, values.uniform("zero out", (6,))])
    after = w.copy()
    zero_out(after)
    return Case(
        "sparsity/zero-out/strict",
        f"w becomes 0 where |w| < {ZERO_THRESHOLD}, strictly; float64",
        name_of(zero_out),
        {"threshold": ZERO_THRESHOLD},
        {"w": w},
        {"w_after": after},
        tolerance=0.0,
    )


def _masks() -> Iterator[Case]:
    for mode in MODES[1:]:
        for groups in (1, 2):
            w = values.sparse(f"mask {mode} {groups}", SHAPE, zeros=0.7)
            mask = mask_of(w, mode, groups)
            assert mask is not None
            yield Case(
                f"sparsity/mask/{mode}, {groups} conv group{'s' * (groups > 1)}",
                "the update of a weight is multiplied by its mask: ELTWISE freezes zeros, GRPWISE "
                "the weights of all-zero rows and columns of a conv group",
                name_of(mask_of),
                {"connectivity_mode": mode, "conv_groups": groups},
                {"w": w},
                {"mask": mask},
                tolerance=0.0,
            )


def _statistics() -> Iterator[Case]:
    for groups in (1, 2):
        w = values.sparse(f"statistics {groups}", SHAPE, zeros=0.7)
        w.reshape(-1)[5::7] = 2.0**-14  # small, yet not zero: Element counts them, the others not
        blob = statistics_of("conv", 0, w, groups, [FREE])
        outputs = {name: np.array(getattr(blob, name)) for name in ("element", "row", "column")}
        outputs["block"] = np.array(blob.blocks[str(FREE)])
        for name in ("element", "row", "column", "filter", "channel", "kernel2d"):
            outputs[f"{name} by conv group"] = np.array([getattr(b, name) for b in blob.bands])
        yield Case(
            f"sparsity/statistics/{groups} conv group{'s' * (groups > 1)}",
            "percent of zeros: Element counts |w| < 1e-4, the others what is exactly zero",
            name_of(statistics_of),
            {"conv_groups": groups, "tile": [FREE.xdimen, FREE.ydimen]},
            {"w": w},
            outputs,
            tolerance=1e-12,
        )


def _flops() -> Iterator[Case]:
    conv1 = values.sparse("flops conv1", (8, 3, 3, 3), zeros=0.7)
    conv2 = values.sparse("flops conv2", (6, 8, 3, 3), zeros=0.7)
    ip = values.sparse("flops ip", (5, 6 * 4), zeros=0.3)
    layers = [
        flops.LayerShape("conv1", conv1, pixels=36),
        flops.LayerShape("conv2", conv2, pixels=16, inputs=(flops.Input("conv1"),)),
        flops.LayerShape("ip", ip, inputs=(flops.Input("conv2"),), spatial=4, is_output=True),
    ]
    counts = flops.count(layers)
    outputs = {
        rule: np.array([getattr(one, rule) for one in counts], np.int64)
        for rule in ("dense", "zeros", "structured", "propagated")
    }
    yield Case(
        "sparsity/FLOP/conv1, conv2, ip in a chain",
        "per image, a multiply-add as 2: all; those with a weight that is not 0; rows x columns "
        "that are not zero; the same after dead filters left with the channels that read them, "
        "and filters that nothing reads",
        name_of(flops.count),
        {"layers": ["conv1", "conv2", "ip"], "pixels": [36, 16, 1], "columns_per_channel_of_ip": 4},
        {"conv1": conv1, "conv2": conv2, "ip": ip},
        outputs,
        tolerance=0.0,
    )
