"""BNLL, the softplus: a ReLU without a kink."""

from __future__ import annotations

from typing import Any

from minissl.layers.base import register
from minissl.layers.elementwise import Elementwise


@register("BNLL")
class BNLL(Elementwise):
    """Binomial normal log likelihood.

    ``y = log(1 + exp(x))``, with ``dy/dx = 1 / (1 + exp(-x))``. Computed as
    ``max(x, 0) + log(1 + exp(-|x|))``, which cannot overflow. May be computed in place.
    """

    def values(self, x: Any) -> Any:
        """max(x, 0) + log(1 + exp(-|x|))."""
        xp = self.kernels.xp
        return xp.maximum(x, 0) + xp.log1p(xp.exp(-xp.abs(x)))

    def slope(self, x: Any, y: Any) -> Any:
        """Slope = 1 / (1 + exp(-x)) = 1 - exp(-y)."""
        return -self.kernels.xp.expm1(-y)

    needs_input = False
    reads_top = True
