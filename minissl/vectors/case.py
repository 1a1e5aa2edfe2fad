"""One test vector: a question (settings and inputs), its answers, and the formula between them."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """Inputs and what must come out.

    Attributes
    ----------
    name : str
        ``family/subject/variant``, such as ``layers/Convolution/stride 2 and pad 1``.
    formula : str
        What is computed, in words and formulas.
    source : str
        The function or class of minissl that computes it.
    settings : dict
        Whatever is not an array: prototxt text, strengths, names. Has a place in JSON.
    inputs, outputs : dict of str to ndarray
        float64, or integers where the numbers are indices.
    tolerance : float
        Largest ``|answer - output|`` that is right, as a share of the largest ``|output|`` of the
        same array. For float32 answers :func:`minissl.vectors.checking.check` takes a larger one.
    """

    name: str
    formula: str
    source: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    tolerance: float = 1e-9

    @property
    def family(self) -> str:
        """The first part of the name; a file holds one family."""
        return self.name.split("/", 1)[0]

    def question(self) -> str:
        """Return the SHA-256 of everything but the outputs: the same on every machine."""
        digest = hashlib.sha256()
        text = {"name": self.name, "formula": self.formula, "settings": dict(self.settings)}
        digest.update(json.dumps(text, sort_keys=True).encode())
        for name in sorted(self.inputs):
            array = np.ascontiguousarray(self.inputs[name])
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()


def formula_of(thing: Any) -> str:
    """Return what a docstring says before it turns to parameters and prototxt fields."""
    paragraphs = (inspect.getdoc(thing) or "").split("\n\n")
    said = []
    for paragraph in paragraphs:
        if paragraph.startswith("Prototxt") or "\n---" in paragraph:
            break
        said.append(" ".join(paragraph.replace("``", "").split()))
    return " ".join(said)


def name_of(thing: Any) -> str:
    """Return where a function or class is found: ``minissl.sparsity.groups.tile_of``."""
    return f"{thing.__module__}.{thing.__qualname__}"
