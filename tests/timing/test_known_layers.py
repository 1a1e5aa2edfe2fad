from __future__ import annotations

import pytest

from minissl import Net
from minissl.timing.known_layers import LAYERS, in_words, net_of, recognise

ALEXNET = {layer.name: layer for layer in LAYERS if layer.net == "AlexNet"}
LENET = {layer.name: layer for layer in LAYERS if layer.net == "LeNet"}


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("conv1", (96, 363), ALEXNET["conv1"]),
        ("conv1", (20, 25), LENET["conv1"]),
        ("conv2", (256, 1200), ALEXNET["conv2"]),
        ("fc6", (4096, 9216), ALEXNET["fc6"]),
        ("fc7", (4096, 4096), ALEXNET["fc7"]),
        ("ip1", (500, 800), LENET["ip1"]),
        ("anything", (384, 2304), ALEXNET["conv3"]),
        ("conv4_2", (192, 1728), ALEXNET["conv4"].band),
        # known names with the shape of another layer, and shapes of none
        ("conv4", (256, 1728), None),
        ("conv4", (192, 1728), None),
        ("conv2_1", (256, 1200), None),
        ("conv1", (96, 364), None),
        ("anything", (7, 9), None),
    ],
)
def test_shape_and_name_decide(name, shape, expected):
    assert recognise(name, shape) == expected


def test_no_two_layers_of_a_net_have_the_same_matrix():
    shapes = [layer.matrix_shape for layer in LAYERS]
    assert len(set(shapes)) == len(shapes)


def test_a_conv_group_is_a_layer_of_its_own():
    band = ALEXNET["conv2"].band
    assert (band.input, band.filters, band.groups) == ((48, 27, 27), 128, 1)
    assert band.matrix_shape == (128, 1200)


def test_the_net_has_the_shapes_of_the_matrices():
    chosen = {**LENET, "conv5_1": ALEXNET["conv5"].band, "conv5": ALEXNET["conv5"]}
    net = Net(net_of(chosen), "TEST", backend="numpy", data={"batch_size": 2})
    for name, layer in chosen.items():
        assert net.layer(name).parameters[0].matrix_shape == layer.matrix_shape
        assert net.blobs[f"{name}_input"].shape == (2, *layer.input)
    assert net.blobs["conv5"].shape == (2, 256, 13, 13)
    assert net.blobs["conv1"].shape == (2, 20, 24, 24)


def test_the_outputs_of_alexnet():
    sizes = {"conv1": 55, "conv2": 27, "conv3": 13, "conv4": 13}
    net = Net(net_of({name: ALEXNET[name] for name in sizes}), "TEST", backend="numpy")
    for name, size in sizes.items():
        assert net.blobs[name].shape == (1, ALEXNET[name].filters, size, size)


def test_in_words():
    assert (
        in_words([ALEXNET["conv1"], LENET["ip2"]]) == "AlexNet conv1 96 x 363; LeNet ip2 10 x 500"
    )
