"""README.md of the folder that holds the results of several experiments."""

from __future__ import annotations

from pathlib import Path

from minissl.formats.atomic import atomic_write
from minissl.recipes.checking import read_result
from minissl.recipes.reproduce import RESULT
from minissl.recipes.speed_experiments import SPEED
from minissl.report import reproduce, speed
from minissl.report.results import README, table


def write_index(folder: Path) -> Path:
    """Write it; every result has its first table there.

    Raises
    ------
    ConfigError
        When one of them is damaged.
    """
    paths = sorted(folder.glob(f"*/{RESULT}"))
    found = {path.parent.name: read_result(path.parent) for path in paths}
    parts = ["# Results", "What `minissl reproduce` produced; nothing here is written by hand."]
    for name, result in found.items():
        page = speed if result.get("measure") == SPEED else reproduce
        more = "Times" if page is speed else "All seeds, times"
        parts += [
            f"## {result['title']}",
            table(page.headings(result), page.rows(result)),
            f"[{more} and pictures]({name}/{README}): `{result['command']}`, "
            f"{result['date']}, {result['machine']}.",
        ]
    with atomic_write(folder / README) as file:
        file.write(("\n\n".join(parts) + "\n").encode())
    return folder / README
