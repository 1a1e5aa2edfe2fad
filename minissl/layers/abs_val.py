"""The magnitude."""

from __future__ import annotations

from typing import Any

from minissl.layers.base import register
from minissl.layers.elementwise import Elementwise


@register("AbsVal")
class AbsVal(Elementwise):
    """``y = |x|``, with ``dy/dx = sign(x)``, 0 at 0; may be computed in place."""

    def values(self, x: Any) -> Any:
        """|x|."""
        return self.kernels.xp.abs(x)

    def slope(self, x: Any, y: Any) -> Any:
        """sign(x)."""
        return self.kernels.xp.sign(x)
