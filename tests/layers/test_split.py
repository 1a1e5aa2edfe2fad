from __future__ import annotations

import numpy as np

from tests.layers.running import set_up

TEXT = 'name: "fan" type: "Split" bottom: "x" top: "a" top: "b" top: "c"'


def test_tops_are_the_bottom(kernels):
    layer, bottom, top = set_up(TEXT, kernels, [[1.0, 2, 3]])
    layer.forward(bottom, top)
    assert len(top) == 3
    for blob in top:
        assert blob.shape == (1, 3)
        assert np.shares_memory(blob.data, bottom[0].data)


def test_gradients_are_summed_not_accumulated(kernels):
    layer, bottom, top = set_up(TEXT, kernels, [[1.0, 2, 3]])
    layer.forward(bottom, top)
    for blob, scale in zip(top, (1, 10, 100), strict=True):
        blob.diff[...] = [[scale, 2 * scale, 3 * scale]]
    for _ in range(2):
        layer.backward(top, [True], bottom)
        assert bottom[0].diff.tolist() == [[111, 222, 333]]
    assert top[0].diff.tolist() == [[1, 2, 3]]


def test_backward_does_nothing_unless_asked(kernels):
    layer, bottom, top = set_up(TEXT, kernels, [[1.0, 2, 3]])
    bottom[0].diff[...] = 7
    layer.backward(top, [False], bottom)
    assert (bottom[0].diff == 7).all()
