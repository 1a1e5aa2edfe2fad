"""Measure the constants of this machine: run every mode on sample layers, and fit.

Each sample is a layer of random zeros, timed in every mode with the real kernels, at one thread and
at all. Its time is a sum of known units times unknown constants, one equation for each sample and
mode. All equations are solved together for the constants that are not negative and whose
*relative* errors have the smallest squares::

    minimize over c >= 0   sum over samples of (sum_t units_t c_t / time - 1)^2

A machine that others use too may be half as fast for seconds or minutes, longer than a sample
takes. So a sample is timed beside a product that always is the same
(:class:`~minissl.machine.probes.Pace`), in turns, and what counts is how many times as long as that
it took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

import numpy as np

from minissl import backend as backends
from minissl.conv_modes import DENSE_MODES, prepare
from minissl.conv_modes.auto import product_shape
from minissl.conv_modes.cost import CONVOLUTION, INNER_PRODUCT, Amounts, Work
from minissl.conv_modes.inner_product import prepare_inner_product
from minissl.conv_modes.shape import ConvShape
from minissl.machine import Machine, probes
from minissl.machine.store import machine_key

#: (zero rows, zero columns, zeros among the rest) of the weights of a sample
Zeros = tuple[float, float, float]

SCATTERED: tuple[Zeros, ...] = ((0, 0, 0.7), (0, 0, 0.9), (0, 0.1, 0.97), (0, 0, 0))
STRUCTURED: tuple[Zeros, ...] = ((0.3, 0.7, 0), (0.1, 0.85, 0.2), (0, 0.5, 0), (0.7, 0.9, 0))

#: Convolutions between LeNet's and AlexNet's size: every kind of kernel, stride, group and width.
CONVOLUTIONS = (
    ConvShape(1, (28, 28), 16, (5, 5)),
    ConvShape(1, (24, 24), 4, (5, 5)),
    ConvShape(4, (12, 12), 12, (5, 5)),
    ConvShape(6, (10, 10), 24, (3, 3)),
    ConvShape(16, (8, 8), 32, (5, 5)),
    ConvShape(12, (14, 14), 40, (5, 5)),
    ConvShape(3, (32, 32), 32, (5, 5), pad=(2, 2)),
    ConvShape(3, (115, 115), 64, (11, 11), stride=(4, 4)),
    ConvShape(3, (160, 160), 48, (7, 7), stride=(2, 2)),
    ConvShape(32, (16, 16), 32, (5, 5), pad=(2, 2)),
    ConvShape(64, (27, 27), 128, (5, 5), pad=(2, 2), groups=2),
    ConvShape(32, (56, 56), 64, (3, 3), pad=(1, 1)),
    ConvShape(128, (13, 13), 192, (3, 3), pad=(1, 1)),
    ConvShape(256, (14, 14), 192, (3, 3), pad=(1, 1), groups=2),
    ConvShape(64, (28, 28), 64, (3, 3), stride=(2, 2), pad=(1, 1)),
    ConvShape(256, (14, 14), 64, (1, 1)),
)
CONVOLUTION_BATCHES = (1, 6, 32)
#: (outputs, inputs) of inner products; the last is larger than common caches
INNER_PRODUCTS = (
    (10, 400),
    (100, 300),
    (300, 200),
    (600, 250),
    (400, 900),
    (1000, 1600),
    (1000, 4000),
    (3000, 4000),
)
INNER_PRODUCT_BATCHES = (1, 8, 32)
#: a batch is left out where its dense product has more multiply-adds than this
MOST_MULTIPLY_ADDS = 0.6e9
#: How often all samples are run, each time for so many seconds and so many turns at the most. What
#: disturbs one pass is gone in the next.
PASSES, SECONDS, MOST = 3, 0.008, 30
#: Seconds of a turn, of which the shortest run counts: what is small stays in the caches meanwhile.
TURN = 1e-4
#: A sample counts less when it is slower than the model says by more than the first share, since
#: something may have disturbed it, or faster by more than the second, which nothing can pretend.
DISTURBED, TYPICAL = 0.15, 0.1
ITERATIONS = 8
#: WINOGRAD, as the passes of training, counts in units of the direct tiles, and is not timed
TIMED = {mode: cost for mode, cost in CONVOLUTION.items() if mode != "WINOGRAD"}
#: as how many samples the constants of one thread count among those of several
PULL = 2.0
#: terms that have little to do with what a single thread needs for them
STARTING = ("call", "region", "sparse_call")


class Sample(NamedTuple):
    """A layer with zeros, and the batch it is run on."""

    shape: ConvShape
    zeros: Zeros
    images: int
    is_product: bool

    @property
    def weights(self) -> np.ndarray:
        """Random weights (F, C/G, kh, kw) with these zeros."""
        rng = np.random.default_rng(0)
        s = self.shape
        zero_rows, zero_columns, zeros = self.zeros
        w = rng.random((s.groups, s.rows, s.columns), np.float32) + np.float32(0.5)
        w[rng.random(w.shape, np.float32) < zeros] = 0
        w[rng.random(w.shape[:2]) < zero_rows] = 0
        w.transpose(0, 2, 1)[rng.random((s.groups, s.columns)) < zero_columns] = 0
        return w.reshape((s.filters, s.columns) if self.is_product else s.weight_shape)


class Timing(NamedTuple):
    """What a sample needed in one mode: seconds, or multiples of another time."""

    sample: Sample
    mode: str
    amounts: Amounts
    time: float


def samples() -> Iterator[Sample]:
    """List the sample layers."""
    for number, shape in enumerate(CONVOLUTIONS):
        P, Q = shape.output
        for batch in CONVOLUTION_BATCHES:
            if batch * P * Q * shape.columns * shape.filters > MOST_MULTIPLY_ADDS and batch > 1:
                continue
            for kinds in (SCATTERED, STRUCTURED):
                yield Sample(shape, kinds[number % len(kinds)], batch, False)
    for number, (F, K) in enumerate(INNER_PRODUCTS):
        for batch in INNER_PRODUCT_BATCHES:
            for kinds in (SCATTERED, STRUCTURED):
                yield Sample(product_shape(F, K), kinds[number % len(kinds)], batch, True)


def calibrate(tick: Callable[[], Any] | None = None) -> Machine:
    """Measure the constants of this machine, for one thread and for as many as are set.

    Parameters
    ----------
    tick : callable, optional
        Called after each sample; there are :func:`steps` of them.
    """
    before = backends.threads()
    counts = sorted({1, before})
    chosen = list(samples())
    constants: dict[int, dict[str, float]] = {}
    errors, rates = {}, {}
    try:
        for threads in counts:
            backends.set_threads(threads)
            pace = probes.Pace()
            passes = [measure(chosen, threads, pace, tick) for _ in range(PASSES)]
            timings = [one._replace(time=one.time * pace.fastest) for one in middle(passes)]
            constants[threads], errors[threads] = fit(timings, constants.get(1))
            rates[threads] = probes.rates()
    finally:
        backends.set_threads(before)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Machine(constants, rates, True, errors, machine_key(), now)


def steps(threads: int) -> int:
    """Return how often :func:`calibrate` ticks."""
    return len(list(samples())) * len({1, threads}) * PASSES


def measure(
    chosen: Sequence[Sample],
    threads: int,
    pace: probes.Pace,
    tick: Callable[[], Any] | None = None,
) -> list[Timing]:
    """Time samples in every mode, those that multiply by zeros too once for each layer and batch.

    The times are multiples of the product of ``pace``.
    """
    kernels = backends.get("numba")
    timings = []
    dense_done = set()
    with backends.single_threaded_blas():
        for sample in chosen:
            w = sample.weights
            work = Work.of(sample.shape, w, sample.images, threads)
            for mode, cost in (INNER_PRODUCT if sample.is_product else TIMED).items():
                amounts = cost(work)
                if amounts is None or (sample._replace(zeros=(0, 0, 0)), mode) in dense_done:
                    continue
                if mode in DENSE_MODES:
                    dense_done.add((sample._replace(zeros=(0, 0, 0)), mode))
                timings.append(Timing(sample, mode, amounts, _time(sample, mode, w, kernels, pace)))
            if tick:
                tick()
    return timings


def middle(passes: Sequence[Sequence[Timing]]) -> list[Timing]:
    """Keep of several passes over the same samples the middle time of each."""
    return [
        sorted(of_one, key=lambda one: one.time)[len(of_one) // 2]
        for of_one in zip(*passes, strict=True)
    ]


def _time(sample: Sample, mode: str, w: np.ndarray, kernels: Any, pace: probes.Pace) -> float:
    """Return how many times as long as the product of ``pace`` a run takes: the median of turns."""
    s = sample.shape
    x = np.random.default_rng(1).random((sample.images, s.channels, *s.size), np.float32)
    y = np.empty((sample.images, s.filters, *s.output), np.float32)
    b = np.ones(s.filters, np.float32)
    packed: Any
    if sample.is_product:
        packed = prepare_inner_product(mode, w, b, kernels)
    else:
        packed = prepare(mode, s, w, b, kernels)
    packed.forward(x, y)
    ratios: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(ratios) < 2 or (len(ratios) < MOST and time.perf_counter() < end):
        ratios.append(pace.times(lambda: packed.forward(x, y), TURN))
    return float(np.median(ratios))


def fit(
    timings: Sequence[Timing], expected: Mapping[str, float] | None = None
) -> tuple[dict[str, float], float]:
    """Solve for the constants.

    A few samples that were disturbed must not decide: each equation is weighted by how badly the
    last solution fits it, a few times over.

    Parameters
    ----------
    timings
        The equations.
    expected : dict, optional
        Constants of a single thread. For more threads each constant is drawn towards it, except
        what it costs to start them.

    Returns
    -------
    constants : dict
        Term -> nanoseconds.
    error : float
        Median over the timings of abs(predicted / measured - 1).
    """
    from scipy.optimize import nnls

    terms = sorted({term for timing in timings for term in timing.amounts})
    units = np.array([[t.amounts.get(term, 0.0) for term in terms] for t in timings])
    nanoseconds = np.array([1e9 * t.time for t in timings])
    relative = units / nanoseconds[:, None]
    if expected:
        known = [i for i, term in enumerate(terms) if expected.get(term) and term not in STARTING]
        pull = np.zeros((len(known), len(terms)))
        pull[range(len(known)), known] = [1 / expected[terms[i]] for i in known]
        relative = np.vstack([relative, pull])
    scale = np.maximum(relative.max(axis=0), 1e-300)  # units differ by ten orders of magnitude
    count = len(timings)
    weights = np.ones(len(relative))
    weights[count:] = PULL
    for _ in range(ITERATIONS):
        solution, _ = nnls(weights[:, None] * relative / scale, weights)
        off = relative[:count] @ (solution / scale) - 1
        slower, faster = np.maximum(-off, 0), np.maximum(off, 0)  # than the model says
        distrust = np.maximum(slower / DISTURBED, np.sqrt(faster / TYPICAL))
        weights[:count] = 1 / np.maximum(1, distrust)
    constants = solution / scale
    error = float(np.median(np.abs(off)))
    return {term: float(c) for term, c in zip(terms, constants, strict=True)}, error
