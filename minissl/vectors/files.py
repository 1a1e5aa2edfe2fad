"""Write test vectors: one safetensors file for each family, and ``index.json`` about all of them.

Tensors are named ``CASE#inputs/NAME`` and ``CASE#outputs/NAME``. Inputs and settings are the same
on every machine, and the version is their SHA-256. The last digits of outputs depend on the BLAS
and the mathematical library: the checksums of the files say which files were written, no more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minissl import __version__
from minissl.formats.atomic import atomic_write
from minissl.formats.folders import make_folder
from minissl.formats.safetensors_file import write_tensors
from minissl.vectors import compaction, layers, matrices, sparsity, training
from minissl.vectors.case import Case

FAMILIES = {
    "layers": layers,
    "sparsity": sparsity,
    "matrices": matrices,
    "training": training,
    "compaction": compaction,
}
INDEX = "index.json"


def all_cases(families: Sequence[str] = ()) -> Iterator[Case]:
    """Compute every vector, or those of some families."""
    for family in families or FAMILIES:
        yield from FAMILIES[family].cases()


def version_of(cases: Iterable[Case]) -> str:
    """Return the SHA-256 of all questions; it changes with any input, setting or formula."""
    digest = hashlib.sha256()
    for case in sorted(cases, key=lambda one: one.name):
        digest.update(case.question().encode())
    return digest.hexdigest()


def write(out: str | Path, families: Sequence[str] = ()) -> dict[str, Any]:
    """Write the vectors into a folder and return the index.

    Parameters
    ----------
    out : str or Path
        Made where it does not exist; files of earlier vectors are replaced.
    families : sequence of str
        Of :data:`FAMILIES`; all when empty.

    Raises
    ------
    MinisslError
        When a file cannot be written.
    """
    out = make_folder(out)
    cases = list(all_cases(families))
    files = {}
    for family in dict.fromkeys(case.family for case in cases):
        path = out / f"{family}.safetensors"
        write_tensors(path, _tensors(case for case in cases if case.family == family))
        files[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    index = {
        "version": version_of(cases),
        "minissl": __version__,
        "tensors": "CASE#inputs/NAME and CASE#outputs/NAME in the file of the case",
        "tolerance": "largest |answer - output| as a share of the largest |output| of its array",
        "files": files,
        "cases": [_entry(case) for case in cases],
    }
    with atomic_write(out / INDEX) as file:
        file.write(json.dumps(index, indent=1).encode() + b"\n")
    return index


def _tensors(cases: Iterable[Case]) -> dict[str, np.ndarray]:
    return {
        f"{case.name}#{side}/{name}": array
        for case in cases
        for side, arrays in (("inputs", case.inputs), ("outputs", case.outputs))
        for name, array in arrays.items()
    }


def _entry(case: Case) -> dict[str, Any]:
    def described(arrays: Any) -> dict[str, Any]:
        return {
            name: {"shape": list(array.shape), "dtype": str(array.dtype)}
            for name, array in arrays.items()
        }

    return {
        "name": case.name,
        "file": f"{case.family}.safetensors",
        "formula": case.formula,
        "source": case.source,
        "settings": dict(case.settings),
        "inputs": described(case.inputs),
        "outputs": described(case.outputs),
        "tolerance": case.tolerance,
        "question": case.question(),
    }
