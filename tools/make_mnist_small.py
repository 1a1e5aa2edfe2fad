"""Make the digits inside the package from the full MNIST: evenly spaced records in file order.

Every 12th of the 60,000 training records (0, 12, 24, ...) and every 10th of the 10,000 test
records (0, 10, 20, ...). Run it where the full MNIST is::

    minissl data fetch mnist
    python tools/make_mnist_small.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from minissl.data.catalogue import IDX_FILES
from minissl.data.datasets import SMALL_FOLDER, load
from minissl.data.idx import write_idx

STEPS = {"train": 12, "test": 10}


def make(folder: Path) -> None:
    """Write the four compressed IDX files into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, step in STEPS.items():
        full = load("mnist", split)
        images = full.images[::step, 0]  # (N, 28, 28)
        labels = full.labels[::step]  # (N,)
        image_name, label_name = IDX_FILES[split]
        write_idx(folder / f"{image_name}.gz", images, compress=True)
        write_idx(folder / f"{label_name}.gz", labels, compress=True)
        print(f"{split}: {len(labels)} digits in {folder}")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else SMALL_FOLDER)
