"""Errors a user can act on: one sentence that says what is wrong and what to do."""

from __future__ import annotations


class MinisslError(Exception):
    """Base of all errors that minissl raises on purpose; the command line prints it and exits 1.

    Names from files stand in messages. What does not print in them, such as line ends and a
    terminal's control characters, is escaped, so that a message is one line.
    """

    def __init__(self, message: object = ""):
        super().__init__(
            "".join(
                c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(message)
            )
        )


class ConfigError(MinisslError):
    """A prototxt, a solver field or an option that cannot be followed."""


class DataError(MinisslError):
    """A data set that is missing, damaged or not of the expected form."""


class WeightsError(MinisslError):
    """A weight file or snapshot that cannot be read or does not fit the network."""


class ShapeError(ConfigError):
    """Shapes that do not fit together, or that need more memory than the machine has."""


class NonFiniteError(MinisslError):
    """A loss, gradient or weight became NaN or infinite."""


class CollapseError(MinisslError):
    """Group lasso has taken all groups of a layer within the first epoch.

    Attributes
    ----------
    layer : str
    iteration : int
        Updates made by then.
    """

    def __init__(self, message: str, layer: str, iteration: int):
        super().__init__(message)
        self.layer = layer
        self.iteration = iteration


class DependencyError(MinisslError):
    """An optional library or device is not there."""
