from __future__ import annotations

import pytest

from minissl import backend
from minissl.errors import ConfigError
from minissl.layers import ABSENT, LAYERS, Context, create
from tests.gradient_cases import layer_param

CONTEXT = Context(backend.get("numpy"))

PROMISED = {
    "AbsVal",
    "Accuracy",
    "ArgMax",
    "BNLL",
    "ContrastiveLoss",
    "Convolution",
    "Crop",
    "Data",
    "Deconvolution",
    "Dropout",
    "DummyData",
    "ELU",
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
    "LRN",
    "Log",
    "MVN",
    "MemoryData",
    "MultinomialLogisticLoss",
    "PReLU",
    "Pooling",
    "Power",
    "ReLU",
    "Reduction",
    "Reshape",
    "Sigmoid",
    "SigmoidCrossEntropyLoss",
    "Silence",
    "Softmax",
    "SoftmaxWithLoss",
    "Split",
    "TanH",
    "Threshold",
    "Tile",
}


def test_every_promised_layer_is_known_by_its_type():
    assert set(LAYERS) >= PROMISED
    for type_name, layer_class in LAYERS.items():
        layer = create(layer_param(f'name: "one" type: "{type_name}"'), CONTEXT)
        assert type(layer) is layer_class
        assert (layer.name, layer.type_name, layer.phase) == ("one", type_name, "TRAIN")


@pytest.mark.parametrize(
    ("type_name", "words"),
    [
        ("Convolutoin", "did you mean 'Convolution'"),
        ("relu", "did you mean 'ReLU'"),
        ("SoftmaxLoss", "did you mean 'SoftmaxWithLoss'"),
        ("POOLING", "did you mean 'Pooling'"),
        ("Zzz", "use one of AbsVal, Accuracy, .*TanH"),
        ("", "use one of AbsVal"),
    ],
)
def test_unknown_type_names_the_nearest_known_one(type_name, words):
    with pytest.raises(ConfigError, match=words) as error:
        create(layer_param(f'name: "one" type: "{type_name}"'), CONTEXT)
    assert f"layer 'one' has the unknown type '{type_name}'" in str(error.value)


@pytest.mark.parametrize("type_name", ABSENT)
def test_types_that_are_not_there_are_said_to_be_caffes(type_name):
    assert type_name not in LAYERS
    with pytest.raises(ConfigError, match="which is Caffe's but not part of minissl; replace it"):
        create(layer_param(f'name: "one" type: "{type_name}"'), CONTEXT)
