"""SkimCaffe's projection gives what its paper publishes."""

from __future__ import annotations

import pytest

from minissl.conv_modes import ConvShape
from minissl.conv_modes.projection import (
    ATOM,
    XEON,
    Platform,
    alpha,
    sizes,
    speed_up,
    this_machine,
    useful_range,
)
from minissl.machine import DEFAULTS, Machine

CONV5 = ConvShape(384, (13, 13), 256, (3, 3), pad=(1, 1), groups=2)


def test_sizes_of_conv5():
    layer = sizes(CONV5)
    assert layer.flop == 149_520_384
    assert layer.activation_bytes == 432_640 and layer.weight_bytes == 1_769_472
    assert sizes(CONV5, 32).flop == 32 * layer.flop
    assert sizes(CONV5, 32).weight_bytes == layer.weight_bytes


@pytest.mark.parametrize(
    ("platform", "low", "high"), [(XEON, 0.0197, 1 / 3), (ATOM, 0.0109, 1 / 1.2)]
)
def test_published_end_points_of_conv5(platform, low, high):
    found = useful_range(sizes(CONV5), platform)
    assert found[0] == pytest.approx(low, abs=5e-5)
    assert found[1] == pytest.approx(high)


@pytest.mark.parametrize(("platform", "least", "most"), [(XEON, 2.2, 6.7), (ATOM, 5.6, 16.7)])
def test_published_speed_ups(platform, least, most):
    assert speed_up(0.15, sizes(CONV5), platform) == pytest.approx(least, abs=0.05)
    assert speed_up(0.05, sizes(CONV5), platform) == pytest.approx(most, abs=0.05)


@pytest.mark.parametrize("platform", [XEON, ATOM])
def test_the_bounds_are_where_the_speed_up_changes(platform):
    layer = sizes(CONV5)
    low, high = useful_range(layer, platform)
    assert speed_up(high, layer, platform) == pytest.approx(1)
    computing = 1 / (platform.alpha * low)
    assert speed_up(low, layer, platform) == pytest.approx(computing)
    # below, memory decides: half the weights bring less than twice the speed
    assert speed_up(low / 2, layer, platform) < 1.5 * computing
    assert speed_up(2 * low, layer, platform) == pytest.approx(computing / 2)


def test_where_memory_always_decides():
    assert useful_range(sizes(CONV5), Platform(1e6, 1, 2)) == (1.0, 0.5)


def test_a_calibrated_machine_is_a_platform():
    rates = {1: {"gemm_gflops": 90.0, "memory_gbs": 20.0}}
    machine = Machine({1: {"gemm": 0.02, "csr": 0.05}}, rates, calibrated=True)
    # 169 pixels take 192 columns of panels, and 176 of GEMM's tiles
    assert this_machine(machine, 1) == Platform(90.0, 20.0, pytest.approx(2.5 * 192 / 176))
    assert this_machine(machine, 2) is None


def test_alpha_counts_what_a_weight_costs_and_not_what_the_layer_does():
    constants = {"gemm": 0.02, "csr": 0.04, "csr_entry": 0.64}  # of 64 columns: 0.01 for each
    found = alpha(Machine({1: constants}), 1)
    assert found == pytest.approx(2.5 * 192 / 176)
    assert alpha(Machine({1: {**constants, "call": 1e6, "panel": 1.0, "write": 1.0}}), 1) == (
        pytest.approx(found)
    )
    assert alpha(Machine({1: {}}), 1) is None


@pytest.mark.parametrize("threads", [1, 2])
def test_alpha_of_the_constants_that_stand_in(threads):
    """A weight by itself costs more than in a dense product, and less without lowering."""
    by_rows, direct = (alpha(DEFAULTS, threads, mode) for mode in ("LOWERED_CSRMM", "DIRECT_SCONV"))
    assert 1 < by_rows < 10
    assert direct is None or 0.5 < direct < by_rows
