"""Convolution: the product of the weight matrix with the lowered image (SSL paper, Section 3.3).

Dimensions: N images, C input channels, H x W input pixels, F filters, G conv groups, kh x kw
kernel, P x Q output pixels.
"""

from __future__ import annotations

import logging
from typing import Any

from minissl.backend import threads_of
from minissl.blob import Blob, Shape
from minissl.conv_modes import ConvShape, Prepared, executed_mode, prepare
from minissl.conv_modes.auto import AUTO, Choice, predict
from minissl.conv_modes.frozen import without_zeros
from minissl.conv_modes.lowered_gemm import LoweredGemm
from minissl.conv_modes.training import TrainedConvolution
from minissl.conv_modes.winograd import why_not
from minissl.kernels.geometry import convolution_output
from minissl.layers.base import Layer, register

log = logging.getLogger("minissl")


@register("Convolution")
class Convolution(Layer):
    """y[n, f] = b[f] + sum over c, r, q of w[f, c, r, q] * x[n, c, p*s + r*d - pad, ...].

    Backward, with the lowered image ``col`` (K, P*Q) of each input and W seen as (F, K):

    * d_w += d_y @ col^T
    * d_x  = col2im(W^T @ d_y)
    * d_b += sum of d_y over images and pixels

    Prototxt: ``convolution_param`` with num_output, kernel_size / kernel_h, kernel_w, stride, pad,
    dilation, group, bias_term, fillers and ``conv_mode``. A mode other than LOWERED_GEMM serves
    inference: once the weights are known (:meth:`prepare`) they are packed and the dense copy is
    released. With AUTO the performance model picks a mode then, which ``conv_mode`` holds from
    there on (:mod:`minissl.conv_modes.auto`).

    In phase TRAIN there are AUTO, LOWERED_GEMM and no mode at all, which is AUTO. Then the model
    chooses for each of the three passes between the products above, direct tiles, which compute
    the same sums, and Winograd's, which multiply less and round more
    (:mod:`minissl.conv_modes.training`); LOWERED_GEMM, where the prototxt says so, runs the
    products.

    While rows and columns are frozen at zero (``connectivity_mode``), they take part in no product,
    forward or backward, where that is faster than to multiply by their zeros: :meth:`unfrozen`.
    """

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Check the geometry and declare the weights (F, C/G, kh, kw) and the bias (F,)."""
        param = self.param.convolution_param
        (shape,) = bottom_shapes
        if len(shape) != 4:
            raise self.shape_error(
                f"needs a bottom of shape (N, C, H, W), not {shape}; convolution over one or three "
                "axes is not supported"
            )
        if param.axis not in (1, -3):
            raise self.config_error(f"axis {param.axis} is not supported; channels are axis 1")
        N, C, H, W = shape
        self.kernel = read_pair(self, param, "kernel", "kernel_size", None)
        self.stride = read_pair(self, param, "stride", "stride", 1)
        self.pad = read_pair(self, param, "pad", "pad", 0)
        self.dilation = read_pair(self, param, "dilation", "dilation", 1)
        self.groups = param.group
        self.filters = param.num_output
        if min(*self.kernel, *self.stride, *self.dilation, self.groups, self.filters) < 1:
            raise self.config_error(
                "num_output, group, kernel_size, stride and dilation must be at least 1"
            )
        if C % self.groups or self.filters % self.groups:
            raise self.shape_error(
                f"group {self.groups} must divide both the {C} input channels "
                f"and num_output {self.filters}"
            )
        P, Q = (
            convolution_output(size, *geometry)
            for size, geometry in zip(
                (H, W),
                zip(self.kernel, self.stride, self.pad, self.dilation, strict=True),
                strict=True,
            )
        )
        if P < 1 or Q < 1:
            raise self.shape_error(
                f"kernel {self.kernel} is larger than the padded input ({H}, {W}); "
                "make kernel_size smaller or pad larger"
            )
        self.has_bias = param.bias_term
        self.images = N
        self.geometry = (self.stride, self.pad, self.dilation, self.groups)
        self.shape = ConvShape(
            C, (H, W), self.filters, self.kernel, self.stride, self.pad, self.dilation, self.groups
        )
        self._declare(param, C)
        return [(N, self.filters, P, Q)]

    def _declare(self, param: Any, C: int) -> None:
        """Declare weights and bias, and read how the convolution is to be executed."""
        mode = type(param).DESCRIPTOR.fields_by_name["conv_mode"].enum_type
        self.conv_mode: str = mode.values_by_number[param.conv_mode].name
        self.is_auto = self.conv_mode == AUTO
        self.choice: Choice | None = None
        if self.is_auto and self.phase == "TRAIN":
            self.conv_mode = "LOWERED_GEMM"
        lowers = param.HasField("conv_mode") and not self.is_auto
        self.trained = TrainedConvolution(self.shape, self.images, self.kernels, self.dtype, lowers)
        self.kept_columns = [list(kept.column) for kept in param.kept_columns]
        self.prepared: Any = None
        self.packed: Any = None
        self.packed_for: Any = None
        weight_shape: Shape = (self.filters, C // self.groups, *self.kernel)
        if self.kept_columns:
            weight_shape = self._packed_shape()
        if self.phase == "TRAIN" and (self.conv_mode != "LOWERED_GEMM" or self.kept_columns):
            raise self.config_error(
                f"conv_mode {self.conv_mode} serves inference only; train without conv_mode and "
                "set the mode in the net you test or time"
                if not self.kept_columns
                else "a compacted layer serves inference only; train the net it was made from"
            )
        if self.conv_mode == "WINOGRAD" and not self.kept_columns:
            reason = why_not(self.shape, self.kernels)
            if reason:
                raise self.config_error(reason)
        self.declare_parameter(weight_shape, param.weight_filler, "weight", self.groups)
        if self.has_bias:
            self.declare_parameter((self.filters,), param.bias_filler, "bias", self.groups)

    def _packed_shape(self) -> Shape:
        """Shape of the weights of a compacted layer: only the kept columns of each conv group."""
        K = self.shape.columns
        if len(self.kept_columns) != self.groups:
            raise self.config_error(
                f"has {len(self.kept_columns)} kept_columns entries for {self.groups} conv groups"
            )
        if any(c >= K for kept in self.kept_columns for c in kept):
            raise self.config_error(f"kept_columns must be below the {K} columns of its filters")
        if self.groups == 1:
            return (self.filters, len(self.kept_columns[0]))
        return (self.filters // self.groups * sum(map(len, self.kept_columns)),)

    def workspace_bytes(self) -> int:
        """One lowered image of one conv group, the least that any backend needs."""
        P, Q = self.shape.output
        return self.shape.columns * P * Q * self.dtype.itemsize

    def prepare(self) -> None:
        """Pack the weights for the layer's ``conv_mode`` and release the dense copy.

        Called when weights have been loaded, and again whenever they change.
        """
        if self.is_auto and self.phase == "TEST":
            self._choose()
        self.prepared = None
        weights = self.parameters[0]
        if self.conv_mode == "LOWERED_GEMM" and not self.kept_columns:
            if self.is_auto:
                weights.data = weights.data  # another mode may have released the dense copy
            return
        prepared = prepare(
            self.conv_mode,
            self.shape,
            weights.data,
            self.parameters[1].data if self.has_bias else None,
            self.kernels,
            self.kept_columns,
        )
        self.prepared = prepared

        def restore() -> Any:
            w = prepared.dense()
            if self.kept_columns:
                w = self.shape.gather_columns(w, self.kept_columns)
            return self.kernels.xp.asarray(w)

        weights.release(restore)

    def _choose(self) -> None:
        """Let the performance model pick the mode for the present weights, batch and threads."""
        w = self.parameters[0].data
        if self.kept_columns:
            w = self.shape.scatter_columns(w, self.kept_columns)
        threads = threads_of(self.kernels)
        choice = predict(self.shape, w, self.images, threads, kernels=self.kernels)
        mode = executed_mode(choice.mode, bool(self.kept_columns))
        if self.choice is None or mode != self.conv_mode:
            log.debug("layer %s: conv_mode AUTO is %s", self.name, choice.in_words())
        self.choice, self.conv_mode = choice, mode

    def unfrozen(self) -> Any:
        """Return what is not frozen, packed with the present weights.

        None when nothing is frozen, or when training is faster with all weights.
        """
        weights = self.parameters[0]
        if weights.mask is None or not weights.skip_frozen:
            return None
        if self.packed_for is not weights.mask:
            self.packed = without_zeros(self.trained, weights.mask, self.phase == "TRAIN")
            self.packed_for = weights.mask
        if self.packed is not None:
            self.packed.pack(weights.data, self.parameters[1].data if self.has_bias else None)
        return self.packed

    def runner(self) -> Prepared:
        """Return what computes the forward pass: the weights, packed as they are used now."""
        if self.conv_mode == AUTO:  # no weights were loaded: the initial ones decide
            self.prepare()
        if self.conv_mode != "LOWERED_GEMM" or self.kept_columns:
            if self.prepared is None:
                self.prepare()
            return self.prepared
        b = self.parameters[1].data if self.has_bias else None
        dense = LoweredGemm(self.shape, self.parameters[0].data, b, self.kernels)
        return self.unfrozen() or dense

    def forward(self, bottom: list[Blob], top: list[Blob]) -> None:
        """Compute y from x."""
        x, y = bottom[0].data, top[0].data
        packed = self.runner() if self.phase == "TEST" else self.unfrozen()
        if packed:
            packed.forward(x, y)
            return
        w, b = self.parameters[0].data, self.parameters[1].data if self.has_bias else None
        self.trained.forward(x, w, b, y)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """Compute d_w, d_b (added) and d_x from d_y."""
        if self.kept_columns:
            raise self.config_error(
                "a compacted layer has no gradient; go back through the net it was made from"
            )
        x, d_y = bottom[0].data, top[0].diff
        weights = self.parameters[0]
        d_b = self.parameters[1].diff if self.has_bias else None
        packed = self.unfrozen()
        if packed:
            if d_b is not None:
                self.kernels.conv_backward_bias(d_y, d_b)
            packed.backward_weights(x, d_y, weights.diff)
            if propagate_down[0]:
                packed.backward_input(d_y, bottom[0].diff)
            return
        self.trained.backward_weights(x, d_y, weights.diff, d_b)
        if propagate_down[0]:
            self.trained.backward_input(d_y, weights.data, bottom[0].diff)


def read_pair(layer: Layer, param: Any, name: str, repeated: str, default: int | None):
    """Read a (height, width) setting: ``kernel_size: 5``, twice for h and w, or ``kernel_h/_w``."""
    values = list(getattr(param, repeated))
    axes = f"{name}_h", f"{name}_w"
    given = name != "dilation" and any(param.HasField(axis) for axis in axes)
    if given and values:
        raise layer.config_error(f"give either {repeated} or {axes[0]} and {axes[1]}, not both")
    if given:
        if name != "pad" and not all(param.HasField(axis) for axis in axes):
            raise layer.config_error(f"give both {axes[0]} and {axes[1]}")
        return getattr(param, axes[0]), getattr(param, axes[1])
    if not values:
        if default is None:
            raise layer.config_error(f"needs {repeated}")
        return default, default
    if len(values) > 2:
        raise layer.config_error(f"{repeated} may be given once or twice (height, width)")
    return values[0], values[-1]
