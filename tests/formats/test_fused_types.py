"""SkimCaffe's fused layers become their parts, run as one step, and take its weights by name."""

from __future__ import annotations

import numpy as np
import pytest

from minissl import Net, fusion
from minissl.formats.fused_types import PARTS, plain_layers
from minissl.formats.prototxt import parse_net

# every fused type, with the fields that SkimCaffe's deploy files set
FUSED = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 dim: 19 dim: 19 } } }
layer { name: "c1" type: "MKLConvolution" bottom: "x" top: "c1" convolution_param {
  num_output: 4 kernel_size: 3 conv_mode: DIRECT_DCONV dump_activation: false engine: CAFFE
  weight_filler { type: "gaussian" } bias_filler { value: 0.1 } } }
layer { name: "p1" type: "ReLUPooling" bottom: "c1" top: "p1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "n1" type: "MKLLRN" bottom: "p1" top: "n1" lrn_param { local_size: 3 alpha: 0.5 } }
layer { name: "c2" type: "ConvolutionReLUPoolLRN" bottom: "n1" top: "n2"
  param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 } convolution_param {
  num_output: 6 kernel_size: 3 pad: 1 group: 2 conv_mode: DIRECT_SCONV dump_parameter: true
  parameter_sparsity_pattern_histogram: true
  weight_filler { type: "gaussian" } bias_filler { value: -0.1 } }
  relu_param { negative_slope: 0 } pooling_param { pool: MAX kernel_size: 3 stride: 2 }
  lrn_param { local_size: 5 alpha: 0.1 } }
layer { name: "c3" type: "ConvolutionReLU" bottom: "n2" top: "c3" convolution_param {
  num_output: 4 kernel_size: 3 pad: 1 conv_mode: DIRECT_SCONV weight_filler { type: "gaussian" } } }
layer { name: "c4" type: "ConvolutionReLUPool" bottom: "c3" top: "p4" convolution_param {
  num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" } }
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "f5" type: "InnerProductReLUDropout" bottom: "p4" top: "f5" inner_product_param {
  num_output: 7 gemm_mode: SPMDM spmdm_transpose_out: false dump_parameter: true
  weight_filler { type: "gaussian" } } dropout_param { dropout_ratio: 0.5 } }
layer { name: "f6" type: "InnerProduct" bottom: "f5" top: "f6" inner_product_param {
  num_output: 5 gemm_mode: SPMDM spmdm_transpose_in: false weight_filler { type: "gaussian" } } }
"""

PLAIN = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 2 dim: 19 dim: 19 } } }
layer { name: "c1" type: "Convolution" bottom: "x" top: "c1"
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "r1" }
layer { name: "p1" type: "Pooling" bottom: "r1" top: "p1"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "n1" type: "LRN" bottom: "p1" top: "n1" lrn_param { local_size: 3 alpha: 0.5 } }
layer { name: "c2" type: "Convolution" bottom: "n1" top: "c2"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 group: 2 } }
layer { name: "r2" type: "ReLU" bottom: "c2" top: "r2" }
layer { name: "p2" type: "Pooling" bottom: "r2" top: "p2"
  pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
layer { name: "n2" type: "LRN" bottom: "p2" top: "n2" lrn_param { local_size: 5 alpha: 0.1 } }
layer { name: "c3" type: "Convolution" bottom: "n2" top: "c3"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "r3" type: "ReLU" bottom: "c3" top: "r3" }
layer { name: "c4" type: "Convolution" bottom: "r3" top: "c4"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "r4" type: "ReLU" bottom: "c4" top: "r4" }
layer { name: "p4" type: "Pooling" bottom: "r4" top: "p4"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "f5" type: "InnerProduct" bottom: "p4" top: "f5"
  inner_product_param { num_output: 7 } }
layer { name: "r5" type: "ReLU" bottom: "f5" top: "r5" }
layer { name: "f6" type: "InnerProduct" bottom: "r5" top: "f6"
  inner_product_param { num_output: 5 } }
"""


@pytest.fixture(scope="module")
def weights():
    """Weights of the fused net, half of them zero."""
    found = Net(parse_net(FUSED), backend="numpy", dtype="float64", seed=3).weights()
    for blobs in found.values():
        blobs[0][np.random.default_rng(1).random(blobs[0].shape) < 0.5] = 0
    return found


def outputs(text, weights, backend, fuse=True):
    net = Net(parse_net(text), backend=backend, dtype="float64", fuse=fuse)
    net.load(weights)
    x = np.random.default_rng(0).normal(size=(2, 2, 19, 19))
    return net.forward({"x": x})["f6"].copy(), net


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_fused_types_are_the_composition_of_plain_layers(weights, backend, fuse):
    assert list(weights) == ["c1", "c2", "c3", "c4", "f5", "f6"]
    found, _ = outputs(FUSED, weights, backend, fuse)
    expected, _ = outputs(PLAIN, weights, "numpy", False)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_they_run_as_one_step_again(weights):
    _, net = outputs(FUSED, weights, "numba")
    kinds = [step.kind for step in net.steps if isinstance(step, fusion.FusedStep)]
    assert kinds[1:] == [
        "ConvolutionReLUPoolLRN",
        "ConvolutionReLU",
        "ConvolutionReLUPool",
        "InnerProductReLUDropout",
    ]
    assert net.layer("c2").conv_mode == "DIRECT_SCONV"


def test_names_and_parameters_of_the_parts():
    (layer,) = (one for one in parse_net(FUSED).layer if one.name == "c2")
    parts = plain_layers(layer)
    assert [part.name for part in parts] == ["c2", "c2_relu", "c2_pooling", "c2_lrn"]
    assert [list(part.top) for part in parts] == [
        ["c2_convolution"], ["c2_convolution"], ["c2_pooling"], ["n2"],
    ]  # fmt: skip
    assert [len(part.param) for part in parts] == [2, 0, 0, 0]
    assert parts[3].lrn_param.local_size == 5 and not parts[0].HasField("lrn_param")


@pytest.mark.parametrize("kind", PARTS)
def test_what_forgets_its_blobs_gets_one_sentence(kind):
    from minissl.errors import ConfigError

    with pytest.raises(ConfigError):
        Net(parse_net(f'layer {{ name: "a" type: "{kind}" }}'))


def test_they_can_learn():
    """SkimCaffe's cannot."""
    text = FUSED.replace("SPMDM", "GEMM").replace("DIRECT_SCONV", "LOWERED_GEMM")
    text = text.replace("DIRECT_DCONV", "LOWERED_GEMM") + (
        'layer { name: "t" type: "DummyData" top: "t" dummy_data_param { shape { dim: 2 dim: 5 } } '
        '} layer { name: "l" type: "EuclideanLoss" bottom: "f6" bottom: "t" top: "l" }'
    )
    net = Net(parse_net(text), phase="TRAIN", backend="numpy")
    net.forward({"x": np.random.default_rng(0).normal(size=(2, 2, 19, 19))})
    net.backward()
    assert all(np.abs(parameter.diff).max() > 0 for parameter in net.parameters)
