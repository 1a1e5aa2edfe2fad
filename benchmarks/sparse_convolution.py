"""CaffeNet's sparse convolutions beside PyTorch's dense ones, whole layers with bias and ReLU.

The weights are matrices that the authors published, in folders of Matrix Market files
``coo_conv1.weight`` ... ``coo_conv5.weight``: one after SSL, one after plain l1. For each layer,
batch and weight matrix the modes of minissl and PyTorch's conv2d + ReLU, in both of its layouts,
run in turn in one process. Each round gives every engine one call (several, when a call is short);
medians and minima are of the rounds, and so is the ratio to PyTorch's better layout.

    python benchmarks/sparse_convolution.py --matrices alexnet --threads 1 --batch 1 32

With --cpu-time, what a call costs is the processor's time rather than the clock's: all that can be
measured, with one thread, on a machine that is busy with other things.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

os.environ.pop("OPENBLAS_CORETYPE", None)  # an older core type would slow one side only
os.environ.pop("OPENBLAS_L2_SIZE", None)

#: layer: input channels, input height and width, filters, kernel, pad, stride, conv groups
LAYERS = {
    "conv1": (3, 227, 96, 11, 0, 4, 1),
    "conv2": (96, 27, 256, 5, 2, 1, 2),
    "conv3": (256, 13, 384, 3, 1, 1, 1),
    "conv4": (384, 13, 384, 3, 1, 1, 2),
    "conv5": (384, 13, 256, 3, 1, 1, 2),
}
MODES = ("LOWERED_CCNMM", "DIRECT_SCONV")
#: a sample lasts at least this long, so that the clock does not matter
SHORTEST = 2e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--matrices",
        type=Path,
        default=os.environ.get("MINISSL_SSL_MATRICES"),
        help="folder of folders of matrices; MINISSL_SSL_MATRICES otherwise",
    )
    parser.add_argument("--layers", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--modes", nargs="+", default=list(MODES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="measure the thread's CPU time")
    parser.add_argument("--dense", action="store_true", help="DIRECT_DCONV with dense weights too")
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    options = parser.parse_args()
    if options.matrices is None:
        parser.error("give --matrices DIR, or set MINISSL_SSL_MATRICES")
    folders = sorted({path.parent for path in Path(options.matrices).rglob("coo_conv3.weight")})
    if not folders:
        parser.error(f"{options.matrices} has no folder with coo_conv3.weight")
    # two pools of busy-waiting threads in one process would disturb each other
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    import torch

    from minissl import backend, doctor
    from minissl.formats.matrix_market import read_matrix

    torch.set_num_threads(options.threads)
    backend.set_threads(options.threads)
    print(
        f"{doctor.machine_in_words()}; {options.threads} threads; torch {torch.__version__}; "
        f"ms, median (minimum) of {options.rounds}; ratio: PyTorch's better layout / minissl"
    )
    results = []
    for layer in options.layers:
        for batch in options.batch:
            case = Case(layer, batch)
            for folder in folders:
                w = read_matrix(folder / f"coo_{layer}.weight")
                results += case.compare(folder.name, w, options.modes, options)
            if options.dense:
                results += case.compare("dense", case.random_weights(), ["DIRECT_DCONV"], options)
    if options.json:
        machine = {"machine": platform.machine(), "words": doctor.machine_in_words()}
        options.json.write_text(json.dumps({**machine, "results": results}, indent=1))


class Case:
    """One layer at one batch size, its input and PyTorch's two ways to run it."""

    def __init__(self, layer: str, batch: int):
        import numpy as np
        import torch

        from minissl.conv_modes import ConvShape

        C, H, F, k, pad, stride, G = LAYERS[layer]
        self.layer, self.batch = layer, batch
        self.shape = ConvShape(C, (H, H), F, (k, k), (stride, stride), (pad, pad), (1, 1), G)
        self.rng = np.random.default_rng(0)
        self.x = self.rng.standard_normal((batch, C, H, H), dtype=np.float32)
        self.b = self.rng.standard_normal(F, dtype=np.float32)
        self.y = np.empty((batch, F, *self.shape.output), np.float32)
        self.images = torch.from_numpy(self.x)

    def random_weights(self):
        K = self.shape.columns
        return self.rng.standard_normal((self.shape.filters, K), dtype="float32") / K**0.5

    def torch_engine(self, w, layout):
        import torch
        from torch.nn.functional import conv2d

        x, w, b = (
            torch.from_numpy(a).contiguous(memory_format=layout)
            if a.ndim == 4
            else torch.from_numpy(a)
            for a in (self.x, w, self.b)
        )
        s = self.shape

        def run():
            with torch.inference_mode():
                return torch.relu_(conv2d(x, w, b, s.stride, s.pad, s.dilation, s.groups))

        return run

    def compare(self, name, matrix, modes, options):
        """Time the modes beside PyTorch; check that they compute the same."""
        import numpy as np
        import torch

        from minissl import backend
        from minissl.conv_modes import prepare

        w = np.ascontiguousarray(matrix.reshape(self.shape.weight_shape), np.float32)
        kernels = backend.get("numba")
        engines = {
            "torch NCHW": self.torch_engine(w, torch.contiguous_format),
            "torch channels_last": self.torch_engine(w, torch.channels_last),
        }
        correct = engines["torch NCHW"]().numpy()
        with backend.single_threaded_blas():
            for mode in modes:
                prepared = prepare(mode, self.shape, w, self.b, kernels)
                engines[mode] = lambda prepared=prepared: prepared.forward(
                    self.x, self.y, relu=True
                )
                engines[mode]()
                error = float(np.abs(self.y - correct).max() / np.abs(correct).max())
                assert error < 1e-5, f"{mode} of {self.layer}: relative error {error}"
            clock = time.thread_time if options.cpu_time else time.perf_counter
            samples = interleave(engines, options.rounds, clock)
        medians = {engine: statistics.median(times) for engine, times in samples.items()}
        best = min(medians["torch NCHW"], medians["torch channels_last"])
        least = min(min(samples["torch NCHW"]), min(samples["torch channels_last"]))
        rows = []
        density = np.count_nonzero(w) / w.size
        text = [f"{self.layer} batch {self.batch:<3} {name:18} {100 * density:5.1f} % non-zero"]
        for engine, median in medians.items():
            text.append(f"{engine} {median * 1e3:.3f} ({min(samples[engine]) * 1e3:.3f})")
            if engine in modes:
                text[-1] += f" x{best / median:.2f} (x{least / min(samples[engine]):.2f})"
            rows.append(
                {
                    "layer": self.layer,
                    "batch": self.batch,
                    "weights": name,
                    "density": density,
                    "engine": engine,
                    "median_ms": median * 1e3,
                    "minimum_ms": min(samples[engine]) * 1e3,
                    "ratio": best / median,
                    "ratio_of_minima": least / min(samples[engine]),
                }
            )
        print(" | ".join(text), flush=True)
        return rows


def interleave(engines, rounds, clock):
    """Seconds of a call in each round, one sample for each engine in turn."""
    counts = {}
    for name, run in engines.items():
        run()
        start = clock()
        run()
        counts[name] = max(1, round(SHORTEST / max(clock() - start, 1e-7)))
    samples = {name: [] for name in engines}
    for _ in range(rounds):
        for name, run in engines.items():
            start = clock()
            for _ in range(counts[name]):
                run()
            samples[name].append((clock() - start) / counts[name])
    return samples


if __name__ == "__main__":
    main()
