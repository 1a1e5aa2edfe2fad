"""Prune a network at random to the structure of another, the control beside group Lasso."""

from __future__ import annotations

from minissl.channels import layer_shapes
from minissl.net import Net
from minissl.sparsity.random_pruning import masks_like


def prune_like(net: Net, like: Net, seed: int) -> None:
    """Zero filters, with their biases, and columns of a network, at random.

    Parameters
    ----------
    net : Net
        Is pruned.
    like : Net
        Says how many filters, channels and columns of each layer are left
        (:func:`minissl.sparsity.random_pruning.masks_like`).
    seed : int
    """
    values = {name: [blob.copy() for blob in blobs] for name, blobs in net.weights().items()}
    for name, mask in masks_like(layer_shapes(like), layer_shapes(net), seed).items():
        weights, *biases = values[name]
        keep = mask.reshape(-1, mask.shape[2])  # (F, K)
        if getattr(net.layer(name), "transpose", False):
            keep = keep.T
        weights *= keep.reshape(weights.shape)
        for bias in biases:
            bias *= mask.any(axis=2).reshape(bias.shape)
    net.load(values)
