"""Does AUTO pick the right mode? Every layer is predicted, then measured in every mode.

    python benchmarks/auto_choice.py --matrices ssl-matrices --net lenet.prototxt lenet.caffemodel

A case is a layer, a batch and a number of threads. The pick is right when its measured time is
within 5 % of the shortest measured time. The modes of a case are interleaved, round after round in
one process; rounds go on for modes that may still be the fastest. Each time is the median of the
rounds, as a multiple of a product that runs just before and after, since the clock of a machine
that others use too may change from one mode to the next.

Layers: LeNet with random dense weights; LeNet and CaffeNet with the weights of matrix files, in
folders ``lenet/*`` and ``alexnet/*`` of --matrices, each with files coo_LAYER.weight; and those of
any --net. Calibrate first: ``minissl doctor --calibrate``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minissl import backend as backends
from minissl import machine as machines
from minissl.conv_modes import ConvShape, prepare
from minissl.conv_modes.auto import Choice, predict, predict_inner_product, product_shape
from minissl.conv_modes.inner_product import prepare_inner_product
from minissl.machine.probes import Pace

TOLERANCE = 0.05
#: modes slower than this many times the fastest are not measured again
HOPELESS = 1.8
#: seconds of a turn of a mode, of which the shortest run counts
TURN = 1e-3

LENET = {
    "conv1": ConvShape(1, (28, 28), 20, (5, 5)),
    "conv2": ConvShape(20, (12, 12), 50, (5, 5)),
    "ip1": product_shape(500, 800),
    "ip2": product_shape(10, 500),
}
CAFFENET = {
    "conv1": ConvShape(3, (227, 227), 96, (11, 11), stride=(4, 4)),
    "conv2": ConvShape(96, (27, 27), 256, (5, 5), pad=(2, 2), groups=2),
    "conv3": ConvShape(256, (13, 13), 384, (3, 3), pad=(1, 1)),
    "conv4": ConvShape(384, (13, 13), 384, (3, 3), pad=(1, 1), groups=2),
    "conv5": ConvShape(384, (13, 13), 256, (3, 3), pad=(1, 1), groups=2),
}


@dataclass
class Layer:
    """A layer with weights (F, C/G, kh, kw), or (F, K) of an inner product."""

    name: str
    shape: ConvShape
    w: np.ndarray

    @property
    def is_product(self) -> bool:
        return self.w.ndim == 2

    def choose(self, images: int, threads: int) -> Choice:
        if self.is_product:
            return predict_inner_product(self.w, images, threads)
        return predict(self.shape, self.w, images, threads)

    def pack(self, mode: str, b: np.ndarray, kernels: Any) -> Any:
        if self.is_product:
            return prepare_inner_product(mode, self.w, b, kernels)
        return prepare(mode, self.shape, self.w, b, kernels)


@dataclass
class Case:
    """What was predicted and measured, in milliseconds."""

    layer: str
    images: int
    threads: int
    pick: str
    best: str
    predicted: dict[str, float]
    measured: dict[str, float]

    @property
    def excess(self) -> float:
        """How much slower the pick is than the fastest, as a fraction."""
        return self.measured[self.pick] / self.measured[self.best] - 1

    @property
    def is_right(self) -> bool:
        return self.excess <= TOLERANCE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--matrices", type=Path, help="folder with lenet/*/ and alexnet/*/")
    parser.add_argument("--net", nargs=2, action="append", default=[], metavar=("MODEL", "WEIGHTS"))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--layer", help="only layers whose name contains this")
    parser.add_argument("--json", type=Path, help="write the result there, too")
    options = parser.parse_args()
    calibrated = machines.current().calibrated
    print("constants: " + ("measured on this machine" if calibrated else "built in"))
    layers = [one for one in find_layers(options) if not options.layer or options.layer in one.name]
    cases = []
    for threads in options.threads:
        backends.set_threads(threads)
        for layer in layers:
            for images in options.batch:
                cases.append(measure(layer, images, threads, options.rounds))
                show(cases[-1])
    summarize(cases)
    if options.json:
        report = [{**asdict(case), "excess": case.excess} for case in cases]
        options.json.write_text(json.dumps({"calibrated": calibrated, "cases": report}) + "\n")


def find_layers(options: argparse.Namespace) -> Iterator[Layer]:
    rng = np.random.default_rng(0)
    for name, shape in LENET.items():
        w = rng.standard_normal(weight_shape(name, shape), np.float32)
        yield Layer(f"lenet dense {name}", shape, w)
    for net, shapes in (("lenet", LENET), ("alexnet", CAFFENET)):
        for folder in sorted(Path(options.matrices, net).glob("*/")) if options.matrices else []:
            for name, shape in shapes.items():
                path = folder / f"coo_{name}.weight"
                if path.is_file():
                    w = read(path).reshape(weight_shape(name, shape))
                    yield Layer(f"{net} {folder.name} {name}", shape, w)
    for model, weights in options.net:
        yield from layers_of_net(model, weights)


def weight_shape(name: str, shape: ConvShape) -> tuple[int, ...]:
    return (shape.filters, shape.columns) if name.startswith("ip") else shape.weight_shape


def read(path: Path) -> np.ndarray:
    from minissl.formats.matrix_market import read_matrix

    return read_matrix(path).astype(np.float32)


def layers_of_net(model: str, weights: str) -> Iterator[Layer]:
    from minissl.channels import dense_weights
    from minissl.net import Net

    net = Net(model, "TEST")
    net.load(weights)
    for layer in net.layers:
        if layer.type_name not in ("Convolution", "InnerProduct"):
            continue
        w = np.ascontiguousarray(dense_weights(layer), np.float32)
        shape = layer.shape if layer.type_name == "Convolution" else product_shape(*w.shape)
        yield Layer(f"{Path(weights).parent.name} {layer.name}", shape, w)


def measure(layer: Layer, images: int, threads: int, rounds: int) -> Case:
    choice = layer.choose(images, threads)
    kernels, s = backends.get("numba"), layer.shape
    rng = np.random.default_rng(1)
    x = rng.random((images, s.channels, *s.size), np.float32)
    y = np.empty((images, s.filters, *s.output), np.float32)
    b = np.ones(s.filters, np.float32)
    packed = {mode: layer.pack(mode, b, kernels) for mode in choice.seconds}
    times: dict[str, list[float]] = {mode: [] for mode in packed}
    middle = dict.fromkeys(packed, 0.0)
    with backends.single_threaded_blas():
        pace = Pace()
        for one in packed.values():
            one.forward(x, y)
        for number in range(rounds):
            limit = min(middle.values()) * HOPELESS
            for mode, one in packed.items():
                if number < 3 or middle[mode] < limit:
                    times[mode].append(pace.times(lambda one=one: one.forward(x, y), TURN))
                    middle[mode] = float(np.median(times[mode]))
    return Case(
        layer.name,
        images,
        threads,
        choice.mode,
        min(middle, key=lambda mode: middle[mode]),
        {mode: 1e3 * seconds for mode, seconds in choice.seconds.items()},
        {mode: 1e3 * pace.fastest * times for mode, times in middle.items()},
    )


def show(case: Case) -> None:
    times = "  ".join(
        f"{mode} {case.predicted[mode]:.3g} / {case.measured[mode]:.3g}" for mode in case.measured
    )
    state = "ok   " if case.is_right else "WRONG"
    print(
        f"{state} {case.layer:36} batch {case.images:<3} threads {case.threads}  {case.pick:14} "
        f"{100 * case.excess:+6.1f} %   {times}",
        flush=True,
    )


def summarize(cases: list[Case]) -> None:
    right = sum(case.is_right for case in cases)
    print(
        f"\npredicted / measured milliseconds above; the pick is within {TOLERANCE:.0%} of the "
        f"fastest mode in {right} of {len(cases)} cases ({100 * right / len(cases):.1f} %)"
    )
    for threads in sorted({case.threads for case in cases}):
        some = [case for case in cases if case.threads == threads]
        share = 100 * sum(case.is_right for case in some) / len(some)
        print(f"  {threads} threads: {share:.1f} % of {len(some)}")
    errors = [
        case.predicted[mode] / case.measured[mode] for case in cases for mode in case.measured
    ]
    low, middle, high = np.percentile(errors, [10, 50, 90])
    print(f"  predicted / measured: median {middle:.2f}, 80 % between {low:.2f} and {high:.2f}")
    chosen = sum(case.measured[case.pick] for case in cases)
    fastest = sum(case.measured[case.best] for case in cases)
    print(f"  all picks together take {chosen / fastest:.3f} of the time of the fastest modes")


if __name__ == "__main__":
    main()
