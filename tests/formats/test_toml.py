import pytest

from minissl.errors import ConfigError
from minissl.formats.toml import read_toml


def test_a_file_is_read(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('name = "LeNet é"\nrows = [{ key = 1 }]\n', encoding="utf-8")
    assert read_toml(path) == {"name": "LeNet é", "rows": [{"key": 1}]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = 1\nb = = 2\n", r"a\.toml is not TOML: .*line 2, column 5"),
        (b"a = 1\na = 2\n", "is not TOML: .*line 2"),
        (b'a = "\xff"\n', "is not UTF-8 text"),
        (None, "There is no experiment file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, said):
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        read_toml(path, "experiment file")
    assert "\n" not in str(caught.value)
