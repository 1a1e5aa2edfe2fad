"""The paper's experiments on MNIST: which files train which row of which table.

A row is SSL from the weights of the dense network, in one or more stages that differ in their
decays, then fine-tuning with the zeros frozen. Its solver files are in ``minissl/models``, and say
how their numbers were chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minissl.errors import ConfigError
from minissl.recipes.paper import LENET_TABLE_1, LENET_TABLE_2, MLP_TABLE


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes
    ----------
    key : str
        In names of files and stages.
    paper : dict
        The published row, whose name is the row's.
    ssl : tuple of str
        Solvers of SSL, the first from the dense weights, each other from the one before.
    finetune : str
        Solver.
    """

    key: str
    paper: Mapping[str, Any]
    ssl: tuple[str, ...]
    finetune: str

    @property
    def name(self) -> str:
        """What the paper calls it."""
        name: str = self.paper["name"]
        return name

    @property
    def trainings(self) -> dict[str, str]:
        """The solvers in order: of ``ssl``, ``ssl2`` ..., ``finetune``."""
        numbers = ["", *(str(number) for number in range(2, len(self.ssl) + 1))]
        ssl = {f"ssl{n}": solver for n, solver in zip(numbers, self.ssl, strict=True)}
        return {**ssl, "finetune": self.finetune}


@dataclass(frozen=True)
class Experiment:
    """A table of the paper.

    Attributes
    ----------
    key : str
        What ``minissl reproduce`` calls it.
    title : str
    baseline : str
        Solver of the dense network, the table's first row.
    paper : dict
        The published first row.
    rows : tuple of Row
    layers : tuple of str
        Layers that the table tells about.
    """

    key: str
    title: str
    baseline: str
    paper: Mapping[str, Any]
    rows: tuple[Row, ...]
    layers: tuple[str, ...]


EXPERIMENTS = {
    one.key: one
    for one in (
        Experiment(
            "table1",
            "LeNet with fewer filters and channels (SSL paper, Table 1)",
            "lenet_dense_solver.prototxt",
            LENET_TABLE_1[0],
            (
                Row(
                    "lenet2",
                    LENET_TABLE_1[1],
                    ("lenet2_ssl_solver.prototxt",),
                    "lenet2_ft_solver.prototxt",
                ),
                Row(
                    "lenet3",
                    LENET_TABLE_1[2],
                    ("lenet3_ssl_solver.prototxt",),
                    "lenet3_ft_solver.prototxt",
                ),
            ),
            ("conv1", "conv2"),
        ),
        Experiment(
            "table2",
            "LeNet with learned filter shapes (SSL paper, Table 2)",
            "lenet_dense_solver.prototxt",
            LENET_TABLE_2[0],
            (
                Row(
                    "lenet4",
                    LENET_TABLE_2[1],
                    ("lenet4_ssl_solver.prototxt", "lenet4_ssl2_solver.prototxt"),
                    "lenet4_ft_solver.prototxt",
                ),
                Row(
                    "lenet5",
                    LENET_TABLE_2[2],
                    ("lenet5_ssl_solver.prototxt", "lenet5_ssl2_solver.prototxt"),
                    "lenet5_ft_solver.prototxt",
                ),
            ),
            ("conv1", "conv2"),
        ),
        Experiment(
            "mlp",
            "A multilayer perceptron with fewer neurons (SSL paper, Figure 4)",
            "mlp_solver.prototxt",
            MLP_TABLE[0],
            (
                Row("mlp2", MLP_TABLE[1], ("mlp2_ssl_solver.prototxt",), "mlp2_ft_solver.prototxt"),
                Row("mlp3", MLP_TABLE[2], ("mlp3_ssl_solver.prototxt",), "mlp3_ft_solver.prototxt"),
            ),
            ("ip1", "ip2", "ip3"),
        ),
    )
}


def find(key: str) -> Experiment:
    """Return the experiment of this name.

    Raises
    ------
    ConfigError
        There is none.
    """
    if key not in EXPERIMENTS:
        raise ConfigError(f"unknown experiment '{key}'; use one of {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[key]
