"""PyTorch's ``state_dict`` files, by name: tensors of modules to the blobs of layers, and back.

A file that ``torch.save(model.state_dict(), ...)`` wrote is read with ``weights_only``: nothing in
it is executed. Its tensors are named after modules, ``features.0.weight``; which module is which
layer is said by a mapping, or follows from their order:

    Convolution, InnerProduct   weight, bias: the same shapes and meaning as in PyTorch
    BatchNorm                   running_mean, running_var of a module, and the factor 1
    Scale behind it             weight, bias of the same module
    PReLU, Embed                weight

PyTorch is needed for reading and writing: ``pip install 'minissl[torch]'``.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minissl import optional
from minissl.errors import WeightsError
from minissl.formats.atomic import atomic_write
from minissl.formats.reading import explain

SUFFIXES = (".pt", ".pth")
#: more than this is refused, whatever a file claims
MAX_BYTES = 8 * 2**30

Modules = dict[str, dict[str, np.ndarray]]


class Wanted(NamedTuple):
    """A layer with weights: its name, its type, the shapes of its blobs."""

    name: str
    type: str
    shapes: tuple[tuple[int, ...], ...]


def _torch() -> Any:
    return optional.library("torch", "files of PyTorch", "minissl[torch]")


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Read the tensors of a file, by name and in order.

    Raises
    ------
    DependencyError
        Without PyTorch.
    WeightsError
        When the file is missing, damaged, older than PyTorch 1.6, or holds anything but tensors.
    """
    torch = _torch()
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except OSError as reason:
        raise explain(path, "file of PyTorch", WeightsError, reason) from None
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        raise WeightsError(
            f"{path} is no state_dict file of PyTorch 1.6 or later; save it again with "
            "torch.save(model.state_dict(), path)."
        ) from None
    if size > max(2 * path.stat().st_size, 2**20) or size > MAX_BYTES:
        raise WeightsError(f"{path} unpacks to {size} bytes and was refused.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as reason:  # pickle, zip and torch answer damage with many kinds
        refused = re.search(r"GLOBAL ([\w.]{1,100})", str(reason))  # the first class in the pickle
        what = f" ({refused[1]})" if refused else ""
        raise WeightsError(
            f"{path} holds more than tensors{what}, or is damaged; save it again with "
            "torch.save(model.state_dict(), path)."
        ) from None
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]  # what many training programs put around it
    if not isinstance(found, Mapping) or not found:
        raise WeightsError(f"{path} holds no state_dict; save model.state_dict().")
    return {str(name): _to_numpy(torch, path, name, tensor) for name, tensor in found.items()}


def _to_numpy(torch: Any, path: Path, name: Any, tensor: Any) -> np.ndarray:
    if not isinstance(tensor, torch.Tensor):
        raise WeightsError(f"{path}: {name!r} is no tensor; save model.state_dict() alone.")
    if tensor.is_sparse or tensor.is_quantized or tensor.is_complex():
        raise WeightsError(f"{path}: {name!r} is no plain tensor of real numbers.")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise WeightsError(f"{path}: {name!r} claims more numbers than the file holds.")
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return tensor.detach().contiguous().numpy().copy()


def read_names(path: str | Path) -> dict[str, str]:
    """Read {layer: module} from a JSON file.

    Raises
    ------
    WeightsError
        When it is missing or holds something else.
    """
    try:
        names = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as reason:
        raise explain(path, "file of names", WeightsError, reason) from None
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, dict) or not all(isinstance(one, str) for one in names.values()):
        raise WeightsError(
            f'{path} is no mapping of names; write {{"layer": "module", ...}} in JSON.'
        )
    return names


def write_state_dict(
    path: str | Path,
    weights: Mapping[str, Sequence[np.ndarray]],
    layers: Sequence[Wanted],
    names: Mapping[str, str] | None = None,
) -> None:
    """Write blobs as the tensors of modules; ``names`` is {layer: module}, else the layer's name.

    BatchNorm and the Scale behind it become one module, named after the former.

    Raises
    ------
    DependencyError
        Without PyTorch.
    WeightsError
        For a layer that has no counterpart.
    """
    torch = _torch()
    tensors: dict[str, Any] = {}
    for layer, partner in _with_partners(layers):
        module = (names or {}).get(layer.name, layer.name.replace("/", "."))
        if layer.type == "Scale" and partner is not None:
            module = (names or {}).get(partner.name, partner.name.replace("/", "."))
        for leaf, array in _leaves(layer, weights[layer.name]).items():
            tensors[f"{module}.{leaf}"] = torch.from_numpy(np.array(array))
    with atomic_write(path) as file:
        torch.save(tensors, file)


def _leaves(layer: Wanted, blobs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tensors of one layer under PyTorch's names."""
    if layer.type == "BatchNorm":
        mean, variance, factor = blobs[:3]
        scale = 1 / factor.reshape(-1)[0] if factor.reshape(-1)[0] else 0.0
        return {"running_mean": mean * scale, "running_var": variance * scale}
    if layer.type not in (
        "Convolution",
        "Deconvolution",
        "InnerProduct",
        "Scale",
        "PReLU",
        "Embed",
    ):
        raise WeightsError(
            f"layer '{layer.name}' ({layer.type}) has no counterpart in a state_dict; write the "
            "weights to another format"
        )
    return dict(zip(("weight", "bias"), blobs, strict=False))


def modules_of(tensors: Mapping[str, np.ndarray]) -> Modules:
    """Collect tensors by module: {"features.0": {"weight": ..., "bias": ...}}."""
    modules: Modules = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        modules.setdefault(module, {})[leaf] = tensor
    return modules


def match(
    layers: Sequence[Wanted],
    tensors: Mapping[str, np.ndarray],
    names: Mapping[str, str] | None = None,
) -> tuple[dict[str, list[np.ndarray]], dict[str, str]]:
    """Give each layer the tensors of a module.

    Parameters
    ----------
    layers : sequence of Wanted
        Those with weights, in net order.
    tensors : dict of str to ndarray
        The state_dict.
    names : dict of str to str, optional
        {layer: module}, for all layers or some. The others take modules of their own name, and
        where no module has a layer's name, what is left in order.

    Returns
    -------
    weights : dict
        {layer: blobs}, for :meth:`minissl.Net.load`.
    mapping : dict
        {layer: module}, as it was used.

    Raises
    ------
    WeightsError
        When names are unknown, shapes do not fit, or modules are left over or missing.
    """
    modules = modules_of(tensors)
    mapping = _name(layers, modules, dict(names or {}))
    weights = {}
    unread = {f"{module}.{leaf}" for module, leaves in modules.items() for leaf in leaves}
    unread = {name for name in unread if not name.endswith("num_batches_tracked")}
    for layer in layers:
        module = mapping[layer.name]
        leaves, weights[layer.name] = _blobs(layer, modules[module], module)
        unread -= {f"{module}.{leaf}" for leaf in leaves}
    if unread:
        raise WeightsError(
            f"no layer of the net takes {', '.join(sorted(unread))}; is it the right net?"
        )
    return weights, mapping


def _with_partners(layers: Sequence[Wanted]) -> list[tuple[Wanted, Wanted | None]]:
    """Pair each layer with the BatchNorm right before it, which a Scale shares a module with."""
    before: list[Wanted | None] = [None, *layers]
    return [
        (layer, last if last is not None and last.type == "BatchNorm" else None)
        for layer, last in zip(layers, before, strict=False)
    ]


def _name(layers: Sequence[Wanted], modules: Modules, names: dict[str, str]) -> dict[str, str]:
    """Complete the mapping of layers to modules."""
    known = {layer.name for layer in layers}
    for layer_name, module in names.items():
        if layer_name not in known:
            raise WeightsError(
                f"the net has no layer '{layer_name}' with weights; it has {', '.join(known)}"
            )
        if module not in modules:
            raise WeightsError(f"the file has no module '{module}'; it has {', '.join(modules)}")
    for layer in layers:
        own = layer.name.replace("/", ".")
        if layer.name not in names and own in modules:
            names[layer.name] = own
    mapping: dict[str, str] = {}
    free = [module for module in modules if module not in names.values()]
    for layer, partner in _with_partners(layers):
        if layer.type == "Scale" and partner is not None and layer.name not in names:
            mapping[layer.name] = mapping[partner.name]
        elif layer.name in names:
            mapping[layer.name] = names[layer.name]
        else:
            is_norm = layer.type == "BatchNorm"
            fitting = [m for m in free if ("running_mean" in modules[m]) == is_norm]
            if not fitting:
                raise WeightsError(
                    f"no module is left for layer '{layer.name}' ({layer.type}); say which module "
                    "is which layer with --names"
                )
            mapping[layer.name] = fitting[0]
            free.remove(fitting[0])
    return mapping


def _blobs(
    layer: Wanted, module: Mapping[str, np.ndarray], name: str
) -> tuple[list[str], list[np.ndarray]]:
    """Return the tensors of a module that a layer takes: their names, and its blobs."""
    is_norm = layer.type == "BatchNorm"
    usual = ["running_mean", "running_var"] if is_norm else ["weight", "bias"]
    leaves = [leaf for leaf in usual[: 2 if is_norm else len(layer.shapes)] if leaf in module]
    blobs = [module[leaf] for leaf in leaves]
    if is_norm:
        blobs.append(np.ones(1, np.float32))  # both are means already
    if tuple(tuple(blob.shape) for blob in blobs) != layer.shapes:
        has = {leaf: array.shape for leaf, array in module.items() if array.ndim}
        raise WeightsError(
            f"module '{name}' has {has or 'no tensors'} where layer '{layer.name}' ({layer.type}) "
            f"has blobs of shape {layer.shapes}; say which module is which layer with --names"
        )
    return leaves, blobs
