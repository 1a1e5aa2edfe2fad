"""What ``minissl time`` prints: a table for every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from minissl.cli import options
from minissl.timing import ALL, BASELINE, LayerTime, NetTime
from minissl.timing.measurements import UPDATE
from minissl.timing.predictions import TOLERANCE


def show(results: Sequence[Mapping[str, Any]], times: Sequence[NetTime]) -> None:
    """Print the table of each run; of several runs their totals below each other at last."""
    for result, run in zip(results, times, strict=True):
        _show_run(result, run)
    if results[0]["weights"] == "random":
        click.echo("random dense weights: give --weights or --matrices to see what zeros save")
    if len(results) > 1:
        headings = ["batch size", "threads", "total ms", "ms for an image", "peak GFLOP/s"]
        rows = [
            [
                one["batch_size"],
                one["threads"],
                one["total_ms"],
                one["total_ms"] / one["batch_size"],
                one["peak_gflops"],
            ]
            for one in results
        ]
        click.echo()
        options.show_table(options.table(headings, rows, names=0))


def _show_run(result: Mapping[str, Any], times: NetTime) -> None:
    """Print a table, with speed-ups where the baseline was timed as well."""
    backward = any(one.backward_ms is not None for one in times.layers)
    compared = bool(times.totals)
    headings = ["layer", "type or mode", "lowering", "product", "rest", "total ms", "quartiles"]
    headings += ["share %", "eff.", "real GFLOP/s", "% of peak"]
    headings += ["predicted"] if times.choices else []
    headings += ["backward"] if backward else []
    headings += ["x product", "x layer"] if compared else []
    baseline = {
        part.name: part
        for one in times.measured
        if one.conv_mode == BASELINE
        for part in (one, *one.groups)
    }
    rows = []
    for one in times.layers:
        for part in (one, *one.groups):
            row = [
                *_names(part, one),
                part.lowering_ms,
                part.product_ms,
                part.rest_ms,
                part.total_ms if part.timed and not part.fused_into and part.total_ms else None,
                _quartiles(part),
                _percent(times.share_percent(one)) if part is one else None,
                part.effective_gflops,
                part.real_gflops,
                _percent(part.percent_of_peak),
            ]
            if times.choices:
                row.append(times.predicted_ms(one) if part is one else None)
            row += [part.backward_ms] if backward else []
            row += list(_speed_ups(part, baseline.get(part.name))) if compared else []
            rows.append(row)
        if one.groups:
            sums = one.groups_sum.values()
            lowering, product, total = sums
            row = ["  sum of groups", "", lowering, product, None, total]
            rows.append([*row, *[None] * (len(headings) - len(row))])
    options.show_table(options.table(headings, rows, names=2))
    threads = "1 thread" if result["threads"] == 1 else f"{result['threads']} threads"
    click.echo(
        f"total {times.total_ms:.4g} ms for a batch of {result['batch_size']}, {threads}, "
        f"{result['backend']}, {result['dtype']}, weights: {result['weights']}"
    )
    if backward:
        _show_training(times)
    if result["peak_gflops"]:
        click.echo(f"dense products reach {result['peak_gflops']:.4g} GFLOP/s here ({threads})")
    for mode, milliseconds in result["totals"].items():
        click.echo(f"  {mode:14} {milliseconds:9.4g} ms")
    if times.choices:
        _show_picks(times, bool(result["calibrated"]))


def _show_training(times: NetTime) -> None:
    """Say how a training iteration divides into its parts."""
    parts = [(one.name == UPDATE, one.backward_ms or 0.0) for one in times.layers]
    update = sum(ms for is_update, ms in parts if is_update)
    backward = sum(ms for is_update, ms in parts if not is_update)
    click.echo(
        f"a training iteration: forward {times.total_ms:.4g} ms, backward {backward:.4g} ms, "
        f"update {update:.4g} ms, together {times.total_ms + backward + update:.4g} ms"
    )


def _show_picks(times: NetTime, calibrated: bool) -> None:
    """Say what AUTO picks and, where every mode was measured, how good its picks are."""
    if times.asked == ALL:
        picks = times.picks
        good = sum(pick.is_good for pick in picks)
        click.echo(
            f"auto picks a mode within {100 * TOLERANCE:.0f} % of the fastest for {good} of "
            f"{len(picks)} layers"
        )
        for pick in picks:
            how = "the fastest" if pick.mode == pick.fastest else f"fastest: {pick.fastest}"
            mark = "" if pick.is_good else f"  <- more than {100 * TOLERANCE:.0f} % slower"
            click.echo(f"  {pick.name:12} {pick.mode:14} {100 * pick.excess:+6.1f} %, {how}{mark}")
    else:
        click.echo("auto: the performance model picked the mode of each layer, without measuring")
    if not calibrated:
        click.echo("its constants are built in; measure this machine: minissl doctor --calibrate")


def _names(part: LayerTime, layer: LayerTime) -> tuple[str, str]:
    """Return a layer's name and mode; a conv group's stands below them."""
    if part.fused_into:
        return part.name, f"{part.type} (in {part.fused_into})"
    if part is layer:
        timed = "" if part.timed else " (not timed)"
        return part.name, (part.conv_mode or part.type) + timed
    return f"  {part.name}", "conv group"


def _quartiles(one: LayerTime) -> str | None:
    both = one.quartiles_ms.get("total")
    return both and " - ".join(options.cell(value) for value in both)


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def _speed_ups(one: LayerTime, baseline: LayerTime | None) -> tuple[float | None, float | None]:
    """Return how many times faster than LOWERED_GEMM the product and the layer are."""
    if baseline is None or one.conv_mode is None:
        return None, None
    product = None
    if one.product_ms and baseline.product_ms:
        product = baseline.product_ms / one.product_ms
    return product, baseline.total_ms / one.total_ms if one.total_ms else None
