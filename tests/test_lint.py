from __future__ import annotations

import pytest

from minissl.errors import ConfigError
from minissl.formats.prototxt import parse_net, parse_solver
from minissl.lint import SOLVER_TYPES, Finding, lint_net, lint_solver
from minissl.solvers import Solver
from minissl.solvers.update_rules import RULES
from tests.tiny_nets import PLAIN_SOLVER, net_text

# Written as the published nets are: a pair of Data layers, decays and blocks that agree.
NET = """
name: "LeNet"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { lr_mult: 1 block_group_lasso { xdimen: 25 ydimen: 1 }
          block_group_lasso { xdimen: 1 ydimen: 20 } }
  param { lr_mult: 2 }
  convolution_param { num_output: 20 kernel_size: 5 } }
layer { name: "ip1" type: "InnerProduct" bottom: "conv1" top: "ip1"
  param { lr_mult: 1 breadth_decay_mult: 1 kernel_shape_decay_mult: 1 } param { lr_mult: 2 }
  inner_product_param { num_output: 10 } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip1" bottom: "label" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" }
"""
SOLVER = """
net: "net.prototxt" test_iter: 100 test_interval: 500 base_lr: 0.01 momentum: 0.9
lr_policy: "multistep" gamma: 0.1 stepvalue: 5000 stepvalue: 9000 max_iter: 10000 snapshot: 5000
weight_decay: 0.0005 block_group_decay: 0.003 breadth_decay: 0.001 kernel_shape_decay: 0.001
"""
SHAPES = {"conv1": (20, 1, 5, 5), "ip1": (10, 2880)}


def net_findings(old: str = "", new: str = "", **options: object) -> list[Finding]:
    assert old in NET
    return lint_net(parse_net(NET.replace(old, new)), **options)  # type: ignore[arg-type]


def solver_findings(
    solver: tuple[str, str] = ("", ""), net: tuple[str, str] = ("", ""), **options: object
) -> list[Finding]:
    assert solver[0] in SOLVER and net[0] in NET
    parsed = parse_solver(SOLVER.replace(*solver))
    return lint_solver(parsed, parse_net(NET.replace(*net)), **options)  # type: ignore[arg-type]


def test_a_clean_net_and_solver_give_no_finding() -> None:
    assert net_findings() == []
    assert net_findings(weight_shapes=SHAPES) == []
    assert solver_findings() == []
    assert solver_findings(weights_given=False) == []
    assert lint_solver(parse_solver(SOLVER)) == []


@pytest.mark.parametrize(
    ("old", "new", "severity", "where", "message"),
    [
        ('"ip1" type', '"conv1" type', "error", "layer 'conv1'", "Another layer of the same phase"),
        ("phase: TEST } }", "phase: TRAIN } }", "warning", "layer 'data'", "Another layer"),
        (
            '"Accuracy"',
            '"Acuracy"',
            "error",
            "layer 'accuracy'",
            "It has the unknown type",
        ),
        ('"Accuracy"', '"Python"', "error", "layer 'accuracy'", "It has the type 'Python', which"),
        (
            "kernel_size: 5",
            "kernel_size: 5 conv_mode: LOWERED_CSRMM",
            "error",
            "layer 'conv1'",
            "conv_mode LOWERED_CSRMM runs sparse weights forward only, but this net is trained.",
        ),
        (
            "num_output: 10",
            "num_output: 10 gemm_mode: SPMDM",
            "error",
            "layer 'ip1'",
            "gemm_mode SPMDM runs sparse weights forward only, but this net is trained.",
        ),
        (
            "xdimen: 25",
            "xdimen: 0",
            "error",
            "layer 'conv1', param 0",
            "The block xdimen 0, ydimen 1 is empty.",
        ),
        (
            "lr_mult: 1 block",
            'lr_mult: 1 regularization_type: "ISTA" block',
            "error",
            "layer 'conv1', param 0",
            "regularization_type 'ISTA' is unknown.",
        ),
        (
            "lr_mult: 1 block",
            "lr_mult: 0 block",
            "warning",
            "layer 'conv1', param 0",
            "Group lasso is configured, but lr_mult 0",
        ),
        (
            "lr_mult: 1 breadth",
            "lr_mult: 0 breadth",
            "warning",
            "layer 'ip1', param 0",
            "Group lasso is configured, but lr_mult 0",
        ),
        (
            "param { lr_mult: 2 }\n  inner",
            "param { lr_mult: 2 breadth_decay_mult: 1 }\n  inner",
            "warning",
            "layer 'ip1', param 1",
            "Group lasso is configured for the bias",
        ),
        (
            "param { lr_mult: 2 }\n  conv",
            "param { lr_mult: 2 block_group_lasso { } }\n  conv",
            "warning",
            "layer 'conv1', param 1",
            "Group lasso is configured for the bias",
        ),
    ],
)
def test_net(old: str, new: str, severity: str, where: str, message: str) -> None:
    first = net_findings(old, new)[0]
    assert (first.severity, first.where) == (severity, where)
    assert first.message.startswith(message)
    assert first.advice.endswith(".")


def test_all_multipliers_zero() -> None:
    silent = NET.replace("ydimen: 1 }", "ydimen: 1 block_decay_mult: 0 }").replace(
        "ydimen: 20 }", "ydimen: 20 block_decay_mult: 0 }"
    )
    (finding,) = lint_net(parse_net(silent))
    assert finding.message.startswith("Every block_decay_mult is 0")
    # One live tiling is enough.
    assert net_findings("ydimen: 1 }", "ydimen: 1 block_decay_mult: 0 }") == []
    frozen = NET.replace("lr_mult: 1", "lr_mult: 0").replace("lr_mult: 2", "lr_mult: 0")
    assert lint_net(parse_net(frozen))[-1].message.startswith("Every lr_mult is 0")


def test_a_second_blob_that_is_no_bias_may_have_a_lasso() -> None:
    text = 'layer { name: "r" type: "BatchNorm" param { } param { breadth_decay_mult: 1 } }'
    assert lint_net(parse_net(text)) == []
    (finding,) = lint_net(parse_net(text.replace("BatchNorm", "InnerProduct")))
    assert finding.message.startswith("Group lasso is configured for the bias")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (
            "xdimen: 10 ydimen: 1",
            "xdimen 10, ydimen 1 does not divide the matrix of 20 rows and 25",
        ),
        ("xdimen: 25 ydimen: 3", "xdimen 25, ydimen 3 does not divide the matrix of 20 rows"),
        ("xdimen: 50 ydimen: 1", "xdimen 50, ydimen 1 exceeds the weight matrix of 20 rows and 25"),
        ("xdimen: 25 ydimen: 40", "xdimen 25, ydimen 40 exceeds the weight matrix"),
    ],
)
def test_tiles_that_do_not_fit(block: str, message: str) -> None:
    (finding,) = net_findings("xdimen: 25 ydimen: 1", block, weight_shapes=SHAPES)
    assert finding.severity == "error" and finding.where == "layer 'conv1', param 0"
    assert message in finding.message
    assert net_findings("xdimen: 25 ydimen: 1", block) == []  # shapes not known


def test_sparse_mode_is_fine_where_nothing_is_trained() -> None:
    mode = ("kernel_size: 5", "kernel_size: 5 conv_mode: DIRECT_SCONV")
    deployed = NET.replace(*mode).replace("SoftmaxWithLoss", "Softmax")
    assert lint_net(parse_net(deployed)) == []
    test_only = NET.replace(*mode).replace('"conv1" type', '"conv1" include { phase: TEST } type')
    assert lint_net(parse_net(test_only)) == []
    training = (
        'layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } }'
    )
    assert training in NET
    no_data = NET.replace(*mode).replace(training, "")
    assert lint_net(parse_net(no_data)) == []  # as SkimCaffe's, which have a loss and test only
    assert net_findings("kernel_size: 5", "kernel_size: 5 conv_mode: AUTO") == []


def test_cudnn_ignores_sparse_modes() -> None:
    text = NET.replace("SoftmaxWithLoss", "Softmax")
    text = text.replace("kernel_size: 5", "kernel_size: 5 engine: CUDNN conv_mode: LOWERED_CCNMM")
    (finding,) = lint_net(parse_net(text))
    assert finding.message == "engine CUDNN ignores conv_mode LOWERED_CCNMM."
    assert net_findings("kernel_size: 5", "kernel_size: 5 engine: CUDNN") == []


def test_layers_of_one_name_in_different_stages_are_fine() -> None:
    staged = NET.replace(
        'include { phase: TEST } }\nlayer { name: "conv1',
        "include { stage: 'x' } }\nlayer { name: \"conv1",
    )
    assert lint_net(parse_net(staged)) == []
    excluded = NET.replace("include { phase: TRAIN }", "exclude { phase: TEST }")
    assert lint_net(parse_net(excluded)) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("test_interval: 500", "", "test_iter is given but test_interval is not"),
        ("test_iter: 100", "", "test_interval is given but test_iter is not, so no test is run."),
        ("stepvalue: 9000", "stepvalue: 5000", "The stepvalues 5000, 5000 do not increase."),
        ("stepvalue: 9000", "stepvalue: 400", "The stepvalues 5000, 400 do not increase."),
        ("stepvalue: 9000", "stepvalue: 10000", "stepvalue 10000 is not reached before max_iter"),
        ('"multistep"', '"exp"', "stepvalue is given but lr_policy is 'exp'"),
        ("base_lr: 0.01", "", "base_lr is 0, so nothing would be trained."),
        ("stepvalue: 9000 max_iter: 10000", "", "max_iter is 0, so nothing would be trained."),
        ("snapshot: 5000", "", "snapshot is 0 in a run of 10000 iterations."),
        ("momentum", "snapshot_diff: true momentum", "snapshot_diff is ignored: snapshots hold"),
        ("momentum", "prune_threshold: 0 momentum", "prune_threshold is SkimCaffe's and ignored: "),
        ("momentum", 'regularization_type: "L3" momentum', "regularization_type 'L3' is unknown."),
        ("momentum", 'group_lasso_method: "L3" momentum', "group_lasso_method 'L3' is unknown."),
        (
            "block_group_decay: 0.003",
            "",
            "block_group_decay is 0, so the block_group_lasso of conv1 has no effect.",
        ),
        (
            "breadth_decay: 0.001",
            "",
            "breadth_decay is 0, so the breadth_decay_mult of ip1 has no effect.",
        ),
        (
            "kernel_shape_decay: 0.001",
            "",
            "kernel_shape_decay is 0, so the kernel_shape_decay_mult of ip1 has no effect.",
        ),
    ],
)
def test_solver(old: str, new: str, message: str) -> None:
    (finding,) = solver_findings(solver=(old, new))
    assert finding.where == "solver"
    assert finding.message.startswith(message)
    assert finding.advice.endswith(".")


@pytest.mark.parametrize(
    ("old", "new", "decay"),
    [
        ("breadth_decay_mult: 1", "breadth_decay_mult: 0", "breadth_decay"),
        ("kernel_shape_decay_mult: 1", "", "kernel_shape_decay"),
    ],
)
def test_decay_without_any_multiplier(old: str, new: str, decay: str) -> None:
    (finding,) = solver_findings(net=(old, new))
    assert finding.message.startswith(f"{decay} is set, but no layer asks for it")


def test_block_decay_without_any_block() -> None:
    net = parse_net(
        NET.replace("block_group_lasso { xdimen: 25 ydimen: 1 }", "").replace(
            "block_group_lasso { xdimen: 1 ydimen: 20 }", ""
        )
    )
    (finding,) = lint_solver(parse_solver(SOLVER), net)
    assert finding.message.startswith("block_group_decay is set, but no layer asks for it")


@pytest.mark.parametrize("mode", ["DISCONNECTED_ELTWISE", "DISCONNECTED_GRPWISE"])
def test_connectivity_frozen_too_early(mode: str) -> None:
    frozen = ('bottom: "conv1"', f'connectivity_mode: {mode} bottom: "conv1"')
    (finding,) = solver_findings(net=frozen)
    assert finding.where == "layer 'ip1'"
    assert finding.message == f"{mode} freezes zeros while breadth_decay still makes new ones."


def test_connectivity_without_weights() -> None:
    net = parse_net(
        'layer { name: "c" type: "Convolution" connectivity_mode: DISCONNECTED_GRPWISE '
        "convolution_param { num_output: 2 } }"
    )
    solver = parse_solver(PLAIN_SOLVER)
    (finding,) = lint_solver(solver, net, weights_given=False)
    assert "the run starts from none" in finding.message
    assert lint_solver(solver, net, weights_given=True) == []
    assert lint_solver(solver, net) == []


def test_finding_prints_as_one_line() -> None:
    finding = Finding("error", "layer 'a'", "It is wrong.", "Do this.")
    assert str(finding) == "error: layer 'a': It is wrong. Do this."


def test_a_layer_that_may_die_as_a_whole_needs_a_shortcut() -> None:
    """Group lasso over whole layers (learning the depth) is for the inside of residual blocks."""
    whole = "block_group_lasso { xdimen: 25 ydimen: 20 }"
    text = NET.replace("block_group_lasso { xdimen: 25 ydimen: 1 }", whole)
    (finding,) = lint_net(parse_net(text), SHAPES)
    assert (finding.severity, finding.where) == ("warning", "layer 'conv1'")
    assert "no shortcut" in finding.message
    around = """
        layer { name: "around" type: "Convolution" bottom: "data" top: "around"
                convolution_param { num_output: 20 kernel_size: 5 } }
        layer { name: "sum" type: "Eltwise" bottom: "around" bottom: "conv1" top: "sum" }
        layer { name: "ip1" """
    text = text.replace('layer { name: "ip1"', around)
    text = text.replace('bottom: "conv1" top: "ip1"', 'bottom: "sum" top: "ip1"')
    assert lint_net(parse_net(text), SHAPES) == []
    off = text.replace(whole, whole.replace("}", "block_decay_mult: 0 }"))
    assert not any("shortcut" in finding.message for finding in lint_net(parse_net(off), SHAPES))


def test_the_parts_of_a_fused_layer_are_checked() -> None:
    found = net_findings('type: "Convolution"', 'type: "ConvolutionReLU"') + net_findings(
        "kernel_size: 5", "kernel_size: 5 dump_parameter: true"
    )
    assert [one.where for one in found] == ["layer 'conv1'"]
    assert "minissl convert" in found[0].advice
    modes = NET.replace('type: "Convolution"', 'type: "ConvolutionReLU"')
    modes = modes.replace("kernel_size: 5", "kernel_size: 5 conv_mode: DIRECT_SCONV")
    assert "conv_mode DIRECT_SCONV runs sparse" in lint_net(parse_net(modes))[0].message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('type: "AdaGrad"', "AdaGrad has no momentum, but momentum is 0.9"),
        ("solver_type: RMSPROP", "RMSProp has no momentum"),
        ('type: "AdaDelta"', None),
        ('type: "adam"', "Type 'adam' is unknown"),
    ],
)
def test_update_rules(fields: str, message: str | None) -> None:
    found = lint_solver(parse_solver(SOLVER + fields))
    assert [one.severity for one in found] == ["error"] * (message is not None)
    assert not message or message in found[0].message


RATE = 'base_lr: 0.1 lr_policy: "fixed" max_iter: 100'
TESTS = " test_iter: 2 test_interval: 5 "
ALONE = f"train_net_param {{ {net_text()} }}"
TESTED = f"test_net_param {{ {net_text()} }}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("", "unknown lr_policy ''"),
        (RATE.replace("fixed", "stepp"), "unknown lr_policy 'stepp'"),
        (RATE.replace("fixed", "step"), "lr_policy 'step' needs a stepsize"),
        (RATE.replace("fixed", "multistep"), "needs at least one stepvalue"),
        (RATE.replace("fixed", "exp") + " gamma: -1", "gamma is -1"),
        (RATE.replace("max_iter: 100", "").replace("fixed", "poly"), "needs max_iter"),
        (RATE + " test_iter: 2", "test_iter is given but test_interval is not."),
        (RATE + " test_interval: 5", None),
        (RATE + " test_interval: 5 " + TESTED, "test nets is 1, that of its test_iter 0."),
        (RATE + TESTS + "test_iter: 2 " + TESTED, None),
        (RATE + TESTS + TESTED + TESTED, "test nets is 2, that of its test_iter 1."),
        (RATE + TESTS + ALONE, "test nets is 0, that of its test_iter 1."),
        (RATE + TESTS + ALONE + TESTED, None),
        (RATE + " test_interval: 5 test_iter: 0", "test_iter is 0."),
        (RATE + " iter_size: 0", "iter_size is 0."),
        (RATE + " breadth_decay: -1", "breadth_decay is -1."),
        (RATE.replace("0.1", "nan"), "base_lr is nan."),
        (RATE.replace("base_lr: 0.1", ""), None),
        (RATE.replace("max_iter: 100", ""), None),
    ],
)
def test_errors_are_what_a_solver_refuses(fields: str, message: str | None) -> None:
    """What it trains, with whatever result, is worth a warning at most."""
    param = parse_solver(fields)
    if not param.HasField("train_net_param"):
        param.net_param.CopyFrom(parse_net(net_text()))
    errors = [one.message for one in lint_solver(param) if one.severity == "error"]
    if message is None:
        Solver(param, backend="numpy")
        assert errors == []
        return
    with pytest.raises(ConfigError):
        Solver(param, backend="numpy")
    assert any(message in error for error in errors)


def test_of_an_unknown_policy_nothing_else_is_said() -> None:
    (finding,) = solver_findings(solver=('"multistep"', '"multi-step"'))
    assert "unknown lr_policy 'multi-step'; use one of fixed, step" in finding.message


def test_the_solver_types_are_those_that_are_there() -> None:
    assert set(SOLVER_TYPES) == set(RULES)
