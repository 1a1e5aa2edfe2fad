"""Data sets: official files read and checked, downloads, transformation, batches."""

from __future__ import annotations

from minissl.data.batches import BatchReader
from minissl.data.catalogue import data_folder
from minissl.data.datasets import Dataset, load
from minissl.data.idx import read_idx, write_idx
from minissl.data.transform import Transform

__all__ = ["BatchReader", "Dataset", "Transform", "data_folder", "load", "read_idx", "write_idx"]
