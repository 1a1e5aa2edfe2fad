"""A stand-in for CuPy, so that the backend's own Python runs where no GPU is.

Its arrays are NumPy's, but shut away: as with CuPy, NumPy cannot read them, they do not mix with
NumPy's arrays, and only ``get()``, ``float()``, ``int()`` and ``bool()`` bring values to the host.
Each of these is a point where the host waits, and is counted in ``waits``. Fresh memory is full of
NaN. Kernels run in the shim, the functions of cuBLAS and cuSPARSE that the backend calls are done
by NumPy on the memory they are pointed to.
"""

import ctypes
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from scipy.sparse import csr_array

from tests.gpu import shim

waits = 0
most_read = 0  # elements brought to the host at once
free_bytes = 8 * 1024**3


def _wait(size=0):
    global waits, most_read
    waits += 1
    most_read = max(most_read, size)


class Array(NDArrayOperatorsMixin):
    """What cupy.ndarray is to the backend."""

    def __init__(self, values):
        self._values = np.asarray(values)

    shape = property(lambda self: self._values.shape)
    dtype = property(lambda self: self._values.dtype)
    ndim = property(lambda self: self._values.ndim)
    size = property(lambda self: self._values.size)
    itemsize = property(lambda self: self._values.itemsize)
    nbytes = property(lambda self: self._values.nbytes)
    strides = property(lambda self: self._values.strides)
    flags = property(lambda self: self._values.flags)
    T = property(lambda self: Array(self._values.T))
    data = property(lambda self: SimpleNamespace(ptr=self._values.ctypes.data))

    def get(self):
        _wait(self.size)
        return self._values.copy()

    def set(self, values, stream=None):
        assert isinstance(values, np.ndarray) and values.shape == self.shape
        assert values.dtype == self.dtype and values.flags.c_contiguous
        self._values[...] = values

    def fill(self, value):
        self._values.fill(_inside(value))

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __bool__(self):
        return bool(self.get())

    def item(self):
        return self.get().item()

    def __len__(self):
        return len(self._values)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        return Array(self._values[_inside(index)])

    def __setitem__(self, index, value):
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("non-scalar numpy.ndarray cannot be used for fill")
        self._values[_inside(index)] = _inside(value)

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__" or "where" in kwargs:
            return NotImplemented
        out = kwargs.pop("out", ())
        if out:
            kwargs["out"] = tuple(_inside(one) for one in out)
        result = getattr(ufunc, method)(*(_inside(one) for one in inputs), **kwargs)
        return out[0] if out else _outside(result)

    def __array_function__(self, function, types, args, kwargs):
        return _outside(function(*_inside(args), **_inside(kwargs)))

    def __getattr__(self, name):
        if name not in _METHODS:
            raise AttributeError(f"the stand-in for CuPy's arrays has no '{name}'")

        def call(*args, **kwargs):
            return _outside(getattr(self._values, name)(*_inside(args), **_inside(kwargs)))

        return call


_METHODS = {
    "all", "any", "argmax", "astype", "copy", "max", "mean", "min", "ravel", "repeat", "reshape",
    "sum", "transpose",
}  # fmt: skip


def _inside(value):
    """NumPy's values of arguments, however nested; NumPy's own arrays are refused."""
    if isinstance(value, Array):
        return value._values
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, (tuple, list)):
        return type(value)(_inside(one) for one in value)
    if isinstance(value, dict):
        return {key: _inside(one) for key, one in value.items()}
    return value


def _outside(result):
    if isinstance(result, (np.ndarray, np.generic)):
        return Array(result)
    if isinstance(result, (tuple, list)):
        return type(result)(_outside(one) for one in result)
    return result


def _poisoned(shape, dtype=float, **kwargs):
    memory = np.empty(shape, dtype)
    memory.fill(np.nan if memory.dtype.kind == "f" else 77)
    return Array(memory)


class RawModule:
    """Compiled in the shim on first use."""

    def __init__(self, code, options=()):
        self.code = code

    def get_function(self, name):
        def function(grid, block, arguments):
            assert len(grid) == len(block) == 1
            shim.run(self.code, name, grid[0], block[0], _inside(arguments))

        return function


class _Cupy(ModuleType):
    ndarray = Array
    RawModule = RawModule

    def __getattr__(self, name):
        found = getattr(np, name)
        if isinstance(found, type) or not callable(found) or name == "finfo":
            return found

        def call(*args, **kwargs):
            return _outside(found(*_inside(args), **_inside(kwargs)))

        return call


def _from_host(function):
    def call(values, *args, **kwargs):
        if not isinstance(values, Array):  # what comes from the host is always copied
            return Array(np.array(function(values, *args, **kwargs), order="K"))
        inside = values._values
        result = function(inside, *args, **kwargs)
        return values if result is inside else Array(result)

    return call


# --- cuBLAS and cuSPARSE: column-major, by pointer ---


def _at(pointer, shape, strides, dtype):
    """Memory as an array, its strides counted in elements."""
    size = np.dtype(dtype).itemsize
    length = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + 1
    raw = (ctypes.c_byte * (length * size)).from_address(pointer)
    flat = np.frombuffer(raw, dtype)
    return np.lib.stride_tricks.as_strided(flat, shape, [s * size for s in strides])


def _gemm(dtype, batched):
    def gemm(handle, op_a, op_b, m, n, k, alpha, a, *rest):
        if batched:
            lda, step_a, b, ldb, step_b, beta, c, ldc, step_c, count = rest
        else:
            lda, b, ldb, beta, c, ldc = rest
            step_a = step_b = step_c = 0
            count = 1
        alpha, beta = (_at(one, (), (), dtype)[()] for one in (alpha, beta))
        for i in range(count):
            size = np.dtype(dtype).itemsize * i
            rows, columns = (k, m) if op_a else (m, k)
            A = _at(a + step_a * size, (rows, columns), (1, lda), dtype)
            rows, columns = (n, k) if op_b else (k, n)
            B = _at(b + step_b * size, (rows, columns), (1, ldb), dtype)
            C = _at(c + step_c * size, (m, n), (1, ldc), dtype)
            product = alpha * (A.T if op_a else A) @ (B.T if op_b else B)
            C[...] = product + beta * C if beta else product

    return gemm


def _cublas():
    library = ModuleType("cupy_backends.cuda.libs.cublas")
    library.CUBLAS_OP_N, library.CUBLAS_OP_T = 0, 1
    library.CUBLAS_DEFAULT_MATH = 0
    library.mode = None
    library.setMathMode = lambda handle, mode: setattr(library, "mode", mode)
    for letter, dtype in (("s", np.float32), ("d", np.float64)):
        setattr(library, f"{letter}gemm", _gemm(dtype, batched=False))
        setattr(library, f"{letter}gemmStridedBatched", _gemm(dtype, batched=True))
    return library


def _cusparse():
    library = ModuleType("cupy_backends.cuda.libs.cusparse")
    types = {0: np.float32, 1: np.float64}

    def create_csr(rows, columns, size, starts, numbers, values, *kinds):
        assert kinds[:3] == (2, 2, 0)
        arrays = (
            _at(values, (size,), (1,), types[kinds[3]]),
            _at(numbers, (size,), (1,), np.int32),
            _at(starts, (rows + 1,), (1,), np.int32),
        )
        return csr_array(arrays, shape=(rows, columns))

    def create_dense(rows, columns, width, pointer, kind, order):
        assert order == 2
        return _at(pointer, (rows, columns), (width, 1), types[kind])

    def multiply(handle, op_a, op_b, alpha, a, b, beta, c, kind, algorithm, scratch):
        assert (op_a, op_b, algorithm) == (0, 0, 12)
        assert (_at(alpha, (), (), types[kind]), _at(beta, (), (), types[kind])) == (1, 0)
        c[...] = a @ b

    library.createCsr, library.createDnMat, library.spMM = create_csr, create_dense, multiply
    library.spMM_bufferSize = lambda *arguments: 0
    library.destroySpMat = library.destroyDnMat = lambda one: None
    library.CUSPARSE_INDEX_32I, library.CUSPARSE_INDEX_BASE_ZERO = 2, 0
    library.CUSPARSE_OPERATION_NON_TRANSPOSE, library.CUSPARSE_ORDER_ROW = 0, 2
    return library


# --- the modules ---


class _Event:
    def __init__(self, disable_timing=False):
        pass

    def record(self, stream=None):
        pass

    def synchronize(self):
        pass


def modules():
    """All modules that the backend imports, by name."""
    cupy, cuda, device = _Cupy("cupy"), ModuleType("cupy.cuda"), ModuleType("cupy.cuda.device")
    cupy.cuda, cuda.device = cuda, device
    device.get_cublas_handle = device.get_cusparse_handle = lambda: 1
    cuda.Event = _Event
    cuda.get_elapsed_time = lambda begin, end: 1.0
    cuda.get_current_stream = lambda: SimpleNamespace(synchronize=_wait)
    cupy.empty = _poisoned
    cupy.empty_like = lambda like, dtype=None: _poisoned(like.shape, dtype or like.dtype)
    for name in ("asarray", "array", "ascontiguousarray"):
        setattr(cupy, name, _from_host(getattr(np, name)))
    cuda.runtime = SimpleNamespace(
        memGetInfo=lambda: (free_bytes, free_bytes),
        getDevice=lambda: 0,
        getDeviceProperties=lambda number: {"name": b"stand-in"},
    )
    cupy.get_default_memory_pool = lambda: SimpleNamespace(free_bytes=lambda: 0)
    cupyx = ModuleType("cupyx")
    cupyx.empty_pinned = lambda shape, dtype: np.full(shape, 77, dtype)
    libs = ModuleType("cupy_backends.cuda.libs")
    libs.cublas, libs.cusparse = _cublas(), _cusparse()
    return {
        "cupy": cupy,
        "cupy.cuda": cuda,
        "cupy.cuda.device": device,
        "cupyx": cupyx,
        "cupy_backends": ModuleType("cupy_backends"),
        "cupy_backends.cuda": ModuleType("cupy_backends.cuda"),
        "cupy_backends.cuda.libs": libs,
        "cupy_backends.cuda.libs.cublas": libs.cublas,
        "cupy_backends.cuda.libs.cusparse": libs.cusparse,
    }


@contextmanager
def installed():
    """Let ``import cupy`` find the stand-in, and the backend be chosen; undo it afterwards."""
    from minissl import backend

    def ours(name):
        return name.partition(".")[0] in ("cupy", "cupyx", "cupy_backends") or (
            name.startswith("minissl.kernels.gpu")
        )

    before = {name: module for name, module in sys.modules.items() if ours(name)}
    check = backend._check_gpu
    for name in before:
        del sys.modules[name]
    sys.modules.update(modules())
    backend._check_gpu = lambda: None
    try:
        yield
    finally:
        backend._check_gpu = check
        for name in [name for name in sys.modules if ours(name)]:
            del sys.modules[name]
        sys.modules.update(before)
