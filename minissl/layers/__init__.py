"""Layers: what a network computes, one file each, forward and backward one under the other.

Importing this package makes every layer known in :data:`LAYERS` by its prototxt ``type``.
"""

from __future__ import annotations

import difflib
from typing import Any

from minissl.errors import ConfigError
from minissl.layers.abs_val import AbsVal
from minissl.layers.accuracy import Accuracy
from minissl.layers.argmax import ArgMax
from minissl.layers.base import LAYERS, Context, Layer, register
from minissl.layers.batch_norm import BatchNorm
from minissl.layers.bias import Bias
from minissl.layers.bnll import BNLL
from minissl.layers.concat import Concat
from minissl.layers.contrastive_loss import ContrastiveLoss
from minissl.layers.convolution import Convolution
from minissl.layers.crop import Crop
from minissl.layers.data_layers import Data, Input, MemoryData
from minissl.layers.deconvolution import Deconvolution
from minissl.layers.dropout import Dropout
from minissl.layers.dummy_data import DummyData
from minissl.layers.eltwise import Eltwise
from minissl.layers.elu import ELU
from minissl.layers.embed import Embed
from minissl.layers.euclidean_loss import EuclideanLoss
from minissl.layers.exp import Exp
from minissl.layers.flatten import Flatten
from minissl.layers.hdf5_data import HDF5Data
from minissl.layers.hinge_loss import HingeLoss
from minissl.layers.image_data import ImageData
from minissl.layers.inner_product import InnerProduct
from minissl.layers.log import Log
from minissl.layers.log_loss import InfogainLoss, MultinomialLogisticLoss
from minissl.layers.lrn import LRN
from minissl.layers.mvn import MVN
from minissl.layers.pooling import Pooling
from minissl.layers.power import Power
from minissl.layers.prelu import PReLU
from minissl.layers.reduction import Reduction
from minissl.layers.relu import ReLU
from minissl.layers.reshape import Reshape
from minissl.layers.scale import Scale
from minissl.layers.sigmoid import Sigmoid
from minissl.layers.sigmoid_loss import SigmoidCrossEntropyLoss
from minissl.layers.silence import Silence
from minissl.layers.slice import Slice
from minissl.layers.softmax import Softmax
from minissl.layers.softmax_loss import SoftmaxWithLoss
from minissl.layers.split import Split
from minissl.layers.tanh import TanH
from minissl.layers.threshold import Threshold
from minissl.layers.tile import Tile

__all__ = [
    "ABSENT",
    "BNLL",
    "ELU",
    "LAYERS",
    "LRN",
    "MVN",
    "AbsVal",
    "Accuracy",
    "ArgMax",
    "BatchNorm",
    "Bias",
    "Concat",
    "Context",
    "ContrastiveLoss",
    "Convolution",
    "Crop",
    "Data",
    "Deconvolution",
    "Dropout",
    "DummyData",
    "Eltwise",
    "Embed",
    "EuclideanLoss",
    "Exp",
    "Flatten",
    "HDF5Data",
    "HingeLoss",
    "ImageData",
    "InfogainLoss",
    "InnerProduct",
    "Input",
    "Layer",
    "Log",
    "MemoryData",
    "MultinomialLogisticLoss",
    "PReLU",
    "Pooling",
    "Power",
    "ReLU",
    "Reduction",
    "Reshape",
    "Scale",
    "Sigmoid",
    "SigmoidCrossEntropyLoss",
    "Silence",
    "Slice",
    "Softmax",
    "SoftmaxWithLoss",
    "Split",
    "TanH",
    "Threshold",
    "Tile",
    "create",
    "register",
    "what_is_wrong_with",
]


#: types of Caffe and SkimCaffe that are not part of minissl
ABSENT = (
    "BatchReindex", "Filter", "HDF5Output", "Im2col", "LSTM", "Parameter", "Python", "RNN", "SPP",
    "WindowData", "Winograd",
)  # fmt: skip


def create(param: Any, context: Context) -> Layer:
    """Make the layer that a ``layer { ... }`` block of a prototxt describes.

    Raises
    ------
    ConfigError
        For an unknown ``type``, naming the nearest known one.
    """
    layer_class = LAYERS.get(param.type)
    if layer_class is None:
        raise ConfigError(f"layer '{param.name}' {what_is_wrong_with(param.type)}")
    return layer_class(param, context)


def what_is_wrong_with(type_name: str) -> str:
    """Return a clause about a type that is not in :data:`LAYERS`, and what to do."""
    if type_name in ABSENT:
        return (
            f"has the type '{type_name}', which is Caffe's but not part of minissl; replace it by "
            "other layers (docs/layers.md lists those that are there)"
        )
    return f"has the unknown type '{type_name}'; {_advice(type_name)}"


def _advice(type_name: str) -> str:
    by_lower_case = {known.lower(): known for known in LAYERS}
    near = difflib.get_close_matches(type_name.lower(), by_lower_case, n=1)
    if near:
        return f"did you mean '{by_lower_case[near[0]]}'?"
    return f"use one of {', '.join(sorted(LAYERS))}"
