"""Training: one iteration in the published order, learning-rate policies, snapshots, the log."""

from minissl.solvers.solver import Solver

__all__ = ["Solver"]
