"""What every backend offers, in the order of the files of :mod:`minissl.kernels.reference`.

The one list of it: a backend exports these names, and the tests compare the arguments and results
of each with the definition.
"""

NAMES = [
    # what it says of itself
    "WAITS",
    "Timer",
    "at_once",
    "xp",
    # lowering
    "im2col",
    "col2im",
    "lower_columns",
    # convolution
    "images_per_chunk",
    "images_per_panel",
    "conv_forward",
    "conv_backward_weights",
    "conv_backward_input",
    "conv_backward_bias",
    # convolution with sparse weights
    "conv_csrmm",
    "conv_ccnmm",
    "conv_ccnmm_backward_weights",
    "conv_ccnmm_backward_input",
    "conv_sconv",
    # products with compressed sparse rows
    "csr_times_dense",
    "inner_product_csr",
    # inner product
    "inner_product_forward",
    "inner_product_backward_weights",
    "inner_product_backward_input",
    "inner_product_backward_bias",
    # pooling
    "max_pool_forward",
    "max_pool_backward",
    "ave_pool_forward",
    "ave_pool_backward",
    # local response normalization
    "lrn_forward",
    "lrn_backward",
    # batch normalization, scales of channels
    "channel_moments",
    "batch_norm_forward",
    "batch_norm_backward",
    "norm_scale_forward",
    "norm_scale_backward",
    "channel_scale",
    "channel_scale_gradient",
    # activations
    "relu_forward",
    "relu_backward",
    "weighted_sum",
    "sum_relu_backward",
    "softmax_forward",
    "softmax_backward",
    # labels
    "read_labels",
    "label_loss",
    "label_loss_backward",
    # regularization
    "tile_square_sums",
    "tile_add_scaled",
    "tile_scale",
    "add_l2",
    "add_l1",
    "sum_of_squares",
    "sum_of_magnitudes",
    # update
    "sgd_update",
    "nesterov_update",
    "adam_update",
    "adagrad_update",
    "rmsprop_update",
    "adadelta_update",
    "apply_update",
    "zero_out",
    "sgd_step",
    "all_finite",
    "are_finite",
]
