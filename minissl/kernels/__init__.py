"""How a number is computed: the same functions, written once to be read and once to be fast.

``reference`` defines every kernel in plain NumPy; ``cpu`` holds their Numba twins, ``gpu`` those
of CuPy. A backend is one of these modules (see :mod:`minissl.backend`). ``winograd`` is a formula
for convolutions in plain NumPy: the definition of what ``cpu`` does with it, in training and for
``conv_mode: WINOGRAD``. Functions write into arrays that they are given, so a training iteration
reuses its buffers.
"""
