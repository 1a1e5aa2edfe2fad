"""Whole training steps beside PyTorch: LeNet, ConvNet and ResNet-20, with the same SGD and batches.

    python benchmarks/training.py                       # all three, two threads
    python benchmarks/training.py resnet20 --seconds 60 --threads 2

Each engine runs in a process of its own: minissl, PyTorch in NCHW and PyTorch in channels-last.
Blocks of iterations go round between them, so that all see the same machine; whoever is not
running sleeps. The ratio is that of the median times against the better of PyTorch's two layouts.

PyTorch's network is built from minissl's, layer by layer and with its weights (training_twin.py);
before anything is timed both compute the loss of one batch, which must agree. minissl's step is all
that `minissl train` does in an iteration, reading, cropping and mirroring of images included.
PyTorch is handed images that are in memory, with the mean subtracted; it neither crops nor mirrors.

Memory is the largest resident size while training, less that before the network was built.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

#: model, data set, batch size, solver fields, target ratio of time
NETS = {
    "lenet": ("lenet.prototxt", "mnist", 64, "base_lr: 0.01 weight_decay: 0.0005", 0.8),
    "convnet": ("convnet.prototxt", "cifar10", 100, "base_lr: 0.001 weight_decay: 0.004", 1.0),
    "resnet20": ("resnet20.prototxt", "cifar10", 128, "base_lr: 0.1 weight_decay: 0.0001", 1.1),
}
ENGINES = ("minissl", "torch NCHW", "torch channels-last")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nets", nargs="*", metavar="NET", help=f"some of {', '.join(NETS)}")
    parser.add_argument("--seconds", type=float, default=40, help="for each net, all engines")
    parser.add_argument("--block", type=float, default=1.0, help="seconds of a block")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        serve(options)
        return
    unknown = set(options.nets) - set(NETS)
    if unknown:
        parser.error(f"unknown net {', '.join(unknown)}; choose from {', '.join(NETS)}")
    results = {name: compare(name, options) for name in options.nets or NETS}
    if options.json:
        from minissl.doctor import machine_in_words

        report = {"machine": machine_in_words(), "threads": options.threads, "nets": results}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def compare(name: str, options: Any) -> dict[str, Any]:
    """Let all engines train one network by turns; print and return what came out."""
    batch, target = NETS[name][2], NETS[name][4]
    first = Child(name, "minissl", options)
    first.run(1)  # kernels that are compiled, once, would count as memory of the training
    first.close()
    engines = {engine: Child(name, engine, options) for engine in ENGINES}
    try:
        counts, times = {}, {engine: [] for engine in ENGINES}
        for engine, child in engines.items():
            child.run(3)  # allocate
            counts[engine] = max(1, round(options.block / child.run(3)))
        end = time.monotonic() + options.seconds
        while time.monotonic() < end or len(times["minissl"]) < 3:
            for engine, child in engines.items():
                times[engine].append(1e3 * child.run(counts[engine]))
        medians = {engine: statistics.median(blocks) for engine, blocks in times.items()}
        memory = {engine: child.ask("memory") for engine, child in engines.items()}
    finally:
        for child in engines.values():
            child.close()
    best = min((e for e in ENGINES if e != "minissl"), key=medians.__getitem__)
    ratio = medians["minissl"] / medians[best]
    print(f"{name}, batch {batch}, {options.threads} threads:")
    for engine in ENGINES:
        quartiles = statistics.quantiles(times[engine], n=4)
        print(
            f"  {engine:20} {medians[engine]:8.2f} ms an iteration (quartiles "
            f"{quartiles[0]:.2f} to {quartiles[2]:.2f}), {1e3 * batch / medians[engine]:7.0f} "
            f"images/s, peak memory {memory[engine] / 1e6:6.1f} MB"
        )
    print(f"  time {ratio:.2f} of {best}'s (target: at most {target}), ", end="")
    print(f"memory {memory['minissl'] / memory[best]:.2f}", flush=True)
    return {"ms": medians, "ratio": ratio, "target": target, "peak_bytes": memory, "best": best}


class Child:
    """An engine in a process of its own, which answers every line with a number."""

    def __init__(self, name: str, engine: str, options: Any):
        # OpenMP's threads of an idle engine must not keep a core busy
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        environment["OMP_NUM_THREADS"] = str(options.threads)
        for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):  # would slow one side only
            environment.pop(variable, None)
        if engine == "minissl":
            del environment["OMP_WAIT_POLICY"]
        command = [sys.executable, __file__, name, "--engine", engine]
        command += ["--threads", str(options.threads)]
        self.process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, line: str) -> float:
        """Send a line, return the number that comes back."""
        print(line, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("an engine ended early; its message is above")
        return float(answer)

    def run(self, count: int) -> float:
        """Return the seconds of an iteration."""
        return self.ask(f"run {count}") / count

    def close(self) -> None:
        """Let the process end."""
        self.process.stdin.close()
        self.process.wait()


def serve(options: Any) -> None:
    """Be an engine: build it, then run as many iterations as each line of the input says."""
    (name,) = options.nets
    sys.path.insert(0, str(Path(__file__).parent))
    make = ours if options.engine == "minissl" else theirs
    step = make(name, options)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    step()
    for line in sys.stdin:
        if line.startswith("memory"):
            print(resident("VmHWM") - before, flush=True)
            continue
        start = time.perf_counter()
        for _ in range(int(line.split()[1])):
            step()
        print(time.perf_counter() - start, flush=True)


def resident(field: str) -> int:
    """Return a size of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(one.split()[1]) for one in lines if one.startswith(field)) * 1024


def solver_param(name: str) -> Any:
    from minissl import models
    from minissl.formats.prototxt import parse_solver, read_net

    model, _, _, fields, _ = NETS[name]
    param = parse_solver(f'momentum: 0.9 lr_policy: "fixed" max_iter: 1000000 {fields}')
    param.net_param.CopyFrom(read_net(models.path(model)))
    return param


def ours(name: str, options: Any) -> Any:
    """Return a function that makes one iteration."""
    from minissl import Solver, backend
    from minissl.data import load

    _, source, batch, _, _ = NETS[name]
    # the images are in memory before, as for the peer; the solver shares what is held here
    held: dict[str, Any] = {"images": load(source, "train")}
    backend.set_threads(options.threads)

    def step() -> None:
        if "solver" not in held:
            data = {"source": source, "batch_size": batch}
            held["solver"] = Solver(solver_param(name), data=data)
        held["solver"].step()

    return step


def theirs(name: str, options: Any) -> Any:
    """Return a function that makes one iteration in PyTorch."""
    import torch
    from training_twin import Twin, check, in_memory

    from minissl import Net

    torch.set_num_threads(options.threads)
    _, source, batch, _, _ = NETS[name]
    param = solver_param(name)
    small = Net(param.net_param, "TRAIN", data={"source": source, "batch_size": 4})
    layout = torch.channels_last if "last" in options.engine else torch.contiguous_format
    twin: list[Any] = []
    data: Any = small.layers[0]
    batches = in_memory(*data.reader.dataset.batch(slice(None)), layout)
    check(small)

    def step() -> None:
        if not twin:
            twin.append(Twin(small, layout).trainer(param, *batches, batch))
        twin[0]()

    return step


if __name__ == "__main__":
    main()
