from __future__ import annotations

import numpy as np

from minissl import Net
from minissl.formats.prototxt import parse_net
from minissl.summary import flop_per_image, summarize
from tests.tiny_nets import net_text


def tiny(phase="TEST", **parts):
    return Net(parse_net(net_text(**parts)), phase, backend="numpy")


def test_shapes_parameters_and_operations():
    rows = {row.name: row for row in summarize(tiny())}
    conv1, ip1 = rows["conv1"], rows["ip1"]
    assert conv1.tops == {"conv1": (4, 4, 4, 4)} and conv1.weights == (4, 1, 3, 3)
    assert conv1.parameters == 36 + 4 and conv1.flop == 2 * 36 * 16
    assert conv1.bytes == 4 * (40 + 4 * 64)
    assert ip1.parameters == 6 * 16 + 6 and ip1.flop == 2 * 96
    assert rows["pool1"].parameters == rows["pool1"].flop == 0 and rows["pool1"].weights is None


def test_in_place_layers_take_no_memory_and_splits_are_left_out():
    rows = {row.name: row for row in summarize(tiny())}
    assert rows["relu1"].bytes == 0
    assert not any("split" in name for name in rows)


def test_layers_that_run_in_the_step_of_another_say_so():
    into = {row.name: row.fused_into for row in summarize(tiny())}
    assert into["relu1"] == into["pool1"] == "conv1" and into["relu2"] == "ip1"
    assert into["conv1"] is into["ip2"] is into["loss"] is None
    assert not any(row.fused_into for row in summarize(tiny("TRAIN")))


def test_zeros_are_not_counted_as_nonzero():
    net = tiny()
    net.layer("conv1").parameters[0].data[...] = 1
    net.layer("conv1").parameters[0].data[2] = 0
    (conv1,) = (row for row in summarize(net) if row.name == "conv1")
    assert conv1.nonzero == 27 + 4


def test_shared_parameters_count_once():
    shared = 'param { name: "w" } param { name: "b" }'
    text = net_text().replace('name: "ip2" type: "InnerProduct"', 'name: "x" type: "InnerProduct"')
    text = text.replace(
        'layer { name: "accuracy"',
        'layer { name: "y" type: "InnerProduct" bottom: "ip1" top: "other" SHARED '
        "inner_product_param { num_output: 3 } } "
        'layer { name: "accuracy"',
    )
    text = text.replace('bottom: "ip1" top: "ip2"', 'bottom: "ip1" top: "ip2" SHARED')
    text = text.replace("SHARED", shared).replace("IP2", "")
    rows = {row.name: row for row in summarize(Net(parse_net(text), "TEST", backend="numpy"))}
    assert rows["x"].parameters == 21 and rows["y"].parameters == 0
    assert rows["x"].flop == rows["y"].flop == 2 * 18


def test_an_inner_product_behind_the_batch_axis_is_applied_more_than_once():
    text = """
    layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 5 dim: 7 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
      inner_product_param { num_output: 3 axis: 2 } }
    """
    net = Net(parse_net(text), "TEST", backend="numpy")
    assert flop_per_image(net, net.layer("ip")) == 2 * (3 * 7) * 5


def test_json_is_plain():
    import json

    rows = [row.to_json() for row in summarize(tiny("TRAIN"))]
    assert json.loads(json.dumps(rows))[1]["weights"] == [4, 1, 3, 3]
    assert all(
        isinstance(row["nonzero"], int) and not isinstance(row["nonzero"], np.integer)
        for row in rows
    )
