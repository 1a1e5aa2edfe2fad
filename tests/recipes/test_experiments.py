"""The experiments that come with minissl: their files, and the solvers these name."""

import pytest

from minissl import models
from minissl.formats.prototxt import read_net, read_solver, read_solver_net, to_text
from minissl.lint import lint_solver
from minissl.net import Net
from minissl.recipes.experiment_files import find
from minissl.recipes.experiments import FILLERS, NAMES
from minissl.recipes.speed_experiments import NAMES as MEASURED
from minissl.sparsity.strength import strength_of

LENET3 = "lenet3_ssl_solver.prototxt"
DECAYS = ("block_group_decay", "breadth_decay", "kernel_shape_decay")
EXPERIMENTS = {name: find(name) for name in NAMES}
ROWS = [(one, row) for one in EXPERIMENTS.values() for row in one.rows]
#: of Figure 6 the paper tells no sizes of layers, of narrower blocks nothing
OF_THE_PAPER = [
    one for one in EXPERIMENTS.values() if one.key not in ("variants", "depth", "channels")
]
#: filters that are zero in the paper's dense networks already
DEAD_IN_THE_PAPER = {("table3", "conv1"): 4}


def built(experiment, solver_name):
    """The solver, and its training net without data."""
    path = experiment.path(solver_name)
    solver = read_solver(path)
    return solver, Net(read_solver_net(solver, path), "TRAIN", backend="numpy")


def shapes(net):
    return {parameter.name: parameter.shape for parameter in net.parameters}


def test_every_file_is_known_by_its_name():
    assert {path.stem for path in models.FOLDER.glob("*.toml")} == {*NAMES, *MEASURED}
    assert [one.key for one in EXPERIMENTS.values()] == list(NAMES)


@pytest.mark.parametrize(
    ("experiment", "row"), ROWS, ids=[f"{one.key}-{row.key}" for one, row in ROWS]
)
def test_the_stages_of_a_row_train_the_same_weights(experiment, row):
    _, dense = built(experiment, experiment.solver)
    names = ["ssl", "ssl2", "ssl3"][: len(row.ssl)]
    names += ["finetune", "finetune2"][: len(row.finetune)]
    assert list(row.trainings) == names
    given = row.start != FILLERS
    for what, name in row.trainings.items():
        solver, net = built(experiment, name)
        assert shapes(dense) == shapes(net)
        assert lint_solver(solver, net.param, weights_given=given) == []
        has_lasso = any(getattr(solver, decay) > 0 for decay in DECAYS)
        finetuning = what.startswith("finetune")
        assert has_lasso == (not finetuning and row.key != "squared")
        # the classifier of a residual network stays as it is
        of_one_type = [net.layer(layer) for layer in experiment.layers]
        of_one_type = [x for x in of_one_type if x.type_name == of_one_type[0].type_name]
        modes = {layer.param.connectivity_mode for layer in of_one_type}
        assert len(modes) == 1 and (modes != {0}) == finetuning
        given = True


@pytest.mark.parametrize("experiment", OF_THE_PAPER, ids=[one.key for one in OF_THE_PAPER])
def test_the_paper_s_rows_tell_of_the_table_s_layers(experiment):
    _, net = built(experiment, experiment.solver)
    for row in (experiment.baseline, *experiment.rows):
        assert [layer["name"] for layer in row.paper["layers"]] == list(experiment.layers)
        assert row.paper["name"] == row.name
    for layer in experiment.baseline.paper["layers"]:
        filters, columns = net.layer(layer["name"]).parameters[0].matrix_shape
        filters -= DEAD_IN_THE_PAPER.get((experiment.key, layer["name"]), 0)
        assert layer["filters"] in (filters, None) and layer["columns"] in (columns, None)
        if experiment.key != "table3":  # which gives no FLOP
            assert layer["flops_percent"] == 100


def test_the_mlp_s_flop_are_the_products_of_their_ends():
    for row in EXPERIMENTS["mlp"].rows:
        dense = {"ip1": 784 * 500, "ip2": 500 * 300, "ip3": 300 * 10}
        for layer in row.paper["layers"]:
            percent = 100 * layer["filters"] * layer["columns"] / dense[layer["name"]]
            assert layer["flops_percent"] == pytest.approx(percent, abs=0.01)


def test_table_2_counts_filters_that_are_read():
    for row in EXPERIMENTS["table2"].rows:
        conv1, conv2 = row.paper["layers"]
        read = conv2["channels"] / 20
        assert conv1["flops_percent"] == pytest.approx(100 * conv1["columns"] / 25 * read, abs=0.05)
        assert conv2["flops_percent"] == pytest.approx(100 * conv2["columns"] / 500, abs=0.05)


# --- variants: each differs from LeNet 3 in one thing ---


def solver_fields(name, *but):
    """The text of a solver without some of its fields."""
    solver = read_solver(models.path(name))
    for field in but:
        solver.ClearField(field)
    return to_text(solver)


def test_lenet_3_is_that_of_table_1():
    variants, table1 = EXPERIMENTS["variants"], EXPERIMENTS["table1"]
    assert variants.solver == table1.solver
    assert variants.row("lenet3").trainings == table1.row("lenet3").trainings
    finetune = table1.row("lenet3").finetune
    assert {row.key: row.finetune for row in variants.rows} == {
        **dict.fromkeys(("dense", "lenet3", "proximal", "scratch", "random"), finetune),
        "squared": (),
    }


@pytest.mark.parametrize(
    ("solver", "changed"),
    [
        ("lenet3_proximal_ssl_solver.prototxt", ["group_lasso_method"]),
        ("lenet3_scratch_ssl_solver.prototxt", ["stepvalue", "max_iter"]),
        ("lenet3_squared_ssl_solver.prototxt", ["net", "block_group_decay"]),
    ],
)
def test_solvers_differ_from_lenet_3_s_in_what_they_say(solver, changed):
    assert solver_fields(solver, *changed) == solver_fields(LENET3, *changed)
    for field in changed:
        values = [getattr(read_solver(models.path(s)), field) for s in (solver, LENET3)]
        assert values[0] != values[1]


def test_the_square_root_is_forgotten_with_the_same_strength():
    solver = read_solver(models.path(LENET3))
    lasso, squared = (
        read_net(models.path(name)).layer
        for name in ("lenet3_ssl.prototxt", "lenet3_squared.prototxt")
    )
    for one, other in zip(lasso, squared, strict=True):
        if not one.param:
            assert one == other
            continue
        spec, decay = one.param[0], other.param[0].decay_mult
        groups = [block.block_decay_mult for block in spec.block_group_lasso]
        expected = sum(strength_of(solver.block_group_decay, multiplier) for multiplier in groups)
        expected += strength_of(solver.weight_decay, spec.decay_mult)
        assert strength_of(solver.weight_decay, decay) == pytest.approx(expected, rel=1e-6)
        one.param[0].ClearField("block_group_lasso")
        other.param[0].ClearField("decay_mult")
        assert one == other
