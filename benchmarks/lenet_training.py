"""LeNet on MNIST, trained side by side with PyTorch: the same solver, batches and threads.

Blocks of iterations alternate between the two in one process, so that both see the same machine;
each block's time is kept and the ratio of the totals is reported. Both start from minissl's
initial weights and read the digits in file order.

    python benchmarks/lenet_training.py --threads 2

Caffe's published solver: batch 64, SGD with momentum 0.9, weight decay 5e-4, rate
0.01 * (1 + 1e-4 i)^-0.75. PyTorch runs its own SGD (foreach) in float32, in NCHW or, with
--channels-last, in the layout it often prefers. Needs torch and the full MNIST.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time

os.environ.pop("OPENBLAS_CORETYPE", None)  # an older core type would slow one side only
os.environ.pop("OPENBLAS_L2_SIZE", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=10000)
    parser.add_argument("--block", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--data", default="mnist")
    options = parser.parse_args()
    # two pools of busy-waiting threads in one process would disturb each other
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    import torch

    torch.set_num_threads(options.threads)
    from minissl import backend

    ours = Ours(options)
    backend.set_threads(options.threads)
    peer = Peer(ours, options)
    ours.run(3)  # compile, and let both allocate
    peer.run(3)
    ours.reset()
    peer.reset()
    blocks: dict[str, list[float]] = {"minissl": [], "torch": []}
    done = 0
    while done < options.iterations:
        count = min(options.block, options.iterations - done)
        for name, engine in (("minissl", ours), ("torch", peer)):
            start = time.perf_counter()
            engine.run(count)
            blocks[name].append((time.perf_counter() - start) / count * 1e3)
        done += count
        last = {name: f"{times[-1]:.2f} ms" for name, times in blocks.items()}
        print(f"{done:6d} iterations, this block per iteration: {last}", flush=True)
    ratios = sorted(a / b for a, b in zip(blocks["minissl"], blocks["torch"], strict=True))
    result = {
        "ms_per_iteration": {name: sum(times) / len(times) for name, times in blocks.items()},
        "ratio_of_totals": sum(blocks["minissl"]) / sum(blocks["torch"]),
        "median_ratio_of_blocks": ratios[len(ratios) // 2],
        "test_error": {"minissl": ours.error(), "torch": peer.error()},
        "iterations": options.iterations,
        "threads": options.threads,
        "torch": torch.__version__ + (" channels_last" if options.channels_last else " NCHW"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    print(json.dumps(result, indent=1))


class Ours:
    """minissl's solver with the packaged LeNet."""

    def __init__(self, options):
        from minissl import Solver, models
        from minissl.formats.prototxt import read_solver

        self.param = read_solver(models.path("lenet_solver.prototxt"))
        self.param.net = str(models.path("lenet.prototxt"))
        self.param.display = 0
        self.make = lambda: Solver(self.param, data={"source": options.data})
        self.solver = self.make()
        self.initial = {
            name: [a.copy() for a in arrays] for name, arrays in self.solver.net.weights().items()
        }

    def reset(self):
        self.solver = self.make()

    def run(self, count):
        for _ in range(count):
            self.solver.step()

    def error(self):
        return 1 - self.solver.test()[0]["accuracy"]


class Peer:
    """The same network and solver in PyTorch."""

    def __init__(self, ours, options):
        import torch

        from minissl.data import load

        self.torch, self.ours = torch, ours
        self.layout = torch.channels_last if options.channels_last else torch.contiguous_format
        train, test = load(options.data, "train"), load(options.data, "test")
        self.images, self.labels = (
            torch.from_numpy(a.copy()) for a in (train.images, train.labels)
        )
        self.test_images, self.test_labels = torch.from_numpy(test.images.copy()), test.labels
        self.reset()

    def reset(self):
        torch = self.torch
        nn = torch.nn
        self.net = nn.Sequential(
            nn.Conv2d(1, 20, 5),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, 5),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(800, 500),
            nn.ReLU(),
            nn.Linear(500, 10),
        )
        modules = [m for m in self.net if hasattr(m, "weight")]
        for module, arrays in zip(modules, self.ours.initial.values(), strict=True):
            with torch.no_grad():
                module.weight.copy_(torch.from_numpy(arrays[0].reshape(module.weight.shape)))
                module.bias.copy_(torch.from_numpy(arrays[1]))
        self.net = self.net.to(memory_format=self.layout)
        weights = [m.weight for m in modules]
        biases = [m.bias for m in modules]
        groups = [{"params": weights, "rate": 1}, {"params": biases, "rate": 2}]
        self.optimizer = torch.optim.SGD(
            groups, lr=0.01, momentum=0.9, weight_decay=5e-4, foreach=True
        )
        self.loss = nn.CrossEntropyLoss()
        self.iteration = 0

    def run(self, count):
        torch, records = self.torch, len(self.images)
        for _ in range(count):
            index = (self.iteration * 64 + torch.arange(64)) % records
            x = (self.images[index].float() * 0.00390625).to(memory_format=self.layout)
            t = self.labels[index].long()
            rate = 0.01 * (1 + 1e-4 * self.iteration) ** -0.75
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["rate"]
            self.optimizer.zero_grad()
            self.loss(self.net(x), t).backward()
            self.optimizer.step()
            self.iteration += 1

    def error(self):
        torch = self.torch
        with torch.no_grad():
            scores = [
                self.net((part.float() * 0.00390625).to(memory_format=self.layout))
                for part in self.test_images.split(1000)
            ]
        predicted = torch.cat(scores).argmax(1).numpy()
        return float((predicted != self.test_labels).mean())


if __name__ == "__main__":
    main()
