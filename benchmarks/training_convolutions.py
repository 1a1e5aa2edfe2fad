"""The convolutions of LeNet, ConvNet and ResNet-20 in training, pass by pass, beside PyTorch.

    python benchmarks/training_convolutions.py --threads 2 --nets resnet20

Passes: forward, gradient of weights and bias, gradient of the input (not of the first layer). Ours
run lowered, by direct tiles, by Winograd's where they apply, and as the performance model chooses;
PyTorch's run in NCHW and channels_last, by torch.ops.aten.convolution_backward. All ways of a pass
are interleaved, call by call in one process, and the median of each is taken. At the end, for every
net: the sum over its layers, each as often as it occurs, and its ratio to PyTorch's better format.
Needs torch, unless --no-torch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

os.environ.pop("OPENBLAS_CORETYPE", None)  # an older core type would slow one side only
os.environ.pop("OPENBLAS_L2_SIZE", None)
# two pools of busy-waiting threads in one process would disturb each other
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np

from minissl import backend
from minissl.conv_modes import ConvShape
from minissl.conv_modes.training import TrainedConvolution

PASSES = ("forward", "weights", "input")

#: net -> batch, and (layer, shape, how often)
NETS: dict[str, tuple[int, list[tuple[str, ConvShape, int]]]] = {
    "lenet": (
        64,
        [
            ("conv1", ConvShape(1, (28, 28), 20, (5, 5)), 1),
            ("conv2", ConvShape(20, (12, 12), 50, (5, 5)), 1),
        ],
    ),
    "convnet": (
        100,
        [
            ("conv1", ConvShape(3, (32, 32), 32, (5, 5), pad=(2, 2)), 1),
            ("conv2", ConvShape(32, (16, 16), 32, (5, 5), pad=(2, 2)), 1),
            ("conv3", ConvShape(32, (8, 8), 64, (5, 5), pad=(2, 2)), 1),
        ],
    ),
    "resnet20": (
        128,
        [
            ("conv1", ConvShape(3, (32, 32), 16, (3, 3), pad=(1, 1)), 1),
            ("16 channels", ConvShape(16, (32, 32), 16, (3, 3), pad=(1, 1)), 6),
            ("16 to 32", ConvShape(16, (32, 32), 32, (3, 3), (2, 2), (1, 1)), 1),
            ("16 to 32, 1x1", ConvShape(16, (32, 32), 32, (1, 1), (2, 2)), 1),
            ("32 channels", ConvShape(32, (16, 16), 32, (3, 3), pad=(1, 1)), 5),
            ("32 to 64", ConvShape(32, (16, 16), 64, (3, 3), (2, 2), (1, 1)), 1),
            ("32 to 64, 1x1", ConvShape(32, (16, 16), 64, (1, 1), (2, 2)), 1),
            ("64 channels", ConvShape(64, (8, 8), 64, (3, 3), pad=(1, 1)), 5),
        ],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--json", help="file for all figures")
    options = parser.parse_args()
    backend.set_threads(options.threads)
    results = {}
    for net in options.nets:
        batch, layers = NETS[net]
        sums: dict[str, float] = {}
        for number, (name, shape, times) in enumerate(layers):
            seconds = measure(shape, batch, options, first=number == 0)
            flop = 2 * batch * shape.filters * shape.columns * np.prod(shape.output)
            print(f"{net} {name}, batch {batch}: {flop / 1e9:.3f} GFLOP a pass")
            for way, passes in seconds.items():
                cells = (
                    f"{p} {1e3 * s:7.2f} ms {flop / s / 1e9:4.0f} GF/s" for p, s in passes.items()
                )
                print(f"    {way:14s}", "   ".join(cells), flush=True)
                sums[way] = sums.get(way, 0.0) + times * sum(passes.values())
            sums = {way: value for way, value in sums.items() if way in seconds}
            results[f"{net} {name}"] = seconds
        peers = [value for way, value in sums.items() if way.startswith("torch")]
        for way, value in sums.items():
            ratio = f", {value / min(peers):.2f} of PyTorch's better format" if peers else ""
            print(f"{net}, all convolutions, {way}: {1e3 * value:.2f} ms{ratio}")
        results[net] = sums
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)


def measure(shape: ConvShape, batch: int, options, first: bool) -> dict[str, dict[str, float]]:
    """Return the median seconds of each pass, for every way to run it."""
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal(size, np.float32)
        for size in (
            (batch, shape.channels, *shape.size),
            shape.weight_shape,
            (shape.filters,),
            (batch, shape.filters, *shape.output),
        )
    ]
    ways = ours(shape, batch, *arrays)
    if not options.no_torch:
        ways |= torchs(shape, options.threads, *arrays)
    result: dict[str, dict[str, float]] = {way: {} for way in ways}
    for name in PASSES[: 2 if first else 3]:
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(options.rounds + 1):
            for way, passes in ways.items():
                with backend.single_threaded_blas():
                    start = time.perf_counter()
                    passes[name]()
                    if turn:  # the first compiles and allocates
                        times[way].append(time.perf_counter() - start)
        for way, found in times.items():
            result[way][name] = statistics.median(found)
    return result


def ours(shape: ConvShape, batch: int, x, w, b, d_y) -> dict:
    """The passes of minissl."""
    kernels = backend.get("numba")
    y, d_x, d_w, d_b = np.empty_like(d_y), np.empty_like(x), np.zeros_like(w), np.zeros_like(b)
    lowered = TrainedConvolution(shape, batch, kernels, x.dtype, lowers=True)
    chosen = TrainedConvolution(shape, batch, kernels, x.dtype, lowers=False)
    ways = {"lowered": lowered, "chosen": chosen}
    found = {
        way: {
            "forward": lambda one=one: one.forward(x, w, b, y),
            "weights": lambda one=one: one.backward_weights(x, d_y, d_w, d_b),
            "input": lambda one=one: one.backward_input(d_y, w, d_x),
        }
        for way, one in ways.items()
    }
    for passes in zip(
        *(kernels.micro.training_passes(name, shape, x.dtype) for name in PASSES), strict=True
    ):
        forward, weights, gradient = passes
        found[forward.way] = {
            "forward": lambda one=forward: one.run(x, w, b, y),
            "weights": lambda one=weights: one.run(x, d_y, d_w, d_b),
            "input": lambda one=gradient: one.run(d_y, w, None, d_x),
        }
    return found


def torchs(shape: ConvShape, threads: int, *arrays) -> dict:
    """The passes of PyTorch, in both memory formats."""
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    found = {}
    geometry = shape.stride, shape.pad, shape.dilation

    def gradients(which, x, w, d_y):
        return torch.ops.aten.convolution_backward(
            d_y, x, w, [shape.filters], *geometry, False, [0, 0], shape.groups, which
        )

    for name in ("contiguous_format", "channels_last"):
        layout = getattr(torch, name)
        x, w, d_y = (
            torch.from_numpy(arrays[i]).contiguous(memory_format=layout) for i in (0, 1, 3)
        )
        b = torch.from_numpy(arrays[2])
        found[f"torch {'NCHW' if name == 'contiguous_format' else name}"] = {
            "forward": lambda x=x, w=w, b=b: torch.conv2d(x, w, b, *geometry, shape.groups),
            "weights": lambda x=x, w=w, g=d_y: gradients([False, True, True], x, w, g),
            "input": lambda x=x, w=w, g=d_y: gradients([True, False, False], x, w, g),
        }
    return found


if __name__ == "__main__":
    main()
