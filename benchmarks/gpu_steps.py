"""Where the time of a training step on a GPU goes: queueing on the host, and each kernel's share.

    python benchmarks/gpu_steps.py resnet20_solver.prototxt convnet_dense_solver.prototxt
    python benchmarks/gpu_steps.py resnet20_solver.prototxt --steps 500 --json steps.json

A step is all that ``minissl train`` does in an iteration, reading and cropping of images included;
names of solvers are those of files that come with minissl, or of your own. For each one it tells

* the time of a step, device and host together: medians over blocks of steps;
* how long the host takes to queue a step. Where that is all of it, the device waits for Python;
* how long the device is busy in a step and with what, as CUPTI sees it (through PyTorch's profiler,
  which also counts the kernels of others; this part is left out where PyTorch is not installed).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

BLOCKS = 5
WARM = 30
PROFILED = 20
SHOWN = 25


def main(arguments=None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("solvers", nargs="+", metavar="SOLVER", help="a solver prototxt")
    parser.add_argument("--data", help="data set to read, in place of what the net names")
    parser.add_argument("--steps", type=int, default=200, help="in all blocks together")
    parser.add_argument("--tf32", action="store_true", help="let float32 products use TF32")
    parser.add_argument("--json", type=Path, help="write the result there, too")
    options = parser.parse_args(arguments)
    result = {name: measure(name, options) for name in options.solvers}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train for some steps, and tell where their time went."""
    from minissl import backend

    backend.allow_tf32(options.tf32)
    solver = make_solver(name, options.data)
    for _ in range(WARM):
        solver.step()
    wait()
    count = max(1, options.steps // BLOCKS)
    times, queueing = [], []
    for _ in range(BLOCKS):
        start = time.perf_counter()
        for _ in range(count):
            solver.step()
        queueing.append((time.perf_counter() - start) / count * 1e3)
        wait()
        times.append((time.perf_counter() - start) / count * 1e3)
    found = {
        "by": backend.in_words(solver.kernels),
        "tf32": options.tf32,
        "ms": statistics.median(times),
        "ms_queueing": statistics.median(queueing),
        "device": on_device(solver),
    }
    print(f"{name} by {found['by']}: {found['ms']:.2f} ms, queueing {found['ms_queueing']:.2f} ms")
    if found["device"]:
        busy, calls = (sum(one[key] for one in found["device"]) for key in ("ms", "calls"))
        print(f"device busy for {busy:.2f} ms, with {calls:.0f} operations:")
    for one in found["device"][:SHOWN]:
        print(f"{one['ms']:9.3f} ms {one['calls']:7.1f} x {one['kernel'][:80]}")
    return found


def make_solver(name: str, data: str | None) -> Any:
    """Open a solver of the ``cupy`` backend, by the name of its file."""
    from minissl import Solver, models
    from minissl.recipes.training import Training

    path = Path(name) if Path(name).is_file() else models.path(name)
    training = Training("steps", "", path, data=data)
    return Solver(training.read(), backend="cupy", collapse_check=False)


def wait() -> None:
    """Let the device finish what is queued."""
    import cupy

    cupy.cuda.get_current_stream().synchronize()


def on_device(solver: Any) -> list[dict[str, Any]]:
    """Return what the device does in a step: kernels and copies, the longest first."""
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        return []
    torch.zeros(1, device="cuda")  # CUPTI is set up with PyTorch's own context
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
        for _ in range(PROFILED):
            solver.step()
        wait()
    found = [
        {
            "kernel": one.key,
            "ms": one.device_time_total / PROFILED / 1e3,
            "calls": one.count / PROFILED,
        }
        for one in profiled.key_averages()
        if one.device_time_total
    ]
    return sorted(found, key=lambda one: -one["ms"])


if __name__ == "__main__":
    main()
