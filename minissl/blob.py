"""Blobs: the arrays that flow through a network, and the parameters it learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Shape = tuple[int, ...]


class Blob:
    """An activation: its values (``data``) and the gradient of the loss with respect to them.

    Both arrays are C-contiguous and are allocated on first use, so a network that only runs
    forward never pays for gradients. Values that a fused step passed over (``deferred``) are
    computed when somebody asks for them.

    Parameters
    ----------
    name : str
        Name by which layers refer to the blob.
    shape : tuple of int
        Usually (N, C, H, W) or (N, K).
    dtype : numpy.dtype
        float32, or float64 for gradient checks.
    xp : module
        Array module the blob lives in (NumPy, or CuPy on a GPU).
    """

    def __init__(self, name: str, shape: Shape, dtype: Any = np.float32, xp: Any = np):
        self.name = name
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self._xp = xp
        self._data: Any = None
        self._diff: Any = None
        self.deferred: Callable[[], None] | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def data(self) -> Any:
        """The values."""
        if self.deferred is not None:
            compute, self.deferred = self.deferred, None
            compute()
        if self._data is None:
            self._data = self._xp.zeros(self.shape, self.dtype)
        return self._data

    @data.setter
    def data(self, array: Any) -> None:
        self.deferred = None
        self._data = array

    @property
    def diff(self) -> Any:
        """The gradient of the loss."""
        if self._diff is None:
            self._diff = self._xp.zeros(self.shape, self.dtype)
        return self._diff

    @diff.setter
    def diff(self, array: Any) -> None:
        self._diff = array

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.shape})"


class Parameter(Blob):
    """A learnable blob, seen by the sparsity functions as a matrix.

    Attributes
    ----------
    layer_name, index : str, int
        ``conv1``, 0 for its weights, 1 for its bias; ``name`` joins them as ``conv1.0``.
    role : {"weight", "bias", "scale", "statistic"}
        Zero-out and group statistics are about weights; a statistic is measured, not learned.
    spec : ParamSpec
        The ``param { ... }`` block of the prototxt (multipliers, group lasso).
    conv_groups : int
        ``group`` of the owning convolution, 1 elsewhere: columns are counted per group.
    mask : array or None
        0 where connectivity is frozen, 1 elsewhere; None when nothing is.
    skip_frozen : bool
        Whether a layer may leave frozen rows and columns out of its products; their gradient is
        then 0 instead of a number that the mask takes away.
    shared : bool
        Whether several layers or networks use it: then its values are never released.
    """

    def __init__(
        self,
        layer_name: str,
        index: int,
        shape: Shape,
        role: str,
        spec: Any,
        conv_groups: int = 1,
        dtype: Any = np.float32,
        xp: Any = np,
    ):
        super().__init__(f"{layer_name}.{index}", shape, dtype, xp)
        self.layer_name = layer_name
        self.index = index
        self.role = role
        self.spec = spec
        self.conv_groups = conv_groups
        self.mask: Any = None
        self.skip_frozen = True
        self.shared = False
        self._restore: Callable[[], Any] | None = None

    @property
    def data(self) -> Any:
        """The values; of a released parameter a copy, rebuilt from its packed form, to be read."""
        if self._restore is not None:
            copy = self._restore()
            if isinstance(copy, np.ndarray):
                copy = copy.view()
                copy.flags.writeable = False  # what is written into a copy would be lost silently
            return copy
        return super().data

    @data.setter
    def data(self, array: Any) -> None:
        self._restore = None
        self._data = array

    def release(self, restore: Callable[[], Any]) -> None:
        """Free the dense values; ``restore()`` rebuilds them for whoever still asks.

        Nothing happens to a shared parameter, whose other users may be learning.
        """
        if self.shared:
            return
        self._data = None
        self._restore = restore

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(R, C): row = filter, column = the same coordinate of every filter; a bias is (N, 1)."""
        rows = self.shape[0] if self.shape else 1
        return rows, self.size // rows

    @property
    def matrix(self) -> Any:
        """``data`` seen as the paper's weight matrix, shape ``matrix_shape`` (a view)."""
        return self.data.reshape(self.matrix_shape)

    @property
    def diff_matrix(self) -> Any:
        """``diff`` seen as a matrix (a view)."""
        return self.diff.reshape(self.matrix_shape)
