import pytest

from minissl.timing.stopwatch import Stopwatch


def test_median_and_quartiles():
    watch = Stopwatch()
    watch.seconds["a"] = [0.005, 0.001, 0.002, 0.004, 0.003]
    assert watch.median_ms("a") == pytest.approx(3)
    assert watch.quartiles_ms("a") == pytest.approx((2, 4))
    assert watch.median_ms("b") is None and watch.quartiles_ms("b") is None
    watch.forget()
    assert watch.median_ms("a") is None


def test_a_block_is_measured():
    watch = Stopwatch()
    for _ in range(2):
        with watch.measure("block"):
            pass
    assert len(watch.seconds["block"]) == 2 and watch.median_ms("block") > 0
