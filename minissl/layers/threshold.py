"""Threshold: what is large enough."""

from __future__ import annotations

from typing import Any

from minissl.layers.base import register
from minissl.layers.elementwise import Elementwise


@register("Threshold")
class Threshold(Elementwise):
    """``y = 1`` where x > ``threshold``, 0 elsewhere; a step has no slope: the gradient is 0."""

    needs_input = False

    def read_options(self) -> None:
        """Read ``threshold_param``."""
        self.threshold = self.param.threshold_param.threshold

    def values(self, x: Any) -> Any:
        """1 where x > threshold."""
        return x > self.threshold

    def slope(self, x: Any, y: Any) -> Any:
        """0."""
        return self.dtype.type(0)
