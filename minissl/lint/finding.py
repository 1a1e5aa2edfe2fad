"""A mistake, and what nets and solvers are asked alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from minissl.formats.proto import ParamSpec

REGULARIZATION_TYPES = ("L1", "L2")

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One mistake: an ``error`` would stop the run or make it pointless, a ``warning`` may not."""

    severity: Severity
    where: str
    message: str
    advice: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}: {self.message} {self.advice}"


def unknown_regularization(where: str, kind: str) -> Finding:
    """Return that this is no kind of weight decay."""
    return Finding(
        "error",
        where,
        f"regularization_type '{kind}' is unknown.",
        f"Write one of {', '.join(REGULARIZATION_TYPES)}.",
    )


def asks_for_blocks(spec: ParamSpec) -> bool:
    """Whether a parameter has blocks that shrink."""
    return any(tile.block_decay_mult for tile in spec.block_group_lasso)


#: Per kind of group: the solver's decay, the field in the net, whether a param asks for it.
KINDS: list[tuple[str, str, Callable[[Any], bool]]] = [
    ("block_group_decay", "block_group_lasso", asks_for_blocks),
    ("breadth_decay", "breadth_decay_mult", lambda spec: bool(spec.breadth_decay_mult)),
    (
        "kernel_shape_decay",
        "kernel_shape_decay_mult",
        lambda spec: bool(spec.kernel_shape_decay_mult),
    ),
]


def asks_for_lasso(spec: ParamSpec) -> bool:
    """Whether a parameter has a group lasso of any kind."""
    return any(asks(spec) for _, _, asks in KINDS)
