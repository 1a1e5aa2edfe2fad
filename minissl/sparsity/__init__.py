"""What structured sparsity learning is, as small pure functions over weight matrices.

Every learnable blob of shape (s0, s1, ...) is seen as the matrix W of the paper: R = s0 rows
(filters, output neurons) by C = size / s0 columns (shape fibres, input neurons).

============== ===================================================================================
groups         which weights form a group: tiles of the matrix
group_lasso    lambda * sum_g ||w_g||, the term that makes groups vanish
proximal       the same by its proximal step instead of its gradient: exact zeros
strength       lambda: a decay of the solver times a multiplier of the net
weight_decay   L1 and L2, per parameter
zero_out       |w| < 1e-4 becomes exactly 0
connectivity   masks that freeze zeros while fine-tuning
statistics     how sparse a blob is, in every sense that is printed
flops          what the zeros save
random_pruning a control: as many filters and columns as another network has, by lot
============== ===================================================================================
"""
