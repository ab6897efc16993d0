"""Tasks made on the fly: trials as pure functions of a key, for training without stored data."""

from organics.data.tasks.catalog import build
from organics.data.tasks.task import Condition, Stream, Task, Trials, Trivial, batch
from organics.models.target import Marks

__all__ = ["Condition", "Marks", "Stream", "Task", "Trials", "Trivial", "batch", "build"]


def __dir__() -> list[str]:
    return __all__
