"""What compaction is worth: ResNet-20 with dead convolutions or dead filters, before and after.

The masked network and what `minissl compact` makes of it, with and without folded norms, run by
turns in one process. Reported are, of one forward pass without its data layer, the median time and
the median of the ratios to the masked network in the same turn; the bytes of the parameters and
their ratio; and the largest difference of the scores.

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
    parser.add_argument("--dead", type=int, nargs="*", default=[2, 4, 6], help="convolutions")
    parser.add_argument("--filters", type=float, default=0.5, help="share of dead inner filters")
    options = parser.parse_args()
    backend.set_threads(options.threads)
    print(
        f"{options.threads} threads, batch {options.batch_size}; ms, ratio, kB, ratio", flush=True
    )
    for dead in options.dead:
        names = [f"{block}_conv{i}" for block in BLOCKS[: dead // 2] for i in (1, 2)]
        report(f"{dead} dead convolutions", drawn(options, names, 0), options)
    if options.filters:
        what = f"{options.filters:.0%} of the blocks' inner filters dead"
        report(what, drawn(options, [], options.filters), options)


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
    ms, ratio = time_by_turns(nets, options.turns)
    size = {
        "masked": small.report.bytes_before,
        "compact": small.report.bytes_after,
        "folded": folded.report.bytes_after,
    }
    print(what)
    images = np.random.default_rng(2).standard_normal((8, 3, 32, 32))
    for name, other in nets.items():
        proof = prove(net, other, images) if other is not net else None
        difference = (
            f"{proof.max_abs_difference:.1e} of {proof.largest_output:.3g}" if proof else ""
        )
        print(
            f"  {name:8} {ms[name]:8.2f} ms {ratio[name]:6.3f} {size[name] / 1000:8.1f} kB"
            f" {size[name] / size['masked']:6.3f}  {difference}",
            flush=True,
        )


def build(compacted, options) -> Net:
    net = Net(compacted.net_param, "TEST", data={"batch_size": options.batch_size})
    net.load(compacted.weights)
    return net


def time_by_turns(nets: dict[str, Net], turns: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the median times of a forward pass without data layers, and the median ratios."""
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
    ratios = {
        name: [one / masked for one, masked in zip(ms, taken["masked"], strict=True)]
        for name, ms in taken.items()
    }
    median = statistics.median
    return (
        {name: median(ms) for name, ms in taken.items()},
        {name: median(values) for name, values in ratios.items()},
    )


if __name__ == "__main__":
    main()
