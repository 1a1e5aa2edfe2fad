"""The logarithm, to any base."""

from __future__ import annotations

from typing import Any

from minissl.layers.base import register
from minissl.layers.elementwise import Elementwise
from minissl.layers.exp import natural_log_of_base


@register("Log")
class Log(Elementwise):
    """``y = log(shift + scale * x) / log(base)``; ``base: -1``, the default, is e.

    ``dy/dx = scale / ((shift + scale * x) * log(base))``. May be computed in place.
    """

    def read_options(self) -> None:
        """Read ``log_param``."""
        p = self.param.log_param
        log_base = natural_log_of_base(self, p.base)
        if log_base == 0:
            raise self.config_error("base 1 has no logarithm; use another base, or -1 for e")
        self.scale, self.shift, self.factor = p.scale, p.shift, 1 / log_base

    def values(self, x: Any) -> Any:
        """log(shift + scale * x) / log(base)."""
        return self.factor * self.kernels.xp.log(self.shift + self.scale * x)

    def slope(self, x: Any, y: Any) -> Any:
        """Slope = scale / (shift + scale * x) / log(base)."""
        return self.factor * self.scale / (self.shift + self.scale * x)
