"""What the performance model says of the layers of a network, beside what is measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from minissl.backend import threads_of
from minissl.channels import dense_weights
from minissl.conv_modes.auto import Choice, predict, predict_inner_product
from minissl.net import Net

#: A pick is good when it takes at most this share longer than the fastest mode.
TOLERANCE = 0.05


@dataclass(frozen=True)
class Pick:
    """The mode that AUTO picks for a layer, and how it compares with what was measured.

    Attributes
    ----------
    name, mode : str
        The layer, and its pick.
    fastest : str
        The mode that was measured to be the fastest.
    excess : float
        How much longer the pick takes than that one, as a fraction.
    """

    name: str
    mode: str
    fastest: str
    excess: float

    @property
    def is_good(self) -> bool:
        """Whether the pick is about as fast as the fastest."""
        return self.excess <= TOLERANCE

    def to_json(self) -> dict[str, Any]:
        """Return the values as they are reported."""
        return {**vars(self), "is_good": self.is_good}


def predict_layers(net: Net, names: Iterable[str]) -> dict[str, Choice]:
    """Let the model choose for some layers of a net, with its weights, batch and threads."""
    threads = threads_of(net.kernels)
    choices = {}
    for name in names:
        layer: Any = net.layer(name)
        w = dense_weights(layer)
        if layer.type_name == "Convolution":
            choices[name] = predict(layer.shape, w, layer.images, threads, kernels=net.kernels)
        else:
            choices[name] = predict_inner_product(w, layer.outer, threads)
    return choices
