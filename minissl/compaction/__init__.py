"""A physically smaller network with the same outputs: the last step of SSL.

:func:`compact` removes dead filters and channels, folds the constants they leave behind into biases
and packs what is left; :func:`prove` compares the outputs; :func:`write` makes the files.
"""

from __future__ import annotations

from minissl.compaction.compact import Compacted, compact
from minissl.compaction.files import write
from minissl.compaction.proof import Proof, prove
from minissl.compaction.report import LayerReport, Report

__all__ = ["Compacted", "LayerReport", "Proof", "Report", "compact", "prove", "write"]
