"""Whole networks on the GPU: the same numbers as by the definition, and nobody waits."""

import math

import numpy as np
import pytest

from minissl import Net, timing
from minissl.backend import to_host
from minissl.conv_modes import MODES
from minissl.errors import DataError, NonFiniteError, ShapeError
from minissl.formats.prototxt import parse_net
from minissl.solvers.display import CaffeLog, JsonLines, Together
from tests.gpu import double
from tests.tiny_nets import DIGITS, arrays, give_arrays, make_solver, net_text

SSL = net_text(
    conv1="param { lr_mult: 1 breadth_decay_mult: 1 kernel_shape_decay_mult: 1 "
    "block_group_lasso { xdimen: 3 ydimen: 1 block_decay_mult: 1 } } param { lr_mult: 2 }",
    ip1='param { lr_mult: 1 breadth_decay_mult: 1 regularization_type: "L1" } param { lr_mult: 2 }',
)
MOMENTUM = "momentum: 0.9 "
DECAYS = "weight_decay: 0.001 breadth_decay: 0.02 kernel_shape_decay: 0.02 block_group_decay: 0.01 "


def trained(backend, iterations, dtype="float64", fields="", net=SSL, start=None, **options):
    momentum = "" if "momentum:" in fields else MOMENTUM
    solver = make_solver(
        momentum + DECAYS + fields, net=net, backend=backend, dtype=dtype, **options
    )
    if start:
        solver.restore(start)
    solver.solve(iterations)
    return solver


def weights(solver):
    return [to_host(p.data) for p in solver.net.parameters]


def agree(one, other, tolerance=1e-9):
    for a, b in zip(weights(one), weights(other), strict=True):
        assert np.allclose(a, b, rtol=tolerance, atol=tolerance)


RESIDUAL = """
layer { name: "data" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 4 channels: 2 height: 6 width: 6 } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a" convolution_param {
  num_output: 4 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "msra" } } }
layer { name: "bn" type: "BatchNorm" bottom: "a" top: "a" }
layer { name: "scale" type: "Scale" bottom: "a" top: "a" scale_param { bias_term: true } }
layer { name: "b" type: "Convolution" bottom: "a" top: "b" convolution_param {
  num_output: 4 kernel_size: 1 weight_filler { type: "msra" } } }
layer { name: "most" type: "Eltwise" bottom: "a" bottom: "b" top: "most"
  eltwise_param { operation: MAX } }
layer { name: "times" type: "Eltwise" bottom: "a" bottom: "b" top: "times"
  eltwise_param { operation: PROD } }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "most" bottom: "times" top: "sum"
  eltwise_param { coeff: 1 coeff: 0.5 coeff: -1 } }
layer { name: "cut" type: "Slice" bottom: "sum" top: "one" top: "three"
  slice_param { slice_point: 1 } }
layer { name: "bias" type: "Bias" bottom: "one" top: "one" }
layer { name: "join" type: "Concat" bottom: "three" bottom: "one" top: "join" }
layer { name: "ip" type: "InnerProduct" bottom: "join" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_a_residual_network_follows_the_definition(gpu, rule):
    fields = f'type: "{rule}" base_lr: 0.01'
    one, other = (trained(name, 6, fields=fields, net=RESIDUAL) for name in ("numpy", "cupy"))
    agree(one, other)
    assert other.loss == pytest.approx(one.loss, rel=1e-9)


@pytest.mark.parametrize(
    "fields",
    [
        "",
        'type: "Nesterov"',
        'type: "Adam" delta: 1e-8 momentum2: 0.999',
        'type: "AdaGrad" momentum: 0',
        'type: "RMSProp" momentum: 0 rms_decay: 0.9 base_lr: 0.001',
        'type: "AdaDelta" base_lr: 1 delta: 1e-6',
        'group_lasso_method: "proximal"',
        "iter_size: 2",
        "clip_gradients: 0.1",
    ],
)
def test_training_follows_the_definition(gpu, fields):
    """Group lasso on rows, columns and blocks, both decays, two conv groups, ten iterations."""
    one, other = (trained(name, 10, fields=fields) for name in ("numpy", "cupy"))
    agree(one, other)
    assert other.loss == pytest.approx(one.loss, rel=1e-9)
    assert other.regularization() == pytest.approx(one.regularization(), rel=1e-9)


def test_float32_stays_close(gpu):
    one, other = (trained(name, 5, dtype="float32") for name in ("numpy", "cupy"))
    agree(one, other, 1e-4)


def test_dropout_draws_the_same_values(gpu):
    solvers = [
        trained(name, 3, net=DIGITS, fields="test_iter: 2 test_interval: 2", data={})
        for name in ("numpy", "cupy")
    ]
    agree(*solvers)
    tests = [solver.test()[0] for solver in solvers]
    assert tests[0] == pytest.approx(tests[1])


def test_frozen_weights_are_left_out(gpu):
    """Fine-tuning: masks from zeros, and products of the packed rows and columns only."""
    frozen = SSL.replace('name: "conv1"', 'name: "conv1" connectivity_mode: DISCONNECTED_GRPWISE')
    rng = np.random.default_rng(2)
    conv = rng.uniform(-1, 1, (4, 1, 3, 3))
    conv[1] = 0
    conv[:2, :, 0] = 0
    start = {"conv1": [conv, np.zeros(4)]}
    one, other = (trained(name, 5, net=frozen, weights=start) for name in ("numpy", "cupy"))
    assert to_host(other.net.layer("conv1").unfrozen().values).size < conv.size
    agree(one, other)
    assert other.frozen() == one.frozen()


def log_of(solver_fields, backend):
    lines = []
    reporter = CaffeLog(lines.append)
    reporter._speed = lambda iteration: ""
    trained(backend, 7, fields=solver_fields, reporter=reporter)
    return [line.partition("] ")[2] or line for line in lines]


def test_the_log_is_the_same(gpu):
    """Statistics are made where the weights are."""
    fields = "display: 3 test_iter: 1 test_interval: 4 "
    assert log_of(fields, "cupy") == log_of(fields, "numpy")
    fields += "debug_info: true"
    assert len(log_of(fields, "cupy")) == len(log_of(fields, "numpy"))


def test_nobody_waits_between_displays(gpu, monkeypatch, tmp_path):
    if gpu.xp.ndarray is not double.Array:
        pytest.skip("only the stand-in counts")
    solver = make_solver(
        MOMENTUM + DECAYS + "display: 10", net=SSL, backend="cupy", collapse_check=False
    )
    with open(tmp_path / "log", "w") as file:
        solver.reporter = Together(CaffeLog(lambda line: None), JsonLines(file))
        solver.step()
        monkeypatch.setattr(double, "most_read", 0)
        waits = []
        for _ in range(20):
            before = double.waits
            solver.step()
            waits.append(double.waits - before)
    assert [i + 1 for i, count in enumerate(waits) if count] == [10, 20]
    assert double.most_read <= 2  # statistics are single numbers: no weights were copied


def test_a_run_goes_on_bitwise(gpu, tmp_path):
    fields = "max_iter: 6 snapshot: 3"
    whole = trained("cupy", 6, fields=fields, run=tmp_path)
    first = next(tmp_path.glob("*_iter_3.safetensors"))
    again = trained("cupy", 6, fields=fields, start=first)
    for one, other in zip(weights(whole), weights(again), strict=True):
        assert np.array_equal(one, other)
    assert again.iteration == 6


def test_a_snapshot_of_one_backend_serves_another(gpu, tmp_path):
    fields = "max_iter: 6 snapshot: 3"
    whole = trained("numpy", 6, fields=fields, run=tmp_path)
    first = next(tmp_path.glob("*_iter_3.safetensors"))
    agree(whole, trained("cupy", 6, fields=fields, start=first))


def test_what_diverges_is_seen_at_the_next_display(gpu):
    with pytest.raises(NonFiniteError, match="lower base_lr"):
        trained("cupy", 30, dtype="float32", fields="base_lr: 1e30 display: 10")


def test_a_wrong_label_is_said_where_the_results_are_looked_at(gpu):
    solver = make_solver("display: 2", net=SSL, backend="cupy")
    images, _ = arrays(4)
    solver.net.layer("data").set_arrays(images, np.array([0, 1, 7, 2.0]))
    with pytest.raises(DataError, match="label 7 is not one of the 3 classes"):
        for _ in range(3):
            solver.step()


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "WINOGRAD"])  # CPU only
@pytest.mark.parametrize("gemm_mode", ["GEMM", "SPMDM", "CCNMM"])
def test_inference_in_every_mode(gpu, mode, gemm_mode):
    """Packed once, the dense copy released, and given back when it is asked for."""
    source = trained("numpy", 20).net.weights()
    source["conv1"][0][1] = 0
    source["ip1"][0][:, ::3] = 0
    outputs = []
    for name in ("numpy", "cupy"):
        param = parse_net(SSL)
        for layer in param.layer:
            if layer.type == "Convolution":
                layer.convolution_param.conv_mode = layer.convolution_param.ConvMode.Value(mode)
            if layer.type == "InnerProduct":
                fields = layer.inner_product_param
                fields.gemm_mode = fields.GemmMode.Value(gemm_mode)
        net = Net(param, phase="TEST", backend=name, dtype="float64")
        give_arrays(net)
        net.load(source)
        outputs.append({key: float(value) for key, value in net.forward().items()})
        assert np.array_equal(net.weights()["conv1"][0], source["conv1"][0])
        assert np.array_equal(net.weights()["ip1"][0], source["ip1"][0])
    assert outputs[1] == pytest.approx(outputs[0])


def test_a_network_too_large_for_the_device_is_refused(gpu, monkeypatch):
    if gpu.xp.ndarray is not double.Array:
        pytest.skip("only the stand-in can be made small")
    monkeypatch.setattr(double, "free_bytes", 1000)
    with pytest.raises(ShapeError, match=r"needs .* of memory and this machine has 1.0 kB"):
        make_solver("", net=SSL, backend="cupy")


def test_fused_layers_give_the_same(gpu):
    """Chains of layers run as one step; on a device each takes the whole batch."""
    source = trained("numpy", 3).net.weights()
    outputs = []
    for fuse in (False, True):
        net = Net(parse_net(SSL), phase="TEST", backend="cupy", dtype="float64", fuse=fuse)
        give_arrays(net)
        net.load(source)
        outputs.append({key: float(value) for key, value in net.forward().items()})
    assert len(net.steps) < len(net.layers)
    assert outputs[1] == pytest.approx(outputs[0])


def test_layers_are_timed_by_the_devices_clock(gpu):
    net = Net(parse_net(SSL), phase="TEST", backend="cupy")
    give_arrays(net)
    modes = {"conv1": ("LOWERED_GEMM", "LOWERED_CCNMM"), "ip1": ("LOWERED_CSRMM",)}
    times = timing.time_net(net, modes, iterations=2, backward=True)
    stages = [one for one in times if one.name == "conv1"]
    assert all(one.lowering_ms > 0 and one.product_ms > 0 for one in stages)
    assert all(math.isfinite(one.total_ms) for one in times)
