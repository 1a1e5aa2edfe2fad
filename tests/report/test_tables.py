from minissl.recipes.paper import LENET_TABLE_1
from minissl.report import tables
from minissl.report.runs import read_run
from tests.report.runs import make_run


def layer(name, filters, channels, columns, percent):
    return {
        "name": name,
        "filters": filters,
        "channels": channels,
        "columns": columns,
        "flops_percent": percent,
    }


RESULT = {
    "rows": [
        {
            "name": "dense",
            "error": 0.025,
            "layers": [layer("conv1", 20, 1, 25, 100.0), layer("conv2", 50, 20, 500, 100.0)],
            "flops_percent": 100.0,
            "ms": {"1": 0.5, "64": 12.0},
            "bytes": 1725000,
        },
        {
            "name": "compacted",
            "error": 0.023,
            "layers": [layer("conv1", 4, 1, 25, 20.0), layer("conv2", 19, 4, 100, 7.6)],
            "flops_percent": 15.55,
            "ms": {"64": 3.0},
            "bytes": 650000,
        },
    ],
    "paper": LENET_TABLE_1,
    "times": {
        "64": {
            "dense": {"total_ms": 12.0, "layers": {"conv1": 4.0, "conv2": 8.0}},
            "compacted": {"total_ms": 3.0, "layers": {"conv1": 1.0, "conv2": 1.0}},
        }
    },
}


def test_rows_are_written_as_the_paper_does():
    rows = tables.demo_rows({**RESULT, "times": {"1": {}, "64": {}}})
    assert rows[0][:7] == ["dense", "2.5", "20-50", "1-20", "25-500", "100-100", "100"]
    assert rows[1][:7] == ["compacted", "2.3", "4-19", "1-4", "25-100", "20-7.6", "16"]
    assert rows[0][7:] == ["0.5", "12", "1,725 kB"]
    assert rows[1][7:] == [None, "3", "650 kB"]


def test_headings_and_rows_have_the_same_number_of_cells():
    for rows in (tables.demo_rows(RESULT), tables.paper_rows(RESULT)):
        assert {len(row) for row in rows} == {len(tables.demo_headings(RESULT))}
    assert {len(row) for row in tables.time_rows(RESULT)} == {len(tables.time_headings(RESULT))}


def test_the_paper_s_rows_are_labelled_and_as_published():
    rows = tables.paper_rows(RESULT)
    assert [row[:6] for row in rows] == [
        ["paper's LeNet 1", "0.9", "20-50", "1-20", None, "100-100"],
        ["paper's LeNet 2", "0.8", "5-19", "1-4", None, "25-7.6"],
        ["paper's LeNet 3", "1.0", "3-12", "1-3", None, "15-3.6"],
    ]


def test_speed_ups_are_ratios_of_the_first_and_the_last_row():
    assert tables.speed_ups(RESULT) == {"64": {"conv1": 4.0, "conv2": 8.0, "all": 4.0}}
    assert tables.time_rows(RESULT) == [
        ["conv1", 4.0, 1.0, 4.0],
        ["conv2", 8.0, 1.0, 8.0],
        ["whole network", 12.0, 3.0, 4.0],
    ]


def test_rows_of_a_run_are_those_of_its_last_display(tmp_path):
    rows = tables.run_rows(read_run(make_run(tmp_path / "run")))
    assert rows == [["conv1", *[40.0] * 4], ["conv2", *[20.0] * 4]]
    assert {len(row) for row in rows} == {len(tables.run_headings())}
