"""What is raised beside `ValueError`: what was asked for is right, and still not to be had."""

from pathlib import Path


class Failed(RuntimeError):
    """The message says why, and what would do."""


class SimulationFailed(Failed):
    """A trajectory cannot be trusted from some time on."""


class NoSteadyState(Failed):
    """None was found, or it is not stable, where one is needed."""


class DataUnavailable(Failed):
    """A data set is not on this machine and could not be brought here.

    The message says where it was looked for, and every way to provide it.
    """


class Diverged(Failed):
    """The loss or the gradient is not finite in training, or the loss in validation.

    Attributes
        step: number of the step, from 0, at which, or in validation after which, that was first so.
        checkpoint: the last good checkpoint; None if there is none yet.
    """

    def __init__(self, message: str, step: int, checkpoint: Path | None):
        super().__init__(message)
        self.step = step
        self.checkpoint = checkpoint

    def __reduce__(self):
        # by default it would be made anew from its message alone, when another process raised it
        return Diverged, (str(self), self.step, self.checkpoint)
