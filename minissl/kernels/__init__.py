"""How a number is computed: the same functions, written once to be read and once to be fast.

``reference`` defines every kernel in plain NumPy; ``cpu`` holds their Numba twins, ``gpu`` those
of CuPy. A backend is one of these modules (see :mod:`minissl.backend`). ``winograd`` is a formula
for convolutions in plain NumPy, which ``cpu`` uses in training. All functions take arrays
and write their result into the arrays given last, so a training iteration reuses its buffers.
"""
