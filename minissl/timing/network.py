"""Time every layer of a network, all of them and all their modes by turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from minissl import backend as backends
from minissl.errors import ConfigError
from minissl.net import Net
from minissl.timing.measurements import BASELINE, UPDATE, LayerTime
from minissl.timing.modes import modes_of, trained_modes
from minissl.timing.peak import Peak
from minissl.timing.steps import Timed, TimedMode, update_time
from minissl.timing.stopwatch import Stopwatch
from minissl.timing.update import TimedUpdate


def feed_random(net: Net, seed: int = 0) -> None:
    """Fill the tops of all data layers: images with numbers from 0 to 1, labels with 0."""
    rng = np.random.default_rng(seed)
    for layer in net.layers:
        if not layer.is_data:
            continue
        for blob in net.bottoms_and_tops(layer)[1]:
            values = rng.random(blob.shape) if len(blob.shape) > 1 else np.zeros(blob.shape)
            blob.data[...] = net.kernels.xp.asarray(values.astype(net.dtype))


def time_net(
    net: Net,
    modes: Mapping[str, Sequence[str]] | None = None,
    iterations: int = 50,
    backward: bool = False,
    tick: Callable[[], Any] | None = None,
    groups: bool = False,
    peak: bool = False,
) -> list[LayerTime]:
    """Time every layer of a network.

    Parameters
    ----------
    net : Net
        With weights; its layers dense (:func:`without_modes`), so that any mode can be timed.
    modes : dict, optional
        Modes to time, by layer; LOWERED_GEMM where nothing is said.
    iterations : int
        Rounds, of which the median is taken. One more round runs first, to warm up and to compile.
    backward : bool
        Time the backward pass of each layer as well, and the update of all parameters.
    tick : callable, optional
        Called after each round.
    groups : bool
        Time every conv group of a convolution by itself as well.
    peak : bool
        Measure what the machine reaches in dense products, before the rounds and after them.

    Returns
    -------
    list of LayerTime
        In the order of the steps, one entry for each mode of a layer. Split layers are part of it,
        and so are layers fused to another. With ``backward`` the last entry is the update.

    Raises
    ------
    ConfigError
        For an unknown mode.
    """
    feed_random(net)
    watch = Stopwatch(net.kernels)
    steps = _forward_steps(net, modes or {}, groups)
    update = TimedUpdate(net) if backward else None
    best = Peak(net.kernels, net.dtype) if peak else None
    with backends.single_threaded_blas():
        if best:
            best.measure()
        for round_number in range(iterations + 1):
            if round_number == 1:
                watch.forget()
            net.forget()
            for step in steps:
                step.run(watch)
            if update:
                with watch.measure((UPDATE, "backward")):
                    update.once()  # by the gradients of the round before, so that these stay
                _run_backward(net, watch)
            if tick:
                tick()
        if best:
            best.measure()
    measured = []
    peak_gflops = best.gflops if best else None
    for timed, following in zip(steps, [*steps[1:], None], strict=True):
        measured.append(timed.result(watch, peak_gflops))
        if following is None or following.step is not timed.step:  # the last of its modes
            measured += timed.fused_results(watch, peak_gflops)
    if update:
        measured.append(update_time(watch))
    return measured


def time_passes(net: Net, without: Sequence[str] = (), iterations: int = 50) -> float:
    """Time whole forward passes, every step as the network runs it.

    Parameters
    ----------
    net : Net
        With weights.
    without : sequence of str
        Types of layers that do not count, beside data layers.
    iterations : int
        Passes, of which the median is taken; one more runs first, to warm up and to compile.

    Returns
    -------
    float
        Milliseconds.
    """
    feed_random(net)
    net.prepare()
    watch = Stopwatch(net.kernels)
    steps = [s for s in net.steps if not s.layer.is_data and s.layer.type_name not in without]
    with backends.single_threaded_blas():
        for number in range(iterations + 1):
            net.forget()
            with watch.measure("warm" if number else "first"):
                for step in steps:
                    step.forward()
    return float(watch.median_ms("warm") or 0.0)


def _forward_steps(net: Net, modes: Mapping[str, Sequence[str]], groups: bool) -> list[Timed]:
    steps: list[Timed] = []
    trained = trained_modes(net)
    for step in net.steps:
        layer = step.layer
        offered = modes_of(layer)
        if not offered:
            steps.append(Timed(net, step))
            continue
        wanted = modes.get(layer.name) or (trained.get(layer.name, BASELINE),)
        unknown = [mode for mode in wanted if mode not in offered]
        if unknown:
            raise ConfigError(
                f"layer '{layer.name}': conv_mode {unknown[0]} cannot be timed; "
                f"choose one of {', '.join(offered)}"
            )
        steps += [TimedMode(net, step, mode, groups) for mode in wanted]
    return steps


def _run_backward(net: Net, watch: Stopwatch) -> None:
    """Run the backward pass step by step, as :meth:`minissl.net.Net.backward` does."""
    net.clear_gradients()
    for step in reversed(net.steps):
        if any(net.runs_backward(layer) for layer in step.layers):
            with watch.measure((step.layer.name, "backward")):
                net.backward_step(step)
