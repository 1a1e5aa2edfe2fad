"""A network of minissl that trains, rebuilt in PyTorch, for benchmarks/training.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from minissl import Net


class Twin(nn.Module):
    """The same layers and weights; a BatchNorm and the Scale behind it are one module."""

    def __init__(self, net: Net, layout: Any = torch.contiguous_format):
        super().__init__()
        self.layout = layout
        self.steps: list[tuple[Callable, list[str], str]] = []
        self.rates: list[tuple[Any, float, float]] = []  # weights, lr_mult, decay_mult
        modules: list[nn.Module] = []
        layers = [layer for layer in net.layers if not layer.is_data]
        same = {}  # tops of splits are their bottom
        for number, layer in enumerate(layers):
            bottoms = [same.get(name, name) for name in layer.param.bottom]
            if layer.type_name == "Split":
                same.update((top, bottoms[0]) for top in layer.param.top)
                continue
            run, module = self._build(layer, layers, number, net)
            if run is not None:
                self.steps.append((run, bottoms, layer.param.top[0]))
            if module is not None:
                modules.append(module)
        self.layers = nn.ModuleList(modules)
        self.to(memory_format=layout)

    def _build(self, layer: Any, layers: list[Any], number: int, net: Net) -> tuple[Any, Any]:
        kind = layer.type_name
        if kind == "Convolution":
            geometry = layer.kernel, layer.stride, layer.pad, layer.dilation, layer.groups
            module: Any = nn.Conv2d(layer.shape.channels, layer.filters, *geometry, layer.has_bias)
        elif kind == "InnerProduct":
            module = nn.Linear(layer.inputs, layer.filters, layer.has_bias)
        elif kind == "BatchNorm":
            fraction = 1 - layer.fraction
            module = nn.BatchNorm2d(layer.folded[1], layer.eps, fraction)
            self._take(module, layers[number + 1])
            return module, module
        elif kind == "Scale":
            return None, None  # part of the module before
        else:
            return self._function(layer, net), None
        self._take(module, layer)
        flat = kind == "InnerProduct"
        return (lambda x: module(x.flatten(1))) if flat else module, module

    def _take(self, module: Any, layer: Any) -> None:
        own = [module.weight] if module.bias is None else [module.weight, module.bias]
        for tensor, parameter in zip(own, layer.parameters, strict=True):
            tensor.data = torch.from_numpy(np.array(parameter.data))
            spec = parameter.spec
            self.rates.append((tensor, spec.lr_mult, spec.decay_mult))

    def _function(self, layer: Any, net: Net) -> Callable:
        kind = layer.type_name
        if kind == "Pooling":
            geometry = layer.kernel, layer.stride, layer.pad
            pool = functional.max_pool2d if layer.method == 0 else functional.avg_pool2d
            return lambda x: pool(x, *geometry, ceil_mode=True)
        if kind == "ReLU":
            in_place = list(layer.param.top) == list(layer.param.bottom)
            return lambda x: functional.relu(x, inplace=in_place)
        if kind == "LRN":
            n, (alpha, beta) = layer.window[-1], (layer.alpha, layer.beta)
            assert layer.window[0] == 1

            def normalize(x: Any) -> Any:
                energy = functional.avg_pool2d(x * x, n, 1, n // 2)
                return x * (1 + alpha * energy) ** -beta

            return normalize
        if kind == "Dropout":
            return lambda x: functional.dropout(x, layer.ratio, self.training)
        if kind == "Eltwise":
            return lambda a, b: b.add_(a)  # nothing needs what b was
        if kind == "SoftmaxWithLoss":
            return functional.cross_entropy
        raise SystemExit(f"layer '{layer.name}' ({kind}) has no counterpart here")

    def forward(self, images: Any, labels: Any) -> Any:
        """Return the loss."""
        blobs = {"data": images, "label": labels}
        for run, bottoms, top in self.steps:
            inputs = [blobs[name] for name in bottoms]
            blobs[top] = run(*inputs)
        return blobs["loss"]

    def trainer(self, param: Any, values: Any, classes: Any, batch: int) -> Callable[[], None]:
        """Return a function that makes one iteration on images that lie in memory."""
        groups = [
            {"params": [p], "lr": param.base_lr * rate, "weight_decay": param.weight_decay * decay}
            for p, rate, decay in self.rates
        ]
        sgd = torch.optim.SGD(groups, lr=0.1, momentum=param.momentum, foreach=True)
        self.train()
        position = [0]

        def step() -> None:
            first = position[0]
            x, t = values[first : first + batch], classes[first : first + batch]
            position[0] = first + batch if first + 2 * batch <= len(values) else 0
            sgd.zero_grad(set_to_none=True)
            self(x, t).backward()
            sgd.step()

        return step


def in_memory(images: np.ndarray, labels: np.ndarray, layout: Any) -> tuple[Any, Any]:
    """Return images less their mean, and their labels, as PyTorch takes them."""
    mean = images.mean(0, dtype="float64").astype("float32")
    values = torch.from_numpy(images.astype("float32") - mean).to(memory_format=layout)
    return values, torch.from_numpy(labels.astype("int64"))


def check(net: Net) -> None:
    """Refuse to go on when both engines compute different losses of one batch."""
    for layer in net.layers:
        if layer.type_name == "Dropout":
            layer.drops = False  # type: ignore[attr-defined]
    net.forward()
    images, labels = (torch.from_numpy(net.blobs[name].data.copy()) for name in ("data", "label"))
    twin = Twin(net)
    for module in twin.modules():
        module.training = isinstance(module, nn.BatchNorm2d)
    found, expected = net.loss(), float(twin(images, labels.long()).detach())
    if not abs(found - expected) <= 1e-4 * abs(expected):
        raise SystemExit(f"the losses of one batch differ: {found} and {expected}")
