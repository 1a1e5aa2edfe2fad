"""Small data folders in the layout of the official files."""

from __future__ import annotations

import numpy as np
import pytest

from minissl.data import datasets
from minissl.data.catalogue import CIFAR_FILES, CIFAR_FOLDER, IDX_FILES
from minissl.data.idx import write_idx


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    """MINISSL_DATA with a 12 + 6 record 'mnist' and a CIFAR-10 of 4 records a file."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data"
    (folder / "mnist").mkdir(parents=True)
    for (image_name, label_name), count in zip(IDX_FILES.values(), (12, 6), strict=True):
        write_idx(
            folder / "mnist" / image_name, rng.integers(256, size=(count, 28, 28), dtype="u1")
        )
        write_idx(folder / "mnist" / label_name, rng.integers(10, size=count, dtype="u1"))
    monkeypatch.setattr(datasets, "CIFAR_RECORDS", 4)
    (folder / CIFAR_FOLDER).mkdir()
    for names in CIFAR_FILES.values():
        for name in names:
            records = rng.integers(256, size=(4, 3073), dtype=np.uint8)
            records[:, 0] %= 10
            records.tofile(folder / CIFAR_FOLDER / name)
    monkeypatch.setenv("MINISSL_DATA", str(folder))
    return folder
