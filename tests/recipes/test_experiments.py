import pytest

from minissl import models
from minissl.cli.reproduce import NAMES
from minissl.errors import ConfigError
from minissl.formats.prototxt import read_solver, read_solver_net
from minissl.lint import lint_solver
from minissl.net import Net
from minissl.recipes.experiments import EXPERIMENTS, find

DECAYS = ("block_group_decay", "breadth_decay", "kernel_shape_decay")
ROWS = [(one, row) for one in EXPERIMENTS.values() for row in one.rows]


def built(solver_name):
    """The solver, and its training net without data."""
    path = models.path(solver_name)
    solver = read_solver(path)
    return solver, Net(read_solver_net(solver, path), "TRAIN", backend="numpy")


def shapes(net):
    return {parameter.name: parameter.shape for parameter in net.parameters}


def test_the_command_knows_all_experiments():
    assert tuple(EXPERIMENTS) == NAMES
    with pytest.raises(ConfigError, match="unknown experiment 'table3'; use one of table1, table2"):
        find("table3")


@pytest.mark.parametrize(("experiment", "row"), ROWS, ids=[row.key for _, row in ROWS])
def test_the_stages_of_a_row_train_the_same_weights(experiment, row):
    _, dense = built(experiment.baseline)
    *sparse, finetune = (built(name) for name in row.trainings.values())
    assert list(row.trainings) == [*(["ssl", "ssl2", "ssl3"][: len(row.ssl)]), "finetune"]
    for solver, net in (*sparse, finetune):
        assert shapes(dense) == shapes(net)
        assert lint_solver(solver, net.param, weights_given=True) == []
    assert all(any(getattr(solver, name) > 0 for name in DECAYS) for solver, _ in sparse)
    assert not any(getattr(finetune[0], name) > 0 for name in DECAYS)
    modes = [finetune[1].layer(name).param.connectivity_mode for name in experiment.layers]
    assert len(set(modes)) == 1 and modes[0] != 0


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=list(EXPERIMENTS))
def test_the_paper_s_rows_tell_of_the_table_s_layers(experiment):
    _, net = built(experiment.baseline)
    for paper in (experiment.paper, *(row.paper for row in experiment.rows)):
        assert [layer["name"] for layer in paper["layers"]] == list(experiment.layers)
    for layer in experiment.paper["layers"]:
        filters, columns = net.layer(layer["name"]).parameters[0].matrix_shape
        assert layer["filters"] in (filters, None) and layer["columns"] in (columns, None)
        assert layer["flops_percent"] == 100


def test_the_mlp_s_flop_are_the_products_of_their_ends():
    for row in find("mlp").rows:
        dense = {"ip1": 784 * 500, "ip2": 500 * 300, "ip3": 300 * 10}
        for layer in row.paper["layers"]:
            percent = 100 * layer["filters"] * layer["columns"] / dense[layer["name"]]
            assert layer["flops_percent"] == pytest.approx(percent, abs=0.01)


def test_table_2_counts_filters_that_are_read():
    for row in find("table2").rows:
        conv1, conv2 = row.paper["layers"]
        read = conv2["channels"] / 20
        assert conv1["flops_percent"] == pytest.approx(100 * conv1["columns"] / 25 * read, abs=0.05)
        assert conv2["flops_percent"] == pytest.approx(100 * conv2["columns"] / 500, abs=0.05)
