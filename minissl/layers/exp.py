"""The exponential function, to any base."""

from __future__ import annotations

import math
from typing import Any

from minissl.layers.base import register
from minissl.layers.elementwise import Elementwise


@register("Exp")
class Exp(Elementwise):
    """``y = base ** (shift + scale * x)``; ``base: -1``, the default, is e.

    ``dy/dx = log(base) * scale * y``. May be computed in place.
    """

    needs_input = False
    reads_top = True

    def read_options(self) -> None:
        """Read ``exp_param``."""
        p = self.param.exp_param
        log_base = natural_log_of_base(self, p.base)
        self.scale, self.shift = log_base * p.scale, log_base * p.shift

    def values(self, x: Any) -> Any:
        """exp(log(base) * (shift + scale * x))."""
        return self.kernels.xp.exp(self.shift + self.scale * x)

    def slope(self, x: Any, y: Any) -> Any:
        """Slope = log(base) * scale * y."""
        return self.scale * y


def natural_log_of_base(layer: Elementwise, base: float) -> float:
    """Return log(base); 1 for -1, which stands for e.

    Raises
    ------
    ConfigError
        For a base that has no logarithm.
    """
    if base == -1:
        return 1.0
    if not base > 0:
        raise layer.config_error(f"base {base:g} must be above 0, or -1 for e")
    return math.log(base)
