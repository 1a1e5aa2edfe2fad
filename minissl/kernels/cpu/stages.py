"""The stages of a lowered convolution, so that each can be timed alone.

A kernel that takes ``stages`` runs only those whose bit is set. The product alone multiplies
whatever the last lowering left in the scratch memory, which is what a timing of the product means.
"""

LOWER = 1
MULTIPLY = 2
SCATTER = 4
ALL = LOWER | MULTIPLY | SCATTER
