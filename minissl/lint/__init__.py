"""The mistakes people make in nets and solvers, found before a long run is wasted on them.

Nothing here changes a file or refuses a run. Most of these mistakes are silent in the original:
a forgotten ``block_group_decay``, for example, switches structured sparsity off without a word.
"""

from minissl.lint.finding import Finding
from minissl.lint.nets import lint_net
from minissl.lint.solvers import SOLVER_TYPES, lint_solver

__all__ = ["SOLVER_TYPES", "Finding", "lint_net", "lint_solver"]
