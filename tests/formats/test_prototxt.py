from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minissl.errors import ConfigError
from minissl.formats import prototxt
from minissl.formats.prototxt import (
    parse_net,
    parse_solver,
    read_net,
    read_solver,
    read_solver_net,
    resolve_net_path,
    set_fields,
    to_text,
    write_prototxt,
)
from tests.formats.conftest import damaged, result_or_error

NET = """
name: "small"  # a comment { with a brace
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  connectivity_mode: DISCONNECTED_GRPWISE
  param { lr_mult: 1 block_group_lasso { xdimen: 1 ydimen: 20 } breadth_decay_mult: 0.5 }
  convolution_param { num_output: 20 kernel_size: 5 conv_mode: LOWERED_CCNMM }
}
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "multistep" stepvalue: 5 max_iter: 10'


def test_reads_fields_of_ssl() -> None:
    (layer,) = parse_net(NET).layer
    assert layer.connectivity_mode == layer.DISCONNECTED_GRPWISE
    assert layer.param[0].block_group_lasso[0].ydimen == 20
    assert layer.param[0].breadth_decay_mult == 0.5
    assert layer.convolution_param.conv_mode == layer.convolution_param.LOWERED_CCNMM


def test_floats_are_widened_float32() -> None:
    assert parse_solver(SOLVER).base_lr == float(np.float32(0.01)) != 0.01


def test_text_round_trip(tmp_path: Path) -> None:
    net = parse_net(NET)
    write_prototxt(net, tmp_path / "out.prototxt")
    assert read_net(tmp_path / "out.prototxt") == net
    assert "base_lr: 0.01\n" in to_text(parse_solver(SOLVER))


@pytest.mark.parametrize(
    "layer_parameters",
    [
        'type: "LRN" lrn_param { local_size: 5 norm_region: WITHIN_CHANNEL }',
        'type: "Concat" concat_param { axis: 1 }',
        'type: "Eltwise" eltwise_param { operation: SUM coeff: 1 coeff: -1 }',
        'type: "BatchNorm" batch_norm_param { use_global_stats: true }',
        'type: "Scale" scale_param { bias_term: true }',
        'type: "Python" python_param { module: "m" layer: "L" param_str: "{}" }',
        'type: "InfogainLoss" infogain_loss_param { source: "x" }',
        'type: "Winograd" convolution_param { num_output: 1 kernel_size: 3 }',
    ],
)
def test_layers_of_published_nets_parse(layer_parameters: str) -> None:
    net = parse_net(f'layer {{ name: "a" {layer_parameters} }}')
    assert net.layer[0].ByteSize() > 8


# -------------------------------------------------------------------------------- bad text


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        (
            'layer {\n  conv_mode: LOWERED_CCNMM  name: "conv1"\n}',
            "2:3",
            "field 'conv_mode' is unknown in layer 'conv1' (LayerParameter); "
            "it belongs inside convolution_param { ... }.",
        ),
        (
            'layer { name: "p" type: "Pooling" kernel_size: 2 }',
            "1:35",
            "it belongs inside pooling_param { ... }.",
        ),
        (
            'layer { name: "p" kernel_size: 2 }',
            "1:19",
            "it belongs inside convolution_param { ... } or pooling_param { ... }.",
        ),
        (
            'layer { name: "c" convolution_param { lr_mult: 2 } }',
            "1:39",
            "(ConvolutionParameter); in a net it belongs inside layer { param { ... } }.",
        ),
        (
            'layer # one } " of\n { name: "c" conv_mode: AUTO }',
            "2:14",
            "field 'conv_mode' is unknown in layer 'c' (LayerParameter)",
        ),
        ("layer { xdimen: 2 }", "1:9", "it belongs inside param { block_group_lasso { ... } }."),
        ("block_group_decay: 1", "1:1", "it belongs in the solver file."),
        ('layer { nane: "c" }', "1:9", "did you mean 'name'?"),
        ("zzzzzz: 1", "1:1", "remove it or correct its name."),
        (
            'layer { name: "c" convolution_param { conv_mode: CSR } }',
            "1:50",
            "'CSR' is not a known value; it is one of LOWERED_GEMM, LOWERED_CSRMM",
        ),
        ('layer { name: "a" name: "b" }', "1:25", "field 'name' is given twice"),
        ('layer { name: "a"', "1:15", 'Expected "}"'),
        ('# layer "x" {\nlayer { name: a }', "2:15", "Expected string"),
        (
            'layer { name: "a" convolution_param { num_output: -2 } }',
            "1:51",
            "in layer 'a', Value out of range: -2",
        ),
    ],
)
def test_net_errors_name_place_and_remedy(text: str, place: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_net(text, "net.prototxt")
    message = str(raised.value)
    assert message.startswith(f"net.prototxt:{place}: ")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("conv_mode: AUTO", "in a net it belongs inside layer { convolution_param { ... } }."),
        ("layer { }", "it belongs at the top level of the net file."),
        ("connectivity_mode: CONNECTED", "in a net it belongs inside layer { ... }."),
        ("base_lrr: 1", "did you mean 'base_lr'?"),
        ("block_group_dekay: 1", "did you mean 'block_group_decay'?"),
        ("level: 1", "it belongs inside train_state { ... }."),
    ],
)
def test_solver_errors_name_the_remedy(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_solver(text, "solver.prototxt")
    assert expected in str(raised.value)


def test_text_that_is_not_unicode() -> None:
    with pytest.raises(ConfigError, match="is not a prototxt"):
        parse_net("layer { connectivity_mode:\udc80CONNECTED }")


def test_missing_file_folder_and_foreign_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no net file"):
        read_net(tmp_path / "none.prototxt")
    with pytest.raises(ConfigError, match="is a folder, not a solver file"):
        read_solver(tmp_path)
    (tmp_path / "binary").write_bytes(b"name: 'a'\n\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary:2: this net file is not UTF-8"):
        read_net(tmp_path / "binary")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_net("a\0b")


def test_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match="net file n may not be read; change its permissions"):
        read_net("n")


# -------------------------------------------------------------------------- solver's fields


def test_set_scalars_lists_enums_and_groups() -> None:
    solver = parse_solver(SOLVER)
    assignments = ["base_lr=0.5", "stepvalue=1, 2,3", "solver_mode=CPU", "type=Adam"]
    set_fields(solver, [*assignments, "test_initialization=false", "train_state.level=-3"])
    assert solver.base_lr == 0.5
    assert list(solver.stepvalue) == [1, 2, 3]
    assert solver.solver_mode == solver.CPU
    assert solver.type == "Adam"
    assert solver.test_initialization is False
    assert solver.train_state.level == -3
    set_fields(solver, ["stepvalue="])
    assert list(solver.stepvalue) == []


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("base_lr", "write key=value"),
        ("bse_lr=1", "did you mean 'base_lr'?"),
        ("base_lr=fast", "expected a number, got 'fast'"),
        ("base_lr=nan", "expected a finite number"),
        ("base_lr=1e39", "expected a finite number that fits float32"),
        ("max_iter=1.5", "expected a whole number, got '1.5'"),
        ("max_iter=3000000000", "expected a whole number from -2147483648 to 2147483647"),
        ("max_iter=", "expected a whole number, got ''"),
        ("stepvalue=1,x", "expected a whole number, got 'x'"),
        ("solver_mode=TPU", "expected one of CPU, GPU"),
        ("debug_info=maybe", "expected true or false"),
        ("type=\udcff", "expected printable text"),
        ("train_state=1", "group of fields"),
        ("net.name=1", "is not a single group"),
        ("test_state.level=1", "is not a single group"),
        ("train_state.phse=TEST", "did you mean 'phase'?"),
    ],
)
def test_set_refuses(assignment: str, expected: str) -> None:
    solver = parse_solver(SOLVER)
    before = solver.SerializeToString()
    with pytest.raises(ConfigError) as raised:
        set_fields(solver, [assignment])
    assert expected in str(raised.value)
    # A look at a group must not leave an empty one behind.
    assert solver.SerializeToString() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [("SGD", "SGD"), ("NESTEROV", "Nesterov"), ("RMSPROP", "RMSProp"), ("ADAM", "Adam")],
)
def test_old_solver_type_is_upgraded(old: str, new: str) -> None:
    solver = parse_solver(f"solver_type: {old}")
    assert solver.type == new
    assert not solver.HasField("solver_type")


def test_both_solver_types_are_refused() -> None:
    with pytest.raises(ConfigError, match="both type and solver_type"):
        parse_solver('solver_type: ADAM type: "SGD"', "s.prototxt")


# -------------------------------------------------------------------------- finding the net


def test_net_is_found_as_caffe_does_then_beside_the_solver_then_packaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, home, models = (tmp_path / name for name in ("work", "home", "models"))
    for folder in (work / "examples", home, models):
        folder.mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setattr(prototxt, "PACKAGED_MODELS", models)
    solver = parse_solver('net: "examples/net.prototxt"')
    solver_path = home / "solver.prototxt"

    with pytest.raises(ConfigError, match=r"There is no net 'examples/net\.prototxt'") as raised:
        resolve_net_path(solver, solver_path)
    assert str(models) in str(raised.value) and str(home) in str(raised.value)

    (home / "examples").mkdir()
    places = [models / "net.prototxt", home / "net.prototxt"]
    for place in [*places, home / "examples/net.prototxt", work / "examples/net.prototxt"]:
        place.write_text(NET)  # each is preferred to the one before
        assert resolve_net_path(solver, solver_path).resolve() == place
    assert read_solver_net(solver, solver_path).name == "small"


def test_net_inside_the_solver() -> None:
    solver = parse_solver('net_param { name: "inside" }')
    assert read_solver_net(solver, "s.prototxt").name == "inside"
    with pytest.raises(ConfigError, match="names no net"):
        resolve_net_path(solver, "s.prototxt")
    with pytest.raises(ConfigError, match="gives net_param and net, but trains one"):
        read_solver_net(parse_solver('net_param { } net: "x"'), "s.prototxt")


def test_nets_and_solvers_of_the_original(original_runs: Path) -> None:
    solvers = sorted((original_runs / "solvers").glob("*.prototxt"))
    assert len(solvers) >= 10
    for path in solvers:
        solver = read_solver(path)
        net = read_net(original_runs / "nets" / solver.net)
        assert solver.max_iter > 0 and net.layer[-1].type == "SoftmaxWithLoss"
        assert parse_net(to_text(net)) == net


# ------------------------------------------------------------------------------------ fuzz


@settings(max_examples=200, deadline=None)
@given(damaged(NET.encode()))
def test_any_net_text_parses_or_is_explained(content: bytes) -> None:
    result_or_error(parse_net, content.decode("utf-8", "surrogateescape"))


@settings(max_examples=200, deadline=None)
@given(damaged(SOLVER.encode()))
def test_any_solver_text_parses_or_is_explained(content: bytes) -> None:
    result_or_error(parse_solver, content.decode("latin-1"))


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.text(max_size=30),
        st.tuples(
            st.sampled_from(["base_lr", "max_iter", "stepvalue", "type", "net", "random_seed"]),
            st.text(max_size=20),
        ).map("=".join),
    )
)
def test_any_assignment_is_set_or_explained(assignment: str) -> None:
    result_or_error(set_fields, parse_solver(SOLVER), [assignment])
