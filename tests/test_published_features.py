"""Nets with the fields that the published prototxt files use, written anew and small.

Each is parsed, run forward and backward, updated twice and tested, and its weights are saved.
"""

from __future__ import annotations

import numpy as np
import pytest

from minissl import Net, Solver
from minissl.formats import proto
from minissl.formats.prototxt import parse_net, parse_solver
from minissl.lint import lint_net, lint_solver
from tests.conftest import needs_compiler

pytestmark = needs_compiler

DATA = """
layer {{ name: "data" type: "DummyData" top: "data" top: "label" include {{ phase: TRAIN }}
  dummy_data_param {{ shape {{ dim: 4 dim: {c} dim: {s} dim: {s} }} shape {{ dim: 4 }}
    data_filler {{ type: "gaussian" std: 1 }} data_filler {{ type: "constant" value: 2 }} }} }}
layer {{ name: "data" type: "DummyData" top: "data" top: "label" include {{ phase: TEST }}
  dummy_data_param {{ num: 2 channels: {c} height: {s} width: {s}
    num: 2 channels: 1 height: 1 width: 1
    data_filler {{ type: "uniform" min: -1 max: 1 }} data_filler {{ value: 1 }} }} }}
"""

END = """
layer {{ name: "accuracy" type: "Accuracy" bottom: "{scores}" bottom: "label" top: "accuracy"
  include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "{scores}" bottom: "label" top: "loss" }}
"""


def conv(name, bottom, options, spec="lr_mult: 1", more=""):
    """A convolution with the two ``param`` blocks that most of them have."""
    return f"""layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" {more}
      param {{ {spec} }} param {{ lr_mult: 2 decay_mult: 0 }}
      convolution_param {{ {options} weight_filler {{ type: "xavier" }}
        bias_filler {{ type: "constant" value: 0.1 }} }} }}\n"""


def product(name, bottom, outputs, spec="lr_mult: 1 decay_mult: 1", more=""):
    """An inner product."""
    return f"""layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {more}
      param {{ {spec} }} param {{ lr_mult: 2 decay_mult: 0 }} inner_product_param {{
        num_output: {outputs} weight_filler {{ type: "gaussian" std: 0.1 }}
        bias_filler {{ type: "constant" }} }} }}\n"""


def layer(kind, bottom, top, options=""):
    """A layer without weights, named after its type and top."""
    bottoms = " ".join(f'bottom: "{name}"' for name in bottom.split())
    name = f"{kind.lower()}_{top}"
    return f'layer {{ name: "{name}" type: "{kind}" {bottoms} top: "{top}" {options} }}\n'


MAX_POOL = "pooling_param { pool: MAX kernel_size: 3 stride: 2 }"
ACROSS = "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"
WITHIN = (
    "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 5e-05 beta: 0.75 engine: CAFFE }"
)
ROWS_COLUMNS = "lr_mult: 1 decay_mult: 1 kernel_shape_decay_mult: {} breadth_decay_mult: {}"


def block(x, y=1, mult=1.0):
    """A tiling."""
    return f"block_group_lasso {{ xdimen: {x} ydimen: {y} block_decay_mult: {mult} }}"


NETS = {
    "lenet, blocks of rows": DATA.format(c=1, s=12)
    + conv("conv1", "data", "num_output: 4 kernel_size: 5", f"lr_mult: 1 {block(25)}")
    + layer("Pooling", "conv1", "pool1", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    + product("ip1", "pool1", 6, f"lr_mult: 1 decay_mult: 1 {block(8, 3)} {block(16)}")
    + layer("ReLU", "ip1", "ip1")
    + product("ip2", "ip1", 3, f"lr_mult: 1 decay_mult: 1 {block(6)}")
    + END.format(scores="ip2"),
    "mlp, rows and columns": DATA.format(c=1, s=4)
    + product("ip1", "data", 8, ROWS_COLUMNS.format(1, 1))
    + layer("ReLU", "ip1", "ip1")
    + product("ip3", "ip1", 3, ROWS_COLUMNS.format(1, 0))
    + END.format(scores="ip3"),
    "cifar10_full": DATA.format(c=3, s=12)
    + conv("conv1", "data", "num_output: 4 pad: 2 kernel_size: 5", ROWS_COLUMNS.format(0.2, 1))
    + layer("Pooling", "conv1", "pool1", MAX_POOL)
    + layer("ReLU", "pool1", "pool1")
    + layer("LRN", "pool1", "norm1", WITHIN)
    + conv("conv2", "norm1", "num_output: 4 pad: 2 kernel_size: 5", ROWS_COLUMNS.format(1, 0.1))
    + layer("ReLU", "conv2", "conv2")
    + layer("Pooling", "conv2", "pool2", MAX_POOL.replace("MAX", "AVE"))
    + layer("Dropout", "pool2", "pool2", "dropout_param { dropout_ratio: 0.5 }")
    + product("ip1", "pool2", 10, "lr_mult: 1 decay_mult: 250 kernel_shape_decay_mult: 0")
    + END.format(scores="ip1"),
    "caffenet, conv groups and multipliers": DATA.format(c=3, s=31)
    + conv("conv1", "data", "num_output: 4 kernel_size: 11 stride: 4", ROWS_COLUMNS.format(0, 1))
    + layer("ReLU", "conv1", "conv1")
    + layer("Pooling", "conv1", "pool1", MAX_POOL.replace("3", "2"))
    + layer("LRN", "pool1", "norm1", ACROSS)
    + conv(
        "conv2",
        "norm1",
        "num_output: 4 pad: 2 kernel_size: 5 group: 2 engine: CAFFE",
        f"{ROWS_COLUMNS.format(1.7321, 1)} {block(25, 1, 1.667)}",
    )
    + conv(
        "conv3",
        "conv2",
        "num_output: 4 pad: 1 kernel_size: 3",
        'lr_mult: 1 decay_mult: 1 regularization_type: "L1"',
    )
    + product("fc6", "conv3", 7, 'lr_mult: 1 decay_mult: 0 regularization_type: "L2"')
    + END.format(scores="fc6").replace("accuracy_param", ""),
    "alexnet, low rank": DATA.format(c=2, s=9)
    + conv(
        "conv3_lowrank", "data", "num_output: 3 kernel_size: 3 group: 1", ROWS_COLUMNS.format(1, 0)
    )
    + conv("conv3_linear", "conv3_lowrank", "num_output: 6 kernel_size: 1", "breadth_decay_mult: 1")
    + layer("ReLU", "conv3_linear", "conv3_linear")
    + product("fc8", "conv3_linear", 4)
    + layer("Accuracy", "fc8 label", "top3", "include { phase: TEST } accuracy_param { top_k: 3 }")
    + END.format(scores="fc8"),
    "googlenet, inception with blocks": DATA.format(c=3, s=8)
    + conv("a/1x1", "data", "num_output: 2 kernel_size: 1", f"lr_mult: 1 {block(1)}")
    + layer("ReLU", "a/1x1", "a/1x1")
    + conv("a/3x3_reduce", "data", "num_output: 2 kernel_size: 1")
    + conv(
        "a/3x3",
        "a/3x3_reduce",
        "num_output: 3 pad: 1 kernel_size: 3",
        f"lr_mult: 1 breadth_decay_mult: 1 kernel_shape_decay_mult: 1 {block(9)}",
    )
    + layer("Pooling", "data", "a/pool", "pooling_param { kernel_size: 3 stride: 1 pad: 1 }")
    + conv("a/pool_proj", "a/pool", "num_output: 1 kernel_size: 1")
    + layer("Concat", "a/1x1 a/3x3 a/pool_proj", "a/output", "concat_param { axis: 1 }")
    + layer("Pooling", "a/output", "pool5", "pooling_param { pool: AVE global_pooling: true }")
    + product("loss1/classifier", "a/3x3", 4)
    + layer("SoftmaxWithLoss", "loss1/classifier label", "loss1/loss1", "loss_weight: 0.3")
    + product("loss3/classifier", "pool5", 4)
    + END.format(scores="loss3/classifier"),
    "resnet, whole layers as blocks": DATA.format(c=3, s=6)
    + conv("conv1", "data", "num_output: 4 pad: 1 kernel_size: 3")
    + """layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
           param { lr_mult: 1 block_group_lasso { xdimen: 36 ydimen: 4 block_decay_mult: 1 } }
           convolution_param { num_output: 4 pad: 1 kernel_size: 3 bias_term: false
             weight_filler { type: "msra" } } }
         layer { name: "bn2" type: "BatchNorm" bottom: "conv2" top: "bn2"
           batch_norm_param { use_global_stats: false } include { phase: TRAIN }
           param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 } }
         layer { name: "bn2" type: "BatchNorm" bottom: "conv2" top: "bn2"
           batch_norm_param { use_global_stats: true } include { phase: TEST }
           param { lr_mult: 0 } param { lr_mult: 0 } param { lr_mult: 0 } }
         layer { name: "scale2" type: "Scale" bottom: "bn2" top: "bn2"
           scale_param { bias_term: true filler { type: "msra" } } }
         layer { name: "sum" type: "Eltwise" bottom: "conv1" bottom: "bn2" top: "sum"
           eltwise_param { operation: SUM } }\n"""
    + layer("ReLU", "sum", "sum")
    + layer("Pooling", "sum", "pool", "pooling_param { pool: AVE global_pooling: true }")
    + product("fc", "pool", 4)
    + END.format(scores="fc"),
    "autoencoder, two losses": DATA.format(c=1, s=3)
    + layer("Silence", "label", "").replace('top: ""', "")
    + layer("Flatten", "data", "flatdata")
    + product("encode", "flatdata", 4)
    + layer("Sigmoid", "encode", "encoded")
    + product("decode", "encoded", 9)
    + layer("SigmoidCrossEntropyLoss", "decode flatdata", "cross_entropy", "loss_weight: 1")
    + layer("Sigmoid", "decode", "decoded")
    + layer("EuclideanLoss", "decoded flatdata", "l2_error", "loss_weight: 0"),
    "siamese, shared weights": DATA.format(c=2, s=4)
    + """layer { name: "slice" type: "Slice" bottom: "data" top: "one" top: "other"
           slice_param { slice_dim: 1 slice_point: 1 } }
         layer { name: "f" type: "InnerProduct" bottom: "one" top: "f" param { name: "w" }
           inner_product_param { num_output: 2 bias_term: false
             weight_filler { type: "xavier" } } }
         layer { name: "g" type: "InnerProduct" bottom: "other" top: "g" param { name: "w" }
           inner_product_param { num_output: 2 bias_term: false
             weight_filler { type: "xavier" } } }
         layer { name: "l" type: "ContrastiveLoss" bottom: "f" bottom: "g" bottom: "label" top: "l"
           contrastive_loss_param { margin: 1 } }""",
}

SOLVER = """base_lr: 0.01 momentum: 0.9 weight_decay: 0.0005 kernel_shape_decay: 0.001
    breadth_decay: 0.001 block_group_decay: 0.001 display: 1 average_loss: 2 max_iter: 4
    test_iter: 2 test_interval: 2 snapshot: 10000 snapshot_prefix: "here/net" random_seed: 1
    solver_mode: GPU device_id: 0 debug_info: false """

#: how the published solvers differ
SOLVERS = {
    "multistep": 'lr_policy: "multistep" gamma: 0.9 stepvalue: 1 stepvalue: 3',
    "step, L1": 'lr_policy: "step" gamma: 0.1 stepsize: 2 regularization_type: "L1"',
    "poly, clipped": 'lr_policy: "poly" power: 0.5 clip_gradients: 10 iter_size: 2',
    "inv": 'lr_policy: "inv" gamma: 0.0001 power: 0.75 test_initialization: false',
    "SkimCaffe": 'lr_policy: "fixed" prune_threshold: 0.0001 max_threshold_factor: 10 '
    "measure_threshold: 0.0001 winograd_adjust_threshold: 1",
    "old type": 'lr_policy: "fixed" solver_type: NESTEROV',
    "Adam": 'lr_policy: "fixed" type: "Adam" momentum2: 0.999 delta: 1e-8',
}


def solver_of(net, fields=SOLVERS["multistep"]):
    param = parse_solver(SOLVER + fields)
    param.net_param.CopyFrom(parse_net(net))
    return param


@pytest.mark.parametrize("name", NETS)
def test_nets_learn_and_are_tested(name, tmp_path):
    solver = Solver(solver_of(NETS[name]), collapse_check=False)
    before = [parameter.data.copy() for parameter in solver.net.parameters]
    solver.solve(2)
    assert np.isfinite(solver.loss) and solver.loss > 0
    for old, parameter in zip(before, solver.net.parameters, strict=True):
        assert parameter.spec.lr_mult == 0 or not np.array_equal(old, parameter.data)
    assert np.isfinite(list(solver.test()[0].values())).all()
    solver.net.save(tmp_path / "net.caffemodel")
    again = Net(parse_net(NETS[name]), "TEST")
    again.load(tmp_path / "net.caffemodel")
    for layer_name, blobs in solver.net.weights().items():
        if layer_name in again.weights():
            for one, other in zip(blobs, again.weights()[layer_name], strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("fields", SOLVERS.values(), ids=list(SOLVERS))
def test_solvers_of_the_published_kinds(fields):
    solver = Solver(solver_of(NETS["cifar10_full"], fields), collapse_check=False)
    solver.solve()
    assert solver.iteration == 4 and np.isfinite(solver.loss)


@pytest.mark.parametrize("mode", ["DISCONNECTED_ELTWISE", "DISCONNECTED_GRPWISE"])
@pytest.mark.parametrize("name", ["mlp, rows and columns", "caffenet, conv groups and multipliers"])
def test_fine_tuning(name, mode):
    """The same net with connectivity modes, from weights that have zeros."""
    text = NETS[name]
    start = Net(parse_net(text), "TRAIN", seed=2).weights()
    for blobs in start.values():
        blobs[0][0] = 0
        blobs[0].reshape(len(blobs[0]), -1)[:, 1] = 0
    text = text.replace('"Convolution"', f'"Convolution" connectivity_mode: {mode}')
    text = text.replace('"InnerProduct"', f'"InnerProduct" connectivity_mode: {mode}')
    solver = Solver(solver_of(text), weights=start, collapse_check=False)
    solver.solve(2)
    for layer_name, blobs in start.items():
        found = solver.net.weights()[layer_name][0].reshape(len(blobs[0]), -1)
        assert not found[0].any() and not found[:, 1].any() and found.any()


def test_element_wise_decays_from_a_file(tmp_path):
    blob = proto.BlobProto(shape=proto.BlobShape(dim=[8, 16]), data=[0.0] * 64 + [2.0] * 64)
    (tmp_path / "ip1.binaryproto").write_bytes(blob.SerializeToString())
    spec = f'lr_mult: 1 decay_mult: 1 decay_proto: "{tmp_path}/ip1.binaryproto"'
    net = DATA.format(c=1, s=4) + product("ip1", "data", 8, spec) + END.format(scores="ip1")
    solver = Solver(solver_of(net))
    w = solver.net.layer("ip1").parameters[0].data
    decay = float(np.float32(0.0005))
    assert solver.regularization() == pytest.approx(decay * float((w[4:] ** 2).sum()), rel=1e-4)


def test_stages_choose_layers():
    """As the autoencoder's: two test nets of one file, told apart by a stage."""
    text = (
        DATA.format(c=1, s=4).replace(
            "include { phase: TEST }", 'include { phase: TEST stage: "on-test" }'
        )
        + """layer { name: "data" type: "DummyData" top: "data" top: "label"
             include { phase: TEST stage: "on-train" not_stage: "never" }
             dummy_data_param { shape { dim: 3 dim: 1 dim: 4 dim: 4 } shape { dim: 3 } } }"""
        + product("ip1", "data", 3, more='exclude { stage: "without" }')
        + END.format(scores="ip1")
    )
    fields = (
        'test_iter: 3 test_state { stage: "on-train" } test_state { stage: "on-test" } '
        'train_state { stage: "any" level: 2 }'
    )
    solver = Solver(solver_of(text, SOLVERS["inv"] + " " + fields))
    solver.solve(2)
    assert [net.blobs["data"].shape[0] for net in solver.test_nets] == [3, 2]
    assert len(solver.test()) == 2


@pytest.mark.parametrize("name", NETS)
def test_lint_finds_no_error(name):
    net = parse_net(NETS[name])
    findings = lint_net(net) + lint_solver(parse_solver(SOLVER + SOLVERS["inv"]), net)
    assert [one for one in findings if one.severity == "error"] == []


def test_images_from_files_in_training(tmp_path):
    """ImageData in phase TRAIN, as ImageNet's nets may have it; the run goes on from a snapshot."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = rng.integers(0, 256, (9, 12, 3), np.uint8)
        image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "train.txt").write_text("".join(f"{i}.png {i % 3}\n" for i in range(6)))
    data = f"""layer {{ name: "data" type: "ImageData" top: "data" top: "label"
        include {{ phase: TRAIN }}
        transform_param {{ mirror: true crop_size: 7 mean_value: 104 mean_value: 117
          mean_value: 123 scale: 0.01 }}
        image_data_param {{ source: "{tmp_path}/train.txt" root_folder: "{tmp_path}/" batch_size: 4
          shuffle: true new_height: 8 new_width: 8 }} }}
        layer {{ name: "data" type: "DummyData" top: "data" top: "label" include {{ phase: TEST }}
        dummy_data_param {{ shape {{ dim: 1 dim: 3 dim: 7 dim: 7 }} shape {{ dim: 1 }} }} }}\n"""
    net = data + conv("conv1", "data", "num_output: 2 kernel_size: 3")
    net += product("ip1", "conv1", 3) + END.format(scores="ip1")
    whole = Solver(solver_of(net), run=tmp_path)
    whole.solve(2)
    saved = whole.snapshot()
    whole.solve(2)
    again = Solver(solver_of(net), resume=saved)
    again.solve(2)
    assert again.iteration == whole.iteration == 4
    for one, other in zip(whole.net.parameters, again.net.parameters, strict=True):
        np.testing.assert_array_equal(one.data, other.data)


def test_rows_of_hdf5_files_in_training(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["data"] = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
        file["label"] = np.arange(10) % 2
    (tmp_path / "list.txt").write_text(f"{tmp_path}/rows.h5\n")
    net = f"""layer {{ name: "data" type: "HDF5Data" top: "data" top: "label"
        hdf5_data_param {{ source: "{tmp_path}/list.txt" batch_size: 10 }} }}\n"""
    net += product("ip1", "data", 2, "lr_mult: 1") + END.format(scores="ip1")
    fields = 'lr_policy: "fixed" max_iter: 60 base_lr: 0.5 momentum: 0.9'
    param = parse_solver(fields)
    param.net_param.CopyFrom(parse_net(net))
    solver = Solver(param)
    first = float(solver.step())
    solver.solve()
    assert solver.loss < 0.8 * first
