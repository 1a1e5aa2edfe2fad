"""Deconvolution: a convolution run backwards, from few pixels to many.

Dimensions: N images, C input channels, P x Q input pixels, F filters (output channels), G conv
groups, kh x kw kernel, H x W output pixels.
"""

from __future__ import annotations

from minissl.blob import Blob, Shape
from minissl.layers.base import Layer, register
from minissl.layers.convolution import read_pair


@register("Deconvolution")
class Deconvolution(Layer):
    """The transpose of a convolution: every input pixel adds its kernel to the output.

    ``y[n, f, p*s + r*d - pad, ...] += w[c, f, r, q] * x[n, c, p, ...]``, plus a bias for each f.

    Its forward pass is the input gradient of a convolution with the same weights and geometry, from
    F channels to C; so H = s (P - 1) + d (kh - 1) + 1 - 2 pad. Backward, with that convolution:

    * d_x  = convolution of d_y
    * d_w += its weight gradient, with x in the place of its output's gradient
    * d_b += sum of d_y over images and pixels

    The weights have shape (C, F/G, kh, kw): a row of the weight matrix belongs to an input channel.
    Prototxt: ``convolution_param`` as of :class:`.Convolution`; with the filler ``bilinear``, as
    many groups as channels and ``lr_mult: 0`` it enlarges images.
    """

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Check the geometry and declare the weights (C, F/G, kh, kw) and the bias (F,)."""
        param = self.param.convolution_param
        (shape,) = bottom_shapes
        if len(shape) != 4:
            raise self.shape_error(f"needs a bottom of shape (N, C, H, W), not {shape}")
        if param.axis not in (1, -3):
            raise self.config_error(f"axis {param.axis} is not supported; channels are axis 1")
        if param.conv_mode not in (param.LOWERED_GEMM, param.AUTO) or param.kept_columns:
            raise self.config_error(
                f"conv_mode {param.ConvMode.Name(param.conv_mode)} is for convolutions; remove it"
            )
        N, C, P, Q = shape
        kernel = read_pair(self, param, "kernel", "kernel_size", None)
        stride = read_pair(self, param, "stride", "stride", 1)
        pad = read_pair(self, param, "pad", "pad", 0)
        dilation = read_pair(self, param, "dilation", "dilation", 1)
        self.filters, groups = param.num_output, param.group
        if min(*kernel, *stride, *dilation, groups, self.filters) < 1:
            raise self.config_error(
                "num_output, group, kernel_size, stride and dilation must be at least 1"
            )
        if C % groups or self.filters % groups:
            raise self.shape_error(
                f"group {groups} must divide both the {C} input channels "
                f"and num_output {self.filters}"
            )
        H, W = (
            s * (n - 1) + d * (k - 1) + 1 - 2 * p
            for n, k, s, p, d in zip((P, Q), kernel, stride, pad, dilation, strict=True)
        )
        if H < 1 or W < 1:
            raise self.shape_error(
                f"pad {pad} leaves nothing of the output; make pad smaller or kernel_size larger"
            )
        self.kernel = kernel
        self.geometry = (stride, pad, dilation, groups)
        self.has_bias = param.bias_term
        self._lowered = self.filters // groups * kernel[0] * kernel[1] * P * Q
        weight_shape = (C, self.filters // groups, *kernel)
        self.declare_parameter(weight_shape, param.weight_filler, "weight", groups)
        if self.has_bias:
            self.declare_parameter((self.filters,), param.bias_filler, "bias")
        return [(N, self.filters, H, W)]

    def workspace_bytes(self) -> int:
        """One lowered image of one conv group."""
        return self._lowered * self.dtype.itemsize

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Y = the input gradient of a convolution whose output has the gradient x."""
        y = top[0].data
        self.kernels.conv_backward_input(bottom[0].data, self.parameters[0].data, *self.geometry, y)
        if self.has_bias:
            y += self.parameters[1].data.reshape(1, -1, 1, 1)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """Compute d_w, d_b (added) and d_x from d_y."""
        x, d_y, weights = bottom[0].data, top[0].diff, self.parameters[0]
        if self.has_bias:
            self.kernels.conv_backward_bias(d_y, self.parameters[1].diff)
        self.kernels.conv_backward_weights(d_y, x, *self.geometry, weights.diff)
        if propagate_down[0]:
            self.kernels.conv_forward(d_y, weights.data, None, *self.geometry, bottom[0].diff)
