"""What is timed and how it is counted; never how long it takes."""

from __future__ import annotations

import numpy as np
import pytest

from minissl import Net, timing
from minissl.backend import assign, to_host
from minissl.conv_modes.auto import Choice
from minissl.errors import ConfigError, WeightsError
from minissl.formats.matrix_market import write_matrix
from minissl.formats.prototxt import parse_net
from minissl.timing import LayerTime, Pick
from tests.tiny_nets import net_text

LOWERED = ("LOWERED_GEMM", "LOWERED_CSRMM", "LOWERED_CCNMM")
MODES = (*LOWERED, "DIRECT_SCONV", "DIRECT_DCONV")


def tiny(backend="numpy", phase="TEST", fuse=True, **parts):
    net = Net(parse_net(net_text(**parts)), phase, backend=backend, seed=5, fuse=fuse)
    w = net.layer("conv1").parameters[0].data
    assign(w, np.arange(1, 37).reshape(w.shape))
    w[0] = 0  # a dead filter: 9 of 36 weights
    w[1, :, 0, 0] = 0  # and a single weight
    return net


def one(name="a", mode=None, total=1.0, timed=True, flop=0, lowering=None, product=None):
    return LayerTime(name, "X", mode, lowering, product, total, None, flop, flop // 2, timed)


def test_every_layer_and_mode_has_an_entry(backend):
    times = timing.time_net(tiny(backend), {"conv1": MODES}, iterations=2)
    assert [(t.name, t.conv_mode) for t in times if t.name == "conv1"] == [
        ("conv1", mode) for mode in MODES
    ]
    assert {"data", "relu1", "pool1", "ip1", "ip2", "accuracy", "loss"} <= {t.name for t in times}
    assert all(t.total_ms > 0 for t in times if t.timed and not t.fused_into)
    assert all(t.fused == ("relu1", "pool1") for t in times if t.name == "conv1")
    of_conv1 = [t.name for t in times if t.fused_into == "conv1"]
    assert of_conv1 == ["relu1", "pool1"]  # once, not for each mode
    assert all(t.total_ms == 0 for t in times if t.fused_into)
    assert [t.name for t in times if not t.timed] == ["data"]


def test_layers_are_timed_by_themselves_where_nothing_is_fused(backend):
    times = timing.time_net(tiny(backend, fuse=False), iterations=1)
    assert all(t.total_ms > 0 for t in times if t.timed)
    assert not any(t.fused or t.fused_into for t in times)
    assert [t.name for t in times][:4] == ["data", "label_data_1_split", "conv1", "relu1"]


def test_operations_of_a_batch(backend):
    times = timing.time_net(tiny(backend), {"conv1": MODES}, iterations=1)
    gemm, csrmm, ccnmm, sconv, dconv = (t for t in times if t.name == "conv1")
    positions = 4 * 16  # images * pixels
    assert {t.dense_flop for t in (gemm, csrmm, ccnmm, sconv, dconv)} == {2 * 36 * positions}
    assert gemm.executed_flop == gemm.dense_flop
    assert csrmm.executed_flop == sconv.executed_flop == 2 * 26 * positions
    assert dconv.executed_flop == dconv.dense_flop
    # group 0 keeps one row and the 8 columns that it uses, group 1 everything
    assert ccnmm.executed_flop == 2 * (8 + 18) * positions
    (ip1,) = (t for t in times if t.name == "ip1")
    assert ip1.dense_flop == ip1.executed_flop == 4 * 2 * 96


def test_every_mode_of_an_inner_product(backend):
    kept = "num_output: 6 kept_columns { column: 0 column: 5 column: 9 }"
    param = parse_net(net_text().replace("num_output: 6", kept))
    assert timing.own_modes(param)["ip1"] == "LOWERED_CCNMM"
    net = Net(timing.without_modes(param), "TEST", backend=backend, seed=1)
    w = net.layer("ip1").parameters[0].data
    w[2] = w[1, 0] = 0
    net.load({"ip1": [w, np.ones(6)]})
    times = timing.time_net(net, {"ip1": LOWERED, "ip2": ["LOWERED_CSRMM"]}, iterations=1)
    gemm, csrmm, ccnmm = (t for t in times if t.name == "ip1")
    assert [t.conv_mode for t in (gemm, csrmm, ccnmm)] == list(LOWERED)
    assert {t.dense_flop for t in (gemm, csrmm, ccnmm)} == {2 * 96 * 4}
    assert [t.executed_flop for t in (gemm, csrmm, ccnmm)] == [2 * 96 * 4, 2 * 14 * 4, 2 * 15 * 4]
    assert [t.conv_mode for t in times if t.name == "ip2"] == ["LOWERED_CSRMM"]


def test_stages_of_the_compiled_kernels():
    times = timing.time_net(tiny("numba"), {"conv1": MODES}, iterations=2)
    for t in times:
        is_lowered = t.type == "Convolution" and t.conv_mode in LOWERED
        assert (t.lowering_ms is not None) == (t.product_ms is not None) == is_lowered
        assert t.rest_ms is None or t.rest_ms >= 0
    assert all(t.lowering_ms is None for t in timing.time_net(tiny("numpy"), iterations=1))


def test_timing_leaves_a_right_result_behind(backend):
    net = tiny(backend)
    timing.time_net(net, {"conv1": MODES[::-1]}, iterations=1)
    timed = to_host(net.blobs["ip2"].data).copy()
    assert np.abs(timed).max() > 1
    for layer in net.layers:
        if not layer.is_data:
            layer.forward(*net.bottoms_and_tops(layer))
    assert np.allclose(timed, to_host(net.blobs["ip2"].data), rtol=1e-5)


def test_a_net_that_is_trained_is_timed_as_it_trains(monkeypatch):
    net = tiny("numpy", "TRAIN")
    assert timing.trained_modes(net) == {"conv1": "LOWERED_GEMM"}
    assert timing.trained_modes(tiny("numpy", "TEST")) == {}
    called = []
    monkeypatch.setattr(net.layer("conv1").trained, "forward", lambda *_: called.append(1))
    timing.time_net(net, iterations=2, backward=True)
    assert len(called) == 3  # the first round does not count


def test_lowering_in_training_is_written_out():
    param = parse_net(net_text())
    timing.lower(param)
    convolutions = [x.convolution_param for x in param.layer if x.type == "Convolution"]
    assert all(fields.HasField("conv_mode") for fields in convolutions)
    assert timing.without_modes(param) == param


def test_backward_is_timed_where_it_runs():
    net = tiny("numpy", "TRAIN")
    times = {t.name: t for t in timing.time_net(net, iterations=2, backward=True)}
    assert all(times[name].backward_ms > 0 for name in ("conv1", "relu1", "ip1", "loss"))
    assert times["data"].backward_ms is None
    assert times["(update)"].backward_ms > 0 and times["(update)"].total_ms == 0
    # the gradients are those of the random images
    found = net.layer("ip2").parameters[0].diff.copy()
    net.clear_gradients()
    timing.feed_random(net)
    for layer in net.layers:
        if not layer.is_data:
            layer.forward(*net.bottoms_and_tops(layer))
    net.backward()
    assert np.abs(found).max() > 0
    assert np.allclose(found, net.layer("ip2").parameters[0].diff)


def test_unknown_modes_are_refused():
    with pytest.raises(ConfigError, match="conv_mode WINOGRAD cannot be timed"):
        timing.time_net(tiny(), {"conv1": ["WINOGRAD"]}, iterations=1)


def test_ticks_count_the_rounds():
    ticks = []
    timing.time_net(tiny(), iterations=3, tick=lambda: ticks.append(1))
    assert len(ticks) == 4


def test_modes_of_a_net_are_read_and_removed():
    text = net_text().replace("num_output: 4", "num_output: 4 conv_mode: LOWERED_CSRMM")
    text = text.replace("num_output: 6", "num_output: 6 gemm_mode: CCNMM")
    param = parse_net(text)
    own = {"conv1": "LOWERED_CSRMM", "ip1": "LOWERED_CCNMM", "ip2": "LOWERED_GEMM"}
    assert timing.own_modes(param) == own
    dense = timing.own_modes(timing.without_modes(param))
    assert dense == dict.fromkeys(own, "LOWERED_GEMM")
    assert timing.own_modes(param) == own


def test_modes_of_fused_types():
    text = net_text().replace("num_output: 4", "num_output: 4 conv_mode: DIRECT_SCONV")
    param = parse_net(text.replace('"Convolution"', '"ConvolutionReLU"'))
    assert timing.own_modes(param)["conv1"] == "DIRECT_SCONV"
    assert timing.own_modes(timing.without_modes(param))["conv1"] == "LOWERED_GEMM"
    assert timing.own_modes(timing.automatic(param))["conv1"] == "AUTO"


@pytest.mark.parametrize("mode", ["WINOGRAD", "DIRECT_DCONV"])
def test_a_compacted_layer_that_asks_for_a_dense_mode(mode):
    kept = f"kept_columns {{ column: 0 column: 4 }} conv_mode: {mode}"
    param = parse_net(net_text().replace("num_output: 4", f"num_output: 4 {kept}"))
    assert timing.own_modes(param)["conv1"] == "LOWERED_CCNMM"


def test_auto_is_the_dense_product_where_an_inner_product_learns():
    text = net_text().replace("num_output: 6", "num_output: 6 gemm_mode: AUTO")
    param = parse_net(text)
    own = timing.own_modes(param)
    assert own["ip1"] == "AUTO"
    dense = timing.without_modes(param)
    assert timing.modes_in(Net(dense, "TRAIN", backend="numpy"), own)["ip1"] == "LOWERED_GEMM"
    assert timing.modes_in(Net(dense, "TEST", backend="numpy"), own)["ip1"] == "AUTO"


def test_a_compacted_layer_is_timed_in_its_full_width(backend):
    kept = "kept_columns { column: 0 column: 4 } kept_columns { column: 2 column: 8 }"
    param = parse_net(net_text().replace("num_output: 4", f"num_output: 4 {kept}"))
    assert timing.own_modes(param)["conv1"] == "LOWERED_CCNMM"
    net = Net(timing.without_modes(param), "TEST", backend=backend, seed=1)
    gemm, ccnmm = (
        t
        for t in timing.time_net(net, {"conv1": ["LOWERED_GEMM", "LOWERED_CCNMM"]}, iterations=1)
        if t.name == "conv1"
    )
    assert gemm.dense_flop == ccnmm.dense_flop == gemm.executed_flop == 2 * 36 * 64
    assert ccnmm.executed_flop == 2 * 8 * 64


def test_matrices_replace_weights_and_keep_biases(tmp_path):
    net = tiny()
    bias = net.layer("conv1").parameters[1].data.copy()
    w = np.zeros((4, 9), np.float32)
    w[2, 3] = 1.5
    write_matrix(tmp_path / "coo_conv1.weight", w)
    assert timing.load_matrices(net, tmp_path) == ["conv1"]
    assert np.array_equal(net.layer("conv1").parameters[0].matrix, w)
    assert np.array_equal(net.layer("conv1").parameters[1].data, bias) and bias.any()


def test_matrices_that_do_not_fit(tmp_path):
    with pytest.raises(WeightsError, match="no matrix for a layer"):
        timing.load_matrices(tiny(), tmp_path)
    write_matrix(tmp_path / "ip1.mtx", np.ones((6, 15), np.float32))
    with pytest.raises(WeightsError, match=r"6 x 15 matrix where layer 'ip1' has 6 x 16"):
        timing.load_matrices(tiny(), tmp_path)


def test_rates():
    t = one(total=2.0, flop=4_000_000)
    assert t.effective_gflops == 2.0 and t.real_gflops == 1.0
    assert one().effective_gflops is None
    assert one(total=5.0, lowering=2.0, product=1.5).rest_ms == 1.5
    assert one(total=3.0, lowering=2.0, product=1.5).rest_ms == 0


MEASURED = [
    one("data", total=100, timed=False),
    one("c", "LOWERED_GEMM", 5),
    one("c", "LOWERED_CSRMM", 3),
    one("c", "LOWERED_CCNMM", 4),
    one("ip", total=1),
]


@pytest.mark.parametrize(
    ("asked", "own", "total", "entries"),
    [
        ("all", "LOWERED_GEMM", 6, 5),
        ("all", "LOWERED_CCNMM", 5, 5),
        ("all", "UNKNOWN", 4, 5),
    ],
)
def test_all_modes(asked, own, total, entries):
    times = timing.choose(MEASURED, asked, {"c": own})
    assert times.total_ms == total and len(times.layers) == entries
    assert times.totals == {
        "LOWERED_GEMM": 6, "LOWERED_CSRMM": 4, "LOWERED_CCNMM": 5,
        "DIRECT_SCONV": 6, "DIRECT_DCONV": 6, "WINOGRAD": 6, "fastest": 4,
    }  # fmt: skip


def choice(mode, **seconds):
    return Choice(mode, seconds, calibrated=True)


def test_picks_are_compared_with_the_fastest():
    choices = {"c": choice("LOWERED_CCNMM", LOWERED_GEMM=6e-3, LOWERED_CCNMM=2e-3)}
    times = timing.choose(MEASURED, "all", {"c": "LOWERED_GEMM"}, choices)
    (pick,) = times.picks
    assert (pick.name, pick.mode, pick.fastest) == ("c", "LOWERED_CCNMM", "LOWERED_CSRMM")
    assert pick.excess == pytest.approx(1 / 3) and not pick.is_good
    assert times.totals["auto"] == 5 and times.total_ms == 6
    assert [times.predicted_ms(t) for t in MEASURED] == [None, 6, None, 2, None]
    near = Pick("c", "A", "B", 0.04)
    assert near.is_good and near.to_json()["is_good"]


def test_a_net_that_asks_for_auto_counts_its_picks():
    choices = {"c": choice("LOWERED_CCNMM", LOWERED_CCNMM=2e-3)}
    assert timing.choose(MEASURED, "all", {"c": "AUTO"}, choices).total_ms == 5


def test_layers_that_the_model_must_choose_for():
    net = tiny()
    choices = timing.predict_layers(net, ["conv1", "ip1"])
    assert set(choices["conv1"].seconds) >= set(LOWERED) == set(choices["ip1"].seconds)
    own = {"conv1": "AUTO", "ip1": "LOWERED_CSRMM"}
    picked = {name: (one.mode,) for name, one in choices.items()}
    assert timing.modes_to_time("auto", own, net, choices) == picked
    assert timing.modes_to_time(None, own, net, choices) == {
        "conv1": picked["conv1"],
        "ip1": ("LOWERED_CSRMM",),
    }
    asks = [
        timing.wants_choice(asked, "AUTO", LOWERED)
        for asked in (None, "auto", "all", "LOWERED_GEMM", "WINOGRAD")
    ]
    assert asks == [True, True, True, False, True]
    assert not timing.wants_choice(None, "LOWERED_CCNMM", LOWERED)
    own = {"conv1": "LOWERED_CSRMM", "ip1": "AUTO"}
    assert timing.modes_to_time("WINOGRAD", own, net, choices)["ip1"] == picked["ip1"]


def test_the_sum_of_everything():
    assert timing.total_ms(MEASURED) == 13


def test_a_single_mode():
    own = {"c": "LOWERED_CSRMM"}
    times = timing.choose([MEASURED[0], MEASURED[1], MEASURED[4]], "LOWERED_GEMM", own)
    assert times.total_ms == 6 and times.totals == {} and len(times.layers) == 3


def test_modes_that_are_timed():
    net = tiny()
    own = {"conv1": "LOWERED_CSRMM", "ip1": "LOWERED_GEMM"}
    assert timing.modes_to_time(None, own, net) == {name: (own[name],) for name in own}
    assert timing.modes_to_time("all", own, net) == {"conv1": MODES, "ip1": LOWERED}
    asked = timing.modes_to_time("LOWERED_CCNMM", own, net)
    assert asked == dict.fromkeys(own, ("LOWERED_CCNMM",))
    # a mode that only convolutions have leaves inner products as they are
    asked = timing.modes_to_time("DIRECT_SCONV", own, net)
    assert asked == {"conv1": ("DIRECT_SCONV",), "ip1": ("LOWERED_GEMM",)}
    gemm, direct = one("c", "LOWERED_GEMM", 5), one("c", "DIRECT_SCONV", 1)
    measured = [gemm, direct, one("i", "LOWERED_GEMM", 2)]
    assert timing.choose(measured, "all", {}).totals["DIRECT_SCONV"] == 3


def test_json_has_the_fixed_names():
    assert {
        "name", "type", "conv_mode", "lowering_ms", "product_ms", "total_ms",
        "effective_gflops", "real_gflops",
    } <= set(one().to_json())  # fmt: skip
