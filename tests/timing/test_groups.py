"""Conv groups by themselves, spread, and shares."""

from __future__ import annotations

import pytest

from minissl import timing
from minissl.timing import LayerTime, NetTime
from tests.conftest import needs_compiler
from tests.timing.test_network import MODES, one, tiny


def test_conv_groups_are_timed_by_themselves(backend):
    times = timing.time_net(tiny(backend), {"conv1": MODES}, iterations=2, groups=True)
    for layer in times:
        if layer.name != "conv1":
            assert layer.groups == ()
            continue
        assert [group.name for group in layer.groups] == ["conv1_1", "conv1_2"]
        assert {group.conv_mode for group in layer.groups} == {layer.conv_mode}
        assert all(group.total_ms > 0 for group in layer.groups)
        for flop in ("dense_flop", "executed_flop"):
            assert sum(getattr(group, flop) for group in layer.groups) == getattr(layer, flop)
    assert all(layer.groups == () for layer in timing.time_net(tiny(), iterations=1))


@needs_compiler
def test_stages_of_conv_groups_are_added_up():
    times = timing.time_net(tiny("numba"), {"conv1": MODES[:1]}, iterations=2, groups=True)
    layer = next(t for t in times if t.name == "conv1")
    for key in ("lowering_ms", "product_ms", "total_ms"):
        assert layer.groups_sum[key] == pytest.approx(sum(getattr(g, key) for g in layer.groups))
    told = layer.to_json()
    assert [group["name"] for group in told["groups"]] == ["conv1_1", "conv1_2"]
    assert told["groups_sum"] == layer.groups_sum


def test_a_sum_without_stages():
    layer = LayerTime("a", "X", None, None, None, 3.0, None, 0, 0, groups=(one(total=1), one()))
    assert layer.groups_sum == {"lowering_ms": None, "product_ms": None, "total_ms": 2.0}


def test_the_spread_is_around_the_median(backend):
    for layer in timing.time_net(tiny(backend), {"conv1": MODES}, iterations=5):
        assert set(layer.quartiles_ms) <= {"lowering", "product", "total", "backward"}
        assert ("total" in layer.quartiles_ms) == (layer.timed and not layer.fused_into)
        for part, (low, high) in layer.quartiles_ms.items():
            assert 0 < low <= getattr(layer, f"{part}_ms") <= high


def test_the_share_of_the_peak():
    layer = LayerTime("a", "X", None, 0.5, 1.0, 2.0, None, 8_000_000, 4_000_000, peak_gflops=10.0)
    assert layer.real_gflops == 2.0 and layer.percent_of_peak == 20.0
    assert layer.product_real_gflops == 4.0 and layer.product_effective_gflops == 8.0
    assert one(flop=1000).percent_of_peak is None
    measured = timing.time_net(tiny(), iterations=1, peak=True)
    assert len({layer.peak_gflops for layer in measured}) == 1 and measured[0].peak_gflops > 0


def test_shares_of_the_network():
    layers = [one("data", total=9, timed=False), one("a", "LOWERED_GEMM", 3), one("b", total=1)]
    layers.append(one("a", "LOWERED_CSRMM", 5))
    times = NetTime(layers, "all", {"a": "LOWERED_GEMM"})
    assert [times.share_percent(layer) for layer in layers] == [None, 75, 25, None]
