"""Nets written as text, layer by layer, and their gradients by finite differences."""

from __future__ import annotations

import numpy as np

from minissl import Net
from minissl.formats.prototxt import parse_net


def build(text, phase="TRAIN", backend="numpy", dtype="float64", **options):
    return Net(parse_net(text), phase=phase, backend=backend, dtype=dtype, **options)


def ip(name, bottom, top, outputs=3, more="", **fields):
    """Text of an InnerProduct layer."""
    filler = fields.get("filler", 'weight_filler { type: "gaussian" std: 1 }')
    return f"""layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {more}
        inner_product_param {{ num_output: {outputs} {filler} }} }}"""


def layer(type_name, name, bottoms, top, more=""):
    bottom = " ".join(f'bottom: "{b}"' for b in bottoms.split())
    return f'layer {{ name: "{name}" type: "{type_name}" {bottom} top: "{top}" {more} }}'


INPUT = """layer { name: "in" type: "Input" top: "x" top: "t"
    input_param { shape { dim: 4 dim: 5 } shape { dim: 4 } } }"""


def fill_input(net, seed=0):
    rng = np.random.default_rng(seed)
    net.blobs["x"].data[...] = rng.normal(size=(4, 5))
    net.blobs["t"].data[...] = [0, 2, 1, 2]


def gradients(net):
    """One forward and backward pass; the gradients of all parameters by name."""
    net.clear_gradients()
    net.forward()
    net.backward()
    return {parameter.name: parameter.diff.copy() for parameter in net.parameters}


def check_gradients(net, step=1e-6):
    """Compare every gradient with central differences of the loss."""
    found = gradients(net)
    for parameter in net.parameters:
        numeric = np.zeros_like(parameter.data)
        for index in np.ndindex(parameter.shape):
            value = parameter.data[index]
            losses = []
            for shifted in (value + step, value - step):
                parameter.data[index] = shifted
                net.forward()
                losses.append(net.loss())
            parameter.data[index] = value
            numeric[index] = (losses[0] - losses[1]) / (2 * step)
        np.testing.assert_allclose(
            found[parameter.name], numeric, rtol=1e-6, atol=1e-8, err_msg=parameter.name
        )
    return found
