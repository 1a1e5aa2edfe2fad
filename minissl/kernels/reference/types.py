"""What the arguments of the kernels are called."""

import numpy as np

Array = np.ndarray

#: (height, width)
Pair = tuple[int, int]
