"""Old nets become current ones by Caffe's rules; the expected texts are written by hand."""

from __future__ import annotations

import logging

import pytest
from google.protobuf.text_format import Parse

from minissl import Net
from minissl.errors import ConfigError
from minissl.formats import proto
from minissl.formats.prototxt import parse_net, parse_solver
from minissl.formats.upgrade import from_skimcaffe, type_of_v1, upgrade_net, upgraded

# V1's enum and Caffe's names, in full: a wrong word makes a layer unknown
TYPES = """
NONE: ABSVAL:AbsVal ACCURACY:Accuracy ARGMAX:ArgMax BNLL:BNLL CONCAT:Concat
CONTRASTIVE_LOSS:ContrastiveLoss CONVOLUTION:Convolution DATA:Data DECONVOLUTION:Deconvolution
DROPOUT:Dropout DUMMY_DATA:DummyData EUCLIDEAN_LOSS:EuclideanLoss ELTWISE:Eltwise EXP:Exp
FLATTEN:Flatten HDF5_DATA:HDF5Data HDF5_OUTPUT:HDF5Output HINGE_LOSS:HingeLoss IM2COL:Im2col
IMAGE_DATA:ImageData INFOGAIN_LOSS:InfogainLoss INNER_PRODUCT:InnerProduct LRN:LRN
MEMORY_DATA:MemoryData MULTINOMIAL_LOGISTIC_LOSS:MultinomialLogisticLoss MVN:MVN POOLING:Pooling
POWER:Power RELU:ReLU SIGMOID:Sigmoid SIGMOID_CROSS_ENTROPY_LOSS:SigmoidCrossEntropyLoss
SILENCE:Silence SOFTMAX:Softmax SOFTMAX_LOSS:SoftmaxWithLoss SPLIT:Split SLICE:Slice TANH:TanH
WINDOW_DATA:WindowData THRESHOLD:Threshold
"""


def same(text: str, expected: str) -> None:
    assert parse_net(text) == Parse(expected, proto.NetParameter())


def test_every_type_of_v1() -> None:
    expected = dict(pair.split(":") for pair in TYPES.split())
    kind = proto.descriptor("V1LayerParameter").enum_types_by_name["LayerType"]
    assert {name: type_of_v1(value.number) for name, value in kind.values_by_name.items()} == (
        expected
    )
    assert type_of_v1(40) == ""


def test_v1() -> None:
    same(
        """
        name: "old" force_backward: true
        layers { name: "d" type: DATA top: "data" top: "label"
          data_param { source: "db" scale: 0.5 mean_file: "m" crop_size: 5 mirror: true
                       batch_size: 2 }
          transform_param { scale: 9 } include { phase: TRAIN } }
        layers { name: "c" type: CONVOLUTION bottom: "data" top: "c"
          param: "shared" blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
          blob_share_mode: PERMISSIVE convolution_param { num_output: 3 kernel_size: 5 } }
        layers { name: "l" type: SOFTMAX_LOSS bottom: "c" bottom: "label" loss_weight: 0.3
          top: "l" exclude { stage: "x" } }
        """,
        """
        name: "old" force_backward: true
        layer { name: "d" type: "Data" top: "data" top: "label"
          data_param { source: "db" batch_size: 2 } include { phase: TRAIN }
          transform_param { scale: 0.5 mean_file: "m" crop_size: 5 mirror: true } }
        layer { name: "c" type: "Convolution" bottom: "data" top: "c"
          param { name: "shared" share_mode: PERMISSIVE lr_mult: 1 decay_mult: 1 }
          param { lr_mult: 2 decay_mult: 0 }
          convolution_param { num_output: 3 kernel_size: 5 } }
        layer { name: "l" type: "SoftmaxWithLoss" bottom: "c" bottom: "label" loss_weight: 0.3
          top: "l" exclude { stage: "x" } }
        """,
    )


def test_every_parameter_of_v1_is_carried_over() -> None:
    """All fields but those with a meaning of their own have the same name in a current layer."""
    current = set(proto.descriptor("LayerParameter").fields_by_name)
    special = {"layer", "param", "blob_share_mode", "blobs_lr", "weight_decay"}
    assert set(proto.descriptor("V1LayerParameter").fields_by_name) - special <= current


def test_v0() -> None:
    same(
        """
        name: "v0" input: "data" input_dim: 1 input_dim: 3 input_dim: 9 input_dim: 9
        layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "data" top: "padded" }
        layers { layer { name: "c" type: "conv" num_output: 4 kernelsize: 3 stride: 2 group: 1
                   biasterm: false weight_filler { type: "xavier" } blobs_lr: 1 weight_decay: 0.5
                   blobs { num: 1 data: 2 } }
                 bottom: "padded" top: "c" }
        layers { layer { name: "r" type: "relu" } bottom: "c" top: "c" }
        layers { layer { name: "p" type: "pool" pool: AVE kernelsize: 3 stride: 2 pad: 1 }
                 bottom: "c" top: "p" }
        layers { layer { name: "n" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.2 k: 2 }
                 bottom: "p" top: "n" }
        layers { layer { name: "i" type: "innerproduct" num_output: 5 biasterm: true
                   bias_filler { value: 1 } } bottom: "n" top: "i" }
        layers { layer { name: "o" type: "dropout" dropout_ratio: 0.3 } bottom: "i" top: "i" }
        """,
        """
        name: "v0"
        layer { name: "input" type: "Input" top: "data"
          input_param { shape { dim: 1 dim: 3 dim: 9 dim: 9 } } }
        layer { name: "c" type: "Convolution" bottom: "data" top: "c" blobs { num: 1 data: 2 }
          param { lr_mult: 1 decay_mult: 0.5 }
          convolution_param { num_output: 4 kernel_size: 3 stride: 2 group: 1 pad: 2
            bias_term: false weight_filler { type: "xavier" } } }
        layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
        layer { name: "p" type: "Pooling" bottom: "c" top: "p"
          pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
        layer { name: "n" type: "LRN" bottom: "p" top: "n"
          lrn_param { local_size: 3 alpha: 0.1 beta: 0.2 k: 2 } }
        layer { name: "i" type: "InnerProduct" bottom: "n" top: "i"
          inner_product_param { num_output: 5 bias_term: true bias_filler { value: 1 } } }
        layer { name: "o" type: "Dropout" bottom: "i" top: "i"
          dropout_param { dropout_ratio: 0.3 } }
        """,
    )


def test_data_layers_of_v0() -> None:
    same(
        """
        layers { layer { name: "a" type: "data" source: "db" scale: 0.5 meanfile: "m" batchsize: 3
                   cropsize: 4 mirror: true rand_skip: 7 } top: "a" }
        layers { layer { name: "b" type: "images" source: "list" batchsize: 3 new_height: 8
                   new_width: 9 shuffle_images: true } top: "b" }
        layers { layer { name: "w" type: "window_data" source: "win" det_fg_threshold: 0.6
                   det_bg_threshold: 0.4 det_fg_fraction: 0.3 det_context_pad: 2
                   det_crop_mode: "square" batchsize: 2 } top: "w" }
        layers { layer { name: "h" type: "hdf5_data" source: "h5" batchsize: 2 } top: "h" }
        layers { layer { name: "x" type: "concat" concat_dim: 0 } bottom: "a" bottom: "b" top: "x" }
        layers { layer { name: "s" type: "infogain_loss" source: "inf" } bottom: "x" bottom: "h" }
        layers { layer { name: "out" type: "hdf5_output" hdf5_output_param { file_name: "f" } }
                 bottom: "x" }
        """,
        """
        layer { name: "a" type: "Data" top: "a"
          data_param { source: "db" batch_size: 3 rand_skip: 7 }
          transform_param { scale: 0.5 mean_file: "m" crop_size: 4 mirror: true } }
        layer { name: "b" type: "ImageData" top: "b" image_data_param { source: "list"
          batch_size: 3 new_height: 8 new_width: 9 shuffle: true } }
        layer { name: "w" type: "WindowData" top: "w" window_data_param { source: "win"
          batch_size: 2 fg_threshold: 0.6 bg_threshold: 0.4 fg_fraction: 0.3 context_pad: 2
          crop_mode: "square" } }
        layer { name: "h" type: "HDF5Data" top: "h"
          hdf5_data_param { source: "h5" batch_size: 2 } }
        layer { name: "x" type: "Concat" bottom: "a" bottom: "b" top: "x"
          concat_param { concat_dim: 0 } }
        layer { name: "s" type: "InfogainLoss" bottom: "x" bottom: "h"
          infogain_loss_param { source: "inf" } }
        layer { name: "out" type: "HDF5Output" bottom: "x"
          hdf5_output_param { file_name: "f" } }
        """,
    )


def test_a_field_that_means_nothing_is_left_out_with_a_warning(caplog) -> None:
    text = 'layers { layer { name: "r" type: "relu" kernelsize: 3 } bottom: "x" top: "y" }'
    with caplog.at_level(logging.WARNING, "minissl"):
        net = parse_net(f'input: "x" input_dim: [1, 1, 1, 1] {text}')
    assert net.layer[1] == proto.LayerParameter(name="r", type="ReLU", bottom=["x"], top=["y"])
    assert "kernelsize means nothing to a layer of type 'relu'" in caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('layers { layer { type: "convolution" name: "c" } }', "type 'convolution', which"),
        ('layers { layer { type: "conv" name: "c" } bottom: "x" }', "reads 'x'"),
        (
            'input: "x" layers { layer { type: "padding" name: "p" } bottom: "x" top: "y" } '
            'layers { layer { type: "relu" } bottom: "y" top: "y" }',
            "padding layer 'p' must have one bottom",
        ),
        ('layers { type: RELU } layer { type: "ReLU" }', "has both 'layers'"),
        ('input: "x" input_dim: 1 input_dim: 2', "gives 2 input_dim for 1 inputs"),
        ('input: "x" input: "y" input_shape { dim: 1 }', "gives 1 input_shape for 2 inputs"),
    ],
)
def test_what_caffe_aborts_for_is_one_sentence(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        parse_net(text, "old.prototxt")
    assert "old.prototxt" in str(error.value) and "\n" not in str(error.value)


def test_inputs() -> None:
    same(
        'input: "a" input: "b" input_shape { dim: 2 dim: 3 } input_shape { dim: 4 } '
        'layer { name: "input" type: "Silence" bottom: "a" bottom: "b" }',
        'layer { name: "input_0" type: "Input" top: "a" top: "b" input_param { '
        "shape { dim: 2 dim: 3 } shape { dim: 4 } } } "
        'layer { name: "input" type: "Silence" bottom: "a" bottom: "b" }',
    )
    same('input: "a" layer { name: "x" type: "X" }', 'layer { name: "x" type: "X" }')


def test_batch_norm_statistics_do_not_learn() -> None:
    same(
        'layer { type: "BatchNorm" param { name: "m" lr_mult: 1 } param { } param { } }',
        'layer { type: "BatchNorm" param { name: "m" lr_mult: 0 decay_mult: 0 } '
        "param { lr_mult: 0 decay_mult: 0 } param { lr_mult: 0 decay_mult: 0 } }",
    )


def test_nets_inside_a_solver() -> None:
    old = 'layers { name: "r" type: RELU bottom: "x" top: "y" }'
    text = f"solver_type: ADAM net_param {{ {old} }} test_net_param {{ {old} }}"
    solver = parse_solver(text)
    assert solver.type == "Adam" and solver.net_param.layer[0].type == "ReLU"
    assert solver.test_net_param[0].layer[0].type == "ReLU"
    with pytest.raises(ConfigError, match="net_param: layer"):
        parse_solver('net_param { layers { layer { type: "x" } } }')


def test_one_line_in_the_log(caplog) -> None:
    net = Parse('layers { type: RELU } input: "x"', proto.NetParameter())
    with caplog.at_level(logging.INFO, "minissl"):
        upgrade_net(net, "old.prototxt")
        upgrade_net(net, "now current")
    assert caplog.messages == [
        "old.prototxt is in Caffe's older form (V1 layers, net-level inputs) and was upgraded"
    ]


def test_current_net_is_left_alone() -> None:
    net = Parse('layer { name: "x" type: "X" }', proto.NetParameter())
    assert upgraded(net) is net


def test_message_in_the_old_form_runs() -> None:
    text = 'input: "x" input_dim: [1, 2, 1, 1] layers { name: "r" type: RELU bottom: "x" top: "y" }'
    net = Net(Parse(text, proto.NetParameter()), backend="numpy")
    assert net.forward({"x": [[[[-1]], [[2]]]]})["y"].ravel().tolist() == [0, 2]


def test_conv_modes_of_skimcaffe() -> None:
    net = proto.NetParameter()
    for number in (0, 1, 2, 3):
        net.layer.add(type="Convolution").convolution_param.conv_mode = number
    net.layer.add(type="ReLU")
    from_skimcaffe(net)
    mode = proto.ConvolutionParameter.ConvMode.Name
    assert [mode(layer.convolution_param.conv_mode) for layer in net.layer[:4]] == [
        *("LOWERED_GEMM", "LOWERED_CCNMM", "DIRECT_SCONV", "DIRECT_DCONV")
    ]
    assert not net.layer[4].HasField("convolution_param")
