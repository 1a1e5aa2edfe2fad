"""One function for each ONNX operator that Caffe's layers can express.

A function reads the node's attributes and constants and adds layers. What it cannot express it
refuses in one sentence (:class:`~minissl.onnx.translation.Inexpressible`).

Dimensions: N images, C channels, H x W pixels, F filters, K inputs of a product.
"""

from minissl.onnx.operators import (  # noqa: F401  # they fill the table
    classification,
    elementwise,
    pooling,
    products,
    shapes,
)
from minissl.onnx.operators.table import OPERATORS

__all__ = ["OPERATORS"]
