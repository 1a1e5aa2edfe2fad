"""Nets and solvers of Caffe's older forms, brought to the current one by Caffe's own rules.

=======================  ==================================================================
V0 (2013)                ``layers { layer { type: "conv" ... } bottom top }``; padding is a
                         layer of its own
V1 (2014)                ``layers { type: CONVOLUTION blobs_lr: 1 ... }``
inputs                   ``input``, ``input_dim`` or ``input_shape`` of the net
transformation           ``scale``, ``mean_file``, ``crop_size``, ``mirror`` in the parameters
                         of Data, ImageData and WindowData layers
BatchNorm                three ``param`` entries that would let its statistics learn
=======================  ==================================================================

Source: ``src/caffe/util/upgrade_proto.cpp`` of BVLC Caffe. Where that program aborts, a
:class:`minissl.errors.ConfigError` is raised; where it drops a field with an error in its log, a
warning is logged here.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from minissl.errors import ConfigError
from minissl.formats import proto

if TYPE_CHECKING:
    from minissl.formats.proto import NetParameter

log = logging.getLogger("minissl")

# V1's enum in current words, where capitalising each word does not give them
_SPELLED = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col",
    "LRN": "LRN",
    "MVN": "MVN",
    "NONE": "",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}

# V0's words for types, where upper case does not give V1's
_V1_OF_V0 = {
    "conv": "CONVOLUTION",
    "images": "IMAGE_DATA",
    "innerproduct": "INNER_PRODUCT",
    "pool": "POOLING",
}
_V0_TYPES = (
    *("accuracy", "bnll", "concat", "conv", "data", "dropout", "euclidean_loss", "flatten"),
    *("hdf5_data", "hdf5_output", "im2col", "images", "infogain_loss", "innerproduct", "lrn"),
    *("multinomial_logistic_loss", "pool", "relu", "sigmoid", "softmax", "softmax_loss", "split"),
    *("tanh", "window_data"),
)

_CONV_IP = {"conv": "convolution_param", "innerproduct": "inner_product_param"}
_CONV_POOL = {"conv": "convolution_param", "pool": "pooling_param"}
_DATA, _IMAGES = {"data": "data_param"}, {"images": "image_data_param"}
_WINDOW, _LRN = {"window_data": "window_data_param"}, {"lrn": "lrn_param"}
_HDF5 = {"hdf5_data": "hdf5_data_param"}

# V0 field: its name now, and the message it moves to, by V0 type
_V0_FIELDS: dict[str, tuple[str, dict[str, str]]] = {
    "num_output": ("num_output", _CONV_IP),
    "biasterm": ("bias_term", _CONV_IP),
    "weight_filler": ("weight_filler", _CONV_IP),
    "bias_filler": ("bias_filler", _CONV_IP),
    "pad": ("pad", _CONV_POOL),
    "kernelsize": ("kernel_size", _CONV_POOL),
    "stride": ("stride", _CONV_POOL),
    "group": ("group", {"conv": "convolution_param"}),
    "pool": ("pool", {"pool": "pooling_param"}),
    "dropout_ratio": ("dropout_ratio", {"dropout": "dropout_param"}),
    "local_size": ("local_size", _LRN),
    "alpha": ("alpha", _LRN),
    "beta": ("beta", _LRN),
    "k": ("k", _LRN),
    "source": (
        "source",
        {**_DATA, **_HDF5, **_IMAGES, **_WINDOW, "infogain_loss": "infogain_loss_param"},
    ),
    "batchsize": ("batch_size", {**_DATA, **_HDF5, **_IMAGES, **_WINDOW}),
    "rand_skip": ("rand_skip", {**_DATA, **_IMAGES}),
    "shuffle_images": ("shuffle", _IMAGES),
    "new_height": ("new_height", _IMAGES),
    "new_width": ("new_width", _IMAGES),
    "concat_dim": ("concat_dim", {"concat": "concat_param"}),
    "det_fg_threshold": ("fg_threshold", _WINDOW),
    "det_bg_threshold": ("bg_threshold", _WINDOW),
    "det_fg_fraction": ("fg_fraction", _WINDOW),
    "det_context_pad": ("context_pad", _WINDOW),
    "det_crop_mode": ("crop_mode", _WINDOW),
}
# ... whatever the type
_V0_TRANSFORM = {
    "scale": "scale",
    "meanfile": "mean_file",
    "cropsize": "crop_size",
    "mirror": "mirror",
}
_TRANSFORM = ("scale", "mean_file", "crop_size", "mirror")
_READERS = {
    "DATA": "data_param",
    "IMAGE_DATA": "image_data_param",
    "WINDOW_DATA": "window_data_param",
}
# per-blob lists of V1, and the field of ParamSpec each becomes
_PARAM_LISTS = {
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}
# SkimCaffe's conv_mode numbers (it has no LOWERED_CSRMM) in scnn's
_SKIMCAFFE_MODES = {0: 0, 1: 2, 2: 3, 3: 4}


def upgraded(net: NetParameter, source: str = "the net") -> NetParameter:
    """Return a net in the current form: the very message if it is, else an upgraded copy."""
    if not _is_old(net):
        return net
    copy = proto.NetParameter()
    copy.CopyFrom(net)
    upgrade_net(copy, source)
    return copy


def upgrade_net(net: NetParameter, source: str = "the net") -> list[str]:
    """Bring a net to the current form, in place; say so in the log.

    Parameters
    ----------
    net : NetParameter
        Weights (``blobs``) are kept.
    source : str
        The file, for messages.

    Returns
    -------
    list of str
        What was old; empty for a current net.

    Raises
    ------
    ConfigError
        For a net that mixes old and current layers, a V0 type that is unknown, a padding layer in
        front of anything but a convolution or pooling, or inputs whose shapes are missing in part.
    """
    found: list[str] = []
    if net.layers and net.layer:
        raise ConfigError(
            f"{source} has both 'layers' (old) and 'layer'; bring all of them to one form"
        )
    if any(old.HasField("layer") for old in net.layers):
        found.append("V0 layers")
        _merge_padding(net, source)
        for old in net.layers:
            if old.HasField("layer"):
                _upgrade_v0(old, source)
    if any([_move_transformation(old) for old in net.layers]):
        found.append("old transformation fields")
    if net.layers:
        if not found or found[0] != "V0 layers":
            found.append("V1 layers")
        for old in net.layers:
            _upgrade_v1(old, net.layer.add())
        net.ClearField("layers")
    if net.input or net.input_dim or net.input_shape:
        found.append("net-level inputs")
        _make_input_layer(net, source)
    if any([_fix_batch_norm(layer) for layer in net.layer]):
        found.append("learning statistics of BatchNorm")
    if found:
        log.info("%s is in Caffe's older form (%s) and was upgraded", source, ", ".join(found))
    return found


def from_skimcaffe(net: NetParameter) -> None:
    """Translate the ``conv_mode`` numbers of a binary net that SkimCaffe wrote, in place.

    Its text files need no translation: the names are the same.
    """
    for layer in net.layer:
        if layer.convolution_param.HasField("conv_mode"):
            number = layer.convolution_param.conv_mode
            layer.convolution_param.conv_mode = _SKIMCAFFE_MODES.get(number, number)


def type_of_v1(number: int) -> str:
    """Return the current word for a type of V1's enum; empty if it is unknown.

    Examples
    --------
    >>> type_of_v1(4), type_of_v1(21)
    ('Convolution', 'SoftmaxWithLoss')
    """
    names = proto.descriptor("V1LayerParameter").enum_types_by_name["LayerType"].values_by_number
    if number not in names:
        return ""
    name: str = names[number].name
    return _SPELLED.get(name, name.title().replace("_", ""))


def _is_old(net: Any) -> bool:
    return bool(
        net.layers
        or net.input
        or net.input_dim
        or net.input_shape
        or any(_learns_statistics(layer) for layer in net.layer)
    )


# --- V0 ---


def _merge_padding(net: Any, source: str) -> None:
    """Give the pad of each padding layer to the layers that read it, and leave it out."""
    makers: dict[str, Any] = dict.fromkeys(net.input)
    kept = []
    for old in net.layers:
        for i, blob in enumerate(old.bottom):
            if blob not in makers:
                raise ConfigError(
                    f"{source}: layer '{old.layer.name}' reads '{blob}', which no earlier layer "
                    "makes; correct its bottom"
                )
            maker = makers[blob]
            if maker is None or maker.layer.type != "padding":
                continue
            shapes = len(old.bottom), len(maker.bottom), len(maker.top)
            if old.layer.type not in ("conv", "pool") or shapes != (1, 1, 1):
                raise ConfigError(
                    f"{source}: padding layer '{maker.layer.name}' must have one bottom and be "
                    "the only bottom of a convolution or pooling; give those layers a pad instead"
                )
            old.layer.pad = maker.layer.pad
            old.bottom[i] = maker.bottom[0]
        makers.update(dict.fromkeys(old.top, old))
        if old.layer.type != "padding":
            copy = proto.V1LayerParameter()
            copy.CopyFrom(old)
            kept.append(copy)
    net.ClearField("layers")
    net.layers.extend(kept)


def _upgrade_v0(old: Any, source: str) -> None:
    """Turn a V0 layer into a V1 layer, in place."""
    v0 = proto.V0LayerParameter()
    v0.CopyFrom(old.layer)
    bottom, top = list(old.bottom), list(old.top)
    old.Clear()
    old.bottom.extend(bottom)
    old.top.extend(top)
    if v0.HasField("type"):
        if v0.type not in _V0_TYPES:
            raise ConfigError(
                f"{source}: layer '{v0.name}' has the type '{v0.type}', which Caffe's oldest form "
                f"does not know; it is one of {', '.join(_V0_TYPES)}"
            )
        old.type = old.LayerType.Value(_V1_OF_V0.get(v0.type, v0.type.upper()))
    for field, value in v0.ListFields():
        name = field.name
        if name in _V0_TRANSFORM:
            setattr(old.transform_param, _V0_TRANSFORM[name], value)
        elif name in _V0_FIELDS:
            new_name, messages = _V0_FIELDS[name]
            if v0.type in messages:
                _assign(getattr(old, messages[v0.type]), new_name, value)
            else:
                log.warning(
                    "%s: layer '%s': %s means nothing to a layer of type '%s' and is left out",
                    *(source, v0.name, name, v0.type),
                )
        elif name in ("name", "blobs", "blobs_lr", "weight_decay", "hdf5_output_param"):
            _assign(old, name, value)


# --- V1 ---


def _move_transformation(old: Any) -> bool:
    """Move the transformation of a V1 data layer into ``transform_param``; say if there was any."""
    kind = old.LayerType.Name(old.type)
    if kind not in _READERS:
        return False
    reader = getattr(old, _READERS[kind])
    given = [name for name in _TRANSFORM if reader.HasField(name)]
    for name in given:
        setattr(old.transform_param, name, getattr(reader, name))
        reader.ClearField(name)
    return bool(given)


def _upgrade_v1(old: Any, layer: Any) -> None:
    """Fill a current layer from a V1 layer."""
    for field, value in old.ListFields():
        if field.name == "type":
            layer.type = type_of_v1(value)
        elif field.name in _PARAM_LISTS:
            while len(layer.param) < len(value):
                layer.param.add()
            for spec, one in zip(layer.param, value, strict=False):
                setattr(spec, _PARAM_LISTS[field.name], one)
        elif field.name != "layer":
            _assign(layer, field.name, value)


# --- all ---


def _make_input_layer(net: Any, source: str) -> None:
    """Turn ``input`` and its shapes into an Input layer in front; without shapes, drop it."""
    names, shapes = list(net.input), [list(shape.dim) for shape in net.input_shape]
    dims = list(net.input_dim)
    for field in ("input", "input_shape", "input_dim"):
        net.ClearField(field)
    if not shapes:
        if len(dims) != 4 * len(names) and dims:
            raise ConfigError(
                f"{source} gives {len(dims)} input_dim for {len(names)} inputs; write four for "
                "each: images, channels, height, width"
            )
        shapes = [dims[i : i + 4] for i in range(0, len(dims), 4)]
    if not shapes:  # as in the caffemodel of a deploy net
        return
    if len(shapes) != len(names):
        raise ConfigError(
            f"{source} gives {len(shapes)} input_shape for {len(names)} inputs; write one for each"
        )
    taken = {layer.name for layer in net.layer}
    name = next(
        n for n in ("input", *(f"input_{i}" for i in range(len(taken) + 1))) if n not in taken
    )
    layer = proto.LayerParameter(name=name, type="Input", top=names)
    for shape in shapes:
        layer.input_param.shape.add(dim=shape)
    rest = list(net.layer)
    net.ClearField("layer")
    net.layer.extend([layer, *rest])


def _learns_statistics(layer: Any) -> bool:
    return bool(
        layer.type == "BatchNorm"
        and len(layer.param) == 3
        and any(spec.lr_mult or spec.decay_mult for spec in layer.param)
    )


def _fix_batch_norm(layer: Any) -> bool:
    """Keep the solver's hands off mean and variance; say if that was needed."""
    if not _learns_statistics(layer):
        return False
    for spec in layer.param:
        spec.lr_mult = spec.decay_mult = 0
    return True


def _assign(message: Any, name: str, value: Any) -> None:
    """Set a field from a value of the same kind, or append it where the field is a list now."""
    field = getattr(message, name)
    if hasattr(field, "extend"):
        is_list = hasattr(value, "__len__") and not isinstance(value, str)
        field.extend(value if is_list else [value])
    elif hasattr(field, "CopyFrom"):
        field.CopyFrom(value)
    else:
        setattr(message, name, value)
