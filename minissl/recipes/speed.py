"""An experiment of speed-ups: its rows measured, the paper's beside ours, in a result folder.

Every row is measured with every batch size and number of threads of the experiment
(:mod:`minissl.recipes.speed_timing`). Nothing is trained.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from minissl import backend as backends
from minissl import doctor
from minissl.conv_modes import MODES
from minissl.errors import ConfigError
from minissl.formats.atomic import atomic_write
from minissl.formats.folders import make_folder
from minissl.net import Net
from minissl.recipes import result_folder
from minissl.recipes.published_matrices import as_published, folder_of, random_matrix, read_set
from minissl.recipes.reproduce import FILE, RESULT
from minissl.recipes.speed_experiments import SPEED, SpeedExperiment, SpeedRow
from minissl.recipes.speed_timing import time_side_by_side
from minissl.sparsity.statistics import statistics_of
from minissl.timing.known_layers import LAYERS, KnownLayer, net_of

#: turns, and rounds in each
BLOCKS, ROUNDS = 5, 8
FAST = (1, 2)


@dataclass(frozen=True)
class SpeedMeasurement:
    """What can be chosen about an experiment.

    Attributes
    ----------
    experiment : SpeedExperiment
    out : Path
        For the result.
    matrices : Path, optional
        The folder of the published matrices; else what the environment variable says.
    threads : int, optional
        In place of the experiment's numbers of threads.
    backend : str
    fast : bool
        Few rounds; the figures then mean nothing.
    seed : int
        Of zeros at random.
    left_out : list of str
        What the last run could not measure, and why.
    """

    experiment: SpeedExperiment
    out: Path
    matrices: Path | None = None
    threads: int | None = None
    backend: str = "auto"
    fast: bool = False
    seed: int = 1
    left_out: list[str] = field(default_factory=list)

    def run(self, command: str, tell: Callable[[str], Any] | None = None) -> dict[str, Any]:
        """Measure all rows; write the result folder; return the result.

        Parameters
        ----------
        command : str
            As it was typed, for the record.
        tell : callable, optional
            Is told in a few words what is measured.

        Raises
        ------
        ConfigError
            When matrices are missing, or the backend cannot run products alone.
        """
        if backends.name_of(backends.get(self.backend)) != "numba":
            raise ConfigError("speed-ups are those of compiled kernels; use --backend numba")
        result_folder.check(self.out, self.experiment.key, self.fast, self.experiment.file)
        clock = time.perf_counter()
        self.left_out.clear()
        counts = self._threads()
        before = backends.threads()
        try:
            rows = [
                self._row(row, weights, digests, counts, tell or (lambda _: None))
                for row, weights, digests in self._weights()
            ]
        finally:
            backends.set_threads(before)
        result = {
            "experiment": self.experiment.key,
            "measure": SPEED,
            "title": self.experiment.title,
            "about": self.experiment.about,
            "fast": self.fast,
            "net": self.experiment.net,
            "layers": list(self.experiment.layers),
            "batch_sizes": list(self.experiment.batch_sizes),
            "threads": list(counts),
            "seed": self.seed,
            "left_out": self.left_out,
            "rows": rows,
            "blas_overrides": doctor.blas_overrides(),
            "seconds": time.perf_counter() - clock,
            "command": command,
            "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
            "backend": "numba",
            "machine": doctor.machine_in_words(),
            "versions": doctor.versions(),
        }
        self._write(result)
        return result

    def _threads(self) -> list[int]:
        """Return the numbers of threads that are possible here."""
        import numba

        config: Any = numba.config
        most = config.NUMBA_NUM_THREADS
        wanted = (self.threads,) if self.threads else self.experiment.threads
        possible = [count for count in wanted if count <= most]
        too_many = [str(count) for count in wanted if count > most]
        if not possible:
            raise ConfigError(f"{wanted[0]} threads are not possible here; choose 1 to {most}")
        if too_many:
            self.left_out.append(f"{', '.join(too_many)} threads: this machine has {most}")
        return possible

    def _weights(self) -> list[tuple[SpeedRow, dict[str, np.ndarray], dict[str, str]]]:
        """Return the rows that can be measured, with their matrices and the digests of files."""
        layers = layers_of(self.experiment.net, self.experiment.layers)
        folder = folder_of(self.matrices)
        found: list[tuple[SpeedRow, dict[str, np.ndarray], dict[str, str]]] = []
        for row in self.experiment.rows:
            if row.mode not in MODES:
                self.left_out.append(f"{row.name}: {row.mode} is not part of this version")
            elif row.sparsity is not None:
                found.append((row, random_matrices(row.sparsity, layers, self.seed), {}))
            elif row.optional and folder is None:
                self.left_out.append(f"{row.name}: no --matrices were given")
            else:
                found.append((row, *read_set(str(row.matrices), layers, folder)))
        if not found:
            raise ConfigError(f"nothing is left to measure: {'; '.join(self.left_out)}")
        return found

    def _row(
        self,
        row: SpeedRow,
        weights: Mapping[str, np.ndarray],
        digests: Mapping[str, str],
        counts: Sequence[int],
        tell: Callable[[str], Any],
    ) -> dict[str, Any]:
        layers = layers_of(self.experiment.net, self.experiment.layers)
        runs = []
        for size in self.experiment.batch_sizes:
            net = _net(layers, weights, size, self.backend)
            for count in counts:
                threads = "1 thread" if count == 1 else f"{count} threads"
                tell(f"{row.name}: batch {size}, {threads}")
                backends.set_threads(count)
                blocks, rounds = FAST if self.fast else (BLOCKS, ROUNDS)
                run = time_side_by_side(net, weights, row.mode, count, blocks, rounds)
                runs.append({"batch_size": size, "threads": count, **run})
        return {
            "key": row.key,
            "name": row.name,
            "about": row.about,
            "mode": row.mode,
            "matrices": row.matrices,
            "sparsity": None if row.sparsity is None else list(row.sparsity),
            "sha256": dict(digests),
            "as_published": as_published(row.matrices, digests) if row.matrices else None,
            "error": None,  # nothing is trained
            "layers": [structure_of(layer, weights[layer.name]) for layer in layers],
            "runs": runs,
            "paper": row.paper and dict(row.paper),
        }

    def _write(self, result: Mapping[str, Any]) -> None:
        make_folder(self.out, "choose another with --out")
        with atomic_write(self.out / FILE) as file:
            file.write(self.experiment.file.read_bytes())
        with atomic_write(self.out / RESULT) as file:
            file.write(json.dumps(result, indent=1).encode() + b"\n")


def layers_of(net: str, names: Sequence[str]) -> list[KnownLayer]:
    """Return known layers by their names."""
    known = {layer.name: layer for layer in LAYERS if layer.net == net}
    return [known[name] for name in names]


def random_matrices(
    sparsity: Sequence[float], layers: Sequence[KnownLayer], seed: int
) -> dict[str, np.ndarray]:
    """Return a matrix for each layer, with so many per cent of zeros."""
    return {
        layer.name: random_matrix(layer, percent, seed)
        for layer, percent in zip(layers, sparsity, strict=True)
    }


def structure_of(layer: KnownLayer, matrix: np.ndarray) -> dict[str, Any]:
    """Say what of a layer is zero.

    Returns
    -------
    dict
        ``name``; ``element``, ``row`` and ``column``, percentages of zeros that are means over the
        conv groups, as the paper's are; ``ideal``, how many times fewer multiplications the dense
        product of the rows and columns that are left needs.
    """
    bands = matrix.reshape(layer.groups, -1, matrix.shape[1])  # (G, F/G, K)
    found = statistics_of(layer.name, 0, matrix, layer.groups).bands
    left = sum(int(band.any(axis=1).sum() * band.any(axis=0).sum()) for band in bands)
    return {
        "name": layer.name,
        **{
            what: statistics.fmean(getattr(band, what) for band in found)
            for what in ("element", "row", "column")
        },
        "ideal": matrix.size / left if left else None,
    }


def _net(
    layers: Sequence[KnownLayer], weights: Mapping[str, np.ndarray], size: int, backend: str
) -> Net:
    param = net_of({layer.name: layer for layer in layers})
    net = Net(param, "TEST", backend, data={"batch_size": size})
    values = {}
    for layer in layers:
        w, *others = net.layer(layer.name).parameters
        values[layer.name] = [
            weights[layer.name].reshape(w.shape),
            *(np.asarray(one.data) for one in others),
        ]
    net.load(values)
    return net
