"""What this machine can do, in numbers: measured once, kept, and read by the performance model.

======================  ====================================================================
:mod:`.constants`       the constants of a machine, and those that stand in for them
:mod:`.probes`          how fast it multiplies, reads, and enters a parallel loop
:mod:`.store`           the file that keeps them, for exactly this CPU and these libraries
======================  ====================================================================

``minissl doctor --calibrate`` measures them (:mod:`minissl.conv_modes.calibration`).
"""

from __future__ import annotations

from minissl.machine.constants import DEFAULTS, Machine
from minissl.machine.store import current, load, save

__all__ = ["DEFAULTS", "Machine", "current", "load", "save"]
