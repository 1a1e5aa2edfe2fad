from __future__ import annotations

import numpy as np

from minissl.sparsity.strength import strength_of


def test_fields_are_float32_and_the_product_is_double():
    product = strength_of(0.03, 0.3)
    assert product == float(np.float32(0.03)) * float(np.float32(0.3))
    assert product != 0.03 * 0.3
    assert product != float(np.float32(0.03) * np.float32(0.3))


def test_ones_and_zeros_are_exact():
    assert strength_of(0.5, 1.0) == 0.5
    assert strength_of(0.5, 0.0) == 0.0
