"""Download the official files of a data set, checked by SHA-256 before and after unpacking.

Everything happens in a temporary folder inside the data folder; a file appears under its own name
only when it is whole, by one rename. An interrupted or failed download leaves nothing behind.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from minissl import optional
from minissl.data.catalogue import CATALOGUE, Archive, Entry, File, data_folder, find
from minissl.errors import DataError

#: tarfile answers some damaged headers with these
DAMAGE = (ValueError, TypeError, OverflowError, IndexError)
CHUNK = 2**20
#: Seconds without an answer or a byte after which a mirror is given up.
TIMEOUT = 30


def verify(name: str, folder: str | Path | None = None) -> dict[str, str]:
    """Check the files of a data set by size and SHA-256.

    Parameters
    ----------
    name : str
        A data set of :data:`minissl.data.catalogue.CATALOGUE`.
    folder : path, optional
        Where the data sets are kept; default :func:`minissl.data.catalogue.data_folder`.

    Returns
    -------
    dict
        ``{path below the folder: "ok" | "missing" | "damaged"}``; empty for ``mnist-small``,
        which is part of the package.

    Raises
    ------
    DataError
        There is no data set of that name.
    """
    entry = find(name)
    root = _root(folder)
    return {
        file.path: _condition(root, archive, file)
        for archive in entry.archives
        for file in archive.files
    }


def fetch(
    name: str,
    folder: str | Path | None = None,
    tell: Callable[[str], None] | None = None,
    progress: Any = None,
) -> list[Path]:
    """Download what is missing or damaged of a data set; mirrors are tried in turn.

    Parameters
    ----------
    name : str
        A data set of :data:`minissl.data.catalogue.CATALOGUE`.
    folder : path, optional
        Where to put it; default :func:`minissl.data.catalogue.data_folder`.
    tell : callable, optional
        Receives one line of text for each download.
    progress : object, optional
        A progress bar as :class:`pooch.HTTPDownloader` takes it: with ``total``, ``update(bytes)``,
        ``reset()`` and ``close()``.

    Returns
    -------
    list of Path
        The files that were put in place; empty if all were there and whole.

    Raises
    ------
    DataError
        The name is unknown, no mirror gave the expected bytes, or the folder is not writable.
    DependencyError
        pooch is missing.
    """
    entry = find(name)
    root = _root(folder)
    placed: list[Path] = []
    for archive in entry.archives:
        wanted = [file for file in archive.files if _condition(root, archive, file) != "ok"]
        if not wanted:
            continue
        try:
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as workspace:
                packed = _download(entry, archive, Path(workspace), tell, progress)
                placed += _unpack(packed, wanted, Path(workspace), root)
        except OSError as error:
            raise DataError(
                f"data set '{name}' cannot be written to {root} ({error.strerror or error}); make "
                "room there, or set MINISSL_DATA to another folder"
            ) from error
    return placed


def fetchable() -> list[str]:
    """Return the names of the data sets that can be downloaded."""
    return [name for name, entry in CATALOGUE.items() if entry.archives]


def _root(folder: str | Path | None) -> Path:
    return data_folder() if folder is None else Path(folder)


def _condition(root: Path, archive: Archive, file: File) -> str:
    """Return ``ok``, ``missing`` or ``damaged``; an IDX file may be there as its ``.gz``."""
    path = root / file.path
    packed = path.with_name(archive.name)
    try:
        if path.is_file():
            whole = path.stat().st_size == file.size and _sha256(path) == file.sha256
        elif packed.is_file() and packed.stem == path.name:
            whole = _sha256(packed) == archive.sha256
        else:
            return "missing"
    except OSError:
        whole = False
    return "ok" if whole else "damaged"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _download(
    entry: Entry,
    archive: Archive,
    workspace: Path,
    tell: Callable[[str], None] | None,
    progress: Any,
) -> Path:
    """Put the archive into the workspace, from the first mirror that has the right bytes."""
    pooch = optional.library("pooch", "downloads", "pooch")
    requests = optional.library("requests", "downloads", "pooch")
    pooch.get_logger().setLevel("WARNING")  # `tell` reports instead
    downloader = pooch.HTTPDownloader(
        timeout=TIMEOUT, progressbar=False if progress is None else progress
    )
    failures = []
    for mirror in entry.mirrors:
        url = mirror + archive.name
        if tell is not None:
            tell(f"downloading {url}")
        try:
            path = pooch.retrieve(
                url,
                known_hash=f"sha256:{archive.sha256}",
                fname=archive.name,
                path=workspace,
                downloader=downloader,
            )
        except requests.exceptions.HTTPError as error:
            status = "" if error.response is None else f" {error.response.status_code}"
            failures.append(f"{url}: HTTP status{status}")
        except requests.exceptions.Timeout:
            failures.append(f"{url}: no answer within {TIMEOUT} s")
        except requests.exceptions.RequestException:
            failures.append(f"{url}: not reachable")
        except ValueError:  # pooch's word for a wrong SHA-256
            failures.append(f"{url}: the bytes are not the published ones (SHA-256)")
        else:
            return Path(path)
    folder = (workspace.parent / archive.files[0].path).parent
    raise DataError(
        f"data set '{entry.name}' could not be downloaded ({'; '.join(failures)}); go online and "
        f"repeat 'minissl data fetch {entry.name}', or put the official files into "
        f"{folder} yourself"
    )


def _unpack(packed: Path, wanted: list[File], workspace: Path, root: Path) -> list[Path]:
    """Unpack the wanted files into the workspace, check them all, then move them into place."""
    parts: dict[File, Path] = {}
    try:
        for file, source in _members(packed, wanted):
            part = workspace / f"{len(parts)}.part"
            with part.open("wb") as target:
                _copy_exactly(source, target, file.size)
            if _sha256(part) == file.sha256:
                parts[file] = part
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, *DAMAGE):
        pass  # what was not unpacked is reported below
    for file in wanted:
        if file not in parts:
            raise DataError(
                f"{packed.name}: '{file.path}' did not come out of the archive as published "
                "(SHA-256); nothing of it was installed, fetch it again later"
            )
    for file, part in parts.items():
        path = root / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, path)
    return [root / file.path for file in wanted]


def _members(packed: Path, wanted: list[File]) -> Iterator[tuple[File, Any]]:
    """Yield each wanted file of an archive with a stream of its bytes, in one pass.

    A tar's own paths are never written to: only regular members of a name we know are read, and
    the caller chooses where the bytes go.
    """
    if packed.name.endswith(".tar.gz"):
        by_path = {file.path: file for file in wanted}
        with tarfile.open(packed, "r|gz") as tar:
            for member in tar:
                if member.isreg() and member.name in by_path:
                    yield by_path[member.name], tar.extractfile(member)
    else:
        (file,) = wanted
        with gzip.open(packed, "rb") as source:
            yield file, source


def _copy_exactly(source: Any, target: Any, size: int) -> None:
    """Copy ``size`` bytes, not one more: an archive may claim to hold any amount."""
    remaining = size
    while remaining and (chunk := source.read(min(CHUNK, remaining))):
        target.write(chunk)
        remaining -= len(chunk)
    if remaining or source.read(1):
        raise EOFError(f"not {size} bytes")
