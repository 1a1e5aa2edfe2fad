"""Parameters that are shared, saved, loaded and refused."""

from __future__ import annotations

import numpy as np
import pytest

from minissl import Net, net_weights
from minissl.errors import ConfigError, NonFiniteError, WeightsError
from minissl.formats.prototxt import parse_net
from tests.tiny_nets import make_net, net_text
from tests.written_nets import INPUT, build, check_gradients, fill_input, ip, layer

# --- shared parameters ---

FULL = 'weight_filler { type: "constant" value: 7 }'


def test_parameters_shared_by_name():
    text = (
        INPUT
        + ip("a", "x", "a", 5, 'param { name: "w" } param { name: "b" }')
        + layer("TanH", "act", "a", "a")
        + ip("b", "a", "y", 5, 'param { name: "w" } param { name: "b" }')
        + layer("SoftmaxWithLoss", "loss", "y t", "loss")
    )
    net = build(text)
    assert [p.name for p in net.parameters] == ["a.0", "a.1"]
    assert net.layer("b").parameters[0] is net.layer("a").parameters[0]
    fill_input(net)
    check_gradients(net)


@pytest.mark.parametrize("owner", [0, 1])
def test_the_first_of_the_layers_that_share_weights_fills_them(owner):
    text = INPUT + "".join(
        ip(name, bottom, top, 5, 'param { name: "w" }', filler="" if i != owner else FULL)
        for i, (name, bottom, top) in enumerate([("a", "x", "a"), ("b", "a", "y")])
    )
    assert np.all(build(text).params["a"][0].data == (7 if owner == 0 else 0))


def test_nets_that_share_layers_agree_on_their_blobs():
    train = build(INPUT + ip("a", "x", "a", 5))
    text = INPUT + ip("a", "x", "a", 5, filler="bias_term: false")
    with pytest.raises(ConfigError, match=r"'a' .* has 1 blobs of weights where .* has 2"):
        build(text, share=train)


def test_a_layer_that_the_other_net_lacks_shares_its_weights_by_name():
    text = INPUT + ip("a", "x", "a", 5, 'param { name: "w" }')
    train = build(text)
    test = build(text + ip("b", "x", "b", 5, 'param { name: "w" }'), phase="TEST", share=train)
    assert test.layer("b").parameters[0] is train.layer("a").parameters[0]
    assert test.layer("b").parameters[1] is not train.layer("a").parameters[1]


@pytest.mark.parametrize("first", ["", "connectivity_mode: DISCONNECTED_GRPWISE"])
def test_a_layer_that_freezes_nothing_leaves_the_mask_of_shared_weights(first):
    modes = [first, "" if first else "connectivity_mode: DISCONNECTED_GRPWISE"]
    text = (
        INPUT
        + ip("a", "x", "a", 5, 'param { name: "w" }').replace('name: "a"', f'name: "a" {modes[0]}')
        + ip("b", "a", "y", 5, 'param { name: "w" }').replace('name: "b"', f'name: "b" {modes[1]}')
        + layer("SoftmaxWithLoss", "loss", "y t", "loss")
    )
    net = build(text)
    weights = {name: [blob.copy() for blob in blobs] for name, blobs in net.weights().items()}
    for name in "ab":
        weights[name][0][2] = 0
    net.load(weights)
    mask = net.layer("a").parameters[0].mask
    assert mask is not None and not mask[2].any() and mask[[0, 1, 3, 4]].all()


def shared_pair(of_first, of_second):
    return (
        INPUT
        + ip("a", "x", "a", 5, f'param {{ name: "w" {of_first} }}')
        + ip("b", "a", "y", 5, f'param {{ name: "w" {of_second} }}')
        + layer("SoftmaxWithLoss", "loss", "y t", "loss")
    )


@pytest.mark.parametrize(
    "field", ["lr_mult: 3", "breadth_decay_mult: 2", "block_group_lasso { xdimen: 5 ydimen: 1 }"]
)
def test_what_one_layer_says_of_shared_weights_holds_for_both(field):
    specs = [
        build(shared_pair(*fields)).layer("b").parameters[0].spec
        for fields in ((field, field), (field, ""), ("", field))
    ]
    assert specs[0] == specs[1] == specs[2]
    assert field.split()[0].rstrip(":") in {known.name for known, _ in specs[2].ListFields()}


def test_layers_that_share_weights_must_not_contradict_each_other():
    for first, second in (("lr_mult: 0", "lr_mult: 1"), ("decay_mult: 2", "decay_mult: 1")):
        with pytest.raises(ConfigError, match=r"'b.0' and 'a.0' share their values, but differ"):
            build(shared_pair(first, second))


def test_hdf5_file_of_caffe_that_holds_a_shared_blob_once(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed; pip install 'minissl[hdf5]'")
    text = (
        INPUT
        + ip("a", "x", "a", 5, 'param { name: "w" }')
        + ip("b", "a", "b", 5, 'param { name: "w" }')
        + ip("c", "b", "y", 5, 'param { name: "w" } param { name: "d" }')
        + ip("d", "y", "z", 5, 'param { } param { name: "d" }')
    )
    blobs = {name: np.full(shape, i + 1.0) for i, (name, shape) in enumerate(OWN.items())}
    path = tmp_path / "x.caffemodel.h5"
    with h5py.File(path, "w") as file:
        for name, blob in blobs.items():
            file[f"data/{name}"] = blob
    net = build(text)
    assert net.load(path) == ["a", "b", "c", "d"]
    found = [[p.data.flat[0] for p in net.layer(name).parameters] for name in "abcd"]
    assert found == [[1, 2], [1, 3], [1, 4], [5, 4]]
    with h5py.File(path, "a") as file:
        del file["data/d/0"]
        file["data/d/1"] = blobs["c/1"]
    with pytest.raises(WeightsError, match=r"blob 0 of layer 'd' has shape \(0,\)"):
        build(text).load(path)


#: the blobs that belong to the layer they are named after
OWN = {"a/0": (5, 5), "a/1": (5,), "b/1": (5,), "c/1": (5,), "d/0": (5, 5)}


def test_shared_names_need_equal_shapes():
    text = (
        INPUT
        + ip("a", "x", "a", 5, 'param { name: "w" }')
        + ip("b", "a", "y", 4, 'param { name: "w" }')
    )
    with pytest.raises(ConfigError, match=r"'b.0' of shape \(4, 5\) cannot share .* \(5, 5\)"):
        build(text)


def test_share_between_nets():
    train = make_net(phase="TRAIN", backend="numpy")
    before = train.layer("ip1").parameters[0].data.copy()
    test = make_net(phase="TEST", backend="numpy", share=train, seed=5)
    assert test.parameters == train.parameters
    np.testing.assert_array_equal(train.layer("ip1").parameters[0].data, before)
    train.layer("ip1").parameters[0].data[...] = 7
    assert (test.layer("ip1").parameters[0].data == 7).all()


def test_share_fills_only_what_is_new():
    train = make_net(phase="TRAIN", backend="numpy")
    larger = Net(
        parse_net(net_text() + ip("extra", "ip2", "z")), "TRAIN", backend="numpy", share=train
    )
    assert larger.layer("ip2").parameters[0] is train.layer("ip2").parameters[0]
    assert larger.layer("extra").parameters[0].data.any()


# --- weights ---


def test_save_and_load(tmp_path):
    net, other = make_net(seed=1, backend="numpy"), make_net(seed=2, backend="numpy")
    for suffix in (".caffemodel", ".safetensors", ".npz"):
        path = tmp_path / f"net{suffix}"
        net.save(path)
        assert other.load(path) == ["conv1", "ip1", "ip2"]
        for mine, theirs in zip(net.parameters, other.parameters, strict=True):
            np.testing.assert_array_equal(mine.data, theirs.data)
            theirs.data[...] = 0


def test_weights_of_other_layers_stay():
    net = make_net(backend="numpy")
    before = net.layer("ip1").parameters[0].data.copy()
    other = {"ip2": [np.ones((3, 6)), np.zeros(3)], "unknown": [np.ones(3)]}
    assert net.load(other) == ["ip2"]
    np.testing.assert_array_equal(net.layer("ip1").parameters[0].data, before)
    assert (net.layer("ip2").parameters[0].data == 1).all()


def test_old_shapes_are_taken():
    """Old files hold a matrix as (1, 1, F, K) and a bias as (1, 1, 1, F)."""
    net = make_net(backend="numpy")
    weights = np.arange(18.0).reshape(1, 1, 3, 6)
    net.load({"ip2": [weights, np.zeros((1, 1, 1, 3))]})
    np.testing.assert_array_equal(net.layer("ip2").parameters[0].data, weights[0, 0])


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        ({"ip2": [np.ones((3, 6))]}, WeightsError, "layer 'ip2' has 1 blobs where the net has 2"),
        (
            {"ip2": [np.ones((6, 3)), np.ones(3)]},
            WeightsError,
            r"blob 0 of layer 'ip2' has shape \(6, 3\) where the net has \(3, 6\)",
        ),
        (
            {"ip2": [np.ones((3, 6)), np.full(3, np.nan)]},
            NonFiniteError,
            "blob 1 of layer 'ip2' holds NaN",
        ),
        ({"fc8": [np.ones(3)]}, WeightsError, "holds no layer of net 'Tiny': it has fc8"),
        ({}, WeightsError, "it has none"),
    ],
)
def test_load_errors(weights, error, words):
    net = make_net(backend="numpy")
    with pytest.raises(error, match=words) as caught:
        net.load(weights)
    assert "\n" not in str(caught.value)


def test_weights_that_are_zero_throughout_are_made_dense():
    net = build(INPUT + ip("a", "x", "a", 5, filler="") + ip("b", "a", "b", 4))
    before = net.weights()["b"][0].copy()
    net_weights.make_dense(net.layers, net.kernels)
    assert (net.params["a"][0].data != 0).all() and not net.params["a"][1].data.any()
    np.testing.assert_array_equal(net.params["b"][0].data, before)
