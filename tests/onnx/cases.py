"""The cases of ONNX's own conformance suite, run by minissl's backend."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from minissl.errors import MinisslError
from minissl.onnx import backend

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")


def load(kind):
    """Return the cases of a kind; making them warns about overflows that are meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_model_tests(kind=kind)


def model_and_data(case):
    """Return the model of a case and its [(inputs, outputs)]."""
    if case.model is not None:
        data = [[list(map(array_of, arrays)) for arrays in pair] for pair in case.data_sets]
        return case.model, data
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    data = [
        (
            tensors(path, "input", model.graph.input),
            tensors(path, "output", model.graph.output),
        )
        for path in sorted(folder.glob("test_data_set*"))
    ]
    return model, data


def tensors(folder, what, declared):
    values = []
    for i in range(len(list(folder.glob(f"{what}_*.pb")))):
        content = (folder / f"{what}_{i}.pb").read_bytes()
        if declared[i].type.HasField("sequence_type"):
            values.append(numpy_helper.to_list(onnx.SequenceProto.FromString(content)))
        else:
            values.append(numpy_helper.to_array(onnx.TensorProto.FromString(content)))
    return values


def array_of(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def run(case):
    """Run a case; return how ("layers", "arrays" or "both"), or the error that refuses it."""
    model, data = model_and_data(case)
    try:
        prepared = backend.prepare(model, "CPU")
        for inputs, expected in data:
            outputs = prepared.run(inputs)
            Runner.assert_similar_outputs(expected, outputs, case.rtol, case.atol)
    except MinisslError as reason:
        return reason
    ways = set(prepared.ways.values())
    return "both" if len(ways) > 1 else ways.pop() if ways else "layers"


def run_all(kind, listed):
    """Run all cases of a kind.

    Returns
    -------
    passed : Counter
        How -> number of cases.
    complaints : list of str
        About cases that are wrong, refused though not listed, or listed though they pass.
    """
    passed, complaints = Counter(), []
    for case in load(kind):
        try:
            result = run(case)
        except AssertionError as wrong:
            complaints.append(
                f"{case.name} gives wrong numbers: {' '.join(str(wrong).split())[:120]}"
            )
            continue
        except Exception as crash:
            complaints.append(f"{case.name} ends with {crash!r:.120}")
            continue
        if isinstance(result, MinisslError):
            if case.name not in listed:
                complaints.append(f"{case.name} is refused and not listed: {result}")
        elif case.name in listed:
            complaints.append(f"{case.name} passes now; take it off the list")
        else:
            passed[result] += 1
    return passed, complaints
