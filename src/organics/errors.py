"""Errors other than `ValueError`: the request is valid but cannot be met."""

from pathlib import Path


class Failed(RuntimeError):
    """The message says why, and what to do."""


class SimulationFailed(Failed):
    """A trajectory cannot be trusted from some time on."""


class NoSteadyState(Failed):
    """No stable steady state was found where one is needed."""


class DataUnavailable(Failed):
    """A data set is not on this machine and could not be brought here.

    The message says where the library looked, and how to provide the data.
    """


class ExportFailed(Failed):
    """An exported file does not compute what its network computes."""


class Diverged(Failed):
    """The loss or the gradient in training, or the loss in validation, is not finite.

    Attributes
        step: the first step, from 0, with such a loss or gradient; in validation, the step before
            it.
        checkpoint: the last good checkpoint; None if there is none yet.
    """

    def __init__(self, message: str, step: int, checkpoint: Path | None):
        super().__init__(message)
        self.step = step
        self.checkpoint = checkpoint

    def __reduce__(self):
        # by default, unpickling in another process passes only the message
        return Diverged, (str(self), self.step, self.checkpoint)
