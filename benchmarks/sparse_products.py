"""Sparse products side by side: minissl's compressed rows, SciPy, MKL, and dense engines.

Two questions. Inner products of AlexNet with random zeros (fc6 90 %, fc7 84 %, fc8 74 %), for a
batch of 1 and of 32: is the sparse layer faster than another CSR product, and than the best dense
engine? And the lowered convolutions conv2 .. conv5 with weights from Matrix Market files
(``--matrices DIR`` with coo_conv2.weight ...), or random zeros of the same number: is the product
of one conv group with the lowered image faster than MKL's?

    python benchmarks/sparse_products.py --threads 1 --matrices alexnet/0.56256_l1_9.0e-5

Everything runs in one process, engine after engine in every round, each with its own copy of the
weights; medians over the rounds are printed, and ratios to minissl's time (above 1: minissl is
faster). MKL is called through sparse_dot_mkl where that is installed, and through PyTorch, whose
sparse CSR product is MKL's. Engines that are not installed are named and left out.

On a machine that is busy with other work, --cpu-time counts the processor time of this process
instead of the time that passes; that is fair for one thread only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
import warnings
from pathlib import Path

os.environ.pop("OPENBLAS_CORETYPE", None)  # an older core type would slow NumPy's products only
os.environ.pop("OPENBLAS_L2_SIZE", None)

INNER_PRODUCTS = {
    "fc6": (4096, 9216, 0.903),
    "fc7": (4096, 4096, 0.844),
    "fc8": (1000, 4096, 0.738),
}
#: filters, columns, output pixels, conv groups, zeros
CONVOLUTIONS = {
    "conv2": (256, 1200, 27 * 27, 2, 0.886),
    "conv3": (384, 2304, 13 * 13, 1, 0.951),
    "conv4": (384, 1728, 13 * 13, 2, 0.939),
    "conv5": (256, 1728, 13 * 13, 2, 0.908),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--layers", nargs="+", default=[*INNER_PRODUCTS, *CONVOLUTIONS])
    parser.add_argument("--matrices", type=Path, help="folder of Matrix Market files")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--json", type=Path, help="write the result there, too")
    options = parser.parse_args()
    if options.cpu_time and options.threads != 1:
        parser.error("--cpu-time is fair for one thread only")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    # several pools of busy-waiting threads in one process would disturb each other
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

    engines, missing = find_engines(options.threads)
    print("engines: " + ", ".join(engine.title for engine in engines))
    for line in missing:
        print(f"left out: {line}")
    rows = []
    for layer in options.layers:
        for batch in options.batch:
            problem = make_problem(layer, batch, options.matrices)
            row = measure(problem, engines, options)
            rows.append(row)
            show(row)
    result = {
        "rows": rows,
        "threads": options.threads,
        "engines": [engine.title for engine in engines],
        "left_out": missing,
        "clock": "processor time" if options.cpu_time else "wall time",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


# --- the problems ---


class Problem:
    """y = x @ W^T of an inner product, or Y = W @ X of a lowered image, with the same W (F, K)."""

    def __init__(self, name, batch, w, x):
        from scipy.sparse import csr_matrix

        self.name, self.batch, self.w, self.x = name, batch, w, x
        self.csr = csr_matrix(w)
        #: (K, n), what a general sparse product takes
        self.columns = x if self.is_convolution else x.T.copy()

    @property
    def is_convolution(self):
        return self.name in CONVOLUTIONS

    def check(self, y):
        expected = self.w @ self.x if self.is_convolution else self.x @ self.w.T
        y = y if y.shape == expected.shape else y.reshape(expected.shape[::-1]).T
        error = abs(y - expected).max() / abs(expected).max()
        if not error < 1e-4:
            raise SystemExit(f"{self.name}: a product is wrong by {error:.2g}")


def make_problem(layer, batch, matrices):
    import numpy as np

    rng = np.random.default_rng(0)
    if layer in INNER_PRODUCTS:
        F, K, zeros = INNER_PRODUCTS[layer]
        w = random_matrix(rng, F, K, zeros)
        return Problem(layer, batch, w, rng.standard_normal((batch, K)).astype("float32"))
    F, K, pixels, groups, zeros = CONVOLUTIONS[layer]
    w = read(matrices, layer) if matrices else random_matrix(rng, F, K, zeros)
    w = w[: F // groups]  # the first conv group
    return Problem(layer, batch, w, rng.standard_normal((K, batch * pixels)).astype("float32"))


def random_matrix(rng, F, K, zeros):
    w = rng.standard_normal((F, K)).astype("float32")
    w[rng.random((F, K)) < zeros] = 0
    return w


def read(folder, layer):
    from minissl.formats.matrix_market import read_matrix

    names = (f"coo_{layer}.weight", f"{layer}.mtx")
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise SystemExit(f"{folder} holds none of {', '.join(names)}")
    return read_matrix(path).astype("float32")


# --- the engines ---


class Engine:
    """Prepares a problem once (packing is not timed) and returns a function that multiplies."""

    title = ""
    dense = False

    def prepare(self, problem):
        raise NotImplementedError


class Minissl(Engine):
    """Compressed rows in panels, or as a gathered dot product for a single image."""

    title = "minissl"

    def __init__(self, threads):
        from minissl import backend

        self.kernels = backend.get("numba")
        backend.set_threads(threads)

    def prepare(self, problem):
        import numpy as np

        from minissl.conv_modes.compressed_rows import compress
        from minissl.conv_modes.inner_product import prepare_inner_product

        if problem.is_convolution:
            packed = compress(problem.w)
            y = np.empty((problem.w.shape[0], problem.x.shape[1]), "float32")

            def run():
                self.kernels.csr_times_dense(*packed, problem.x, y)
                return y

            return run
        prepared = prepare_inner_product("LOWERED_CSRMM", problem.w, None, self.kernels)
        y = np.empty((problem.batch, problem.w.shape[0]), "float32")

        def run():
            prepared.forward(problem.x, y)
            return y

        return run


class SciPy(Engine):
    """Its CSR product, on one thread."""

    def __init__(self, threads):
        import scipy

        self.title = f"SciPy {scipy.__version__} CSR"

    def prepare(self, problem):
        return lambda: problem.csr @ problem.columns


class Mkl(Engine):
    """MKL's CSR product through its own interface."""

    def __init__(self, threads):
        import sparse_dot_mkl

        self.library = sparse_dot_mkl
        self.title = f"MKL CSR (sparse_dot_mkl {sparse_dot_mkl.__version__})"

    def prepare(self, problem):
        csr, columns = problem.csr, problem.columns
        if columns.shape[1] == 1:
            columns = columns[:, 0].copy()  # its matrix-vector product
        return lambda: self.library.dot_product_mkl(csr, columns)


class TorchSparse(Engine):
    """MKL's CSR product through PyTorch."""

    def __init__(self, threads):
        import torch

        torch.set_num_threads(threads)
        self.torch, self.title = torch, f"MKL CSR (torch {torch.__version__})"

    def prepare(self, problem):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that sparse CSR tensors are in beta
            w = self.torch.from_numpy(problem.w.copy()).to_sparse_csr()
        columns = self.torch.from_numpy(problem.columns)
        return lambda: (w @ columns).numpy()


class TorchDense(TorchSparse):
    """PyTorch's dense product."""

    dense = True

    def __init__(self, threads):
        super().__init__(threads)
        self.title = f"torch {self.torch.__version__} dense"

    def prepare(self, problem):
        w, x = self.torch.from_numpy(problem.w.copy()), self.torch.from_numpy(problem.x)
        if problem.is_convolution:
            return lambda: (w @ x).numpy()
        return lambda: self.torch.nn.functional.linear(x, w).numpy()


class NumPyDense(Engine):
    """NumPy's dense product, OpenBLAS."""

    dense = True

    def __init__(self, threads):
        import numpy

        self.title = f"NumPy {numpy.__version__} dense"

    def prepare(self, problem):
        w, x = problem.w.copy(), problem.x
        return (lambda: w @ x) if problem.is_convolution else (lambda: x @ w.T)


class OnnxRuntime(Engine):
    """A model of one MatMul."""

    dense = True

    def __init__(self, threads):
        import onnx
        import onnxruntime

        self.onnx, self.runtime, self.threads = onnx, onnxruntime, threads
        self.title = f"onnxruntime {onnxruntime.__version__} dense"

    def prepare(self, problem):
        model = matmul_model(self.onnx, problem)
        settings = self.runtime.SessionOptions()
        settings.intra_op_num_threads = self.threads
        settings.inter_op_num_threads = 1
        session = self.runtime.InferenceSession(
            model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        feed = {"x": problem.x}
        return lambda: session.run(None, feed)[0]


class OpenVino(Engine):
    """A model of one MatMul."""

    dense = True

    def __init__(self, threads):
        import onnx
        import openvino

        self.onnx, self.openvino, self.threads = onnx, openvino, threads
        self.title = f"openvino {openvino.__version__.split('-')[0]} dense"

    def prepare(self, problem):
        model = matmul_model(self.onnx, problem).SerializeToString()
        core = self.openvino.Core()
        compiled = core.compile_model(
            core.read_model(model, b""),
            "CPU",
            {"INFERENCE_NUM_THREADS": self.threads, "INFERENCE_PRECISION_HINT": "f32"},
        )
        request = compiled.create_infer_request()
        feed = {0: problem.x}
        return lambda: request.infer(feed, share_inputs=True, share_outputs=True)[0]


def matmul_model(onnx, problem):
    """Make a model of one MatMul: W @ x for a lowered image, x @ W^T for an inner product."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    w = problem.w if problem.is_convolution else np.ascontiguousarray(problem.w.T)
    inputs = ["w", "x"] if problem.is_convolution else ["x", "w"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", inputs, ["y"])],
        problem.name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, problem.x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


ENGINES = (Minissl, SciPy, Mkl, TorchSparse, TorchDense, NumPyDense, OnnxRuntime, OpenVino)


def find_engines(threads):
    """Return the engines that are installed, and a line for each of the others."""
    engines, missing = [], []
    for kind in ENGINES:
        try:
            engines.append(kind(threads))
        except ImportError as error:
            missing.append(f"{kind.__name__} ({str(error).splitlines()[0]})")
    return engines, missing


# --- the measurement ---


def measure(problem, engines, options):
    """Time all engines by turns; return medians in ms, and what they were for."""
    clock = time.process_time if options.cpu_time else time.perf_counter
    runs = {engine.title: engine.prepare(problem) for engine in engines}
    for run in runs.values():  # warm up, compile, check
        problem.check(run())
    times = {title: [] for title in runs}
    for _ in range(options.rounds):
        for title, run in runs.items():
            start = clock()
            run()
            times[title].append(clock() - start)
    ms = {title: 1e3 * statistics.median(values) for title, values in times.items()}
    return {
        "layer": problem.name,
        "batch": problem.batch,
        "zeros_percent": 100 * (1 - problem.csr.nnz / problem.w.size),
        "ms": ms,
        "fastest_ms": {title: 1e3 * min(values) for title, values in times.items()},
        "real_gflops": 2e-6 * problem.csr.nnz * problem.columns.shape[1] / ms["minissl"],
        "times_faster": {title: value / ms["minissl"] for title, value in ms.items()},
        "times_faster_than_mkl": best(ms, [e.title for e in engines if e.title.startswith("MKL")]),
        "times_faster_than_dense": best(ms, [e.title for e in engines if e.dense]),
    }


def best(ms, titles):
    """Return how many times faster minissl is than the fastest of some engines."""
    return min(ms[title] for title in titles) / ms["minissl"] if titles else None


def show(row):
    print(
        f"\n{row['layer']}, batch {row['batch']}, {row['zeros_percent']:.1f} % zeros: "
        f"{row['real_gflops']:.3g} real GFLOP/s"
    )
    for title, ms in row["ms"].items():
        print(
            f"  {title:38} {ms:9.3f} ms (fastest {row['fastest_ms'][title]:9.3f})  "
            f"x {row['times_faster'][title]:.2f}"
        )
    for other in ("mkl", "dense"):
        ratio = row[f"times_faster_than_{other}"]
        if ratio is not None:
            print(f"  times faster than the best {other}: {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
