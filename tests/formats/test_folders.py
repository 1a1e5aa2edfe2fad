"""Folders are made, or refused in one sentence."""

import pytest

from minissl.errors import MinisslError
from minissl.formats.folders import make_folder


def test_a_folder_and_those_above_it(tmp_path):
    folder = tmp_path / "a" / "b"
    assert make_folder(str(folder)) == folder and folder.is_dir()
    assert make_folder(folder) == folder  # again, where it is there


def test_what_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MinisslError, match=r"^Cannot make the folder .*file.b \(.+\); ask me\.$"):
        make_folder(tmp_path / "file" / "b", "ask me")
