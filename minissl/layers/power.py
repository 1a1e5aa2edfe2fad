"""Power: a linear function of the input, raised to a power."""

from __future__ import annotations

from typing import Any

from minissl.layers.base import register
from minissl.layers.elementwise import Elementwise


@register("Power")
class Power(Elementwise):
    """``y = (shift + scale * x) ** power``; 1 for power 0.

    ``dy/dx = power * scale * (shift + scale * x) ** (power - 1)``. May be computed in place.
    """

    def read_options(self) -> None:
        """Read ``power_param``."""
        p = self.param.power_param
        self.power, self.scale, self.shift = p.power, p.scale, p.shift

    def values(self, x: Any) -> Any:
        """(shift + scale * x) ** power."""
        if self.power == 0:
            return 1
        base = self.shift + self.scale * x
        return base if self.power == 1 else base**self.power

    def slope(self, x: Any, y: Any) -> Any:
        """Slope = power * scale * (shift + scale * x) ** (power - 1)."""
        factor = self.power * self.scale
        if factor == 0 or self.power == 1:
            return self.dtype.type(factor)
        return factor * (self.shift + self.scale * x) ** (self.power - 1)
