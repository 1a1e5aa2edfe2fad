"""The kernels on a GPU: CuPy, cuBLAS, cuSPARSE, and CUDA C++ sources (``sources/``).

Same names, same arguments, same meaning as :mod:`minissl.kernels.reference`; arrays are CuPy's.
Three rules hold everywhere:

* *owner computes*: a thread writes only what it owns, there are no atomics, and sums have a fixed
  order, so that results repeat bitwise;
* nothing waits: a function returns when its work is queued. Only what must return a number
  (``sum_of_squares``, ``sum_of_magnitudes``, ``all_finite``) waits for it;
* float32 stays float32: TF32 is used only where it is asked for (:mod:`.products`).

Indices that rise in the reference (kept rows and columns) must rise here.
"""

import cupy as xp

from minissl.kernels.gpu.activations import (
    label_loss,
    label_loss_backward,
    read_labels,
    relu_backward,
    relu_forward,
    softmax_backward,
    softmax_forward,
    sum_relu_backward,
    weighted_sum,
)
from minissl.kernels.gpu.batch_normalization import (
    batch_norm_backward,
    batch_norm_forward,
    channel_moments,
    channel_scale,
    channel_scale_gradient,
    norm_scale_backward,
    norm_scale_forward,
)
from minissl.kernels.gpu.convolution import (
    conv_backward_bias,
    conv_backward_input,
    conv_backward_weights,
    conv_forward,
    images_per_chunk,
    images_per_panel,
)
from minissl.kernels.gpu.inner_product import (
    inner_product_backward_bias,
    inner_product_backward_input,
    inner_product_backward_weights,
    inner_product_forward,
)
from minissl.kernels.gpu.lowering import col2im, im2col, lower_columns
from minissl.kernels.gpu.normalization import lrn_backward, lrn_forward
from minissl.kernels.gpu.pooling import (
    ave_pool_backward,
    ave_pool_forward,
    max_pool_backward,
    max_pool_forward,
)
from minissl.kernels.gpu.products import use_tf32, uses_tf32
from minissl.kernels.gpu.regularization import (
    add_l1,
    add_l2,
    sum_of_magnitudes,
    sum_of_squares,
    tile_add_scaled,
    tile_scale,
    tile_square_sums,
)
from minissl.kernels.gpu.sparse_convolution import (
    conv_ccnmm,
    conv_ccnmm_backward_input,
    conv_ccnmm_backward_weights,
    conv_csrmm,
    conv_sconv,
)
from minissl.kernels.gpu.sparse_product import csr_times_dense, inner_product_csr
from minissl.kernels.gpu.transfer import Timer, device_bytes, device_name, writing
from minissl.kernels.gpu.update import (
    adadelta_update,
    adagrad_update,
    adam_update,
    all_finite,
    apply_update,
    are_finite,
    nesterov_update,
    rmsprop_update,
    sgd_step,
    sgd_update,
    zero_out,
)
from minissl.kernels.names import NAMES

#: whether results are there when a function returns
WAITS = False

__all__ = [*NAMES, "device_bytes", "device_name", "use_tf32", "uses_tf32", "writing"]


def at_once(check) -> None:
    """Leave a check for later; see the reference."""
