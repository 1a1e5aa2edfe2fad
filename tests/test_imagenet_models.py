"""GoogLeNet, VGG-16, ResNet-50 and smaller examples of Caffe: published sizes, and that they run.

Large nets are looked at by their shapes: parameters are filled by nothing, so no memory is touched.
"""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from minissl import Net, Solver, models
from minissl.formats.prototxt import parse_solver, read_net, to_text
from minissl.layers.base import Layer
from minissl.models import imagenet
from minissl.summary import summarize
from tests.published_sizes import SIZES, cifar_resnet

#: size in bytes of the weight file that the community shares, 4 a number and text: as NVIDIA has it
#: in a guide to jetson-inference, Caffe in its log, and the index of Collective Knowledge
FILE_SIZES = {"googlenet": 53_533_754, "vgg16": 553_432_081, "resnet50": 102_462_397}
#: (C, H, W) of some blobs, from the tables of the papers
SHAPES = {
    "googlenet_deploy": {
        "conv1/7x7_s2": (64, 112, 112),
        "pool2/3x3_s2": (192, 28, 28),
        "inception_3b/output": (480, 28, 28),
        "inception_4e/output": (832, 14, 14),
        "inception_5b/output": (1024, 7, 7),
        "pool5/7x7_s1": (1024, 1, 1),
    },
    "vgg16_deploy": {"pool1": (64, 112, 112), "pool3": (256, 28, 28), "pool5": (512, 7, 7)},
    "resnet50_deploy": {
        "pool1": (64, 56, 56),
        "res2c": (256, 56, 56),
        "res3d": (512, 28, 28),
        "res4f": (1024, 14, 14),
        "res5c": (2048, 7, 7),
    },
}


def by_shapes(name: str, phase: str = "TEST") -> Net:
    """A net whose parameters are not filled: zeros that are never touched."""
    with mock.patch.object(Layer, "fill_parameters", lambda self: None):
        return Net(models.path(f"{name}.prototxt"), phase, backend="numpy", data={"batch_size": 1})


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_those_of_the_papers_tables(name):
    net = by_shapes(name, "TRAIN")
    learned = [p for p in net.parameters if p.role != "statistic"]
    assert sum(p.size for p in learned) == SIZES[name].parameters


@pytest.mark.parametrize("name", SIZES)
def test_the_summary_counts_as_the_papers_tables_do(name):
    with mock.patch("minissl.summary.np.count_nonzero", lambda array: 0):
        rows = summarize(by_shapes(name))
    if name != "googlenet":  # its classifiers on the side are there in training only
        assert sum(one.flop for one in rows) == 2 * SIZES[name].multiply_adds
        assert sum(one.parameters for one in rows) == SIZES[name].parameters


def test_what_the_papers_say_themselves():
    """In millions of parameters or billions of multiply-adds, as printed."""
    million, billion = 1e6, 1e9
    assert round(SIZES["vgg16"].parameters / million) == 138  # table 2 of VGG
    assert round(SIZES["vgg19_deploy"].parameters / million) == 144
    assert 1.5 < SIZES["googlenet_deploy"].multiply_adds / billion < 1.6  # "1.5 billion", section 1
    assert 3.8 < SIZES["resnet50"].multiply_adds / billion < 3.9  # table 1 of ResNet
    assert round(SIZES["caffenet_deploy"].parameters / million) in (60, 61)  # AlexNet's abstract
    plain = [cifar_resnet(n, projections=False).parameters for n in (3, 5, 9)]
    assert [round(count / million, 2) for count in plain] == [0.27, 0.46, 0.85]  # table 6


@pytest.mark.parametrize("name", FILE_SIZES)
def test_memory_of_the_weights_is_that_of_the_shared_file(name):
    """A caffemodel holds nothing beside its numbers but names and shapes."""
    size = 4 * sum(parameter.size for parameter in by_shapes(name, "TRAIN").parameters)
    assert 0 < FILE_SIZES[name] - size < 40_000


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_of_the_papers_tables(name):
    net = by_shapes(name)
    assert {blob: net.blobs[blob].shape[1:] for blob in SHAPES[name]} == SHAPES[name]


def test_memory_of_vgg16():
    """15.1 million activations an image in its convolutions, pools and inner products."""
    net = by_shapes("vgg16_deploy")
    with mock.patch("minissl.summary.np.count_nonzero", lambda array: 0):
        rows = summarize(net)
    activations = sum(one.bytes for one in rows) / 4 - SIZES["vgg16_deploy"].parameters
    convolutions = 2 * 64 * 224**2 + 2 * 128 * 112**2 + 3 * 256 * 56**2 + 3 * 512 * 28**2
    convolutions += 3 * 512 * 14**2
    pools = 64 * 112**2 + 128 * 56**2 + 256 * 28**2 + 512 * 14**2 + 512 * 7**2
    assert activations == 3 * 224**2 + convolutions + pools + 2 * 4096 + 2 * 1000


@pytest.mark.parametrize("name", imagenet.FILES)
def test_the_prototxt_is_what_the_generator_writes(name):
    assert models.path(name).read_text() == to_text(imagenet.FILES[name]())


def test_residual_blocks_add_up():
    """53 convolutions, of which 4 are shortcuts; 16 sums."""
    types = [layer.type for layer in imagenet.resnet50(deploy=True).layer]
    assert types.count("Convolution") == 53 and types.count("Eltwise") == 16
    assert types.count("BatchNorm") == types.count("Scale") == 53


def test_group_lasso_of_googlenet():
    """Every convolution has its filters, shape fibres and 2-D kernels as groups."""
    for layer in read_net(models.path("googlenet_ssl.prototxt")).layer:
        if layer.type != "Convolution":
            assert not any(spec.block_group_lasso for spec in layer.param)
            continue
        weights, bias = layer.param
        (tile,) = weights.block_group_lasso
        kernel = layer.convolution_param.kernel_size[0]
        assert (tile.xdimen, tile.ydimen, tile.block_decay_mult) == (kernel**2, 1, 1)
        assert weights.breadth_decay_mult == weights.kernel_shape_decay_mult == 1
        assert not bias.block_group_lasso


def narrow(net, divisor: int = 8, pixels: int = 64):
    """The same net with few filters, a small image and ten classes, fed by DummyData."""
    for layer in list(net.layer):
        if layer.type == "Convolution":
            layer.convolution_param.num_output //= divisor
        if layer.type == "InnerProduct":
            last = layer.inner_product_param.num_output == imagenet.CLASSES
            layer.inner_product_param.num_output = 10 if last else 8
        if layer.type == "Pooling" and layer.pooling_param.pool == layer.pooling_param.AVE:
            layer.ClearField("pooling_param")  # its windows are for images of 224 x 224
            layer.pooling_param.pool, layer.pooling_param.global_pooling = 1, True
        if layer.type == "Accuracy":
            layer.accuracy_param.top_k = min(layer.accuracy_param.top_k, 3)
        if layer.type == "MemoryData":
            layer.type = "DummyData"
            layer.ClearField("memory_data_param")
            layer.dummy_data_param.shape.add().dim[:] = [2, 3, pixels, pixels]
            layer.dummy_data_param.shape.add().dim[:] = [2]
            layer.dummy_data_param.data_filler.add(type="gaussian", std=1)
            layer.dummy_data_param.data_filler.add(value=7)
    return net


@pytest.mark.parametrize(
    "net",
    [imagenet.googlenet(group_lasso=True), imagenet.vgg16(), imagenet.resnet50()],
    ids=["googlenet", "vgg16", "resnet50"],
)
def test_narrow_versions_learn(net):
    """Forward, backward, group Lasso and an update; the labels are the same in each batch."""
    solver = parse_solver(
        'base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 weight_decay: 1e-4 max_iter: 4 '
        "breadth_decay: 1e-3 kernel_shape_decay: 1e-3 block_group_decay: 1e-3 "
        "test_iter: 1 test_interval: 4 test_initialization: false"
    )
    solver.net_param.CopyFrom(narrow(net))
    trained = Solver(solver, collapse_check=False, backend="numpy")
    before = [parameter.data.copy() for parameter in trained.net.parameters]
    losses = [float(trained.step()) for _ in range(4)]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    moved = [
        not np.array_equal(old, parameter.data)
        for old, parameter in zip(before, trained.net.parameters, strict=True)
        if parameter.role != "statistic"
    ]
    assert all(moved)
    outputs = trained.test()[0]
    assert np.isfinite(list(outputs.values())).all()
    assert outputs["accuracy_top5"] >= outputs["accuracy_top1"]


@pytest.mark.parametrize("kind", ["", "_adagrad", "_adadelta"])
def test_the_autoencoder_learns_by_every_solver(kind):
    path = models.path(f"mnist_autoencoder{kind}_solver.prototxt")
    solver = Solver(path, backend="numpy", data={"source": "mnist-small", "batch_size": 50})
    losses = [float(solver.step()) for _ in range(12)]
    assert losses[-1] < 0.5 * losses[0]
    assert set(solver.net.outputs) == {"cross_entropy_loss", "l2_error"}
    assert solver.net.loss() == pytest.approx(float(solver.net.blobs["cross_entropy_loss"].data))
