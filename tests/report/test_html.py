from html.parser import HTMLParser

from minissl.report import html


class Reader(HTMLParser):
    """Collects tags and text."""

    def __init__(self):
        super().__init__()
        self.tags = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def read(text):
    reader = Reader()
    reader.feed(text)
    return reader


def test_everything_from_outside_is_escaped():
    evil = "<script>alert('x')</script>&\""
    parts = [
        html.heading(evil),
        html.paragraph(evil, evil),
        html.table(evil, [evil], [[evil, evil]], {0: evil}),
        html.folded(evil, evil),
        html.facts({evil: evil}),
    ]
    reader = read(html.page(evil, parts))
    assert "script" not in [tag for tag, _ in reader.tags]
    assert reader.text.count(evil) >= 9


def test_a_table_has_header_cells_for_rows_and_columns():
    reader = read(html.table("what", ["name", "value"], [["a", 1.23456], ["b", None]], {1: "mark"}))
    scopes = [attrs.get("scope") for tag, attrs in reader.tags if tag == "th"]
    assert scopes == ["col", "col", "row", "row"]
    assert [attrs.get("class") for tag, attrs in reader.tags if tag == "tr"] == [None, None, "mark"]
    assert ("caption", {}) in reader.tags
    assert "1.23" in reader.text and "1.2345" not in reader.text and "-" in reader.text


def test_values_are_short():
    assert [html.cell(x) for x in (None, 3, 12345.6, 0.012345, "x")] == [
        "-", "3", "12,346", "0.0123", "x",
    ]  # fmt: skip
