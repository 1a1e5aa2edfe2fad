"""Run the coverage-guided fuzzer on one reader, with atheris (``pip install atheris``).

    python -m tests.fuzz.run caffemodel -max_total_time=60

What follows the name goes to libFuzzer. New inputs that reach new code are kept in
``fuzz-corpus/NAME`` of the current folder; a finding is written there as well, and ends the run.
``python -m tests.fuzz.run caffemodel --keep 12`` copies the smallest inputs that together reach
everything into the repository's corpus, which the tests replay.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

# compiled kernels hide the code from the coverage and take long to make
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")

WORK = Path("fuzz-corpus")
LIMITS = ["-rss_limit_mb=2048", "-timeout=60", "-max_len=40000"]


def main() -> None:
    name, *options = sys.argv[1:]
    if options[:1] == ["--keep"]:
        keep(name, int(options[1]))
        return
    import atheris

    with atheris.instrument_imports(include=["minissl", "google.protobuf", "tarfile", "zipfile"]):
        from tests.fuzz.targets import TARGETS, check, corpus

        target = TARGETS[name]
        for content in corpus(name):
            check(target, content)  # imports what the reader imports when it runs
    folder = WORK / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(corpus(name)):
        (folder / f"start-{number}").write_bytes(content)
    arguments = [sys.argv[0], *LIMITS, f"-artifact_prefix={folder}/", *options, str(folder)]
    atheris.Setup(arguments, lambda content: check(target, content))
    atheris.Fuzz()


def keep(name: str, most: int) -> None:
    """Minimise what was found and copy the smallest inputs into the repository."""
    from tests.fuzz.targets import CORPUS

    merged = WORK / f"{name}-merged"
    shutil.rmtree(merged, ignore_errors=True)
    merged.mkdir(parents=True)
    command = [sys.executable, "-m", "tests.fuzz.run", name, "-merge=1", str(merged)]
    subprocess.run(command, check=False, capture_output=True)
    found = sorted(merged.iterdir(), key=lambda path: path.stat().st_size)
    step = max(1, len(found) // most)
    target = CORPUS / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for number, path in enumerate(found[::step][:most]):
        shutil.copy(path, target / f"{number:02}")


if __name__ == "__main__":
    main()
