"""Embed: a learned vector for each word."""

from __future__ import annotations

from math import prod
from typing import Any

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register
from minissl.layers.labels import Labels


@register("Embed")
class Embed(Layer):
    """``y[..., :] = W[x] + b``: an inner product of vectors that are 1 at place x and 0 elsewhere.

    Bottom: whole numbers 0 to K - 1, of any shape; top: that shape and an axis of F = num_output.
    W has shape (K, F), K = ``input_dim``. Backward: d_W += (one-hot x)^T @ d_y, d_b += sum of d_y.
    """

    no_gradient = (0,)

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Declare the vectors and the bias."""
        (shape,) = bottom_shapes
        p = self.param.embed_param
        self.words, self.outputs = p.input_dim, p.num_output
        if min(self.words, self.outputs) < 1:
            raise self.config_error("input_dim and num_output must be at least 1")
        self.count = prod(shape)
        self._numbers = Labels(self, self.count, 1, self.words, None)
        self.has_bias = p.bias_term
        self.declare_parameter((self.words, self.outputs), p.weight_filler, "weight")
        if self.has_bias:
            self.declare_parameter((self.outputs,), p.bias_filler, "bias")
        return [(*shape, self.outputs)]

    def check(self) -> None:
        """Refuse numbers that are no words."""
        self._numbers.check()

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = W[x] + b."""
        self._numbers.read(bottom[0].data)
        y = top[0].data.reshape(self.count, self.outputs)  # (M, F)
        y[...] = self.parameters[0].data[self._numbers.classes.reshape(-1)]
        if self.has_bias:
            y += self.parameters[1].data

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """d_W += (one-hot x)^T @ d_y; d_b += sum of d_y."""
        d_y = top[0].diff.reshape(self.count, self.outputs)  # (M, F)
        # a product, in which words that come twice are added in a fixed order
        self.kernels.inner_product_backward_weights(d_y, self._one_hot(), self.parameters[0].diff)
        if self.has_bias:
            self.kernels.inner_product_backward_bias(d_y, self.parameters[1].diff)
        if propagate_down[0]:
            bottom[0].diff.fill(0)

    def _one_hot(self) -> Any:
        """Return (M, K): 1 at the number of each word."""
        words = self.kernels.xp.arange(self.words)
        return (self._numbers.classes == words[None]).astype(self.dtype)  # (M, 1) == (1, K)

    def workspace_bytes(self) -> int:
        """The one-hot vectors of a backward pass."""
        return self.count * self.words * self.dtype.itemsize if self.phase == "TRAIN" else 0
