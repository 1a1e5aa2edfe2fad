"""Run the coverage-guided fuzzer on one reader, with atheris (``pip install atheris``).

    python -m tests.fuzz.run caffemodel -max_total_time=60

What follows the name goes to libFuzzer. New inputs that reach new code are kept in
``fuzz-corpus/NAME`` of the current folder; a finding is written there as well, and ends the run.
``python -m tests.fuzz.run caffemodel --keep 12`` copies findings, the smallest input for each
answer of the reader and a few others, 12 in all, into the repository's corpus, which the tests
replay.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

# compiled kernels hide the code from the coverage and take long to make
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")

WORK = Path("fuzz-corpus")
#: what tells one answer from another; names and numbers of the file do not
WORD = re.compile(r"(?<![\w/'])[a-z]{3,}(?![\w/.'])")
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
    """Copy findings, the smallest input for each answer, and others into the corpus."""
    from tests.fuzz.targets import CORPUS, TARGETS, check

    found = sorted((WORK / name).iterdir(), key=lambda path: path.stat().st_size)
    chosen = [path for path in found if not path.name.startswith("start") and "-" in path.name]
    answers: dict[str, Path] = {}
    for path in found:
        error = check(TARGETS[name], path.read_bytes())
        words = "" if error is None else " ".join(WORD.findall(str(error)))
        answers.setdefault(words, path)
    chosen += [*answers.values(), *found[:: max(1, len(found) // most)]]
    target = CORPUS / name
    target.mkdir(parents=True, exist_ok=True)
    for path in list(dict.fromkeys(chosen))[:most]:
        content = path.read_bytes()
        (target / hashlib.sha256(content).hexdigest()[:12]).write_bytes(content)


if __name__ == "__main__":
    main()
