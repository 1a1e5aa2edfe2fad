"""How long each layer takes, and each ``conv_mode`` of a convolution or an inner product.

All measurements of a network are interleaved: one round runs every layer once, and every mode and
stage of a layer one after the other, so that a disturbance of the machine hits all of them alike.
The first round warms up. What is reported is the median over the others, and their quartiles.

A layer with modes is a Convolution or an InnerProduct; the modes of an inner product go by the
``conv_mode`` that executes the product the same way (:mod:`minissl.conv_modes.inner_product`).

The stages of a convolution are lowering (im2col), the product (GEMM or its sparse counterpart) and
the rest (bias and scattering to filters). Published speed-ups often count the product alone. A mode
that does not lower has no stages.

============  =================================================================================
network       time all layers of a network by turns
steps         ... one layer in one mode, by stages and by conv groups
update        ... the update of all parameters
stopwatch     ... durations, their medians and quartiles
peak          what the machine reaches in dense products
measurements  what was measured of a layer, and of a network
predictions   what the performance model says of the layers, beside what was measured
modes         which modes a net asks for, and which its layers have
matrices      weights from Matrix Market files
known_layers  layers that are recognised by the shape of their matrix, so that no net is needed
============  =================================================================================
"""

from minissl.conv_modes import MODES
from minissl.timing.matrices import Recognised, load_matrices, recognise_matrices
from minissl.timing.measurements import (
    ALL,
    BASELINE,
    PICKED,
    LayerTime,
    NetTime,
    choose,
    fastest,
    total_ms,
)
from minissl.timing.modes import (
    automatic,
    lower,
    modes_in,
    modes_of,
    modes_to_time,
    own_modes,
    trained_modes,
    wants_choice,
    without_modes,
)
from minissl.timing.network import feed_random, time_net, time_passes
from minissl.timing.predictions import Pick, predict_layers

__all__ = [
    "ALL",
    "BASELINE",
    "MODES",
    "PICKED",
    "LayerTime",
    "NetTime",
    "Pick",
    "Recognised",
    "automatic",
    "choose",
    "fastest",
    "feed_random",
    "load_matrices",
    "lower",
    "modes_in",
    "modes_of",
    "modes_to_time",
    "own_modes",
    "predict_layers",
    "recognise_matrices",
    "time_net",
    "time_passes",
    "total_ms",
    "trained_modes",
    "wants_choice",
    "without_modes",
]
