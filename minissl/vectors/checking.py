"""Compare the answers of another implementation with the test vectors.

Answers are any ``.safetensors`` or ``.npz`` files in a folder, whose arrays are named like the
outputs, ``CASE#outputs/NAME``. Whoever implements only a part gives the answers of that part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minissl.errors import WeightsError
from minissl.formats.safetensors_file import read_tensors
from minissl.formats.weights import read_npz
from minissl.vectors.case import Case
from minissl.vectors.files import FAMILIES, INDEX, all_cases

#: float32 answers are right to this share of the largest value
SINGLE = 2e-5
OLD = "an answer to another version of this vector; write the vectors again"


@dataclass(frozen=True)
class Verdict:
    """What became of one output.

    ``error`` is the largest difference as a share of the largest value; ``reason`` says in words
    why an answer is wrong, and is empty where it is right.
    """

    case: str
    output: str
    error: float
    tolerance: float
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields, with ``ok``."""
        error = None if np.isnan(self.error) else self.error
        return {**vars(self), "error": error, "ok": not self.reason}


def read_answers(folder: str | Path) -> dict[str, np.ndarray]:
    """Read every array in the files of a folder.

    Raises
    ------
    WeightsError
        When there is no such folder, no file in it, a damaged one, or a name twice.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise WeightsError(f"{folder} is no folder; name the one that holds the answers.")
    paths = [p for p in sorted(folder.iterdir()) if p.suffix in (".safetensors", ".npz")]
    if not paths:
        raise WeightsError(f"{folder} holds no .safetensors or .npz file with answers.")
    answers: dict[str, np.ndarray] = {}
    for path in paths:
        arrays = read_tensors(path)[0] if path.suffix == ".safetensors" else read_npz(path)
        for name, array in arrays.items():
            if "#outputs/" not in name:
                continue  # inputs that were copied along
            if name in answers:
                raise WeightsError(f"{path} answers {name!r} a second time; keep one of them.")
            answers[name] = array
    return answers


def read_questions(folder: str | Path) -> dict[str, str]:
    """Return the checksum of each question from ``index.json``, if it was copied along."""
    try:
        index = json.loads((Path(folder) / INDEX).read_text())
        return {str(case["name"]): str(case["question"]) for case in index["cases"]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise WeightsError(
            f"{folder}/{INDEX} is damaged; take it away, or copy the one of the vectors again."
        ) from None


def check(
    answers: Mapping[str, np.ndarray],
    families: Sequence[str] = (),
    questions: Mapping[str, str] | None = None,
) -> tuple[list[Verdict], list[str]]:
    """Compare answers with the vectors.

    Parameters
    ----------
    answers : dict of str to ndarray
    families : sequence of str
        Only these; all when empty.
    questions : dict of str to str, optional
        Checksums of the questions that were answered (:func:`read_questions`): an answer to
        another version of a question is wrong for that reason.

    Returns
    -------
    verdicts : list of Verdict
        One for every answer.
    missing : list of str
        Outputs that have no answer, of the cases that have some.

    Raises
    ------
    WeightsError
        When no answer has the name of an output.
    """
    wanted = {name.split("/", 1)[0] for name in answers} & set(FAMILIES)
    wanted = wanted & set(families) if families else wanted
    verdicts, missing = [], []
    known: set[str] = set()
    for case in all_cases([family for family in FAMILIES if family in wanted]):
        names = {output: f"{case.name}#outputs/{output}" for output in case.outputs}
        given = {output: name for output, name in names.items() if name in answers}
        known.update(given.values())
        is_old = (questions or {}).get(case.name, case.question()) != case.question()
        for output, name in given.items():
            one = _compare(case, output, answers[name])
            verdicts.append(replace(one, reason=OLD) if is_old else one)
        if given:
            missing += [name for name in names.values() if name not in answers]
    unknown = [
        name
        for name in answers
        if name not in known and name.split("/", 1)[0] in (wanted or FAMILIES)
    ]
    for name in unknown:
        stem, _, output = name.partition("#outputs/")
        reason = "no vector has this name; see index.json of `minissl vectors`"
        verdicts.append(Verdict(stem, output, float("nan"), 0.0, reason))
    if not verdicts:
        raise WeightsError(
            "no array has the name of an output, such as "
            "'sparsity/group lasso/filter#outputs/gradient'; see index.json of `minissl vectors`."
        )
    return verdicts, missing


def _compare(case: Case, output: str, answer: np.ndarray) -> Verdict:
    expected = case.outputs[output]
    tolerance = case.tolerance
    if answer.dtype.kind == "f" and answer.dtype.itemsize < 8:
        tolerance = max(tolerance, SINGLE)

    def verdict(error: float, reason: str = "") -> Verdict:
        return Verdict(case.name, output, error, tolerance, reason)

    if answer.shape != expected.shape:
        return verdict(float("nan"), f"shape {answer.shape} where {expected.shape} belongs")
    if answer.dtype.kind not in "biuf":
        return verdict(float("nan"), f"numbers of type {answer.dtype}")
    if not np.isfinite(answer).all():
        return verdict(float("nan"), "holds NaN or infinity")
    if expected.size == 0:
        return verdict(0.0)
    difference = np.abs(answer.astype(np.float64) - expected)
    worst = int(difference.argmax())
    largest = float(np.abs(expected).max()) or 1.0
    error = float(difference.max()) / largest
    if error <= tolerance:
        return verdict(error)
    place = tuple(int(i) for i in np.unravel_index(worst, expected.shape))
    got, right = answer.reshape(-1)[worst], expected.reshape(-1)[worst]
    return verdict(error, f"{got:.8g} at {place} where {right:.8g} is right")
