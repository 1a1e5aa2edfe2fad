"""``report.html``: one page that needs nothing beside it, about a demo or one training run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minissl import doctor
from minissl.errors import ConfigError
from minissl.formats.atomic import atomic_write
from minissl.report import html, pictures, tables, weight_pictures
from minissl.report.demo import (
    CONVOLUTIONS,
    first_filters,
    is_demo,
    matrices,
    read_result,
    read_stages,
)
from minissl.report.runs import Run, read_run

PAGE = "report.html"


def write_report(folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the page about a demo folder or a run folder; return its path.

    Raises
    ------
    ConfigError
        When the folder is neither, or is incomplete.
    MinisslError
        When a file is damaged, or the page cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; name one that demo or train has written")
    text = demo_page(folder) if is_demo(folder) else run_page(folder)
    path = Path(out) if out is not None else folder / PAGE
    with atomic_write(path) as file:
        file.write(text.encode())
    return path


# --- a demo ---


def demo_page(folder: Path) -> str:
    """Return the page about a demo."""
    result = read_result(folder)
    runs = read_stages(folder)
    parts = [*_summary(result), *_demo_table(result)]
    parts += [
        *_demo_weights(result, runs),
        *_course(runs, "accuracy", CONVOLUTIONS),
        *_times(result),
    ]
    parts += [*_settings({run.folder.name: run for run in runs}), *_machine(result)]
    return html.page("Structured sparsity on LeNet, from dense to compact", parts)


def _summary(result: Mapping[str, Any]) -> list[str]:
    dense, compact = result["rows"][0], result["rows"][-1]
    last = {layer["name"]: layer for layer in compact["layers"]}
    first = {layer["name"]: layer for layer in dense["layers"]}
    kept = " and ".join(
        f"{last[name]['filters']} of {first[name]['filters']} filters in {name}"
        for name in CONVOLUTIONS
    )
    times = tables.speed_ups(result)
    size, ratios = list(times.items())[-1]
    text = (
        "LeNet was trained on handwritten digits, then trained on with group Lasso, which drives "
        "whole filters and channels of its convolutions to zero, and fine-tuned with these zeros "
        f"frozen. What had become zero was taken out: {kept} are left, conv2 needs "
        f"{100 / max(last['conv2']['flops_percent'], 1e-9):.1f} times fewer operations, and the "
        f"network runs {ratios['all']:.1f} times as fast on batches of {size} images. "
        f"Its error on the test digits is {100 * compact['error']:.1f} %, that of the dense "
        f"network {100 * dense['error']:.1f} %."
    )
    parts = [html.paragraph(text, "lead")]
    if result.get("fast"):
        warning = "This run was made with --fast: it only shows that everything works."
        parts.insert(0, html.paragraph(warning, "note"))
    return parts


def _demo_table(result: Mapping[str, Any]) -> list[str]:
    rows = [*tables.demo_rows(result), *tables.paper_rows(result)]
    kinds = {3: "result", **{number: "paper" for number in range(4, len(rows))}}
    explained = (
        "Filters, channels and columns are those that are not zero as a whole, in conv1-conv2. "
        "FLOP are those of the network that is left when dead filters and the channels that "
        "would read them are gone, in percent of the dense layer. Rows in italics are the "
        f"paper's (Table 1), for {result['paper'][0]['data']}; ours are for the 5,000 + 1,000 "
        "digits that come with minissl, so the errors cannot be compared with each other."
    )
    proof = result["compaction"]
    shown = (
        f"The outputs of the compacted network differ from those of the fine-tuned one by at most "
        f"{proof['max_abs_difference']:.1e}, on random and on real inputs; outputs go up to "
        f"{proof['largest_output']:.3g}."
    )
    return [
        html.heading("The result"),
        html.table("From dense to compact", tables.demo_headings(result), rows, kinds),
        html.paragraph(explained, "note"),
        html.paragraph(shown, "note"),
    ]


def _demo_weights(result: Mapping[str, Any], runs: list[Run]) -> list[str]:
    return [
        html.heading("What became zero"),
        html.picture(
            weight_pictures.first_filters(first_filters(runs)),
            "The filters of conv1 in the dense network and after fine-tuning, as pictures.",
            "The 5 x 5 filters of conv1; blue is negative, red positive. Crossed frames are "
            "filters that group Lasso has removed." + _unread(result),
        ),
        html.picture(
            weight_pictures.zero_maps(matrices(runs)),
            "Maps of the weight matrices, dense and fine-tuned: weights, single zeros, and rows "
            "and columns that are zero.",
            "The weight matrices: a row is a filter, a column one input position of all filters. "
            "In conv2 whole rows (filters) and blocks of 25 columns (the 5 x 5 positions of a "
            "channel) are gone. Nothing pushes ip1 to zero; its columns that would read a dead "
            "filter of conv2 leave when the network is compacted.",
        ),
    ]


def _unread(result: Mapping[str, Any]) -> str:
    """Say how many filters of conv1 are not zero, and still leave since no channel reads them."""
    tuned, compact = (row["layers"][0]["filters"] for row in result["rows"][2:])
    if tuned == compact:
        return ""
    return (
        f" Of the {tuned} that are not zero, {tuned - compact} left at compaction, since conv2 "
        "no longer reads them."
    )


def _times(result: Mapping[str, Any]) -> list[str]:
    parts = [
        html.heading("Time by layer"),
        html.table(
            f"Milliseconds for one batch, threads: {result['threads']}, backend: "
            f"{result['backend']}; medians, both networks by turns; without accuracy and loss",
            tables.time_headings(result),
            tables.time_rows(result),
            {len(tables.time_rows(result)) - 1: "result"},
        ),
    ]
    for size, times in result["times"].items():
        parts.append(
            html.picture(
                pictures.layer_times(times, int(size)),
                f"Bars: milliseconds of each layer, dense and compacted, batch size {size}.",
                f"Time of each layer before and after, batch size {size}."
                + (" For one image the fixed cost of a call weighs most." if size == "1" else ""),
            )
        )
    return parts


def _machine(result: Mapping[str, Any]) -> list[str]:
    seconds = {stage["name"]: f"{stage['seconds']:.1f} s" for stage in result["stages"]}
    return [
        html.heading("Where and how"),
        html.facts(
            {
                "machine": result["machine"],
                "threads": result["threads"],
                "backend": result["backend"],
                "seed": result["seed"],
                **{f"stage {name}": text for name, text in seconds.items()},
                **result["versions"],
            }
        ),
    ]


# --- any training run ---


def run_page(folder: Path) -> str:
    """Return the page about one training run."""
    run = read_run(folder)
    parts = [html.paragraph(_about(run), "lead"), html.heading("The result")]
    if run.tests:
        last = run.tests[-1]
        rows = [[name, value] for name, value in last["test"].items()]
        caption = f"Test outputs after {last['iteration']} iterations"
        parts.append(html.table(caption, ["output", "mean"], rows))
    if tables.run_rows(run):
        caption = f"Zeros at iteration {run.displays[-1]['iteration']}"
        parts.append(html.table(caption, tables.run_headings(), tables.run_rows(run)))
    parts += _course([run], "", ())
    parts += [*_run_weights(run), *_settings({run.name: run})]
    parts += [
        html.heading("Where this page was made"),
        html.facts({"machine": doctor.machine_in_words(), **doctor.versions()}),
    ]
    return html.page(f"Training run {run.name}", parts)


def _about(run: Run) -> str:
    text = f"{run.last_iteration} iterations of training are in the log of {run.name}."
    if run.displays:
        first, last = run.displays[0], run.displays[-1]
        text += f" The loss went from {first['loss']:.3g} to {last['loss']:.3g}."
    tests = [line for line in run.tests if "accuracy" in line["test"]]
    if tests:
        error = 100 * (1 - tests[-1]["test"]["accuracy"])
        after = tests[-1]["iteration"]
        text += f" The last test, after iteration {after}, has an error of {error:.2f} %."
    return text


def _run_weights(run: Run) -> list[str]:
    weights = run.weights()
    if not weights:
        return []
    parts = [html.heading("The weights")]
    first = next(((n, b[0]) for n, b in weights.items() if b and b[0].ndim == 4), None)
    if first is not None:
        name, w = first
        parts.append(
            html.picture(
                weight_pictures.first_filters({"at the end": np.asarray(w)}, name),
                f"The filters of {name} as pictures.",
                f"The filters of {name}; blue is negative, red positive. A crossed frame is a "
                "filter without weights.",
            )
        )
    parts.append(
        html.picture(
            weight_pictures.zero_maps({"at the end": run.matrices()}),
            "Maps of the weight matrices: weights, single zeros, zero rows and columns.",
            "The weight matrices: a row is a filter, a column one input position of all filters.",
        )
    )
    return parts


# --- both ---


def _course(runs: list[Run], accuracy: str, layers: tuple[str, ...]) -> list[str]:
    """Draw how training went."""
    several = len(runs) > 1
    marks = " Vertical lines are the borders between the stages." if several else ""
    parts = [html.heading("How training went")]
    if any(run.displays for run in runs):
        parts += [
            html.picture(
                pictures.losses(runs),
                "Loss of the data and regularization over the iterations, on a logarithmic scale.",
                "Loss and regularization of the batch at each displayed iteration." + marks,
            ),
            html.picture(
                pictures.sparsity(runs, layers),
                "Percentage of filters, channels and columns that are zero, over the iterations.",
                "How many groups of weights are zero as a whole."
                + (" They die during SSL, and stay dead during fine-tuning." if several else "")
                + marks,
            ),
        ]
    if several and any(accuracy in line["test"] for run in runs for line in run.tests):
        parts.append(
            html.picture(
                pictures.test_error(runs),
                "Error on the test digits over the iterations.",
                "Error on the test digits. Groups that die cost accuracy; fine-tuning is there to "
                "win it back." + marks,
            )
        )
    elif not several and runs[0].tests:
        parts.append(
            html.picture(
                pictures.overlaid_tests(runs),
                "Outputs of the test network over the iterations.",
                "Means of the outputs of the test network.",
            )
        )
    return parts


def _settings(runs: Mapping[str, Run]) -> list[str]:
    if not any(run.settings for run in runs.values()):
        return []
    parts = [html.heading("The exact settings")]
    for name, run in runs.items():
        parts += [html.folded(f"{name}: {file}", text) for file, text in run.settings.items()]
    return parts
