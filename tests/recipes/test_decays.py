import numpy as np
import pytest

from minissl import Net, Solver
from minissl.errors import ConfigError
from minissl.recipes.decays import suggest
from minissl.sparsity.group_lasso import group_norms
from tests.tiny_nets import DIGITS

SOLVER = """
net: "digits.prototxt" base_lr: 0.05 lr_policy: "fixed" max_iter: 8 random_seed: 3
weight_decay: 0.01 breadth_decay: 0.5
"""
#: conv1: 3 rows of 25 twice as rows (once as a block); ip1: columns of 10 and rows of 75
GROUPS = {
    "param { lr_mult: 1 block_group_lasso { xdimen: 25 ydimen: 1 } }": (
        "param { breadth_decay_mult: 2 block_group_lasso { xdimen: 5 ydimen: 3 } }"
    ),
    'bottom: "conv1" top: "ip1"': (
        'bottom: "conv1" top: "ip1" param { decay_mult: 0.5 kernel_shape_decay_mult: 0.25 }'
    ),
}


@pytest.fixture
def solver(tmp_path):
    text = DIGITS
    for old, new in GROUPS.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "digits.prototxt").write_text(text)
    path = tmp_path / "solver.prototxt"
    path.write_text(SOLVER)
    return path


def weights_of(solver):
    net = Solver(solver, backend="numpy").net
    return {name: np.array(net.layer(name).parameters[0].data) for name in ("conv1", "ip1")}


def by_decay(found):
    return {one.decay: one for one in found.decays}


def f32(x):
    return float(np.float32(x))


def test_the_first_two_marks_are_where_the_penalties_are_equal(solver):
    found = suggest(solver, batches=3, backend="numpy")
    marks, w = by_decay(found), weights_of(solver)
    assert list(marks) == ["kernel_shape_decay", "breadth_decay", "block_group_decay"]
    assert [one.now for one in found.decays] == [0, 0.5, 0]
    penalties = {  # of a decay of 1, and of the L2 decay of the same weights
        "kernel_shape_decay": (
            0.25 * np.linalg.norm(w["ip1"], axis=0).sum(),
            f32(0.01) * 0.5 / 2 * (w["ip1"] ** 2).sum(),
        ),
        "breadth_decay": (
            2 * np.linalg.norm(w["conv1"].reshape(3, 25), axis=1).sum(),
            f32(0.01) / 2 * (w["conv1"] ** 2).sum(),
        ),
        "block_group_decay": (
            np.linalg.norm(w["conv1"].reshape(3, 5, 5), axis=(0, 2)).sum(),
            f32(0.01) / 2 * (w["conv1"] ** 2).sum(),
        ),
    }
    for decay, (unit, l2) in penalties.items():
        assert marks[decay].equal_to_loss * unit == pytest.approx(found.loss, rel=1e-5)
        assert marks[decay].equal_to_l2 * unit == pytest.approx(l2, rel=1e-5)


def test_the_loss_is_the_mean_of_the_first_batches(solver):
    net = Solver(solver, backend="numpy").net
    losses = []
    for _ in range(3):
        net.forward()
        losses.append(net.loss())
    assert suggest(solver, batches=3, backend="numpy").loss == pytest.approx(np.mean(losses))
    assert suggest(solver, batches=1, backend="numpy").loss == pytest.approx(losses[0])
    assert losses[0] != pytest.approx(np.mean(losses), rel=1e-3)


@pytest.mark.parametrize(("share", "dies"), [(1.05, True), (0.6, False)])
def test_lambda_max_decides_whether_a_layer_of_zeros_comes_back(solver, share, dies):
    """Trained by the proximal step, on as many batches at once as were averaged."""
    found = suggest(solver, batches=2, backend="numpy")
    (tiling,) = [one for one in found.tilings if one.layer == "ip1"]
    changed = Solver(solver, backend="numpy").param
    changed.kernel_shape_decay = share * tiling.decay_max
    changed.group_lasso_method, changed.weight_decay, changed.iter_size = "proximal", 0, 2
    changed.net = str(solver.with_name("digits.prototxt"))
    run = Solver(changed, backend="numpy", zero_out=False)
    run.net.layer("ip1").parameters[0].data[...] = 0
    run.step()
    assert (run.net.layer("ip1").parameters[0].data == 0).all() == dies


def test_tilings_tell_groups_lengths_and_multipliers(solver):
    found = suggest(solver, batches=1, backend="numpy")
    told = [
        (one.layer, one.decay, str(one.tile), one.groups, one.multiplier) for one in found.tilings
    ]
    assert told == [
        ("conv1", "breadth_decay", "25x1", 3, 2.0),
        ("conv1", "block_group_decay", "5x3", 5, 1.0),
        ("ip1", "kernel_shape_decay", "1x10", 75, 0.25),
    ]
    roots = [one["root_multiplier"] for one in found.to_json()["tilings"]]
    assert roots == pytest.approx([2.5**0.5, 1.5**0.5, 1.0])


def test_weights_and_fields_of_a_run_count(solver, tmp_path):
    net = Net(solver.with_name("digits.prototxt"), "TEST", backend="numpy", seed=9)
    net.save(tmp_path / "other.caffemodel")
    plain = suggest(solver, batches=1, backend="numpy")
    other = suggest(solver, tmp_path / "other.caffemodel", 1, ["weight_decay=0"], "numpy")
    assert other.loss != pytest.approx(plain.loss, rel=1e-6)
    matrix = net.layer("ip1").parameters[0].matrix
    assert other.tilings[2].norms == pytest.approx(
        group_norms(matrix, other.tilings[2].tile).sum(), rel=1e-6
    )
    assert all(one.equal_to_l2 is None for one in other.decays)
    assert all(one.equal_to_l2 > 0 for one in plain.decays)


def test_a_layer_that_passes_nothing_on_has_no_lambda_max(solver):
    """conv1 has no bias worth mentioning and a ReLU behind it: of zeros it makes zeros."""
    found = suggest(solver, batches=1, backend="numpy")
    assert [one.decay_max is None for one in found.tilings] == [True, True, False]
    assert by_decay(found)["breadth_decay"].decay_max is None


def test_zero_weights_have_no_marks(solver, tmp_path):
    net = Net(solver.with_name("digits.prototxt"), "TEST", backend="numpy")
    for parameter in net.parameters:
        parameter.data[...] = 0
    net.save(tmp_path / "zero.caffemodel")
    found = suggest(solver, tmp_path / "zero.caffemodel", 1, backend="numpy")
    assert all(one.equal_to_loss is None and one.equal_to_l2 is None for one in found.decays)


def test_a_net_without_groups_is_refused(tmp_path):
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    text = DIGITS.replace("block_group_lasso { xdimen: 25 ydimen: 1 }", "")
    (tmp_path / "digits.prototxt").write_text(text)
    with pytest.raises(ConfigError, match="'Digits' asks for no group lasso; add block_group"):
        suggest(tmp_path / "solver.prototxt", backend="numpy")
