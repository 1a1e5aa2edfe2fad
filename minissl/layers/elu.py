"""ELU: an exponential for negative values."""

from __future__ import annotations

from typing import Any

from minissl.layers.base import register
from minissl.layers.elementwise import Elementwise


@register("ELU")
class ELU(Elementwise):
    """Exponential linear unit.

    ``y = x`` where x > 0, ``y = alpha * (exp(x) - 1)`` elsewhere, ``alpha`` 1 by default. Clevert,
    Unterthiner and Hochreiter, ICLR 2016, equation 15. May be computed in place.
    """

    reads_top = True

    def read_options(self) -> None:
        """Read ``elu_param``."""
        self.alpha = self.param.elu_param.alpha

    def values(self, x: Any) -> Any:
        """max(x, 0) + alpha * (exp(min(x, 0)) - 1)."""
        xp = self.kernels.xp
        return xp.maximum(x, 0) + self.alpha * xp.expm1(xp.minimum(x, 0))

    def slope(self, x: Any, y: Any) -> Any:
        """1 where x > 0, else alpha * exp(x) = y + alpha."""
        return self.kernels.xp.where(x > 0, 1, y + self.alpha)
