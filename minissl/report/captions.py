"""What the pictures of a result show, in a sentence or two for each."""

from __future__ import annotations

#: the name of a picture without suffix -> its caption
_CAPTIONS = {
    "error-and-flop": (
        "Test error over the operations that are left, the dense layers having 100 %. Each point "
        "is a network that was trained; squares, if there are any, are the paper's."
    ),
    "filters": (
        "The filters of the first layer on one scale of colours; crossed frames are filters whose "
        "weights are all zero."
    ),
    "shapes": (
        "What filters still read: a square is an input channel with the positions of its kernel. "
        "The darker a position, the larger the norm of its weights over all filters; positions "
        "whose column is zero are white."
    ),
    "zero-maps": "The weight matrices, a row for each filter and a column for each weight of it.",
    "inputs": "How many weights still read each pixel of the image.",
    "error-and-layers": "Test error over the layers that are left, shortcuts not counted.",
    "layers-left": "Which layers are left in each network; the number is how many.",
    "channels-left": "The channels that the second convolution of each block still reads.",
}
#: of pictures of one row: KEY-error and so on
_OF_ROWS = {
    "error": (
        "Test error while the row was trained; vertical lines divide its trainings. It is drawn "
        "for the eye: no iteration was chosen by it, rows end where their solvers end."
    ),
    "sparsity": "Groups of weights that were zero while the row was trained.",
    "log": (
        "Our SSL beside the authors' own log, each over its own number of iterations; squares are "
        "where theirs began and ended, vertical lines divide stages of ours."
    ),
}


def caption(name: str) -> str:
    """Return what a picture shows, or nothing for a name that is not known here."""
    return _CAPTIONS.get(name) or _OF_ROWS.get(name.rpartition("-")[2], "")
