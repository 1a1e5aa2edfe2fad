"""InnerProduct: the fully connected layer."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np

from minissl.backend import threads_of, to_host
from minissl.blob import Blob, Shape
from minissl.conv_modes import executed_mode
from minissl.conv_modes.auto import AUTO, Choice, predict_inner_product
from minissl.conv_modes.inner_product import GEMM_MODES, prepare_inner_product
from minissl.layers.base import Layer, register

log = logging.getLogger("minissl")


@register("InnerProduct")
class InnerProduct(Layer):
    """y = x @ W^T + b, with x seen as (N, K) and W as (F, K).

    Backward: d_W += d_y^T @ x, d_b += sum of d_y over images, d_x = d_y @ W.

    Prototxt: ``inner_product_param`` with num_output, bias_term, axis (everything from it on is
    flattened into K), transpose (W is stored as (K, F)), fillers and ``gemm_mode``. A mode other
    than GEMM serves inference, see :mod:`minissl.conv_modes.inner_product`: once the weights are
    known (:meth:`prepare`) they are packed and the dense copy is released. AUTO is GEMM in phase
    TRAIN; in phase TEST the performance model picks then (:mod:`minissl.conv_modes.auto`).
    ``kept_columns`` marks a compacted layer that reads only some of its K inputs; it runs as CCNMM
    unless the mode is SPMDM.
    """

    def setup(self, bottom_shapes: list[Shape]) -> list[Shape]:
        """Flatten from ``axis`` on and declare the weights and the bias."""
        param = self.param.inner_product_param
        (shape,) = bottom_shapes
        axis = self.axis = param.axis + len(shape) if param.axis < 0 else param.axis
        if not 0 <= axis < len(shape):
            raise self.shape_error(f"axis {param.axis} is not one of a bottom of shape {shape}")
        F = self.filters = param.num_output
        if F < 1:
            raise self.config_error("num_output must be at least 1")
        K = math.prod(shape[axis:])
        self.outer = math.prod(shape[:axis])
        self.inputs = K
        self.transpose = param.transpose
        self.has_bias = param.bias_term
        self.kept_columns = list(param.kept_columns[0].column) if param.kept_columns else None
        if self.kept_columns is not None:
            self._check_kept_columns(K)
            K = len(self.kept_columns)
        self.conv_mode = self._mode(param)
        self.prepared: Any = None
        self.declare_parameter((K, F) if self.transpose else (F, K), param.weight_filler, "weight")
        if self.has_bias:
            self.declare_parameter((F,), param.bias_filler, "bias")
        return [(*shape[:axis], F)]

    def _check_kept_columns(self, K: int) -> None:
        assert self.kept_columns is not None
        if self.phase == "TRAIN":
            raise self.config_error(
                "a compacted layer serves inference only; train the net it was made from"
            )
        if self.transpose or any(c >= K for c in self.kept_columns):
            raise self.config_error(
                f"kept_columns must be below the {K} inputs of a layer that is not transposed"
            )

    def _mode(self, param: Any) -> str:
        """Return the ``conv_mode`` that executes the product as ``gemm_mode`` asks for."""
        modes = type(param).DESCRIPTOR.fields_by_name["gemm_mode"].enum_type
        name: str = modes.values_by_number[param.gemm_mode].name
        self.is_auto = name == AUTO
        self.choice: Choice | None = None
        if self.is_auto:
            if self.phase == "TEST":
                return AUTO
            name = "GEMM"
        if name not in GEMM_MODES:
            raise self.config_error(
                f"gemm_mode {name} is not part of this version; "
                f"choose one of {', '.join([*GEMM_MODES, AUTO])}"
            )
        if self.phase == "TRAIN" and name != "GEMM":
            raise self.config_error(
                f"gemm_mode {name} serves inference only; train with GEMM and set the mode in the "
                "net you test or time"
            )
        if name == "GEMM" and self.kept_columns is not None:
            name = "CCNMM"
        return GEMM_MODES[name]

    def full_matrix(self) -> np.ndarray:
        """Return the weights as (F, K), with zeros in columns that a compacted layer left out."""
        stored = to_host(self.parameters[0].data)
        if self.kept_columns is None:
            return stored.T if self.transpose else stored
        full = np.zeros((self.filters, self.inputs), stored.dtype)
        full[:, self.kept_columns] = stored
        return full

    def pack(self, mode: str) -> Any:
        """Return the present weights, packed for one mode."""
        w = self.kernels.xp.ascontiguousarray(self.kernels.xp.asarray(self.full_matrix()))
        b = self.parameters[1].data if self.has_bias else None
        return prepare_inner_product(mode, w, b, self.kernels)

    def prepare(self) -> None:
        """Pack the weights for the layer's ``gemm_mode`` and release the dense copy.

        Called when weights have been loaded, and again whenever they change.
        """
        if self.is_auto and self.phase == "TEST":
            self._choose()
        self.prepared = None
        weights = self.parameters[0]
        if self.conv_mode == "LOWERED_GEMM":
            if self.is_auto:
                weights.data = weights.data  # another mode may have released the dense copy
            return
        prepared = self.prepared = self.pack(self.conv_mode)

        def restore() -> Any:
            w = prepared.dense()  # (F, K)
            if self.kept_columns is not None:
                w = w[:, self.kept_columns]
            elif self.transpose:
                w = w.T
            return self.kernels.xp.ascontiguousarray(self.kernels.xp.asarray(w))

        weights.release(restore)

    def _choose(self) -> None:
        """Let the performance model pick the mode for the present weights, batch and threads."""
        threads = threads_of(self.kernels)
        choice = predict_inner_product(self.full_matrix(), self.outer, threads)
        mode = executed_mode(choice.mode, self.kept_columns is not None)
        if self.choice is None or mode != self.conv_mode:
            log.debug("layer %s: gemm_mode AUTO is %s", self.name, choice.in_words())
        self.choice, self.conv_mode = choice, mode

    def forward(self, bottom: list[Blob], top: list[Blob], relu: bool = False) -> None:
        """Compute y from x; ``relu`` rectifies it in the same pass."""
        if self.conv_mode == AUTO:  # no weights were loaded: the initial ones decide
            self.prepare()
        if self.conv_mode != "LOWERED_GEMM":
            if self.prepared is None:
                self.prepare()
            self.prepared.forward(bottom[0].data, top[0].data, relu)
            return
        x = bottom[0].data.reshape(self.outer, self.inputs)  # (N, K)
        b = self.parameters[1].data if self.has_bias else None
        y = top[0].data.reshape(self.outer, self.filters)  # (N, F)
        self.kernels.inner_product_forward(x, self._weights(), b, y, relu)

    def backward(self, top: list[Blob], propagate_down: list[bool], bottom: list[Blob]) -> None:
        """Compute d_w, d_b (added) and d_x from d_y."""
        if self.kept_columns is not None:
            raise self.config_error(
                "a compacted layer has no gradient; go back through the net it was made from"
            )
        x = bottom[0].data.reshape(self.outer, self.inputs)  # (N, K)
        d_y = top[0].diff.reshape(self.outer, self.filters)  # (N, F)
        if self.transpose:
            # the stored matrix is (K, F): its gradient is x^T d_y, the same product transposed
            self.kernels.inner_product_backward_weights(d_y, x, self.parameters[0].diff)
        else:
            self.kernels.inner_product_backward_weights(x, d_y, self.parameters[0].diff)
        if self.has_bias:
            self.kernels.inner_product_backward_bias(d_y, self.parameters[1].diff)
        if propagate_down[0]:
            d_x = bottom[0].diff.reshape(self.outer, self.inputs)
            self.kernels.inner_product_backward_input(d_y, self._weights(), d_x)

    def _weights(self):
        """The weights as (F, K)."""
        w = self.parameters[0].data
        return self.kernels.xp.ascontiguousarray(w.T) if self.transpose else w
