import numpy as np
import pytest

from minissl import compaction, models
from minissl.errors import ConfigError
from minissl.net import Net
from minissl.recipes.measuring import (
    Network,
    dense_flop,
    error_of,
    sizes_of,
    structure_of,
    structured_percent,
    time_side_by_side,
    total_flops_percent,
)
from tests.conftest import needs_compiler
from tests.tiny_nets import DIGITS, net_text

DATA = {"source": "mnist-small", "batch_size": 2}


def lenet():
    return Net(models.path("lenet.prototxt"), backend="numpy", data=DATA)


def pruned(net):
    """Kill 15 of 20 filters of conv1, 31 of 50 of conv2 and 16 of its 20 channels."""
    conv1, conv2 = (net.layer(name).parameters[0].data for name in ("conv1", "conv2"))
    conv1[5:] = 0
    conv2[19:] = 0
    conv2[:, 4:] = 0
    return net


def by_name(rows):
    return {row["name"]: row for row in rows}


def test_a_dense_network_has_everything():
    net = lenet()
    rows = by_name(structure_of(net, dense_flop(net)))
    assert list(rows) == ["conv1", "conv2", "ip1", "ip2"]
    conv2 = rows["conv2"]
    assert (conv2["filters"], conv2["channels"], conv2["columns"]) == (50, 20, 500)
    assert all(row["flops_percent"] == 100 for row in rows.values())
    assert total_flops_percent(net, dense_flop(net)) == 100


def test_a_layer_that_is_gone_counts_with_the_original_s_operations():
    net = lenet()
    dense = {**dense_flop(net), "gone": 2 * sum(dense_flop(net).values())}
    assert total_flops_percent(net, dense) == pytest.approx(100 / 3)
    assert total_flops_percent(net, dense, ["conv1", "conv2"]) == 100


def test_sizes_are_those_of_the_dense_layers():
    sizes = sizes_of(pruned(lenet()))
    assert sizes["conv1"] == {"filters": 20, "columns": 25, "pixels": 24 * 24}
    assert sizes["conv2"] == {"filters": 50, "columns": 500, "pixels": 8 * 8}
    assert sizes["ip2"] == {"filters": 10, "columns": 500, "pixels": 1}


def test_the_paper_s_lenet_2_is_counted_as_the_paper_does():
    net = lenet()
    dense = dense_flop(net)
    rows = by_name(structure_of(pruned(net), dense))
    assert (rows["conv1"]["filters"], rows["conv2"]["filters"]) == (5, 19)
    assert (rows["conv1"]["channels"], rows["conv2"]["channels"]) == (1, 4)
    assert rows["conv2"]["columns"] == 100
    assert rows["conv2"]["flops_percent"] == pytest.approx(7.6)
    assert structured_percent(net, dense)["conv1"] == pytest.approx(25)  # as Table 1 counts
    # the fifth filter of conv1 is not zero, but nothing reads it
    assert rows["conv1"]["flops_percent"] == pytest.approx(20)
    assert rows["ip1"]["flops_percent"] == pytest.approx(38)
    convolutions = (0.2 * dense["conv1"] + 0.076 * dense["conv2"]) / (
        dense["conv1"] + dense["conv2"]
    )
    assert total_flops_percent(net, dense, ["conv1", "conv2"]) == pytest.approx(100 * convolutions)


def test_compaction_leaves_what_was_counted():
    net = lenet()
    dense = dense_flop(net)
    before = by_name(structure_of(pruned(net), dense))
    small = compaction.compact(net)
    after = Net(small.net_param, backend="numpy", data=DATA)
    after.load(small.weights)
    now = dense_flop(after)
    for name, row in before.items():
        assert 100 * now[name] / dense[name] == pytest.approx(row["flops_percent"])
    assert total_flops_percent(after, dense) == total_flops_percent(net, dense)
    assert by_name(structure_of(after, dense))["conv1"]["filters"] == 4


def test_error_is_the_part_that_is_classified_wrongly():
    net = lenet()
    for name in ("conv1", "conv2", "ip1", "ip2"):
        net.layer(name).parameters[0].data[...] = 0
    net.layer("ip2").parameters[1].data[7] = 1  # says 7 to everything
    labels = []
    for _ in range(5):
        net.forward()
        labels.extend(net.blobs["label"].data)
    net = Net(models.path("lenet.prototxt"), backend="numpy", data=DATA, share=net)
    assert error_of(net, 5) == pytest.approx(np.mean(np.array(labels) != 7))


def test_a_network_without_accuracy_has_no_error():
    from minissl.formats.prototxt import parse_net

    text = net_text().replace("include { phase: TEST }", "include { phase: TRAIN }")
    with pytest.raises(ConfigError, match="no output 'accuracy'"):
        error_of(Net(parse_net(text), backend="numpy"), 1)


@needs_compiler
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_networks_are_timed_layer_by_layer(tmp_path, backend):
    model, weights = tmp_path / "net.prototxt", tmp_path / "w.safetensors"
    model.write_text(DIGITS)
    Net(model).save(weights)
    both = [Network(name, model, weights, {"backend": backend}) for name in ("one", "two")]
    times = time_side_by_side(both, batch_size=3, blocks=2, iterations=2)
    assert list(times) == ["one", "two"]
    layers = times["one"]["layers"]
    assert list(layers) == ["conv1", "relu1", "drop1", "ip1"]
    assert all(ms > 0 for ms in layers.values())
    assert times["one"]["total_ms"] == pytest.approx(sum(layers.values()))
    products = times["one"]["products"]
    assert list(products) == (["conv1"] if backend == "numba" else [])
    assert all(ms > 0 for ms in products.values())


def test_a_network_takes_the_batch_size_asked_for(tmp_path):
    model, weights = tmp_path / "net.prototxt", tmp_path / "w.safetensors"
    model.write_text(DIGITS)
    Net(model, backend="numpy").save(weights)
    network = Network("one", model, weights, {"backend": "numpy", "data": {"source": "mnist"}})
    assert network.open(batch_size=7).blobs["data"].shape == (7, 1, 28, 28)
    assert network.open().blobs["data"].shape == (6, 1, 28, 28)
