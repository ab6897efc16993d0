"""Training of classifiers, and its files. Names are imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from organics.errors import Diverged as Diverged
    from organics.training.checkpoint import BadCheckpoint as BadCheckpoint
    from organics.training.config import SequenceConfig as SequenceConfig
    from organics.training.config import TrainConfig as TrainConfig
    from organics.training.evaluation import evaluate as evaluate
    from organics.training.loop import train as train
    from organics.training.report import Report as Report

_HOME_OF = {
    "BadCheckpoint": "training.checkpoint",
    "Diverged": "errors",
    "Report": "training.report",
    "SequenceConfig": "training.config",
    "TrainConfig": "training.config",
    "evaluate": "training.evaluation",
    "train": "training.loop",
}

__all__ = [
    "BadCheckpoint",
    "Diverged",
    "Report",
    "SequenceConfig",
    "TrainConfig",
    "evaluate",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'organics.training' has no attribute {name!r}")
    return getattr(import_module(f"organics.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
