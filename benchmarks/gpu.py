"""minissl's cupy backend beside PyTorch with cuDNN, on the same GPU and in the same run.

Three parts:

* the convolutions of AlexNet with sparse weights from Matrix Market files (``--matrices DIR`` with
  coo_conv1.weight ...), or with random zero rows and columns of about the published number: the
  product alone and the whole layer, dense and in every sparse mode, and cuDNN's dense layer;
* inference of whole networks: LeNet, and the convolutions of AlexNet;
* training steps: LeNet and ResNet-20, with SGD and momentum.

    python benchmarks/gpu.py --matrices alexnet/SSL --json reference_results/gpu/result.json

Times are taken by CUDA events. Every engine is warmed up first, then one round runs each of them
once; medians over the rounds are reported. float32 is computed in float32 on both sides; --tf32
lets both use TF32. PyTorch may choose cuDNN's fastest algorithm (cudnn.benchmark).

Without a GPU, --rehearse runs everything once on tiny shapes, through a given stand-in for CuPy and
PyTorch on the CPU; its times mean nothing and are not written.
"""

from __future__ import annotations

import argparse
import json
import statistics
from datetime import date
from pathlib import Path

import numpy as np

#: channels, size, filters, kernel, stride, pad, conv groups; kept share of rows and of columns
ALEXNET = {
    "conv1": ((3, 227, 96, 11, 4, 0, 1), (0.91, 1.0)),
    "conv2": ((96, 27, 256, 5, 1, 2, 2), (0.87, 0.37)),
    "conv3": ((256, 13, 384, 3, 1, 1, 1), (0.61, 0.23)),
    "conv4": ((384, 13, 384, 3, 1, 1, 2), (0.59, 0.30)),
    "conv5": ((384, 13, 256, 3, 1, 1, 2), (0.68, 0.34)),
}
#: the paper's speed-ups of the product on a GPU
PAPER = {"conv1": 1.00, "conv2": 2.37, "conv3": 4.94, "conv4": 4.03, "conv5": 3.05}
MODES = ("LOWERED_GEMM", "LOWERED_CCNMM", "LOWERED_CSRMM")


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--matrices", type=Path, help="folder of Matrix Market files")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--tf32", action="store_true")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--json", type=Path, help="write the result there, too")
    options = parser.parse_args(arguments)
    import torch

    from minissl import backend

    if options.rehearse:
        options.batch, options.rounds = [1, 2], 1
    kernels = backend.get("cupy")
    kernels.use_tf32(options.tf32)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.tf32
    torch.backends.cudnn.benchmark = True
    options.device = "cpu" if options.rehearse else "cuda"
    result = {
        **where(options),
        "layers": [
            layer(name, batch, kernels, options) for name in ALEXNET for batch in options.batch
        ],
        "networks": [network(name, batch, options) for name in NETS for batch in options.batch],
        "training": [training(name, options) for name in TRAINED],
    }
    kernels.use_tf32(False)
    if options.json and not options.rehearse:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


def where(options) -> dict:
    """Device in words, versions, date."""
    import torch

    result = {"date": f"{date.today():%Y-%m-%d}", "tf32": options.tf32, "rounds": options.rounds}
    result["matrices"] = options.matrices.name if options.matrices else "random"
    result["torch"] = torch.__version__
    if not options.rehearse:
        import cupy

        runtime = cupy.cuda.runtime
        result["device"] = runtime.getDeviceProperties(0)["name"].decode()
        result["driver"] = runtime.driverGetVersion()
        result["cuda"] = runtime.runtimeGetVersion()
        result["cudnn"] = torch.backends.cudnn.version()
        result["cupy"] = cupy.__version__
    return result


def medians(engines, kernels, rounds) -> dict[str, float]:
    """Milliseconds of each engine: warm, one after the other in every round, by CUDA events."""
    timer = kernels.Timer()
    times: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(3 + rounds):
        for name, run in engines.items():
            timer.start()
            run()
            seconds = timer.stop()
            if number >= 3:
                times[name].append(1e3 * seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def show(title, times, extra="") -> None:
    print(f"{title:24s} " + "  ".join(f"{k} {v:.3f}" for k, v in times.items()) + extra, flush=True)


# --- one layer ---


def weights_of(name, shape, kept, matrices):
    """Sparse weights (F, C/G, kh, kw)."""
    if matrices:
        from minissl.formats.matrix_market import read_matrix

        files = (matrices / f"coo_{name}.weight", matrices / f"{name}.mtx")
        path = next(path for path in files if path.is_file())
        return read_matrix(path).astype("float32").reshape(shape.weight_shape)
    rng = np.random.default_rng(0)
    w = rng.standard_normal(shape.weight_shape).astype("float32")
    for band in shape.bands(w):
        band[rng.random(len(band)) >= kept[0]] = 0
        band[:, rng.random(band.shape[1]) >= kept[1]] = 0
    return w


def layer(name, batch, kernels, options) -> dict:
    """One convolution: the product alone and the whole, in every mode and by cuDNN."""
    import torch

    from minissl.conv_modes import ConvShape, prepare
    from minissl.kernels.cpu.stages import MULTIPLY

    (C, size, F, kernel, stride, pad, groups), kept = ALEXNET[name]
    if options.rehearse:
        size = min(size, kernel + 2)
    shape = ConvShape(
        C, (size, size), F, (kernel, kernel), (stride, stride), (pad, pad), (1, 1), groups
    )
    w = weights_of(name, shape, kept, options.matrices)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((batch, C, size, size)).astype("float32")
    b = rng.standard_normal(F).astype("float32")
    xp = kernels.xp
    there, bias = xp.asarray(x), xp.asarray(b)
    y = xp.empty((batch, F, *shape.output), "float32")
    prepared = {mode: prepare(mode, shape, xp.asarray(w), bias, kernels) for mode in MODES}
    on_torch = [torch.from_numpy(a).to(options.device) for a in (x, w, b)]

    def cudnn():
        return torch.nn.functional.conv2d(*on_torch, stride=stride, padding=pad, groups=groups)

    tolerance = 1e-2 if options.tf32 else 1e-4
    with torch.no_grad():
        expected = cudnn().cpu().numpy()
        scale = float(np.abs(expected).max())
        for mode, one in prepared.items():
            one.forward(there, y)
            error = float(np.abs(y.get() - expected).max()) / scale
            if not error < tolerance:
                raise SystemExit(f"{name}, {mode}: differs from cuDNN by {error:.2g}")
        engines = {"cudnn": cudnn}
        for mode, one in prepared.items():
            engines[f"{mode} whole"] = lambda one=one: one.forward(there, y)
            engines[f"{mode} product"] = lambda one=one: one.forward(there, y, stages=MULTIPLY)
        times = medians(engines, kernels, options.rounds)
    ccnmm = {
        part: times[f"LOWERED_GEMM {part}"] / times[f"LOWERED_CCNMM {part}"]
        for part in ("product", "whole")
    }
    show(f"{name}, batch {batch}", times, f"  CCNMM's product {ccnmm['product']:.2f} times as fast")
    return {
        "layer": name,
        "batch": batch,
        "ms": times,
        "ccnmm_speedup": ccnmm,
        "paper_product_speedup": PAPER[name],
        "cudnn_over_ccnmm": times["cudnn"] / times["LOWERED_CCNMM whole"],
    }


# --- whole networks ---


def conv(name, bottom, F, kernel, stride=1, pad=0, group=1, relu=True) -> str:
    text = (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
        "param { lr_mult: 1 } param { lr_mult: 2 } "
        f"convolution_param {{ num_output: {F} kernel_size: {kernel} stride: {stride} pad: {pad} "
        f'group: {group} weight_filler {{ type: "msra" }} }} }}\n'
    )
    rectified = f'layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}\n'
    return text + rectified if relu else text


def pool(name, bottom, kernel, stride, kind="MAX") -> str:
    return (
        f'layer {{ name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}" '
        f"pooling_param {{ pool: {kind} kernel_size: {kernel} stride: {stride} }} }}\n"
    )


def product(name, bottom, F, relu=False) -> str:
    text = (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
        "param { lr_mult: 1 } param { lr_mult: 2 } "
        f'inner_product_param {{ num_output: {F} weight_filler {{ type: "xavier" }} }} }}\n'
    )
    rectified = f'layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}\n'
    return text + rectified if relu else text


def lenet() -> str:
    return (
        conv("conv1", "data", 20, 5, relu=False)
        + pool("pool1", "conv1", 2, 2)
        + conv("conv2", "pool1", 50, 5, relu=False)
        + pool("pool2", "conv2", 2, 2)
        + product("ip1", "pool2", 500, relu=True)
        + product("scores", "ip1", 10)
    )


def alexnet() -> str:
    text, bottom = "", "data"
    for name, ((_, _, F, kernel, stride, pad, group), _) in ALEXNET.items():
        text += conv(name, bottom, F, kernel, stride, pad, group)
        bottom = name
        if name in ("conv1", "conv2"):
            text += pool(f"pool_{name}", name, 3, 2)
            bottom = f"pool_{name}"
    return text


def resnet20() -> str:
    """The network that ``minissl/models`` holds, without its data, loss and accuracy."""
    from minissl.formats.prototxt import read_net

    path = Path(__file__).resolve().parents[1] / "minissl" / "models" / "resnet20.prototxt"
    param = read_net(path)
    kept = [one for one in param.layer if one.type not in ("Data", "Accuracy", "SoftmaxWithLoss")]
    kept[-1].top[0] = "scores"
    return "".join(f"layer {{ {one} }}\n" for one in kept)


#: text, image shape
NETS = {"lenet": (lenet, (1, 28, 28)), "alexnet": (alexnet, (3, 227, 227))}
#: text, image shape, batch
TRAINED = {"lenet": (lenet, (1, 28, 28), 64), "resnet20": (resnet20, (3, 32, 32), 128)}


def in_torch(net):
    """The same network in PyTorch, with the same weights."""
    import torch

    class Graph(torch.nn.Module):
        def __init__(self, steps):
            super().__init__()
            self.steps = steps
            self.parts = torch.nn.ModuleList(step[0] for step in steps)

        def forward(self, x):
            blobs = {"data": x}
            for module, bottoms, top in self.steps:
                blobs[top] = module(*(blobs[name] for name in bottoms))
            return blobs[top]

    steps: list[tuple] = []
    origin = {"data": "data"}  # which blob each part of a Split is
    for one in net.layers:
        names = list(one.param.bottom)
        if one.is_data or not names or names[0] not in origin or "label" in names:
            continue
        if one.type_name == "Split":
            origin |= dict.fromkeys(one.param.top, origin[names[0]])
            continue
        if one.type_name in ("Accuracy", "SoftmaxWithLoss"):
            continue
        (top,) = one.param.top
        if one.type_name == "Scale":  # what BatchNorm2d learns
            module = steps[-1][0]
        else:
            module = torch_module(one)
            steps.append((module, [origin[name] for name in names], top))
        origin[top] = top
        if one.type_name != "BatchNorm":
            for target, own in zip(module.parameters(), one.parameters, strict=True):
                values = own.data if isinstance(own.data, np.ndarray) else own.data.get()
                target.data.copy_(torch.from_numpy(np.array(values)))
                target.rates = own.spec.lr_mult, own.spec.decay_mult
    return Graph(steps)


def torch_module(one):
    """A layer of minissl as a PyTorch user would write it."""
    from torch import add, nn

    class Sum(nn.Module):
        def forward(self, a, b):
            return add(a, b)

    if one.type_name == "Convolution":
        p = one.shape
        sizes = p.kernel, p.stride, p.pad, p.dilation, p.groups
        return nn.Conv2d(p.channels, p.filters, *sizes, bias=one.has_bias)
    if one.type_name == "InnerProduct":
        return nn.Sequential(nn.Flatten(), nn.Linear(one.inputs, one.filters, one.has_bias))
    if one.type_name == "BatchNorm":
        return nn.BatchNorm2d(one.folded[1], one.eps)
    if one.type_name == "ReLU":
        return nn.ReLU(inplace=True)
    if one.type_name == "Pooling":
        kind = nn.AvgPool2d if one.param.pooling_param.pool else nn.MaxPool2d
        return kind(one.kernel, one.stride, ceil_mode=True)
    if one.type_name == "Eltwise":
        return Sum()
    raise SystemExit(f"layer '{one.name}' ({one.type_name}) has no counterpart here")


def network(name, batch, options) -> dict:
    """The forward pass of a whole network."""
    import torch

    from minissl import Net
    from minissl.formats.prototxt import parse_net

    text, image = NETS[name]
    if options.rehearse:
        batch = 1
    dims = " ".join(f"dim: {n}" for n in (batch, *image))
    data = (
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}'
    )
    net = Net(parse_net(data + text()), phase="TEST", backend="cupy")
    peer = in_torch(net).to(options.device).eval()
    x = np.random.default_rng(0).standard_normal((batch, *image)).astype("float32")
    net.forward({"data": x})
    there = torch.from_numpy(x).to(options.device)
    with torch.no_grad():
        expected = peer(there).cpu().numpy()
        found = net.blobs[net.outputs[0]].data.get()
        error = float(np.abs(found - expected).max() / np.abs(expected).max())
        if not error < (1e-2 if options.tf32 else 1e-4):
            raise SystemExit(f"{name}: differs from PyTorch by {error:.2g}")
        engines = {"minissl": net.forward, "torch": lambda: peer(there)}
        times = medians(engines, net.kernels, options.rounds)
    show(f"{name}, batch {batch}", times)
    return {"network": name, "batch": batch, "ms": times}


# --- training ---


def training(name, options) -> dict:
    """One step of SGD with momentum and weight decay, the batch copied from the host."""
    import torch

    from minissl import Solver
    from minissl.formats import proto
    from minissl.formats.prototxt import parse_net, parse_solver

    text, image, batch = TRAINED[name]
    if options.rehearse:
        batch = 2
    channels, height, width = image
    data = (
        'layer { name: "data" type: "MemoryData" top: "data" top: "label" memory_data_param { '
        f"batch_size: {batch} channels: {channels} height: {height} width: {width} }} }}\n"
    )
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" }\n'
    param: proto.SolverParameter = parse_solver(
        'base_lr: 0.001 momentum: 0.9 weight_decay: 0.0005 lr_policy: "fixed" max_iter: 1000000'
    )
    param.net_param.CopyFrom(parse_net(data + text() + loss.replace(" }\n", ' top: "loss" }\n')))
    solver = Solver(param, backend="cupy", zero_out=False, collapse_check=False)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, *image)).astype("float32")
    labels = rng.integers(0, 10, batch)
    solver.net.layer("data").set_arrays(images, labels.astype("float32"))
    peer = in_torch(solver.net).to(options.device)
    groups: dict[tuple[float, float], dict] = {}  # by multiples of rate and decay
    for p in peer.parameters():
        rate, decay = p.rates
        group = {"params": [], "lr": 0.001 * rate, "weight_decay": 5e-4 * decay}
        groups.setdefault(p.rates, group)["params"].append(p)
    optimizer = torch.optim.SGD(list(groups.values()), lr=0.001, momentum=0.9)
    host = torch.from_numpy(images), torch.from_numpy(labels)
    if options.device == "cuda":
        host = tuple(one.pin_memory() for one in host)

    def step():
        x, t = (one.to(options.device, non_blocking=True) for one in host)
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(peer(x), t)
        value.backward()
        optimizer.step()
        return value.detach()

    first = float(solver.step()), float(step())
    if not abs(first[0] - first[1]) < (1e-1 if options.tf32 else 1e-3) * abs(first[1]):
        raise SystemExit(f"{name}: the first losses are {first}")
    steps = 1 if options.rehearse else 20

    def several(run):
        return lambda: [run() for _ in range(steps)]

    engines = {"minissl": several(solver.step), "torch": several(step)}
    times = medians(engines, solver.kernels, max(1, options.rounds // 5))
    times = {engine: ms / steps for engine, ms in times.items()}
    show(f"{name}, training", times, f"  ratio {times['minissl'] / times['torch']:.2f}")
    return {
        "network": name,
        "batch": batch,
        "ms_per_step": times,
        "ratio": times["minissl"] / times["torch"],
    }


if __name__ == "__main__":
    main()
