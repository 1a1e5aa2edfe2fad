"""Eltwise: sum, product or maximum of several blobs, element by element."""

from __future__ import annotations

import sys
from typing import Any

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register

# EltwiseParameter.EltwiseOp
PROD, SUM, MAX = 0, 1, 2


@register("Eltwise")
class Eltwise(Layer):
    """Combine two or more blobs of one shape.

    * SUM (default): ``y = sum of coeff_i * x_i``, each ``coeff`` 1 where none are given;
    * PROD: ``y = product of x_i``;
    * MAX: ``y = max of x_i``; where the first two are equal the second wins, as in Caffe, and a
      later one only where it is greater.

    The gradient of a product is the product of the others, or with ``stable_prod_grad: false``
    y / x_i, which is faster for many bottoms and fails at 0.
    """

    n_bottoms = (2, sys.maxsize)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Check that shapes and coefficients fit."""
        shape = bottom_shapes[0]
        for name, other in zip(self.param.bottom, bottom_shapes, strict=True):
            if other != shape:
                raise self.shape_error(
                    f"bottom '{name}' has shape {other} where '{self.param.bottom[0]}' has "
                    f"{shape}; all bottoms must have the same"
                )
        p = self.param.eltwise_param
        self.operation = p.operation
        self.stable = p.stable_prod_grad
        self.reads_top = self.operation == PROD and not self.stable
        if p.coeff and self.operation != SUM:
            raise self.config_error("only operation: SUM takes coeff; remove it")
        if p.coeff and len(p.coeff) != len(bottom_shapes):
            raise self.config_error(
                f"has {len(p.coeff)} coeff for {len(bottom_shapes)} bottoms; give one for each"
            )
        self.coefficients = list(p.coeff) or [1.0] * len(bottom_shapes)
        self.shape = shape
        self._winner: Any = None
        return [shape]

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = sum, product or maximum of all x_i."""
        first, second, *others = (blob.data for blob in bottom)
        y, xp = top[0].data, self.kernels.xp
        if self.operation == SUM:
            alpha, beta, *more = self.coefficients
            self.kernels.weighted_sum(first, alpha, second, beta, y)
            for x, coefficient in zip(others, more, strict=True):
                self.kernels.weighted_sum(y, 1.0, x, coefficient, y)
        elif self.operation == PROD:
            xp.multiply(first, second, out=y)
            for x in others:
                xp.multiply(y, x, out=y)
        else:
            self._winner = xp.where(first > second, 0, 1).astype("int32")
            y[...] = xp.where(first > second, first, second)
            for number, x in enumerate(others, start=2):
                self._winner[...] = xp.where(x > y, number, self._winner)
                y[...] = xp.where(x > y, x, y)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_x_i = d_y times coeff_i, times the product of the others, or where x_i is the most."""
        d_y, xp = top[0].diff, self.kernels.xp
        for number, blob in enumerate(bottom):
            if not propagate_down[number]:
                continue
            d_x, coefficient = blob.diff, self.coefficients[number]
            if self.operation == MAX:
                xp.multiply(d_y, self._winner == number, out=d_x)
            elif self.operation == SUM:
                if coefficient == 1:
                    d_x[...] = d_y
                else:
                    xp.multiply(d_y, self.dtype.type(coefficient), out=d_x)
            elif self.stable:
                d_x[...] = d_y
                for other in bottom[:number] + bottom[number + 1 :]:
                    xp.multiply(d_x, other.data, out=d_x)
            else:
                xp.multiply(d_y, top[0].data / blob.data, out=d_x)
