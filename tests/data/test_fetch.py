"""Downloads, from a small HTTP server on this machine."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import io
import os
import sys
import tarfile
import threading

import pytest

from minissl.data import catalogue, fetch
from minissl.data.catalogue import Archive, Entry, File
from minissl.errors import DataError, DependencyError

pytest.importorskip("pooch")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def tar_gz(members):
    """A compressed tar; a value is the content of a file, or a TarInfo to be taken as it is."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


class Server:
    """Serves ``pages`` ({path: bytes}) and remembers what was asked for."""

    def __init__(self):
        self.pages = {}
        self.asked = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                content = outer.pages.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


CONTENTS = {"toy/one": b"first file " * 1000, "toy/two": b"second"}


def install(monkeypatch, entry):
    monkeypatch.setitem(catalogue.CATALOGUE, entry.name, entry)


@pytest.fixture
def toy(monkeypatch, server):
    """A data set of two .gz files, on the second of two mirrors."""
    archives = []
    for path, content in CONTENTS.items():
        packed = gzip.compress(content, mtime=0)
        name = f"{path.split('/')[1]}.gz"
        server.pages[f"/b/{name}"] = packed
        file = File(path, len(content), sha256(content))
        archives.append(Archive(name, sha256(packed), (file,)))
    mirrors = (f"{server.url}/a/", f"{server.url}/b/")
    entry = Entry("toy", (1, 1, 1), ("0",), mirrors, tuple(archives))
    install(monkeypatch, entry)
    return entry


def tar_entry(monkeypatch, server, packed, contents):
    server.pages["/toy.tar.gz"] = packed
    files = tuple(File(path, len(content), sha256(content)) for path, content in contents.items())
    archive = Archive("toy.tar.gz", sha256(packed), files)
    install(monkeypatch, Entry("toy", (1, 1, 1), ("0",), (f"{server.url}/",), (archive,)))


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_mirrors_are_tried_in_turn(toy, server, tmp_path):
    lines = []
    placed = fetch.fetch("toy", tmp_path, tell=lines.append)
    assert placed == [tmp_path / "toy/one", tmp_path / "toy/two"]
    for path, content in CONTENTS.items():
        assert (tmp_path / path).read_bytes() == content
    assert server.asked == ["/a/one.gz", "/b/one.gz", "/a/two.gz", "/b/two.gz"]
    assert lines[0] == f"downloading {server.url}/a/one.gz"
    assert listing(tmp_path) == ["toy/one", "toy/two"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".fetch")]
    assert fetch.verify("toy", tmp_path) == {"toy/one": "ok", "toy/two": "ok"}


def test_mode_of_the_files_follows_the_umask(toy, tmp_path):
    old = os.umask(0o027)
    try:
        fetch.fetch("toy", tmp_path)
    finally:
        os.umask(old)
    assert (tmp_path / "toy/one").stat().st_mode & 0o777 == 0o640


def test_only_what_is_missing_or_damaged_is_fetched(toy, server, tmp_path):
    fetch.fetch("toy", tmp_path)
    server.asked.clear()
    assert fetch.fetch("toy", tmp_path) == []
    assert server.asked == []
    (tmp_path / "toy/two").write_bytes(b"seconD")
    assert fetch.verify("toy", tmp_path) == {"toy/one": "ok", "toy/two": "damaged"}
    (tmp_path / "toy/two").write_bytes(b"sec")
    assert fetch.verify("toy", tmp_path)["toy/two"] == "damaged"
    assert fetch.fetch("toy", tmp_path) == [tmp_path / "toy/two"]
    (tmp_path / "toy/one").unlink()
    assert fetch.verify("toy", tmp_path) == {"toy/one": "missing", "toy/two": "ok"}


def test_a_compressed_file_counts_by_its_own_sum(toy, server, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/one.gz").write_bytes(server.pages["/b/one.gz"])
    (tmp_path / "toy/two.gz").write_bytes(b"something else")
    assert fetch.verify("toy", tmp_path) == {"toy/one": "ok", "toy/two": "damaged"}


def test_wrong_bytes_at_one_mirror_are_not_taken(toy, server, tmp_path):
    server.pages["/a/one.gz"] = gzip.compress(b"something else")
    server.pages["/a/two.gz"] = server.pages["/b/two.gz"][:-3]
    fetch.fetch("toy", tmp_path)
    assert set(fetch.verify("toy", tmp_path).values()) == {"ok"}


def test_wrong_bytes_everywhere(toy, server, tmp_path):
    server.pages["/b/two.gz"] = b"something else"
    with pytest.raises(DataError) as caught:
        fetch.fetch("toy", tmp_path)
    sentence = str(caught.value)
    assert f"{server.url}/a/two.gz: HTTP status 404" in sentence
    assert f"{server.url}/b/two.gz: the bytes are not the published ones" in sentence
    assert "minissl data fetch toy" in sentence and str(tmp_path / "toy") in sentence
    assert listing(tmp_path) == ["toy/one"]  # the whole file stays, nothing half-written is there
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_offline(toy, server, tmp_path):
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(DataError, match=r"not reachable.*go online and repeat 'minissl data fetch"):
        fetch.fetch("toy", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_interrupted(toy, monkeypatch, tmp_path):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "_sha256", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch("toy", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(toy, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(DataError, match=r"cannot be written to .*MINISSL_DATA"):
        fetch.fetch("toy", file)
    with pytest.raises(DataError, match="cannot be written to"):
        fetch.fetch("toy", file / "below")


def test_disk_full(toy, monkeypatch, tmp_path):
    def full(source, target, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch, "_copy_exactly", full)
    with pytest.raises(DataError, match=r"No space left on device\); make room"):
        fetch.fetch("toy", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unpacked_bytes_are_checked_too(toy, monkeypatch, tmp_path):
    (first, second) = toy.archives
    for change in ({"sha256": sha256(b"x")}, {"size": 5}, {"size": 7}):
        wrong = dataclasses.replace(second.files[0], **change)
        archives = (first, dataclasses.replace(second, files=(wrong,)))
        install(monkeypatch, dataclasses.replace(toy, archives=archives))
        with pytest.raises(DataError, match="'toy/two' did not come out of the archive"):
            fetch.fetch("toy", tmp_path)
        assert listing(tmp_path) == ["toy/one"]


def test_an_archive_that_is_no_archive(toy, server, monkeypatch, tmp_path):
    server.pages["/b/two.gz"] = b"plain text"
    wrong = dataclasses.replace(toy.archives[1], sha256=sha256(b"plain text"))
    install(monkeypatch, dataclasses.replace(toy, archives=(wrong,)))
    with pytest.raises(DataError, match="did not come out of the archive"):
        fetch.fetch("toy", tmp_path)


def test_tar(server, monkeypatch, tmp_path):
    packed = tar_gz([("toy/readme.html", b"not wanted"), *reversed(CONTENTS.items())])
    tar_entry(monkeypatch, server, packed, CONTENTS)
    assert fetch.fetch("toy", tmp_path) == [tmp_path / "toy/one", tmp_path / "toy/two"]
    assert listing(tmp_path) == ["toy/one", "toy/two"]
    (tmp_path / "toy/one").unlink()
    assert fetch.fetch("toy", tmp_path) == [tmp_path / "toy/one"]


def test_tar_without_a_wanted_file_installs_nothing(server, monkeypatch, tmp_path):
    packed = tar_gz([("toy/one", CONTENTS["toy/one"])])
    tar_entry(monkeypatch, server, packed, CONTENTS)
    with pytest.raises(DataError, match="'toy/two' did not come out"):
        fetch.fetch("toy", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tar_cut_short_installs_nothing(server, monkeypatch, tmp_path):
    packed = tar_gz(CONTENTS.items())
    for length in (0, 10, len(packed) // 2, len(packed) - 9):
        tar_entry(monkeypatch, server, packed[:length], {"toy/one": CONTENTS["toy/one"] + b"."})
        with pytest.raises(DataError, match="'toy/one' did not come out"):
            fetch.fetch("toy", tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_tar_that_reaches_outside(server, monkeypatch, tmp_path):
    link = tarfile.TarInfo("toy/one")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    packed = tar_gz(
        [
            ("../outside", b"bad"),
            (str(tmp_path / "absolute"), b"bad"),
            ("toy/one", link),
            *CONTENTS.items(),
        ]
    )
    tar_entry(monkeypatch, server, packed, CONTENTS)
    folder = tmp_path / "data"
    fetch.fetch("toy", folder)
    assert listing(tmp_path) == ["data/toy/one", "data/toy/two"]
    assert not (folder / "toy/one").is_symlink()


def test_progress_bar_sees_the_bytes(toy, tmp_path):
    class Bar:
        total = 0
        seen = 0

        def update(self, count):
            self.seen += count

        def reset(self):
            pass

        def close(self):
            pass

    bar = Bar()
    fetch.fetch("toy", tmp_path, progress=bar)
    assert bar.seen > 0 and bar.total > 0


def test_without_pooch(toy, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DependencyError, match="pip install 'pooch'"):
        fetch.fetch("toy", tmp_path)


def test_names(tmp_path):
    assert fetch.fetchable() == ["mnist", "fashion-mnist", "cifar10"]
    assert fetch.verify("mnist-small", tmp_path) == {}
    assert fetch.fetch("mnist-small", tmp_path) == []
    assert set(fetch.verify("cifar10", tmp_path).values()) == {"missing"}
    for function in (fetch.fetch, fetch.verify):
        with pytest.raises(DataError, match="unknown data set 'imagenet'"):
            function("imagenet", tmp_path)
