"""What is compared, and how it is counted; never how long it takes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minissl import backend as backends
from minissl.conv_modes import MODES
from minissl.errors import ConfigError
from minissl.recipes import speed, speed_timing
from minissl.recipes.checking import check, read_result
from minissl.recipes.experiment_files import find
from minissl.recipes.speed import SpeedMeasurement, layers_of, structure_of
from minissl.recipes.speed_timing import compare, fastest_product, means
from tests.conftest import needs_compiler
from tests.recipes.speed_cases import RANDOM, SSL, TEXT, times, write_set

DIRECT = RANDOM.replace('"random"', '"later"').replace("single zeros", "a mode to come")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a measured experiment and its result; not to be changed."""
    folder = tmp_path_factory.mktemp("speed")
    write_set(folder / "lenet" / "a")
    (folder / "mine.toml").write_text(TEXT + "threads = [1, 1000]\n" + SSL + RANDOM)
    told = []
    recipe = SpeedMeasurement(find(folder / "mine.toml"), folder / "out", folder, fast=True)
    return folder, recipe.run("minissl reproduce mine.toml", told.append), told


@needs_compiler
def test_every_row_is_measured(finished):
    folder, result, told = finished
    assert told == ["packed: batch 1, 1 thread", "single zeros: batch 1, 1 thread"]
    assert result == json.loads((folder / "out" / "result.json").read_text())
    assert (folder / "out" / "experiment.toml").read_text().startswith(TEXT)
    assert result["threads"] == [1] and "1000 threads" in result["left_out"][0]
    assert result["fast"] and result["measure"] == "speed"
    for row in result["rows"]:
        (run,) = row["runs"]
        assert [layer["name"] for layer in run["layers"]] == ["conv1", "conv2"]
        assert all(layer["speed_up"] > 0 < layer["layer_speed_up"] for layer in run["layers"])
        # as many images as threads: BLAS alone was measured as well
        assert all(layer["dense"]["blas_product_ms"] > 0 for layer in run["layers"])
    ssl, random = result["rows"]
    assert ssl["runs"][0]["layers"][0]["sparse"]["blas_product_ms"] > 0
    assert random["runs"][0]["layers"][0]["sparse"]["blas_product_ms"] is None
    assert [layer["column"] for layer in ssl["layers"]] == [20.0, 1.0]
    assert [layer["element"] for layer in random["layers"]] == [40.0, 90.0]
    assert set(ssl["sha256"]) == {"conv1", "conv2"} and random["sha256"] == {}


@needs_compiler
def test_a_result_is_checked(finished):
    folder = finished[0]
    ssl, random = check(folder / "out", matrices=folder)
    assert ssl["ok"] and "digests" in ssl["compared"]
    assert random["ok"] and random["compared"] == "ratios and zeros"
    (ssl, _) = check(folder / "out")
    assert ssl["ok"] and "ratios only" in ssl["compared"]


@needs_compiler
@pytest.mark.parametrize(
    ("where", "value", "sentence"),
    [
        (("runs", 0, "layers", 1, "speed_up"), 99.0, "conv2: speed_up is"),
        (("runs", 0, "mean_layer_speed_up"), 99.0, "mean_layer_speed_up is"),
        (("runs", 0, "layers", 0, "dense", "product_ms"), 99.0, "is not between the quartiles"),
        (("layers", 0, "element"), 99.0, "conv1: element is"),
        (("layers", 1, "ideal"), 99.0, "conv2: ideal is"),
        (("sha256", "conv1"), "0" * 64, "the file of conv1 has the SHA-256"),
        (("as_published",), True, "not those of the published"),
    ],
)
def test_a_changed_result_is_found_out(finished, tmp_path, where, value, sentence):
    folder, result, _ = finished
    changed = json.loads(json.dumps(result))
    *path, last = where
    at = changed["rows"][0]
    for key in path:
        at = at[key]
    at[last] = value
    (tmp_path / "result.json").write_text(json.dumps(changed))
    assert read_result(tmp_path) == changed
    wrong = check(tmp_path, matrices=folder)[0]
    assert not wrong["ok"] and any(sentence in one for one in wrong["wrong"])


@needs_compiler
def test_rows_that_cannot_be_measured_are_told(tmp_path, monkeypatch):
    monkeypatch.delenv("MINISSL_MATRICES", raising=False)
    missing = next(mode for mode in ("DIRECT_SCONV", "AUTO") if mode not in MODES)
    text = SSL + "optional = true\n" + RANDOM + DIRECT.replace("LOWERED_CSRMM", missing)
    (tmp_path / "mine.toml").write_text(TEXT + text)
    before = backends.threads()
    result = SpeedMeasurement(find(tmp_path / "mine.toml"), tmp_path / "out", fast=True).run("x")
    assert [row["key"] for row in result["rows"]] == ["random"]
    assert result["left_out"] == [
        "packed: no --matrices were given",
        f"a mode to come: {missing} is not part of this version",
    ]
    assert backends.threads() == before


def test_what_cannot_be_measured_at_all(tmp_path, monkeypatch):
    monkeypatch.delenv("MINISSL_MATRICES", raising=False)
    (tmp_path / "mine.toml").write_text(TEXT + SSL)
    experiment = find(tmp_path / "mine.toml")
    with pytest.raises(ConfigError, match="the matrices 'lenet/a' are not part of minissl"):
        SpeedMeasurement(experiment, tmp_path / "out").run("x")
    with pytest.raises(ConfigError, match="use --backend numba"):
        SpeedMeasurement(experiment, tmp_path / "out", backend="numpy").run("x")
    with pytest.raises(ConfigError, match="1000 threads are not possible"):
        SpeedMeasurement(experiment, tmp_path / "out", threads=1000).run("x")
    (tmp_path / "mine.toml").write_text(TEXT + SSL + "optional = true\n")
    with pytest.raises(ConfigError, match="nothing is left to measure: packed"):
        SpeedMeasurement(find(tmp_path / "mine.toml"), tmp_path / "out").run("x")
    assert not (tmp_path / "out").exists()


def test_structure_is_a_mean_over_conv_groups():
    (layer,) = layers_of("AlexNet", ["conv4"])  # 384 x 1728, two groups
    w = np.ones((384, 1728), np.float32)
    w[:192, :864] = 0  # half of the columns of group 1
    w[192:240] = 0  # a quarter of the rows of group 2
    found = structure_of(layer, w)
    assert (found["name"], found["row"], found["column"]) == ("conv4", 12.5, 25.0)
    assert found["element"] == pytest.approx((50 + 25) / 2)
    assert found["ideal"] == pytest.approx(1 / ((0.5 + 0.75) / 2))
    assert structure_of(layer, 0 * w)["ideal"] is None


def test_ratios():
    dense, sparse = times(1.0, 8.0, 10.0), times(0.5, 2.0, 4.0)
    assert compare(dense, sparse) == {"speed_up": 4.0, "layer_speed_up": 2.5}
    # a mode without lowering: the whole of it against the product
    assert compare(dense, times(None, None, 4.0)) == {"speed_up": 2.0, "layer_speed_up": 2.5}
    layers = [compare(dense, sparse), {"speed_up": 2.0, "layer_speed_up": 0.5}]
    assert means(layers) == {"mean_speed_up": 3.0, "mean_layer_speed_up": 1.5}


def test_the_faster_of_two_dense_products_counts():
    dense = times(1.0, 8.0, 10.0, blas=4.0)
    assert fastest_product(dense) == 4.0
    assert fastest_product(times(1.0, 8.0, 10.0, blas=9.0)) == 8.0
    # whole layer: 1 of lowering, 4 of BLAS, 1 of the rest
    assert compare(dense, times(0.5, 2.0, 4.0)) == {"speed_up": 2.0, "layer_speed_up": 1.5}
    packed = times(0.5, 2.0, 4.0, blas=1.0)
    assert compare(dense, packed) == {"speed_up": 4.0, "layer_speed_up": 2.0}


@needs_compiler
def test_blas_multiplies_what_the_mode_multiplies(tmp_path):
    layers = layers_of("AlexNet", ["conv4"])
    weights = speed.random_matrices([50.0], layers, seed=1)
    weights["conv4"][:100] = 0
    net = speed._net(layers, weights, 1, "numba")
    twins = speed_timing._BlasTwins(net, weights, "LOWERED_CCNMM", 2)
    dense, packed = (twins.factors["conv4", mode] for mode in ("LOWERED_GEMM", "LOWERED_CCNMM"))
    assert [band.shape for band, _, _ in dense] == [(192, 1728)] * 2
    assert [band.shape for band, _, _ in packed] == [(92, 1728), (192, 1728)]
    assert all(product.shape == (band.shape[0], 169) for band, _, product in dense)
    twins.run(2)
    assert twins.fastest_ms("conv4", "LOWERED_CCNMM") > 0
    assert twins.fastest_ms("conv4", "LOWERED_CSRMM") is None
    twins.seconds["conv4", "LOWERED_GEMM"] = [0.003, 0.001, 0.002]
    assert twins.fastest_ms("conv4", "LOWERED_GEMM") == pytest.approx(1.0)
