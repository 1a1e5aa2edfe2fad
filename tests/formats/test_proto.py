from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from minissl.formats import proto

# A sample of numbers from every corner of the public formats; a wrong one makes files unreadable.
NUMBERS = {
    "BlobProto": {"shape": 7, "data": 5, "diff": 6, "double_data": 8, "double_diff": 9, "num": 1},
    "NetParameter": {"name": 1, "layers": 2, "input": 3, "input_dim": 4, "layer": 100},
    "LayerParameter": {
        "blobs": 7,
        "connectivity_mode": 12,
        "convolution_param": 106,
        "inner_product_param": 117,
        "pooling_param": 121,
        "scale_param": 142,
        "recurrent_param": 146,
    },
    "V1LayerParameter": {"name": 4, "type": 5, "blobs": 6, "param": 1001, "blob_share_mode": 1002},
    "ParamSpec": {
        "lr_mult": 3,
        "breadth_decay_mult": 5,
        "kernel_shape_decay_mult": 6,
        "block_group_lasso": 7,
        "regularization_type": 8,
        "decay_proto": 9,
    },
    "SolverParameter": {
        "net": 24,
        "type": 40,
        "breadth_decay": 41,
        "kernel_shape_decay": 42,
        "block_group_decay": 43,
        "prune_threshold": 44,
        "winograd_adjust_threshold": 48,
        "group_lasso_method": 2001,
    },
    "ConvolutionParameter": {"stride": 6, "dilation": 18, "conv_mode": 21, "kept_columns": 2001},
    "InnerProductParameter": {"transpose": 6, "gemm_mode": 7, "kept_columns": 2001},
    "SolverState": {"iter": 1, "learned_net": 2, "history": 3, "current_step": 4},
    "Datum": {"data": 4, "label": 5, "float_data": 6, "encoded": 7},
}


@pytest.mark.parametrize("message", NUMBERS)
def test_field_numbers(message: str) -> None:
    fields = proto.descriptor(message).fields_by_name
    assert {name: fields[name].number for name in NUMBERS[message]} == NUMBERS[message]


def test_defaults_that_decide_results() -> None:
    spec = proto.ParamSpec()
    assert (spec.lr_mult, spec.decay_mult, spec.breadth_decay_mult) == (1, 1, 0)
    assert proto.BlockGroupLassoSpec().block_decay_mult == 1
    solver = proto.SolverParameter()
    assert (solver.regularization_type, solver.type, solver.solver_mode) == ("L2", "SGD", 1)
    assert proto.LayerParameter().loss_param.normalization == 1  # VALID


def test_enums() -> None:
    conv = proto.ConvolutionParameter
    assert [conv.LOWERED_GEMM, conv.LOWERED_CSRMM, conv.LOWERED_CCNMM] == [0, 1, 2]
    assert [conv.DIRECT_SCONV, conv.DIRECT_DCONV] == [3, 4]
    assert [conv.WINOGRAD, conv.AUTO] == [99, 100]
    assert (proto.TRAIN, proto.TEST) == (0, 1)
    assert proto.V1LayerParameter.SIGMOID_CROSS_ENTROPY_LOSS == 27


def test_every_parameter_message_of_a_layer_is_reachable() -> None:
    reachable = {
        field.message_type.name
        for name in ("LayerParameter", "V1LayerParameter")
        for field in proto.descriptor(name).fields
        if field.message_type is not None
    }
    parameters = {name for name in proto.message_names() if name.endswith("Parameter")}
    outside = {"NetParameter", "SolverParameter", "LayerParameter", "V1LayerParameter"}
    assert parameters - reachable - outside == {"FillerParameter"}


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuchParameter"):
        _ = proto.NoSuchParameter


def test_does_not_clash_with_another_schema_of_the_same_package() -> None:
    program = """
from google.protobuf import descriptor_pb2, descriptor_pool
other = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
other.message_type.add(name="NetParameter")
descriptor_pool.Default().AddSerializedFile(other.SerializeToString())
from minissl.formats import proto
assert proto.NetParameter(name="ours").name == "ours"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_importing_the_schema_does_not_import_protobuf() -> None:
    program = "import sys, minissl.formats.prototxt; sys.exit('google.protobuf' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_compiled_schema_is_up_to_date(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools.protoc", reason="grpcio-tools is not installed")
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    fresh = tmp_path / "fresh.desc"
    command = ["-m", "grpc_tools.protoc", "--proto_path=.", f"--descriptor_set_out={fresh}"]
    subprocess.run([sys.executable, *command, "caffe.proto"], check=True, cwd=proto.SCHEMA.parent)
    ours = FileDescriptorSet.FromString(proto.SCHEMA.read_bytes())
    assert ours == FileDescriptorSet.FromString(fresh.read_bytes())
