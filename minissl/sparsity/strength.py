"""lambda of a parameter: a decay of the solver times a multiplier of the parameter."""

from __future__ import annotations

import numpy as np


def strength_of(decay: float, multiplier: float) -> float:
    """Return decay * multiplier, formed in double from two float32 fields of a prototxt.

    The fields are narrowed first, since 0.01 in a prototxt is float32(0.01) = 0.00999999977...
    """
    return float(np.float32(decay)) * float(np.float32(multiplier))
