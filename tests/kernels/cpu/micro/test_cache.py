"""The first use compiles and says so; a second process finds the code on disk."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from minissl.kernels.cpu.micro import isa
from tests.conftest import needs_compiler

SCRIPT = """
import logging
import numpy as np
from minissl import backend
from minissl.conv_modes import ConvShape, prepare

logging.basicConfig(format="%(message)s")
logging.getLogger("minissl").setLevel(logging.DEBUG)
shape = ConvShape(2, (5, 6), 16, (3, 3), pad=(1, 1))
x, w = np.ones((1, 2, 5, 6), np.float32), np.ones((16, 2, 3, 3), np.float32)
for mode in ("DIRECT_SCONV", "DIRECT_DCONV"):
    y = np.empty((1, 16, 5, 6), np.float32)
    prepare(mode, shape, w, None, backend.get("numba")).forward(x, y)
    print(mode, y.sum())
"""


@needs_compiler
@pytest.mark.slow
@pytest.mark.skipif(not isa.available(), reason="this CPU has no vectors for it")
def test_a_second_process_compiles_nothing(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)
    runs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout and "DIRECT_SCONV" in runs[0].stdout
    said = runs[0].stderr.splitlines()
    assert said[0].startswith("compiling kernels for this processor") and str(tmp_path) in said[0]
    for what in ("direct sparse convolution", "direct dense convolution", "sparse._convolve"):
        assert any(line.startswith("compiling ") and what in line for line in said)
    assert "compil" not in runs[1].stderr
