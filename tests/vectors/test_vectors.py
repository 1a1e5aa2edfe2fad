"""Test vectors: complete, the same again, and answers are judged."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minissl import vectors
from minissl.errors import MinisslError, WeightsError
from minissl.formats.safetensors_file import read_tensors, write_tensors
from minissl.layers import LAYERS
from minissl.vectors import checking, files
from minissl.vectors.case import Case

#: layers that compute nothing, or whose numbers are drawn
WITHOUT_VECTORS = {"Silence"}


@pytest.fixture(scope="module")
def cases():
    return {case.name: case for case in vectors.all_cases()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("vectors")
    vectors.write(out)
    return out


def answers_of(cases, family):
    return {
        f"{name}#outputs/{output}": array
        for name, case in cases.items()
        if case.family == family
        for output, array in case.outputs.items()
    }


def test_every_layer_that_computes_has_vectors(cases):
    types = {name for name, layer in LAYERS.items() if not layer.is_data} - WITHOUT_VECTORS
    assert {name.split("/")[1] for name in cases if name.startswith("layers/")} >= types


def test_names_are_unique():
    names = [case.name for case in vectors.all_cases(["layers", "sparsity", "matrices"])]
    assert len(names) == len(set(names))


def test_every_vector_has_a_formula_and_finite_numbers(cases):
    for case in cases.values():
        assert len(case.formula) > 10 and case.source.startswith("minissl.")
        json.dumps(dict(case.settings))
        for array in (*case.inputs.values(), *case.outputs.values()):
            assert np.isfinite(array).all() and array.dtype.kind in "if", case.name


def test_outputs_depend_on_inputs(cases):
    # a vector whose outputs are all zero would accept an implementation that computes nothing
    for case in cases.values():
        if case.name.startswith(("layers/Accuracy", "sparsity/zero-out")):
            continue
        assert any(np.any(array) for array in case.outputs.values()), case.name


def test_lenet_learns_and_loses_weights(cases):
    lenet = next(case for name, case in cases.items() if name.startswith("training/LeNet"))
    loss, nonzero = lenet.outputs["loss"], lenet.outputs["nonzero"]
    assert loss.shape == (10,) and abs(loss[0] - np.log(10)) < 0.1
    assert np.all(np.diff(lenet.outputs["regularization"]) != 0)
    weights = lenet.settings["parameters"].index("conv2.0")
    assert nonzero[-1][weights] < nonzero[0][weights]


def test_what_is_written_is_what_was_computed(folder, cases):
    index = json.loads((folder / "index.json").read_text())
    assert {entry["name"] for entry in index["cases"]} == set(cases)
    assert index["version"] == vectors.version_of(cases.values())
    for name, digest in index["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    for entry in index["cases"]:
        case = cases[entry["name"]]
        assert entry["question"] == case.question()
        for side in ("inputs", "outputs"):
            shapes = {key: tuple(one["shape"]) for key, one in entry[side].items()}
            assert shapes == {key: array.shape for key, array in getattr(case, side).items()}
    tensors, _ = read_tensors(folder / "sparsity.safetensors")
    case = cases["sparsity/group lasso/filter"]
    np.testing.assert_array_equal(
        tensors["sparsity/group lasso/filter#outputs/gradient"], case.outputs["gradient"]
    )


def test_they_are_the_same_the_second_time(folder, tmp_path):
    vectors.write(tmp_path, ["layers", "sparsity", "matrices", "compaction"])
    for name in ("layers", "sparsity", "matrices", "compaction"):
        first, second = (where / f"{name}.safetensors" for where in (folder, tmp_path))
        assert first.read_bytes() == second.read_bytes()


def test_the_version_follows_the_questions(cases):
    case = cases["sparsity/group lasso/filter"]
    changed = Case(
        case.name, case.formula, case.source, {**case.settings, "strength": 1.0}, case.inputs, {}
    )
    assert changed.question() != case.question()


def test_their_own_outputs_are_right(folder):
    verdicts, missing = vectors.check(vectors.read_answers(folder))
    assert not missing and not [one for one in verdicts if one.reason]
    assert len(verdicts) > 200


def test_single_precision_is_right_within_its_own_tolerance(cases):
    answers = {key: a.astype(np.float32) for key, a in answers_of(cases, "layers").items()}
    verdicts, _ = vectors.check(answers)
    assert not [one for one in verdicts if one.reason]


@pytest.mark.parametrize("family", ["layers", "sparsity", "matrices", "compaction"])
def test_every_wrong_number_is_found(cases, family):
    answers = answers_of(cases, family)
    for name, array in answers.items():
        changed = array.copy()
        if changed.size:
            place = np.abs(changed).reshape(-1).argmax()
            step = 1 if changed.dtype.kind == "i" else 1e-3 * max(1.0, abs(changed.max()))
            changed.reshape(-1)[place] += step
        answers[name] = changed
    verdicts, _ = vectors.check(answers)
    sizes = {name: array.size for name, array in answers.items()}
    fine = [v for v in verdicts if not v.reason and sizes[f"{v.case}#outputs/{v.output}"]]
    assert not fine


def test_a_wrong_answer_is_told_with_its_place(cases):
    case = cases["sparsity/group lasso/filter"]
    gradient = case.outputs["gradient"].copy()
    gradient[2, 1, 0, 1] += 0.5
    verdicts, missing = vectors.check({f"{case.name}#outputs/gradient": gradient})
    assert "(2, 1, 0, 1)" in verdicts[0].reason and verdicts[0].to_json()["ok"] is False
    assert missing == [f"{case.name}#outputs/penalty", f"{case.name}#outputs/norms"]


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((2, 2)), "shape"),
        (np.full((6, 4, 3, 2), np.nan), "NaN"),
        (np.zeros((6, 4, 3, 2), complex), "complex"),
    ],
)
def test_answers_that_cannot_be_compared(array, words):
    verdicts, _ = vectors.check({"sparsity/group lasso/filter#outputs/gradient": array})
    assert words in verdicts[0].reason


def test_an_unknown_name_is_wrong_beside_known_ones(cases):
    case = cases["sparsity/group lasso/filter"]
    answers = {f"{case.name}#outputs/norms": case.outputs["norms"], "sparsity/x#outputs/y": 1.0}
    verdicts, _ = vectors.check({key: np.asarray(a) for key, a in answers.items()})
    assert [bool(one.reason) for one in verdicts] == [False, True]


def test_an_answer_to_an_older_question_is_wrong(cases):
    case = cases["sparsity/group lasso/filter"]
    answers = {f"{case.name}#outputs/norms": case.outputs["norms"]}
    verdicts, _ = vectors.check(answers, questions={case.name: "0" * 64})
    assert verdicts[0].reason == checking.OLD
    verdicts, _ = vectors.check(answers, questions={case.name: case.question()})
    assert not verdicts[0].reason


def test_answers_may_come_as_npz(cases, tmp_path):
    case = cases["sparsity/group lasso/filter"]
    np.savez(tmp_path / "mine.npz", **{f"{case.name}#outputs/norms": case.outputs["norms"]})
    verdicts, _ = vectors.check(vectors.read_answers(tmp_path))
    assert [one.reason for one in verdicts] == [""]


@pytest.mark.parametrize("what", ["nothing", "no folder", "damaged", "twice", "other names"])
def test_unusable_folders_are_refused_in_one_sentence(tmp_path, what):
    name = "sparsity/group lasso/filter#outputs/norms"
    if what == "damaged":
        (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 not a zip")
    if what == "twice":
        for file in ("a", "b"):
            write_tensors(tmp_path / f"{file}.safetensors", {name: np.zeros(3)})
    if what == "other names":
        write_tensors(tmp_path / "a.safetensors", {"x": np.zeros(3)})
    with pytest.raises(WeightsError) as caught:
        target = tmp_path / "none" if what == "no folder" else tmp_path
        vectors.check(vectors.read_answers(target))
    assert "\n" not in str(caught.value)


def test_a_damaged_index_is_refused(tmp_path):
    (tmp_path / files.INDEX).write_text("{}")
    with pytest.raises(WeightsError, match="damaged"):
        vectors.read_questions(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MinisslError, match="Cannot make"):
        vectors.write(tmp_path / "file" / "out", ["matrices"])


def test_the_example_checks_a_group_lasso_of_pytorch(folder, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    script = Path(__file__).parents[2] / "docs" / "examples" / "torch_group_lasso.py"
    assert len(script.read_text().splitlines()) <= 50
    subprocess.run([sys.executable, script, folder, tmp_path], check=True)
    verdicts, _ = vectors.check(vectors.read_answers(tmp_path))
    assert len(verdicts) == 20 and not [one for one in verdicts if one.reason]
