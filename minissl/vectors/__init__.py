"""Test vectors: numbers for people who check another implementation.

Each vector is a question (settings and inputs), its answers, the formula between them and the
tolerance. :func:`write` puts them into safetensors files with an index, :func:`check` compares
somebody else's answers.
"""

from minissl.vectors.case import Case
from minissl.vectors.checking import Verdict, check, read_answers, read_questions
from minissl.vectors.files import FAMILIES, all_cases, version_of, write

__all__ = [
    "FAMILIES",
    "Case",
    "Verdict",
    "all_cases",
    "check",
    "read_answers",
    "read_questions",
    "version_of",
    "write",
]
