"""The definition of every kernel, in plain NumPy, to be read and stepped through.

No speed tricks: whatever stands here is what the other backends are tested against. Functions
of layers write into the array(s) that stand last among their arguments; those of the update change
weights, gradient and history, which stand first. Gradients of parameters are *added* to, since
several passes may share one update; gradients of activations are overwritten.

Dimensions, in every module of this folder: N images, C input channels, H x W input pixels, F
filters, G conv groups, kh x kw kernel, P x Q output pixels, K = C/G * kh * kw columns of the weight
matrix.
"""

from minissl.kernels.names import NAMES
from minissl.kernels.reference.activations import (
    relu_backward,
    relu_forward,
    softmax_backward,
    softmax_forward,
    sum_relu_backward,
    weighted_sum,
)
from minissl.kernels.reference.backend import (
    WAITS,
    Timer,
    at_once,
    xp,
)
from minissl.kernels.reference.batch_normalization import (
    batch_norm_backward,
    batch_norm_forward,
    channel_moments,
    channel_scale,
    channel_scale_gradient,
    norm_scale_backward,
    norm_scale_forward,
)
from minissl.kernels.reference.convolution import (
    conv_backward_bias,
    conv_backward_input,
    conv_backward_weights,
    conv_forward,
    images_per_chunk,
    images_per_panel,
)
from minissl.kernels.reference.inner_product import (
    inner_product_backward_bias,
    inner_product_backward_input,
    inner_product_backward_weights,
    inner_product_forward,
)
from minissl.kernels.reference.labels import (
    label_loss,
    label_loss_backward,
    read_labels,
)
from minissl.kernels.reference.lowering import (
    col2im,
    im2col,
    lower_columns,
)
from minissl.kernels.reference.normalization import (
    lrn_backward,
    lrn_forward,
)
from minissl.kernels.reference.pooling import (
    ave_pool_backward,
    ave_pool_forward,
    max_pool_backward,
    max_pool_forward,
)
from minissl.kernels.reference.regularization import (
    add_l1,
    add_l2,
    sum_of_magnitudes,
    sum_of_squares,
    tile_add_scaled,
    tile_scale,
    tile_square_sums,
)
from minissl.kernels.reference.sparse_convolution import (
    conv_ccnmm,
    conv_ccnmm_backward_input,
    conv_ccnmm_backward_weights,
    conv_csrmm,
    conv_sconv,
)
from minissl.kernels.reference.sparse_product import (
    csr_times_dense,
    inner_product_csr,
)
from minissl.kernels.reference.update import (
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

__all__ = [*NAMES]
