"""CaffeNet's sparse convolutions beside PyTorch, MKL and DeepSparse: whole layers, bias and ReLU.

The weights are matrices that the authors published, in folders of Matrix Market files
``coo_conv1.weight`` ... ``coo_conv5.weight``: one after SSL, one after plain l1. For each layer,
batch and weight matrix all engines run in turn in one process, one call in each round (several,
when a call is short). Medians and minima are of the rounds. A ratio is the time of PyTorch's better
memory format (or of another engine) over minissl's: above 1, minissl is faster.

    python benchmarks/sparse_convolution.py --matrices alexnet --batch 1 32

* ``torch`` is conv2d and ReLU on dense weights, ``channels_last`` the same in that memory format.
* ``MKL`` is the product of PyTorch's CSR matrices, which is MKL's, with the lowered image: the
  product alone, without lowering, bias and ReLU, which minissl's time includes.
* ``DeepSparse`` runs where it is installed; it makes use of zeros in ungrouped convolutions only,
  so conv groups are layers of their own there, their inputs cut apart beforehand.
* ``--product`` compares the stage of multiplication alone: LOWERED_CCNMM's packed matrices, and the
  whole of its direct tiles, beside LOWERED_GEMM's dense ones.

PyTorch's outputs are new memory at every call. The C library is asked to keep memory that was
freed, or page faults would make up much of its time at large batches; ``--give-back`` leaves the
library as it is. With ``--cpu-time``, what a call costs is the processor's time rather than the
clock's: all that can be measured, with one thread, on a machine that is busy with other things.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)  # an older core type would slow one side only

#: layer: input channels, input height and width, filters, kernel, pad, stride, conv groups
LAYERS = {
    "conv1": (3, 227, 96, 11, 0, 4, 1),
    "conv2": (96, 27, 256, 5, 2, 1, 2),
    "conv3": (256, 13, 384, 3, 1, 1, 1),
    "conv4": (384, 13, 384, 3, 1, 1, 2),
    "conv5": (384, 13, 256, 3, 1, 1, 2),
}
#: a sample lasts at least this long, so that the clock does not matter
SHORTEST = 2e-3
#: peers are compared to the fastest of several of their own ways
PEERS = {
    "torch": ("torch", "channels_last"),
    "MKL": ("MKL",),
    "DeepSparse": ("DeepSparse",),
    "GEMM": ("GEMM product",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--matrices",
        type=Path,
        default=os.environ.get("MINISSL_MATRICES"),
        help="folder of folders of matrices; MINISSL_MATRICES otherwise",
    )
    parser.add_argument("--layers", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--weights", nargs="+", help="only folders with one of these in the name")
    parser.add_argument("--modes", nargs="+", default=["LOWERED_CCNMM", "DIRECT_SCONV"])
    parser.add_argument("--peers", nargs="+", default=["torch", "MKL", "DeepSparse"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="measure the thread's CPU time")
    parser.add_argument("--give-back", action="store_true", help="freed memory is given back")
    parser.add_argument("--dense", action="store_true", help="DIRECT_DCONV with dense weights too")
    parser.add_argument("--product", action="store_true", help="the stage of multiplication alone")
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    options = parser.parse_args()
    if options.matrices is None:
        parser.error("give --matrices DIR, or set MINISSL_MATRICES")
    folders = sorted(
        path.parent
        for path in Path(options.matrices).rglob("coo_conv3.weight")
        if not options.weights or any(part in path.parent.name for part in options.weights)
    )
    if not folders:
        parser.error(f"{options.matrices} has no such folder with coo_conv3.weight")
    # two pools of busy-waiting threads in one process would disturb each other
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    if not options.give_back:
        keep_freed_memory()

    import torch

    from minissl import backend, doctor
    from minissl.formats.matrix_market import read_matrix

    torch.set_num_threads(options.threads)
    backend.set_threads(options.threads)
    words = f"{doctor.machine_in_words()}; {options.threads} threads; torch {torch.__version__}"
    print(f"{words}; ms, median (minimum) of {options.rounds}")
    results = []
    for layer in options.layers:
        for batch in options.batch:
            case = Case(layer, batch, options)
            for folder in folders:
                w = read_matrix(folder / f"coo_{layer}.weight")
                results += case.compare(folder.name, w, options.modes, options.peers)
            if options.dense:
                results += case.compare("dense", case.random_weights(), ["DIRECT_DCONV"], ["torch"])
    if options.json:
        options.json.write_text(json.dumps({"machine": words, "results": results}, indent=1))


def keep_freed_memory() -> None:
    """Let the C library serve new arrays from memory that was freed; only GNU's can be asked."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, size in ((-1, 2**31 - 1), (-2, 2**28), (-3, 2**30)):  # trim, top pad, mmap
        mallopt(option, size)


class Case:
    """One layer at one batch size, its input, and the engines that run it."""

    def __init__(self, layer: str, batch: int, options: argparse.Namespace):
        import numpy as np

        from minissl.conv_modes import ConvShape

        C, H, F, k, pad, stride, G = LAYERS[layer]
        self.layer, self.batch, self.options = layer, batch, options
        self.shape = ConvShape(C, (H, H), F, (k, k), (stride, stride), (pad, pad), (1, 1), G)
        self.rng = np.random.default_rng(0)
        self.x = self.rng.standard_normal((batch, C, H, H), dtype=np.float32)
        self.b = self.rng.standard_normal(F, dtype=np.float32)
        self.y = np.empty((batch, F, *self.shape.output), np.float32)

    def random_weights(self):
        K = self.shape.columns
        return self.rng.standard_normal((self.shape.filters, K), dtype="float32") / K**0.5

    def compare(self, name, matrix, modes, peers) -> list[dict]:
        """Time the modes beside the peers; check that they compute the same."""
        import numpy as np

        from minissl import backend

        w = np.ascontiguousarray(matrix.reshape(self.shape.weight_shape), np.float32)
        engines = {"torch": self.torch_engine(w, "contiguous_format")}
        correct = engines["torch"]().numpy()
        if "torch" in peers:
            engines["channels_last"] = self.torch_engine(w, "channels_last")
        if "MKL" in peers:
            engines["MKL"] = self.mkl_engine(w)
        if "DeepSparse" in peers:
            engines |= self.deepsparse_engine(w)
        with backend.single_threaded_blas():
            for mode in modes:
                engines[mode] = self.minissl_engine(mode, w)
                engines[mode]()
                error = float(np.abs(self.y - correct).max() / np.abs(correct).max())
                assert error < 1e-5, f"{mode} of {self.layer}: relative error {error}"
            if self.options.product and "LOWERED_CCNMM" in modes:
                engines["GEMM product"] = self.minissl_engine("LOWERED_GEMM", w, product=True)
                engines["CCNMM product"] = self.minissl_engine("LOWERED_CCNMM", w, product=True)
            clock = time.thread_time if self.options.cpu_time else time.perf_counter
            samples = interleave(engines, self.options.rounds, clock)
        density = np.count_nonzero(w) / w.size
        head = {"layer": self.layer, "batch": self.batch, "weights": name, "density": density}
        print(f"{self.layer} batch {self.batch}, {name}, {100 * density:.1f} % non-zero")
        rows = [head | row for row in summarize(samples)]
        for row in rows:
            ratios = ", ".join(
                f"{peer} x{ratio:.2f} (x{row['ratios_of_minima'][peer]:.2f})"
                for peer, ratio in row["ratios"].items()
            )
            times = f"{row['median_ms']:9.3f} ({row['minimum_ms']:.3f})"
            print(f"    {row['engine']:18} {times:22} {ratios}", flush=True)
        return rows

    def minissl_engine(self, mode, w, product=False):
        from minissl import backend
        from minissl.conv_modes import prepare
        from minissl.kernels.cpu.stages import MULTIPLY

        prepared = prepare(mode, self.shape, w, self.b, backend.get("numba"))
        if product:
            return lambda: prepared.forward(self.x, self.y, stages=MULTIPLY)
        return lambda: prepared.forward(self.x, self.y, relu=True)

    def torch_engine(self, w, layout):
        import torch
        from torch.nn.functional import conv2d

        layout = getattr(torch, layout)
        x, w = (torch.from_numpy(a).contiguous(memory_format=layout) for a in (self.x, w))
        b, s = torch.from_numpy(self.b), self.shape

        def run():
            with torch.inference_mode():
                return torch.relu_(conv2d(x, w, b, s.stride, s.pad, s.dilation, s.groups))

        return run

    def mkl_engine(self, w):
        """CSR matrices of all conv groups times the lowered batch."""
        import torch

        s = self.shape
        images = torch.from_numpy(self.x)
        lowered = torch.nn.functional.unfold(images, s.kernel, s.dilation, s.pad, s.stride)
        # (N, G, K, P*Q) -> G times (K, N*P*Q)
        lowered = lowered.reshape(self.batch, s.groups, s.columns, -1).permute(1, 2, 0, 3)
        lowered = [part.reshape(s.columns, -1).contiguous() for part in lowered]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that sparse CSR tensors are in beta
            bands = [torch.from_numpy(band.copy()).to_sparse_csr() for band in s.bands(w)]
        return lambda: [band @ part for band, part in zip(bands, lowered, strict=True)]

    def deepsparse_engine(self, w) -> dict:
        """Return the engine under its name; nothing where DeepSparse is not installed."""
        try:
            import deepsparse
            import numpy as np
            import onnx
        except ImportError:
            return {}
        G, s = self.shape.groups, self.shape
        engines, inputs = [], []
        for g in range(G):
            x = np.ascontiguousarray(np.split(self.x, G, axis=1)[g])
            own_w, own_b = np.split(w, G)[g], np.split(self.b, G)[g]
            y_shape = (self.batch, s.rows, *s.output)
            value, make = onnx.helper.make_tensor_value_info, onnx.helper.make_node
            settings = {"kernel_shape": s.kernel, "strides": s.stride, "pads": s.pad * 2}
            graph = onnx.helper.make_graph(
                [
                    make("Conv", ["x", "w", "b"], ["z"], **settings),
                    make("Relu", ["z"], ["y"]),
                ],
                "layer",
                [value("x", onnx.TensorProto.FLOAT, x.shape)],
                [value("y", onnx.TensorProto.FLOAT, y_shape)],
                [onnx.numpy_helper.from_array(a, n) for a, n in ((own_w, "w"), (own_b, "b"))],
            )
            opset = [onnx.helper.make_opsetid("", 13)]
            with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
                onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=7), file)
                file.flush()
                engines.append(
                    deepsparse.Engine(file.name, self.batch, num_cores=self.options.threads)
                )
            inputs.append([x])
        return {"DeepSparse": lambda: [e.run(x) for e, x in zip(engines, inputs, strict=True)]}


def interleave(engines, rounds, clock) -> dict[str, list[float]]:
    """Seconds of a call in each round, one sample for each engine in turn."""
    counts = {}
    for name, run in engines.items():
        run()
        start = clock()
        run()
        counts[name] = max(1, round(SHORTEST / max(clock() - start, 1e-7)))
    samples: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, run in engines.items():
            start = clock()
            for _ in range(counts[name]):
                run()
            samples[name].append((clock() - start) / counts[name])
    return samples


def summarize(samples: dict[str, list[float]]) -> list[dict]:
    """Median, minimum and ratios to the peers of every engine."""
    peers = {name for ways in PEERS.values() for name in ways}
    rows = []
    for engine, times in samples.items():
        row = {"engine": engine, "ratios": {}, "ratios_of_minima": {}}
        row |= {"median_ms": statistics.median(times) * 1e3, "minimum_ms": min(times) * 1e3}
        for peer, ways in PEERS.items():
            measured = [samples[way] for way in ways if way in samples]
            if measured and engine not in peers:
                least = min(statistics.median(way) for way in measured)
                row["ratios"][peer] = least / statistics.median(times)
                row["ratios_of_minima"][peer] = min(map(min, measured)) / min(times)
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
