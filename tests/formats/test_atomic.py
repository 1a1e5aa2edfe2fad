from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minissl.errors import MinisslError
from minissl.formats.atomic import atomic_write


def temporaries(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if ".tmp-" in name]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"old")
    return path


def test_replaces_the_file_at_the_end_of_the_block(old: Path) -> None:
    with atomic_write(old) as file:
        file.write(b"new")
        file.flush()
        assert old.read_bytes() == b"old"
        assert temporaries(old.parent) == [f".weights.bin.tmp-{os.getpid()}"]
    assert old.read_bytes() == b"new"
    assert temporaries(old.parent) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_interruption_leaves_the_old_file(old: Path, interruption: type[BaseException]) -> None:
    with pytest.raises(interruption), atomic_write(old) as file:
        file.write(b"half of")
        raise interruption
    assert old.read_bytes() == b"old"
    assert temporaries(old.parent) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_mode_follows_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "file") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_a_symbolic_link_is_followed(old: Path) -> None:
    link = old.with_name("latest")
    link.symlink_to(old)
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert old.read_bytes() == b"new"


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_or_failing_disk_keeps_the_old_file(
    old: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    if step != "write":
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(MinisslError) as raised, atomic_write(old) as file:
        file.write(b"new")
        if step == "write":
            fail()
    message = str(raised.value)
    assert message.startswith(f"{os.strerror(number)} while writing {old}; ")
    assert "the previous file is untouched" in message
    assert old.read_bytes() == b"old"
    assert temporaries(old.parent) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_really_full_device(tmp_path: Path) -> None:
    with (
        pytest.raises(MinisslError, match="No space left on device while writing /dev/full; free"),
        atomic_write("/dev/full") as file,
    ):
        file.write(b"x" * 100_000)
    assert os.path.exists("/dev/full")


@pytest.mark.skipif(os.name != "posix", reason="needs /dev/null")
def test_a_device_is_written_not_replaced() -> None:
    with atomic_write("/dev/null") as file:
        file.write(b"gone")
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_may_not_be_written(
    old: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: object, *arguments: object, **names: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(MinisslError, match=r"untouched; choose another folder\.$"):
        atomic_write(old).__enter__()
    assert old.read_bytes() == b"old"


def test_missing_folder_file_as_folder_and_folder_as_file(old: Path) -> None:
    cases = {
        old.parent / "none" / "file": "its folder does not exist",
        old / "file": "a part of the path is a file",
        old.parent: "it is a folder",
        old.parent / "a\0b": "no NUL characters",
    }
    for path, expected in cases.items():
        with pytest.raises(MinisslError, match=expected), atomic_write(path) as file:
            file.write(b"x")


def test_errors_about_other_files_pass_through(old: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(old):
        open(old.parent / "missing")  # noqa: SIM115
    assert old.read_bytes() == b"old"


def test_orphans_of_dead_writers_are_swept_and_nothing_else(old: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    orphan = old.with_name(f".weights.bin.tmp-{dead.pid}")
    earlier_life = old.with_name(f".weights.bin.tmp-{os.getpid()}")
    alive = old.with_name(f".weights.bin.tmp-{os.getppid()}")
    others = [old.with_name(f".other.bin.tmp-{dead.pid}"), old.with_name(".weights.bin.tmp-notes")]
    for path in (orphan, earlier_life, alive, *others):
        path.write_bytes(b"half")
    with atomic_write(old) as file:
        file.write(b"new")
    assert old.read_bytes() == b"new"
    assert not orphan.exists() and not earlier_life.exists()
    assert alive.exists() and all(path.exists() for path in others)


SAVE_FOREVER = """
import hashlib, sys
from pathlib import Path
from minissl.formats.atomic import atomic_write

path = Path(sys.argv[1])
number = int(sys.argv[2])
while True:
    number += 1
    body = number.to_bytes(8, "little") * 20_000
    with atomic_write(path) as file:
        for start in range(0, len(body), 40_000):
            file.write(body[start:start + 40_000])
        file.write(hashlib.sha256(body).digest())
    print(number, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_kill_during_save_never_loses_the_newest_file(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.bin"
    moments = random.Random(0)
    newest = 0
    for _ in range(30):
        command = [sys.executable, "-c", SAVE_FOREVER, str(path), str(newest)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            finished = int(child.stdout.readline())
            time.sleep(moments.uniform(0, 0.02))
            child.send_signal(signal.SIGKILL)
            finished = max([finished, *map(int, child.stdout.read().split())])
        content = path.read_bytes()
        body, digest = content[:-32], content[-32:]
        assert hashlib.sha256(body).digest() == digest
        newest = int.from_bytes(body[:8], "little")
        assert newest >= finished
        assert len(temporaries(tmp_path)) <= 1
    with atomic_write(path) as file:
        file.write(b"last")
    assert temporaries(tmp_path) == []
