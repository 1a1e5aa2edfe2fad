from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minissl import Net, backend
from minissl.formats.prototxt import parse_net
from minissl.memory_plan import LINE, Tenant, place

tenants = st.builds(
    lambda size, first, length: Tenant(size, first, first + length),
    st.integers(1, 1000),
    st.integers(0, 30),
    st.integers(0, 10),
)


@given(st.lists(tenants, max_size=30))
def test_nothing_that_is_needed_at_the_same_time_overlaps(many):
    starts, total = place(many)
    assert all(start % LINE == 0 for start in starts)
    for i, one in enumerate(many):
        assert starts[i] >= 0 and starts[i] + one.size <= total
        for j, other in enumerate(many[:i]):
            together = one.first <= other.last and other.first <= one.last
            apart = starts[i] + one.size <= starts[j] or starts[j] + other.size <= starts[i]
            assert apart or not together
    at_once = [sum(t.size for t in many if t.first <= time <= t.last) for time in range(41)]
    assert total >= max(at_once)


def test_a_chain_needs_two_places():
    chain = [Tenant(640, i, i + 1) for i in range(10)]
    assert place(chain)[1] == 2 * 640


def test_needs_of_a_small_network():
    """data (2, 3) -> ip (2, 4) -> relu in place -> ip2 (2, 5) -> loss, probabilities beside it."""
    text = """
    layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 2 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
      inner_product_param { num_output: 4 } }
    layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }
    layer { name: "ip2" type: "InnerProduct" bottom: "ip" top: "ip2"
      inner_product_param { num_output: 5 } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "t" top: "loss" }
    """
    needs = Net(parse_net(text), "TRAIN").needs()
    weights = 4 * 3 + 4 + 5 * 4 + 5
    assert needs.forward == 4 * (6 + 2 + 8 + 10 + 1)
    assert needs.backward == 4 * (8 + 10)
    assert needs.parameters == 2 * 4 * weights and needs.history == 4 * weights
    assert needs.scratch == 4 * 10
    assert needs.total == sum((needs.forward, needs.backward, needs.parameters, needs.history, 40))
    tested = Net(parse_net(text), "TEST").needs()
    assert (tested.backward, tested.history, tested.parameters) == (0, 0, 4 * weights)


#: layers between the pooling and the inner product that look at memory of others
VIEWS = {
    "Flatten": 'layer { name: "v" type: "Flatten" bottom: "p" top: "v" }',
    "Reshape": """layer { name: "v" type: "Reshape" bottom: "p" top: "v"
        reshape_param { shape { dim: 0 dim: -1 } } }""",
    "Flatten, ReLU in place": """
        layer { name: "v" type: "Flatten" bottom: "p" top: "v" }
        layer { name: "r" type: "ReLU" bottom: "v" top: "v" }""",
    "two of them": """
        layer { name: "u" type: "Flatten" bottom: "p" top: "u" axis_of }
        layer { name: "v" type: "Flatten" bottom: "u" top: "v" }""".replace(
        "axis_of", "flatten_param { axis: 2 }"
    ),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_gradients_behind_a_view_are_those_of_a_network_that_shares_nothing(view, name):
    """A view's gradient lies in the memory of its top, where it may not be overwritten."""
    text = """
    layer { name: "in" type: "Input" top: "x" top: "t"
      input_param { shape { dim: 4 dim: 2 dim: 8 dim: 8 } shape { dim: 4 } } }
    layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {
      num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } }
    layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param {
      kernel_size: 2 stride: 2 } }
    VIEW
    layer { name: "ip" type: "InnerProduct" bottom: "v" top: "y" inner_product_param {
      num_output: 5 weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "loss" }
    """.replace("VIEW", VIEWS[view])
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=(4, 2, 8, 8)), "t": rng.integers(5, size=4)}
    found = []
    for lean in (True, False):
        net = Net(parse_net(text), "TRAIN", name, dtype="float64", seed=1, lean=lean)
        for _ in range(2):
            net.clear_gradients()
            net.forward(inputs)
            net.backward()
        found.append([backend.to_host(parameter.diff) for parameter in net.parameters])
    for one, other in zip(*found, strict=True):
        assert np.abs(other).max() > 0.01
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
