"""An experiment's file is read, or refused in one sentence."""

import re

import pytest

from minissl import models
from minissl.errors import ConfigError
from minissl.formats.prototxt import read_solver
from minissl.recipes.experiment_files import find, read
from minissl.recipes.paper import LENET_TABLE_1

BASE = """
title = "Mine"
layers = ["conv1", "ip1"]
[baseline]
name = "LeNet"
solver = "lenet_solver.prototxt"
"""
ROW = """
[[rows]]
key = "small"
name = "small LeNet"
ssl = ["lenet3_ssl_solver.prototxt"]
finetune = "lenet3_ft_solver.prototxt"
"""


def written(folder, text):
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_file_is_read(tmp_path):
    text = BASE.replace("title", 'about = "What for."\ndata = "mnist-small"\ntitle')
    text += ROW + 'start = "fillers"\nabout = "From scratch."\npaper = "table1/LeNet 2"\n'
    text += '[[rows]]\nkey = "r2"\nname = "by chance"\nprune_like = "small"\n'
    mine = find(written(tmp_path, text))
    assert (mine.key, mine.title, mine.data, mine.about) == (
        "mine",
        "Mine",
        "mnist-small",
        "What for.",
    )
    assert mine.layers == ("conv1", "ip1") and mine.file == tmp_path / "mine.toml"
    small, chance = mine.rows
    assert small.trainings == {
        "ssl": "lenet3_ssl_solver.prototxt",
        "finetune": "lenet3_ft_solver.prototxt",
    }
    assert small.start == "fillers" and small.about == "From scratch."
    assert small.paper == LENET_TABLE_1[1] and mine.baseline.paper is None
    assert chance.prune_like == "small" and chance.trainings == {} and chance.start == "baseline"
    assert mine.trainings("baseline") == {"baseline": "lenet_solver.prototxt"}
    assert mine.data == "mnist-small" and read(written(tmp_path, BASE + ROW)).data == "mnist"


def test_each_row_has_an_order_of_its_own(tmp_path):
    rows = ROW + "shuffle = true\n" + ROW.replace("small", "other")
    mine = read(written(tmp_path, BASE + rows))
    assert [row.shuffle for row in (mine.baseline, *mine.rows)] == [False, True, False]
    mine = read(written(tmp_path, BASE + "shuffle = true\n" + ROW))
    assert [row.shuffle for row in (mine.baseline, *mine.rows)] == [True, False]


def test_what_a_table_shows(tmp_path):
    assert read(written(tmp_path, BASE + ROW)).shown == "structure"
    assert read(written(tmp_path, 'shown = "sparsity"' + BASE + ROW)).shown == "sparsity"
    with pytest.raises(
        ConfigError, match="'shown' is 'speed'; make it one of structure, sparsity, depth"
    ):
        read(written(tmp_path, 'shown = "speed"' + BASE + ROW))


def test_table_3_is_published_in_per_cent():
    table = find("table3")
    rows = [row.paper for row in (table.baseline, *table.rows)]
    sizes = ((32, 75), (32, 800), (64, 800))
    zero = [
        [
            (100 - 100 * one["filters"] / filters, 100 - 100 * one["columns"] / columns)
            for one, (filters, columns) in zip(row["layers"], sizes, strict=True)
        ]
        for row in rows
    ]
    # rows and columns of conv1, conv2 and conv3
    expected = [
        [(12.5, 0), (0, 0), (0, 0)],
        [(50.0, 0), (28.1, 59.3), (1.6, 35.1)],
        [(31.3, 0), (0, 42.8), (1.6, 9.8)],
    ]
    assert zero == [[pytest.approx(pair, abs=0.06) for pair in row] for row in expected]
    assert [row["error"] for row in rows] == [0.179, 0.179, 0.169]
    assert table.data == "cifar10" and table.shown == "sparsity"


def test_depth_counts_the_main_path():
    depth = find("depth")
    assert len(depth.layers) == 20 and not any("shortcut" in name for name in depth.layers)
    assert depth.baseline.paper["depth"] == 20 and depth.baseline.paper["error"] == 0.0882


def test_layers_are_removed_from_one_network_by_more_and_more():
    depth = find("depth")
    removing = [row for row in depth.rows if row.start == "learned"]
    assert [row.key for row in removing] == ["layers18", "layers16", "more"]

    def iterations(*solvers):
        return sum(read_solver(depth.path(name)).max_iter for name in solvers)

    taken, lasting = [], []
    for row in removing:
        (solver,) = (read_solver(depth.path(name)) for name in row.ssl)
        # the rate falls linearly to zero: half of it in the mean
        taken.append(solver.block_group_decay * solver.base_lr / 2 * solver.max_iter / 0.1)
        assert solver.momentum == pytest.approx(0.9)
        lasting.append(iterations(*row.ssl, *row.finetune))
    assert taken == pytest.approx([0.2, 0.45, 1.1])
    learned, longest = (
        next(row for row in depth.rows if row.key == key) for key in ("learned", "longest")
    )
    whole = iterations(*longest.finetune)
    assert learned.start == longest.start == "longer"
    assert [iterations(*learned.ssl) + one for one in lasting] == [whole] * 3


def test_solvers_are_found_beside_the_file_first(tmp_path):
    own = (models.FOLDER / "lenet_solver.prototxt").read_text()
    (tmp_path / "lenet_solver.prototxt").write_text(own)
    mine = read(written(tmp_path, BASE + ROW))
    assert mine.path("lenet_solver.prototxt") == tmp_path / "lenet_solver.prototxt"
    assert mine.path("lenet3_ft_solver.prototxt") == models.path("lenet3_ft_solver.prototxt")


def test_published_figures_may_stand_in_the_file(tmp_path):
    text = (
        ROW
        + """
    [rows.paper]
    error = 0.01
    layers = [{ name = "conv1", filters = 3, flops_percent = 15 }]
    """
    )
    (row,) = read(written(tmp_path, BASE + text)).rows
    assert row.paper["error"] == 0.01 and row.paper["name"] is None
    conv1 = {
        "name": "conv1",
        "filters": 3,
        "channels": None,
        "columns": None,
        "flops_percent": 15.0,
    }
    assert row.paper["layers"] == [conv1]


def test_a_name_that_is_none():
    with pytest.raises(ConfigError, match="unknown experiment 'table9'; use one of table1, table2"):
        find("table9")
    with pytest.raises(ConfigError, match=r"There is no experiment file nowhere\.toml"):
        find("nowhere.toml")


CHANGES = [
    # what is replaced, by what, and the sentence
    ("title =", "titel =", "'title' is missing"),
    ("[baseline]", "[base]", "'baseline' is missing"),
    ('title = "Mine"', "title = 3", "'title' is 3; make it a text"),
    ('title = "Mine"', 'title = ""\ncolour = 1', "unknown key 'colour'; use layers, baseline"),
    ('["conv1", "ip1"]', "[]", "'layers' is []; make it a list of texts"),
    ('["conv1", "ip1"]', "[1]", "'layers' is [1]; make it a list of texts"),
    ('["conv1", "ip1"]', '["ip1", "ip1"]', "'layers' names 'ip1' twice; name each layer once"),
    ('["conv1", "ip1"]', '["conv3"]', "'layers' names 'conv3', but the layers with weights of "),
    ("finetune =", "fintune =", "row 'small': unknown key 'fintune'; did you mean 'finetune'?"),
    ("[[rows]]", "[rows]", "'rows' is {"),
    (BASE + ROW, "rows = []" + BASE, "it has no [[rows]]; write at least one"),
    ("ssl = [", "ssl = 1 #", "row 'small': 'ssl' is 1; make it a list"),
    ('key = "small"', "key = true", "row 1: 'key' is True; make it a text"),
    ('key = "small"', 'key = "a-b"', "'key' is 'a-b'; make it small letters, digits and _"),
    ('key = "small"', 'key = "baseline"', "and none of baseline, fillers, pictures"),
    ('name = "small LeNet"', "", "row 'small': 'name' is missing"),
    ('name = "small LeNet"', 'name = "LeNet"', "two rows have the name 'LeNet'"),
    (
        "lenet3_ft_solver",
        "nowhere",
        "row 'small': there is no solver 'nowhere.prototxt', neither in",
    ),
    (
        "ssl = [",
        'start = "zero"\nssl = [',
        "'start' is 'zero'; make it baseline, fillers or the key of a trained row above",
    ),
    ("ssl = [", 'start = "small"\nssl = [', "'start' is 'small'; make it baseline, fillers or"),
    ("ssl = [", 'data = "mnits"\nssl = [', "unknown key 'data'"),
    (
        "ssl = [",
        'paper = "table1/LeNet 9"\nssl = [',
        "'paper' is 'table1/LeNet 9'; make it one of ",
    ),
    ("ssl = [", "paper = { error = 1.5, layers = [] }\nssl = [", "a fraction between 0 and 1"),
    ("ssl = [", "paper = { layers = [] }\nssl = [", "row 'small', paper: 'error' is missing"),
    ("ssl = [", "paper = { error = 0, layers = [1] }\nssl = [", "layer 1 is no table of keys"),
    ("ssl = [", "paper = {}\nssl = [", "row 'small', paper: 'layers' is missing"),
    (
        "ssl = [",
        'paper = { error = 0, layers = [{ name = "conv2" }] }\nssl = [',
        "layer 1: 'name' is 'conv2'; make it one of the table's layers, conv1, ip1",
    ),
    (
        "ssl = [",
        'paper = { error = 0, layers = [{ name = "ip1" }, { name = "ip1" }] }\nssl = [',
        "row 'small', paper: 'layers' names 'ip1' twice; name each layer once",
    ),
    *(
        (
            "ssl = [",
            f'paper = {{ error = 0, layers = [{{ name = "ip1", {key} = {value} }}] }}\nssl = [',
            f"row 'small', paper, layer 1: '{key}' is {said}; make it {wanted} from 0 on",
        )
        for key, value, said, wanted in (
            ("filters", "-5", "-5", "a whole number"),
            ("channels", "-1", "-1", "a whole number"),
            ("flops_percent", "nan", "nan", "a finite number"),
            ("flops_percent", "inf", "inf", "a finite number"),
            ("flops_percent", "-0.5", "-0.5", "a finite number"),
        )
    ),
    ("finetune =", "rescale = true #", "'rescale' comes between 'ssl' and 'finetune'; leave it"),
    ("ssl = [", "rescale = 1\nssl = [", "'rescale' is 1; make it true or false"),
    ("ssl = [", "shuffle = 1\nssl = [", "'shuffle' is 1; make it true or false"),
    ("ssl = [", 'prune_like = "small"\nssl = [', "leave out 'ssl' and 'start'"),
    (
        ROW,
        "[[rows]]\nkey = 'a'\nname = 'A'\n",
        "row 'a' does nothing; give it 'ssl', 'finetune' or",
    ),
    (
        ROW,
        "[[rows]]\nkey = 'a'\nname = 'A'\nprune_like = 'b'",
        "'b', which is no trained row above",
    ),
    ("title = ", 'shown = "width"\ntitle = ', "names 'ip1', but shown = \"width\" tells of convol"),
    ("title = ", 'data = "mnits"\ntitle = ', "'data' is 'mnits'; make it one of mnist"),
    (
        ROW,
        ROW + "[[rows]]\nkey = 'a'\nname = 'A'\nprune_like = 'small'\nshuffle = true",
        "row 'a': 'shuffle' is for rows that are trained; leave it out",
    ),
    (ROW, ROW + ROW, "two rows have the key 'small'; give each its own"),
    ("[baseline]", "[baseline", "is not TOML: "),
]


@pytest.mark.parametrize(("old", "new", "said"), CHANGES, ids=[said for _, _, said in CHANGES])
def test_bad_files_are_told_in_one_sentence(tmp_path, old, new, said):
    text = BASE + ROW
    assert old in text
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        read(written(tmp_path, text.replace(old, new, 1)))
    told = str(caught.value)
    assert "\n" not in told and str(tmp_path / "mine.toml") in told


def test_published_figures_may_be_zero(tmp_path):
    zero = "{ name = 'ip1', filters = 0, flops_percent = 0 }"
    text = ROW + f"[rows.paper]\nerror = 0\nlayers = [{zero}]"
    (layer,) = read(written(tmp_path, BASE + text)).rows[0].paper["layers"]
    assert (layer["filters"], layer["channels"], layer["flops_percent"]) == (0, None, 0.0)


def test_a_solver_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "bad.prototxt").write_text("base_lr: much")
    with pytest.raises(ConfigError, match=r"bad\.prototxt"):
        read(written(tmp_path, BASE + ROW.replace("lenet3_ft_solver", "bad")))
