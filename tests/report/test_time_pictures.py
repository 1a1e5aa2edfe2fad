from __future__ import annotations

import pytest

from minissl.report.time_pictures import mode_times


def entry(name, mode, total, lowering=None, product=None, rest=None, timed=True):
    parts = {"lowering_ms": lowering, "product_ms": product, "rest_ms": rest, "total_ms": total}
    return {"name": name, "conv_mode": mode, "type": "Convolution", "timed": timed, **parts}


RUN = {
    "batch_size": 4,
    "threads": 2,
    "layers": [
        entry("data", None, 0.0, timed=False),
        entry("conv1", "LOWERED_GEMM", 4.0, 1.0, 2.0, 1.0),
        entry("conv1", "LOWERED_CSRMM", 2.0, 1.0, 3.0, 0.0),
        entry("pool1", None, 0.5),
    ],
}


def widths(axes):
    return [round(bar.get_width(), 6) for bars in axes.containers for bar in bars]


def test_a_bar_for_each_layer_and_mode():
    (axes,) = mode_times([RUN]).axes
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["conv1  LOWERED_GEMM", "conv1  LOWERED_CSRMM", "pool1  Convolution"]
    # stages that add up to more than the layer are drawn as long as the layer
    assert widths(axes) == [1.0, 2.0, 1.0, 0.5, 1.5, 0.0, 0.5]
    assert axes.get_title("left") == "batch 4, 2 threads" and axes.get_xlabel() == "milliseconds"
    assert [text.get_text() for text in axes.texts] == ["4", "2", "0.5"]


def test_a_panel_for_each_run_in_its_own_unit():
    short = {**RUN, "threads": 1, "layers": [entry("conv1", "LOWERED_GEMM", 0.25)]}
    first, second = mode_times([RUN, short]).axes
    assert first.get_xlabel() == "milliseconds" and second.get_xlabel() == "microseconds"
    assert widths(second) == pytest.approx([250.0])
    assert second.get_title("left") == "batch 4, 1 thread"
