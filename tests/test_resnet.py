"""Residual networks for CIFAR-10: the text that is generated for any depth."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from minissl import Net, models
from minissl.cli import main
from minissl.errors import ConfigError
from minissl.formats import proto
from minissl.formats.prototxt import parse_net, read_net
from minissl.models.resnet import resnet
from minissl.summary import summarize


def convolutions(net):
    return {one.name: one for one in net.layer if one.type == "Convolution"}


def tiles(net):
    """(xdimen, ydimen) of each layer that has a group."""
    return {
        name: (tile.xdimen, tile.ydimen)
        for name, one in convolutions(net).items()
        for tile in one.param[0].block_group_lasso
    }


@pytest.mark.parametrize("depth", [8, 20, 32, 56])
def test_depth_counts_the_main_path(depth):
    net = parse_net(resnet(depth))
    found = convolutions(net)
    shortcuts = [name for name in found if name.endswith("_shortcut")]
    inner = [one for one in net.layer if one.type == "InnerProduct"]
    assert len(found) - len(shortcuts) + len(inner) == depth
    assert shortcuts == ["stage2_block1_shortcut", "stage3_block1_shortcut"]
    assert [one.type for one in net.layer].count("Eltwise") == (depth - 2) // 2
    # every convolution is followed by its BatchNorm and Scale
    types = [(one.type, list(one.bottom), list(one.top)) for one in net.layer]
    for name in found:
        at = next(i for i, one in enumerate(net.layer) if one.name == name)
        assert types[at + 1] == ("BatchNorm", [name], [name])
        assert types[at + 2] == ("Scale", [name], [name])


def test_every_block_adds_its_shortcut():
    net = parse_net(resnet(20))
    sums = {one.name: list(one.bottom) for one in net.layer if one.type == "Eltwise"}
    assert list(sums.items())[:4] == [
        ("stage1_block1", ["conv1", "stage1_block1_conv2"]),
        ("stage1_block2", ["stage1_block1", "stage1_block2_conv2"]),
        ("stage1_block3", ["stage1_block2", "stage1_block3_conv2"]),
        ("stage2_block1", ["stage2_block1_shortcut", "stage2_block1_conv2"]),
    ]
    first, shortcut = (convolutions(net)[f"stage3_block1_{name}"] for name in ("conv1", "shortcut"))
    assert list(first.bottom) == list(shortcut.bottom) == ["stage2_block3"]
    for one, kernel, pad in ((first, 3, [1]), (shortcut, 1, [])):
        p = one.convolution_param
        assert (p.num_output, list(p.stride), list(p.kernel_size)) == (64, [2], [kernel])
        assert list(p.pad) == pad and not p.bias_term


def test_one_group_is_a_whole_layer():
    # the published tilings: first convolution and shortcuts have none
    found = tiles(parse_net(resnet(20, learn_depth=True)))
    assert "conv1" not in found and not any("shortcut" in name for name in found)
    sizes = list(found.values())
    assert sizes[:6] == [(144, 16)] * 6
    assert sizes[6:12] == [(144, 32), *[(288, 32)] * 5]
    assert sizes[12:] == [(288, 64), *[(576, 64)] * 5]
    assert tiles(parse_net(resnet(20))) == {}


def test_one_group_is_a_channel_between_the_convolutions_of_a_block():
    found = tiles(parse_net(resnet(20, learn_channels=True)))
    assert set(found) == {f"stage{s}_block{b}_conv2" for s in (1, 2, 3) for b in (1, 2, 3)}
    assert list(found.values()) == [(9, 16)] * 3 + [(9, 32)] * 3 + [(9, 64)] * 3
    both = convolutions(parse_net(resnet(8, learn_depth=True, learn_channels=True)))
    second = both["stage1_block1_conv2"].param[0].block_group_lasso
    assert [(one.xdimen, one.ydimen) for one in second] == [(144, 16), (9, 16)]


def test_options_change_what_they_say():
    frozen = parse_net(resnet(8, connectivity_mode="DISCONNECTED_GRPWISE", batch_size=3))
    modes = {one.connectivity_mode for one in convolutions(frozen).values()}
    assert modes == {proto.LayerParameter.DISCONNECTED_GRPWISE}
    assert frozen.layer[0].data_param.batch_size == 3
    narrow = convolutions(parse_net(resnet(8, widths=(2, 3, 4))))
    assert [one.convolution_param.num_output for one in narrow.values()] == [
        *(2, 2, 2),
        *(3, 3, 3),
        *(4, 4, 4),
    ]


def test_images_are_augmented_only_while_training():
    train, test = parse_net(resnet(20)).layer[:2]
    assert train.transform_param.pad == 4 and train.transform_param.crop_size == 32
    assert train.transform_param.mirror and train.transform_param.mean_file == "cifar10"
    assert test.transform_param.ListFields() == [
        (test.transform_param.DESCRIPTOR.fields_by_name["mean_file"], "cifar10")
    ]


@pytest.mark.parametrize(("depth", "million"), [(20, 40.55), (32, 68.86), (56, 125.49)])
def test_sizes_are_the_published_ones(depth, million):
    net = Net(parse_net(resnet(depth)), "TEST", backend="numpy", data={"batch_size": 1})
    layers = {one.name: one for one in summarize(net)}
    flop = sum(one.flop // 2 for name, one in layers.items() if "shortcut" not in name)
    blocks = (depth - 2) // 6
    # 16 x 32 x 32 outputs of 9 x 3, and three stages of nearly the same work
    width = 16 * 1024 * 9
    expected = width * 3 + 2 * width * 16 * 3 * blocks - 2 * width * 16 // 2 + 640
    assert flop == expected == pytest.approx(million * 1e6, rel=1e-3)
    sizes = {name: layers[name].tops[name][1:] for name in ("conv1", "stage2_block1", "fc")}
    assert sizes == {"conv1": (16, 32, 32), "stage2_block1": (32, 16, 16), "fc": (10,)}


def test_packaged_nets_of_the_depth_experiment_are_what_is_generated():
    deep, narrow, frozen = (
        models.path(f"resnet20_{kind}.prototxt") for kind in ("depth", "channels", "ft")
    )
    assert deep.read_text() == resnet(20, learn_depth=True)
    assert narrow.read_text() == resnet(20, learn_channels=True)
    assert frozen.read_text() == resnet(20, connectivity_mode="DISCONNECTED_GRPWISE")


@pytest.mark.parametrize("depth", [20, 32, 56])
def test_packaged_files_are_what_is_generated(depth):
    path = models.path(f"resnet{depth}.prototxt")
    assert path.read_text() == resnet(depth)
    assert read_net(path).name == f"ResNet-{depth}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 21}, "there is no ResNet of depth 21: it is 6n . 2; use 20 or 26"),
        ({"depth": 2}, "use 8 or 14"),
        ({"depth": -5}, "use 8 or 14"),
        ({"depth": 20, "connectivity_mode": "FROZEN"}, "unknown connectivity_mode 'FROZEN'"),
        ({"depth": 20, "batch_size": 0}, "batch_size 0"),
        ({"depth": 20, "widths": (16, 0, 64)}, "use 1 or more"),
    ],
)
def test_what_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        resnet(**options)


def test_the_command_prints_it():
    result = CliRunner().invoke(main, ["resnet", "14", "--learn-depth", "--batch-size", "64"])
    assert result.exit_code == 0 and result.output == resnet(14, True, batch_size=64)
    refused = CliRunner().invoke(main, ["resnet", "15"])
    assert refused.exit_code == 1 and "use 14 or 20" in refused.output
