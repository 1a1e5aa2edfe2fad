"""What the performance model picks, and layers that ask for it."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from minissl import Net
from minissl import machine as machines
from minissl.backend import assign, to_host
from minissl.conv_modes import ConvShape
from minissl.conv_modes.auto import predict, predict_inner_product
from minissl.errors import ConfigError
from minissl.formats.prototxt import parse_net
from minissl.machine import DEFAULTS, Machine
from minissl.machine.constants import TERMS
from tests.tiny_nets import net_text

SHAPE = ConvShape(32, (14, 14), 64, (3, 3), pad=(1, 1))


def machine(**dear):
    """Return a machine on which everything costs little, but for some terms."""
    return Machine({1: {**dict.fromkeys(TERMS, 1e-3), **dear}}, calibrated=True)


def test_the_smallest_prediction_wins(monkeypatch):
    monkeypatch.setenv("MINISSL_ISA", "generic")  # lowered modes alone
    rng = np.random.default_rng(0)
    dense = rng.random(SHAPE.weight_shape, np.float32) + 1
    scattered = dense * (rng.random(dense.shape) < 0.05)
    structured = dense.copy()
    structured[:40] = structured[:, 8:] = 0
    one = machine(csr=0.01, csr_l1=0.01, csr_entry=0.3)
    assert predict(SHAPE, dense, 1, 1, one).mode == "LOWERED_GEMM"
    assert predict(SHAPE, scattered, 1, 1, one).mode == "LOWERED_CSRMM"
    assert predict(SHAPE, structured, 1, 1, one).mode == "LOWERED_CCNMM"
    # the same layer on a machine whose GEMM is slow
    assert predict(SHAPE, dense, 1, 1, machine(gemm=5)).mode == "LOWERED_CSRMM"


def test_inner_products_are_predicted_too():
    rng = np.random.default_rng(0)
    w = rng.random((300, 400), np.float32) + 1
    one = machine(vector_l2=0.1, dot=0.4)
    assert predict_inner_product(w, 1, 1, one).mode == "LOWERED_GEMM"
    w[rng.random(w.shape) < 0.95] = 0
    choice = predict_inner_product(w, 1, 1, one)
    assert choice.mode == "LOWERED_CSRMM"
    assert set(choice.seconds) == {"LOWERED_GEMM", "LOWERED_CSRMM", "LOWERED_CCNMM"}
    assert choice.seconds[choice.mode] == min(choice.seconds.values())


def test_a_choice_in_words():
    choice = predict(SHAPE, np.ones(SHAPE.weight_shape, np.float32), 1, 1, machine())
    assert choice.in_words().startswith(f"{choice.mode} (predicted ")
    assert "LOWERED_GEMM" in choice.in_words() and "calibrate" not in choice.in_words()
    stand_in = predict(SHAPE, np.ones(SHAPE.weight_shape, np.float32), 1, 1, DEFAULTS)
    assert "minissl doctor --calibrate" in stand_in.in_words()


def auto_net(phase="TEST", backend="numpy", auto=True):
    text = net_text()
    if auto:
        text = text.replace("num_output: 4", "num_output: 4 conv_mode: AUTO")
        text = text.replace("num_output: 6", "num_output: 6 gemm_mode: AUTO")
    return Net(parse_net(text), phase, backend=backend, seed=5)


def picking(monkeypatch, **cheap):
    """Make the model find some terms cheap and all others dear."""
    one = Machine({1: {**dict.fromkeys(TERMS, 1.0), **cheap}}, calibrated=True)
    monkeypatch.setattr(machines, "current", lambda: one)


SPARSE = dict.fromkeys(["csr", "csr_l1", "csr_entry", "csr_single", "csr_row", "csr_task"], 0.0)
SPARSE |= dict.fromkeys(["panel", "region", "lower_row", "write", "spread", "dot", "dot_row"], 0.0)
SPARSE |= {"product_write": 0.0}
DENSE = dict.fromkeys(["gemm", "gemm_small", "lower", "gemm_call", "gemm_pack", "gemm_weight"], 0.0)
DENSE |= dict.fromkeys(["lower_row", "write", "product_small", "product_call"], 0.0)
DENSE |= {"product_write": 0.0}


@pytest.mark.parametrize(("cheap", "mode"), [(SPARSE, "LOWERED_CSRMM"), (DENSE, "LOWERED_GEMM")])
def test_a_net_that_asks_for_auto_runs_the_pick(monkeypatch, backend, cheap, mode):
    monkeypatch.setenv("MINISSL_ISA", "generic")
    picking(monkeypatch, **cheap)
    plain, net = auto_net(backend=backend, auto=False), auto_net(backend=backend)
    weights = plain.weights()
    weights["conv1"][0][0] = 0
    for one in (plain, net):
        one.load(weights)
    assert net.layer("conv1").conv_mode == net.layer("ip1").conv_mode == mode
    x = np.random.default_rng(0).random(plain.blobs["data"].shape, np.float32)
    for one in (plain, net):
        assign(one.blobs["data"].data, x)
        for layer in one.layers:
            if not layer.is_data:
                layer.forward(*one.bottoms_and_tops(layer))
    expected, found = (to_host(one.blobs["ip2"].data) for one in (plain, net))
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)
    # whatever was packed, the weights are there for whoever asks
    for name, blobs in weights.items():
        assert np.array_equal(net.weights()[name][0], blobs[0])


def test_the_pick_follows_the_weights_and_is_logged(monkeypatch, caplog):
    monkeypatch.setenv("MINISSL_ISA", "generic")
    caplog.set_level(logging.DEBUG, "minissl")
    picking(monkeypatch, **SPARSE)
    net = auto_net()
    net.prepare()
    assert net.layer("conv1").conv_mode == "LOWERED_CSRMM"
    assert "layer conv1: conv_mode AUTO is LOWERED_CSRMM" in caplog.text
    assert "layer ip1: gemm_mode AUTO is LOWERED_CSRMM" in caplog.text
    count = len(caplog.records)
    net.prepare()
    assert len(caplog.records) == count  # nothing new
    picking(monkeypatch, **DENSE)
    net.prepare()
    layer = net.layer("conv1")
    assert layer.conv_mode == "LOWERED_GEMM" and layer.prepared is None
    assert layer.parameters[0].data is layer.parameters[0].data  # held, not rebuilt every time


def test_auto_trains_dense():
    net = auto_net("TRAIN")
    assert net.layer("conv1").conv_mode == net.layer("ip1").conv_mode == "LOWERED_GEMM"
    net.prepare()
    assert net.layer("conv1").choice is None and net.layer("conv1").prepared is None


def test_a_compacted_layer_has_no_dense_mode(monkeypatch):
    picking(monkeypatch, **DENSE)
    kept = "num_output: 4 conv_mode: AUTO kept_columns { column: 0 } kept_columns { column: 2 }"
    text = net_text().replace("num_output: 4", kept)
    text = text.replace("num_output: 6", "num_output: 6 gemm_mode: AUTO kept_columns { column: 3 }")
    net = Net(parse_net(text), "TEST", seed=1)
    net.prepare()
    assert net.layer("conv1").conv_mode not in ("LOWERED_GEMM", "DIRECT_DCONV", "AUTO")
    assert net.layer("ip1").conv_mode != "LOWERED_GEMM"


def test_an_unknown_mode_names_auto_too():
    text = net_text().replace("num_output: 6", "num_output: 6 gemm_mode: SPGEMM")
    with pytest.raises(ConfigError, match="AUTO"):
        Net(parse_net(text), "TEST")


def test_flops_and_summary_of_a_net_without_weights():
    from minissl.channels import layer_shapes
    from minissl.sparsity.flops import count
    from minissl.summary import summarize

    net = auto_net()
    modes = {one.name: one.conv_mode for one in summarize(net)}
    assert modes["conv1"] == modes["ip1"] == "AUTO" and modes["relu1"] is None
    assert all(one.executed for one in count(layer_shapes(net)))
    assert "AUTO" not in {one.conv_mode for one in summarize(net)}
