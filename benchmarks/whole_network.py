"""Whole networks at inference: minissl with sparse weights beside dense engines.

CaffeNet with weight matrices that its authors published, of its convolutions (Matrix Market files,
--matrices or MINISSL_MATRICES), and LeNet 3, compacted, as ``reference_results/`` holds it.
Beside them run minissl dense, onnxruntime dense and PyTorch dense, in both of its layouts.

    python benchmarks/whole_network.py caffenet --matrices alexnet/0.54214_1.0e-3 --threads 2
    python benchmarks/whole_network.py lenet --threads 1

Every engine lives in a process of its own, so that no thread pool waits busily beside another one.
They take turns: each round asks every engine for a few calls, after one that is not counted, and
the others sleep. Medians are over the rounds. Of CaffeNet two parts are timed, the convolutional
one (up to pool5) and the whole. For minissl each convolution runs in the fastest of its modes,
found beforehand on the clock; "no fusion" is the same without fused layers.

With --cpu-time a call costs what the processor spends on it, not what passes on the clock: all that
can be measured, with one thread, on a machine that is busy with other things.

The engines with the same weights must agree in what they compute; the largest difference to
minissl is printed. Needs onnx, onnxruntime and torch; those that are missing are left out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.pop("OPENBLAS_CORETYPE", None)  # an older core type would slow one side only
os.environ.pop("OPENBLAS_L2_SIZE", None)

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "minissl" / "models"
PARTS = ["convolutional", "whole"]
#: a sample lasts about this long, so that the clock and the first caches do not matter
SHORTEST = 10e-3
#: rounds in which the modes of the convolutions are compared beforehand
TRIALS = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=["caffenet", "lenet"])
    parser.add_argument(
        "--matrices",
        type=Path,
        default=os.environ.get("MINISSL_MATRICES"),
        help="folder with coo_conv1.weight ...; MINISSL_MATRICES otherwise",
    )
    compact = ROOT / "reference_results" / "table1" / "lenet3"
    parser.add_argument("--model", type=Path, default=compact / "net.prototxt")
    parser.add_argument("--weights", type=Path, default=compact / "net.caffemodel")
    parser.add_argument("--batch", nargs="+", type=int)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="of CaffeNet")
    parser.add_argument("--modes", nargs="+", help="of the convolutions, in place of the fastest")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--engines", nargs="+", help="only these; by the first words of their names"
    )
    parser.add_argument("--cpu-time", action="store_true", help="measure the processors' time")
    parser.add_argument("--wait", action="store_true", help="build, then wait for Enter to measure")
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    options = parser.parse_args()
    if options.network == "caffenet" and options.matrices is None:
        parser.error("give --matrices DIR, or set MINISSL_MATRICES")
    from minissl import doctor

    print(f"{doctor.machine_in_words()}; {options.threads} threads; ms, median of {options.rounds}")
    results = []
    for batch in options.batch or ([1, 32] if options.network == "caffenet" else [1]):
        for part in options.parts if options.network == "caffenet" else ["whole"]:
            results += compare(options, batch, part)
    if options.json:
        words = {"machine": doctor.machine_in_words(), "threads": options.threads}
        options.json.write_text(json.dumps({**words, "results": results}, indent=1))


# --- the networks ---


def sparse_net(options: argparse.Namespace, batch: int, part: str, **settings: Any) -> Any:
    """Build the network with its sparse weights; ``settings`` are those of Net."""
    from minissl import Net, timing
    from minissl.formats.prototxt import read_net

    if options.network == "lenet":
        net = Net(without_data(read_net(options.model), batch), **settings)
        net.load(options.weights)
        return net
    net = Net(caffenet(batch, part), **settings)
    timing.load_matrices(net, options.matrices)
    return net


def dense_net(options: argparse.Namespace, batch: int, part: str, **settings: Any) -> Any:
    """Build the network that the peers compute, and minissl without any knowledge of zeros."""
    from minissl import Net
    from minissl.formats.prototxt import read_net

    if options.network == "caffenet":
        return sparse_net(options, batch, part, **settings)
    return Net(without_data(read_net(MODELS / "lenet.prototxt"), batch), **settings)


def caffenet(batch: int, part: str) -> Any:
    """Return CaffeNet as it is deployed, or what of it comes before fc6."""
    from minissl.formats.prototxt import read_net

    param = read_net(MODELS / "caffenet_deploy.prototxt")
    param.layer[0].input_param.shape[0].dim[0] = batch
    if part == "convolutional":
        first = next(i for i, layer in enumerate(param.layer) if layer.name == "fc6")
        del param.layer[first:]
    return param


def without_data(param: Any, batch: int) -> Any:
    """Return LeNet with an Input in place of its data, and nothing that needs labels."""
    layers = [
        layer for layer in param.layer if layer.type != "Data" and "label" not in layer.bottom
    ]
    del param.layer[:]
    source = param.layer.add(name="data", type="Input", top=["data"])
    source.input_param.shape.add(dim=[batch, 1, 28, 28])
    param.layer.extend(layers)
    return param


# --- the engines, each in its own process ---


def minissl_engine(options: Any, batch: int, part: str, sparse: bool, fuse: bool = True) -> Any:
    """Return a function that runs minissl on an array."""
    # waiting threads spin for longer than it takes to wake them, as onnxruntime's and PyTorch's do
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
    from minissl import backend

    backend.set_threads(options.threads)
    build = sparse_net if sparse else dense_net
    net = build(options, batch, part, fuse=fuse)
    if sparse:
        give_modes(net, options.modes)
    (output,) = net.outputs
    net.forward()
    return lambda x: net.forward({"data": x})[output]


def give_modes(net: Any, modes: list[str] | None) -> None:
    """Let every convolution run in its mode, or in the fastest of all, which are timed."""
    from minissl import timing

    convolutions = [layer for layer in net.layers if layer.type_name == "Convolution"]
    if modes:
        chosen = dict(zip((layer.name for layer in convolutions), modes, strict=True))
    else:
        every = {layer.name: timing.modes_of(layer) for layer in convolutions}
        chosen = timing.fastest(timing.time_net(net, every, TRIALS))
        print(f"  modes: {' '.join(chosen.values())}", flush=True)
    for layer in convolutions:
        layer.conv_mode = chosen[layer.name]
        layer.prepare()


def onnxruntime_engine(options: Any, batch: int, part: str) -> Any:
    """Return a function that runs onnxruntime on an array."""
    import onnxruntime
    from peer_nets import onnx_model

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.log_severity_level = 3
    model = onnx_model(dense_net(options, batch, part, backend="numpy"))
    session = onnxruntime.InferenceSession(model, settings, ["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def torch_engine(options: Any, batch: int, part: str, layout: str) -> Any:
    """Return a function that runs PyTorch on an array, which it copies into its layout."""
    import torch
    from peer_nets import torch_model

    torch.set_num_threads(options.threads)
    memory_format = getattr(torch, layout)
    model = torch_model(dense_net(options, batch, part, backend="numpy"))
    model = model.to(memory_format=memory_format)

    def run(x: Any) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(x).contiguous(memory_format=memory_format)).numpy()

    return run


#: name: what builds the engine, its arguments, and the packages that it needs
ENGINES: dict[str, tuple[Any, tuple, tuple[str, ...]]] = {
    "minissl sparse": (minissl_engine, (True,), ()),
    "minissl sparse, no fusion": (minissl_engine, (True, False), ()),
    "minissl dense": (minissl_engine, (False,), ()),
    "onnxruntime dense": (onnxruntime_engine, (), ("onnxruntime", "onnx")),
    "torch dense": (torch_engine, ("contiguous_format",), ("torch",)),
    "torch dense, channels last": (torch_engine, ("channels_last",), ("torch",)),
}


def serve(pipe: Any, name: str, options: Any, batch: int, part: str) -> None:
    """Build an engine and answer: to an array with the output, to a number with milliseconds."""
    import numpy as np

    build, arguments, _ = ENGINES[name]
    run = build(options, batch, part, *arguments)
    x = pipe.recv()
    pipe.send(np.array(run(x)))
    clock = time.process_time if options.cpu_time else time.perf_counter
    while (calls := pipe.recv()) is not None:
        run(x)
        start = clock()
        for _ in range(calls):
            run(x)
        pipe.send((clock() - start) / calls)


class Engine:
    """One engine, in a process that waits without work until it is asked."""

    def __init__(self, name: str, options: argparse.Namespace, batch: int, part: str, x: Any):
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name, options, batch, part))
        self.process.start()
        theirs.close()
        self.pipe.send(x)
        self.output = self.pipe.recv()
        self.seconds: list[float] = []
        self.calls = 1

    def begin(self) -> None:
        """Find how many calls a sample needs."""
        self.calls = max(1, round(SHORTEST / self.run(1)))

    def run(self, calls: int) -> float:
        """Return the seconds of a call."""
        self.pipe.send(calls)
        return self.pipe.recv()

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join()


# --- the comparison ---


def compare(options: argparse.Namespace, batch: int, part: str) -> list[dict[str, Any]]:
    """Let all engines take turns; print and return what they need."""
    import numpy as np

    side, channels = (227, 3) if options.network == "caffenet" else (28, 1)
    x = np.random.default_rng(0).standard_normal((batch, channels, side, side), dtype=np.float32)
    names = [name for name, (_, _, needed) in ENGINES.items() if all(map(find_spec, needed))]
    if options.engines:
        names = [name for name in names if name.startswith(tuple(options.engines))]
    print(f"{options.network}, batch {batch}, {part}", flush=True)
    engines = [Engine(name, options, batch, part, x) for name in names]
    if options.wait:
        input("ready; Enter measures\n")
    for engine in engines:
        engine.begin()
    for _ in range(options.rounds):
        for engine in engines:
            time.sleep(0.05)  # threads of the engine before that wait busily go to sleep
            engine.seconds.append(engine.run(engine.calls))
    results = []
    for engine in engines:
        engine.close()
        results.append(
            {
                "network": options.network,
                "part": part,
                "batch": batch,
                "engine": engine.name,
                "ms": 1e3 * statistics.median(engine.seconds),
                "least_ms": 1e3 * min(engine.seconds),
                "speed_up": statistics.median(
                    other / own
                    for other, own in zip(engine.seconds, engines[0].seconds, strict=True)
                ),
                "difference": float(abs(engine.output - engines[0].output).max()),
            }
        )
    for one in results:
        print(
            f"  {one['engine']:28} {one['ms']:9.3f} (least {one['least_ms']:.3f})"
            f"  {one['speed_up']:6.2f} times {engines[0].name}"
            f"  largest difference {one['difference']:.1e}"
        )
    return results


if __name__ == "__main__":
    main()
