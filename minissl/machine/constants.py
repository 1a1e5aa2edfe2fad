"""The constants of a machine: nanoseconds for one unit of each kind of work.

A cost function (:mod:`minissl.conv_modes.cost`) says how many units of each *term* a layer takes
on its busiest thread; the time is the sum of units times nanoseconds. The constants are those of
one thread while a given number of threads work, so what threads take from each other (bandwidth,
clock) is in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from minissl.machine.defaults import DEFAULT_CONSTANTS

#: What one unit of each term is.
TERMS = {
    "call": "one call of a layer",
    "region": "one more parallel loop that is entered",
    "gemm_call": "one call of GEMM",
    "gemm": "one multiply-add of GEMM, its sizes rounded up to its register tile",
    "gemm_small": "one multiply-add of a GEMM so small that nothing is packed",
    "gemm_weight": "one weight that a call of GEMM packs",
    "gemm_pack": "one number of the lowered matrix that a call of GEMM packs",
    "lower": "one number of the lowered matrix, written while it fits the L2 cache",
    "lower_far": "the same, of a matrix that does not fit",
    "lower_strided": "what such a number costs more where it is gathered from strided pixels",
    "lower_row": "one run of neighbouring pixels that is lowered",
    "lower_blob": "one number of input and output, where they are beyond the L2 cache",
    "write": "one output that is moved to its place, with its bias",
    "panel": "one number of the lowered matrix, moved into a panel while all fit the L2 cache",
    "panel_far": "the same, of panels that do not fit",
    "panel_strided": "what it costs more where it is gathered from strided pixels",
    "csr": "one multiply-add of compressed rows, with a panel that does not fit the L1 cache",
    "csr_l1": "the same, with a panel that fits",
    "csr_entry": "one non-zero that meets a panel",
    "csr_single": "what it costs more where it is not one of eight of its row",
    "csr_row": "beginning a row of a panel",
    "csr_task": "finding one share of the rows of a panel",
    "tile": "one vector multiply-add of a dense direct tile",
    "tile_end": "one cycle of its end, as the tile's own count has it",
    "tile_walk": "beginning one list of columns of such a tile",
    "tile_blob": "one number of input and output, where they are beyond the L2 cache",
    "sparse_call": "one run of a sparse direct convolution, pixels or images in its lanes",
    "sparse": "one vector multiply-add of a sparse direct tile, pixels in its lanes",
    "sparse_entry": "one non-zero that meets such a tile",
    "sparse_visit": "one vector of sums of a filter and a block of channels",
    "sparse_write": "what it costs more when it is put out",
    "sparse_blob": "one number of input and output, where they are beyond the L2 cache",
    "images": "one vector multiply-add of a sparse direct tile, images in its lanes",
    "images_entry": "one non-zero that meets such a tile",
    "images_visit": "one vector of sums of a filter and a block of channels",
    "images_write": "what it costs more when it is put out, pixel by pixel of each image",
    "sparse_plane": "one number of the planes that sparse tiles read, pixels in the lanes",
    "images_plane": "the same, images in the lanes",
    "product_call": "one block of outputs of a dense inner product",
    "product": "one multiply-add of it",
    "product_write": "one output that is moved to its place, with its bias",
    "product_small": "the same, of a block so small that nothing is packed",
    "product_input": "one input that a block packs",
    "product_l2": "one weight that it packs, in the L2 cache",
    "product_l3": "the same, in the L3 cache",
    "product_memory": "the same, in memory",
    "vector_l2": "one weight of an inner product of a single image, in the L2 cache",
    "vector_l3": "the same, in the L3 cache",
    "vector_memory": "the same, in memory",
    "take": "one number gathered into, or scattered from, a smaller matrix",
    "squeeze_call": "one call of an inner product of kept rows and columns",
    "dot": "one gathered multiply-add of compressed rows, for few images",
    "dot_row": "one row of it",
    "dot_far": "one non-zero that it reads from beyond the L2 cache",
    "spread": "one input that is moved into a panel",
    "csr_far": "one non-zero read from beyond the L2 cache",
}


@dataclass(frozen=True)
class Machine:
    """Constants of one machine.

    Attributes
    ----------
    constants : dict
        Number of threads -> term -> nanoseconds of a unit.
    rates : dict
        Number of threads -> what :mod:`minissl.machine.probes` measured.
    calibrated : bool
        False for the constants that stand in until ``minissl doctor --calibrate`` ran.
    error : dict
        Number of threads -> median error of the model on the layers it was measured with.
    key : dict
        The CPU and the libraries that they belong to.
    date : str
        When they were measured.
    """

    constants: Mapping[int, Mapping[str, float]]
    rates: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    calibrated: bool = False
    error: Mapping[int, float] = field(default_factory=dict)
    key: Mapping[str, str] = field(default_factory=dict)
    date: str = ""

    def nanoseconds(self, term: str, threads: int) -> float:
        """Return one constant; numbers of threads in between are interpolated."""
        counts = sorted(self.constants)
        low = max((n for n in counts if n <= threads), default=counts[0])
        high = min((n for n in counts if n >= threads), default=counts[-1])
        below, above = (self.constants[n].get(term, 0.0) for n in (low, high))
        return below if high == low else below + (above - below) * (threads - low) / (high - low)

    def seconds(self, amounts: Mapping[str, float], threads: int) -> float:
        """Return the time of some work: sum over terms of units times nanoseconds."""
        return 1e-9 * sum(
            units * self.nanoseconds(term, threads) for term, units in amounts.items()
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything as the file keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Machine:
        """Undo :meth:`to_json`; numbers of threads are strings in a file.

        Raises
        ------
        KeyError, TypeError, ValueError
            When the values are not those of a machine.
        """
        constants, rates, error = (
            {int(count): value for count, value in values[name].items()}
            for name in ("constants", "rates", "error")
        )
        if not constants:
            raise ValueError("no constants")
        calibrated, key, date = (values[name] for name in ("calibrated", "key", "date"))
        return cls(constants, rates, calibrated, error, key, date)


#: What stands in for a machine that was never measured.
DEFAULTS = Machine(DEFAULT_CONSTANTS)
