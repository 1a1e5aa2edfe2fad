import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.colors import to_hex

from minissl.errors import ConfigError, MinisslError
from minissl.report import pictures, weight_pictures
from minissl.report.runs import Run, read_run
from tests.report.runs import LINES, a_test, display, make_run


def run_of(name, lines=LINES):
    displays = [line for line in lines if "loss" in line]
    return Run(name, None, displays, [line for line in lines if "test" in line])


STAGES = [run_of("dense"), run_of("SSL"), run_of("fine-tuning")]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def data_of(axes, label):
    return [tuple(line.get_xdata()) for line in axes.lines if line.get_label() == label]


def legend_of(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_stages_follow_each_other_on_one_axis():
    figure = pictures.losses(STAGES)
    (axes,) = figure.axes
    assert data_of(axes, "loss of the data") == [(0, 5), (10, 15), (20, 25)]
    assert texts(axes) == ["dense", "SSL", "fine-tuning"]
    assert axes.get_xlim() == pytest.approx((0, 30), abs=1)
    assert axes.get_yscale() == "log"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("iteration", "loss")
    assert legend_of(figure) == ["loss of the data", "regularization R(W)"]


def test_a_stage_too_short_for_its_name_shares_the_place_of_its_neighbour():
    def lasting(name, iterations):
        return run_of(name, [{"iteration": i, "loss": 1.0} for i in (0, iterations)])

    long, ssl, short, last = (
        lasting(*one) for one in (("dense", 64), ("SSL", 20), ("SSL2", 2), ("fine-tuning", 40))
    )
    (axes,) = pictures.losses([long, ssl, short, last]).axes
    assert texts(axes) == ["dense", "SSL, SSL2", "fine-tuning"]
    assert [text.xy[0] for text in axes.texts] == [32, 75, 106]
    (axes,) = pictures.losses([short, long, short]).axes
    assert texts(axes) == ["SSL2, dense, SSL2"]


def test_a_single_run_has_no_stage_names():
    (axes,) = pictures.losses([run_of("dense")]).axes
    assert texts(axes) == []


def test_sparsity_has_a_panel_for_each_layer():
    figure = pictures.sparsity(STAGES)
    assert [axes.get_ylabel() for axes in figure.axes] == ["conv1\nzero, %", "conv2\nzero, %"]
    lines = [line for line in figure.axes[1].lines if line.get_label() == "filters"]
    assert [tuple(line.get_ydata()) for line in lines] == [(0.0, 20.0)] * 3
    assert legend_of(figure) == ["filters", "channels", "columns"]
    assert len(pictures.sparsity(STAGES, layers=["conv2"]).axes) == 1
    assert figure.axes[-1].get_xlabel() == "iteration"


def test_error_is_in_percent_and_an_untrained_network_does_not_squeeze_it():
    (axes,) = pictures.test_error(STAGES).axes
    assert axes.lines[0].get_ydata() == pytest.approx([90, 10])
    assert axes.get_ylim()[1] < 20


def test_runs_are_overlaid():
    runs = [run_of("a"), run_of("b", [display(0), a_test(0, 0.5)])]
    assert legend_of(pictures.overlaid_losses(runs)) == ["a", "b"]
    figure = pictures.overlaid_tests(runs)
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy", "loss"]
    figure = pictures.overlaid_sparsity(runs, "filter")
    assert figure.axes[0].get_title(loc="left") == "Filters that are zero"


def test_dead_filters_are_crossed_frames():
    w = np.ones((12, 1, 3, 3))
    w[4] = 0
    figure = weight_pictures.first_filters({"dense": w, "after": w[:5]})
    headings = [part.get_suptitle() for part in figure.subfigs]
    assert headings == ["conv1, dense: 11 of 12 filters", "conv1, after: 4 of 5 filters"]
    visible = [axes for axes in figure.subfigs[0].axes if axes.get_visible()]
    assert len(visible) == 12
    assert [len(axes.lines) for axes in visible] == [2 if i == 4 else 0 for i in range(12)]
    scales = {axes.images[0].get_clim() for axes in visible if axes.images}
    assert scales == {(-1.0, 1.0)}


def test_filters_of_three_channels_are_in_colour():
    figure = weight_pictures.first_filters({"dense": np.ones((2, 3, 5, 5))})
    assert figure.subfigs[0].axes[0].images[0].get_array().shape == (5, 5, 3)


def test_filter_shapes_count_living_positions_and_channels():
    w = np.zeros((4, 12, 3, 3))
    w[1, 2, 0, 0], w[3, 2, 0, 0], w[0, 11, 2, 1] = 3, 4, -1
    figure = weight_pictures.filter_shapes({"sparse": {"conv2": w, "conv1": np.ones((4, 1, 3, 3))}})
    titles = [part.get_suptitle() for part in figure.subfigs]
    assert titles == [
        "conv2, sparse: 2 of 108 positions, 2 of 12 channels",
        "conv1, sparse: 9 of 9 positions, 1 of 1 channels",
    ]
    third = figure.subfigs[0].axes[2].images[0].get_array()
    assert third[0, 0] == 5 and np.isnan(third.filled(np.nan)).sum() == 8


def test_zero_maps_tell_weights_zeros_and_dead_groups_apart():
    matrix = np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 0]])
    expected = [[2, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert weight_pictures.kinds_of(matrix).tolist() == expected
    figure = weight_pictures.zero_maps(
        {"dense": {"a": matrix + 1, "b": matrix}, "after": {"a": matrix}}
    )
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == ["a, dense", "a, after", "b, dense"]
    assert shown[1].get_xlabel() == "2 of 3 columns"
    assert shown[1].get_ylabel() == "2 of 3\nrows"
    assert np.asarray(shown[1].images[0].get_array()).tolist() == expected
    colours = [to_hex(c) for c in shown[1].images[0].get_cmap().colors]
    assert colours == [weight_pictures.DEAD, weight_pictures.ZERO, weight_pictures.WEIGHT]
    assert legend_of(figure) == ["weight", "single zero", "zero row or column"]


@given(hnp.arrays(np.int8, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 1)))
def test_kinds_agree_with_their_definition(matrix):
    kinds = weight_pictures.kinds_of(matrix)
    for r, c in np.ndindex(*matrix.shape):
        dead = not matrix[r].any() or not matrix[:, c].any()
        assert kinds[r, c] == (0 if dead else 2 if matrix[r, c] else 1)


def test_many_networks_stand_one_below_the_other():
    matrix = np.eye(4)
    names = [str(number) for number in range(6)]
    figure = weight_pictures.zero_maps({name: {"a": matrix, "b": matrix} for name in names})
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [f"{layer}, {name}" for name in names for layer in "ab"]
    figure = weight_pictures.connections_per_input({name: matrix for name in names})
    shown = [axes for axes in figure.axes[:8] if axes.get_visible()]
    assert [axes.get_title(loc="left")[0] for axes in shown] == names


def test_a_map_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="no weight matrices"):
        weight_pictures.zero_maps({"dense": {}})


def test_times_are_bars_of_both_networks():
    times = {
        "dense": {"total_ms": 3.0, "layers": {"conv1": 1.0, "conv2": 2.0}},
        "compacted": {"total_ms": 0.5, "layers": {"conv1": 0.25, "conv2": 0.25}},
    }
    (axes,) = pictures.layer_times(times, 64).axes
    assert [bar.get_width() for bar in axes.patches] == [1.0, 2.0, 0.25, 0.25]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["conv1", "conv2"]
    assert axes.get_title(loc="left") == "Time by layer for 64 images"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["dense: 3 ms in all", "compacted: 0.5 ms in all"]
    assert axes.get_xlabel() == "milliseconds"
    (axes,) = pictures.layer_times({"compacted": times["compacted"]}, 1).axes
    assert [bar.get_width() for bar in axes.patches] == [250, 250]
    assert axes.get_xlabel() == "microseconds"
    assert axes.get_title(loc="left") == "Time by layer for 1 image"


@pytest.mark.parametrize("kind", pictures.FORMATS)
def test_pictures_are_written_with_a_white_ground(tmp_path, kind):
    figure = pictures.losses(STAGES)
    path = pictures.save(figure, tmp_path / f"loss.{kind}")
    content = path.read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
    assert len(content) > 5000
    assert to_hex(figure.get_facecolor(), keep_alpha=True) == "#ffffffff"
    assert (
        pictures.save(pictures.losses(STAGES), tmp_path / f"again.{kind}").read_bytes() == content
    )


def test_unknown_formats_and_missing_folders_are_refused(tmp_path):
    figure = pictures.losses(STAGES)
    with pytest.raises(ConfigError, match="png, svg, pdf"):
        pictures.save(figure, tmp_path / "loss.bmp")
    with pytest.raises(MinisslError, match="folder does not exist"):
        pictures.save(figure, tmp_path / "missing" / "loss.png")


def test_svg_is_one_element_that_refers_to_nothing_outside():
    matrix = np.eye(4)
    svg = pictures.to_svg(weight_pictures.zero_maps({"dense": {"conv1": matrix}}))
    assert svg.startswith("<svg") and svg.rstrip().endswith("</svg>")
    targets = re.findall(r'(?:href|src)="([^"]*)"', svg)
    assert targets and all(target.startswith(("#", "data:")) for target in targets)


def test_a_legend_stays_within_the_picture():
    points = [(f"a network whose name is {'very ' * 6}long, {n}", 10.0, 1.0) for n in range(3)]
    figure = pictures.error_over_flops(points, [])
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width


def test_drawing_leaves_matplotlib_as_it_was(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    run = read_run(make_run(tmp_path / "run"))
    pictures.losses([run])
    weight_pictures.zero_maps({"end": run.matrices()})
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("share", "tick"), [(52, 50), (50, 50), (8, 5), (2.5, 2), (0.15, 0.1)])
def test_the_axis_of_flop_has_a_number_below_the_smallest(share, tick):
    figure = pictures.error_over_flops([("dense", 100, 9), ("small", share, 10)], [])
    axes = figure.axes[0]
    assert tick in [pytest.approx(one) for one in axes.get_xticks()]
    assert 0.9 * tick < axes.get_xlim()[0] < tick
