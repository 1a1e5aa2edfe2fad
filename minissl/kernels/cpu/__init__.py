"""The fast twins of :mod:`minissl.kernels.reference`, compiled by Numba and parallel.

Same names, same arguments, same meaning. Two rules hold everywhere:

* *owner computes*: a thread writes only what it owns, and sums are split into a fixed number of
  parts that are added in a fixed order, so results are bitwise equal for any number of threads;
* BLAS is called with one thread from inside the parallel loops
  (:func:`minissl.backend.single_threaded_blas`).

Where measured to matter, :mod:`minissl.kernels.cpu.micro` writes vector code for the same kernels.

Compiled code is cached on disk. With NUMBA_DISABLE_JIT=1 everything runs as plain Python and can
be stepped through.
"""

from minissl.kernels.cpu import micro
from minissl.kernels.cpu.activations import (
    relu_backward,
    relu_forward,
    softmax_backward,
    softmax_forward,
    sum_relu_backward,
    weighted_sum,
)
from minissl.kernels.cpu.average_pooling import ave_pool_backward, ave_pool_forward
from minissl.kernels.cpu.batch_normalization import (
    batch_norm_backward,
    batch_norm_forward,
    channel_moments,
    channel_scale,
    channel_scale_gradient,
    norm_scale_backward,
    norm_scale_forward,
)
from minissl.kernels.cpu.convolution import (
    conv_backward_bias,
    conv_backward_input,
    conv_backward_weights,
    conv_forward,
    images_per_chunk,
)
from minissl.kernels.cpu.direct_convolution import conv_sconv
from minissl.kernels.cpu.inner_product import (
    inner_product_backward_bias,
    inner_product_backward_input,
    inner_product_backward_weights,
    inner_product_forward,
)
from minissl.kernels.cpu.labels import label_loss, label_loss_backward, read_labels
from minissl.kernels.cpu.lowering import col2im, im2col, lower_columns
from minissl.kernels.cpu.max_pooling import max_pool_backward, max_pool_forward
from minissl.kernels.cpu.normalization import lrn_backward, lrn_forward
from minissl.kernels.cpu.packed_gradients import (
    conv_ccnmm_backward_input,
    conv_ccnmm_backward_weights,
)
from minissl.kernels.cpu.regularization import (
    add_l1,
    add_l2,
    sum_of_magnitudes,
    sum_of_squares,
    tile_add_scaled,
    tile_scale,
    tile_square_sums,
)
from minissl.kernels.cpu.sparse_convolution import conv_ccnmm, conv_csrmm, images_per_panel
from minissl.kernels.cpu.sparse_product import csr_times_dense, inner_product_csr
from minissl.kernels.cpu.update import (
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
from minissl.kernels.reference.backend import WAITS, Timer, at_once, xp

__all__ = [*NAMES, "micro"]
