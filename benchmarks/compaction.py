"""What compaction is worth: ResNet-20 with dead convolutions or dead filters, before and after.

The masked network and what `minissl compact` makes of it, with and without folded norms, run by
turns in one process; of each the median over all turns of one forward pass without its data layer
is reported, beside the bytes of the parameters and the largest difference of the scores.

    python benchmarks/compaction.py --threads 2 --batch-size 100

Weights are drawn: what is zero decides the times, not what the rest is. Convolutions die as group
lasso over whole layers kills them, both of a block.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from minissl import Net, backend
from minissl.compaction import compact, prove
from minissl.models import path

BLOCKS = ("stage1_block2", "stage2_block2", "stage3_block2")  # the first to die


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20.prototxt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--turns", type=int, default=20)
    options = parser.parse_args()
    backend.set_threads(options.threads)
    print(f"{options.threads} threads, batch {options.batch_size}; ms and kB, then the ratios")
    for dead in (2, 4, 6):
        names = [f"{block}_conv{i}" for block in BLOCKS[: dead // 2] for i in (1, 2)]
        report(f"{dead} dead convolutions", drawn(options, names, 0), options)
    report("half of the blocks' inner filters dead", drawn(options, [], 0.5), options)


def drawn(options, dead: list[str], filters: float) -> Net:
    """Return a network with drawn weights and statistics, and with some dead."""
    net = Net(path(options.model), "TEST", data={"batch_size": options.batch_size})
    rng = np.random.default_rng(1)
    weights = net.weights()
    for name, blobs in weights.items():
        kind = net.layer(name).type_name
        if kind == "BatchNorm":
            blobs[0][...] = rng.normal(0, 0.3, blobs[0].shape)
            blobs[1][...] = rng.uniform(0.3, 1.5, blobs[1].shape)
            blobs[2][...] = 1
        elif kind == "Scale":
            blobs[0][...] = rng.uniform(0.3, 1, blobs[0].shape)
            blobs[1][...] = rng.normal(0, 0.3, blobs[1].shape)
        elif name in dead:
            blobs[0][...] = 0
        elif name.endswith("_conv1"):
            gone = rng.permutation(len(blobs[0]))[: int(filters * len(blobs[0]))]
            blobs[0][gone] = 0
    net.load(weights)
    return net


def report(what: str, net: Net, options) -> None:
    """Compact and time one network."""
    small, folded = compact(net), compact(net, fold_norms=True)
    nets = {"masked": net, "compact": build(small, options), "folded": build(folded, options)}
    ms = time_by_turns(nets, options.turns)
    size = {
        "masked": small.report.bytes_before,
        "compact": small.report.bytes_after,
        "folded": folded.report.bytes_after,
    }
    print(what)
    for name, other in nets.items():
        proof = prove(net, other) if other is not net else None
        difference = (
            f"{proof.max_abs_difference:.1e} of {proof.largest_output:.3g}" if proof else ""
        )
        print(
            f"  {name:8} {ms[name]:8.2f} ms {size[name] / 1000:8.1f} kB"
            f" {ms[name] / ms['masked']:6.3f} {size[name] / size['masked']:6.3f}  {difference}"
        )


def build(compacted, options) -> Net:
    net = Net(compacted.net_param, "TEST", data={"batch_size": options.batch_size})
    net.load(compacted.weights)
    return net


def time_by_turns(nets: dict[str, Net], turns: int) -> dict[str, float]:
    """Return the median time of a forward pass without data layers."""
    steps = {
        name: [step for step in net.steps if not step.layer.is_data] for name, net in nets.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in nets}
    for turn in range(turns + 2):  # two to compile and to allocate
        for name, of_net in steps.items():
            start = time.perf_counter()
            with backend.single_threaded_blas():
                for step in of_net:
                    step.forward()
            if turn > 1:
                taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(ms) for name, ms in taken.items()}


if __name__ == "__main__":
    main()
