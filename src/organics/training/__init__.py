"""Training of classifiers, and its files. Names are imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from organics.errors import Diverged as Diverged
    from organics.training.checkpoint import BadCheckpoint as BadCheckpoint
    from organics.training.choices import file_config as file_config
    from organics.training.config import FileConfig as FileConfig
    from organics.training.config import GivenConfig as GivenConfig
    from organics.training.config import SequenceConfig as SequenceConfig
    from organics.training.config import TaskConfig as TaskConfig
    from organics.training.config import TrainConfig as TrainConfig
    from organics.training.evaluation import evaluate as evaluate
    from organics.training.fitted import Fitted as Fitted
    from organics.training.fitted import fit as fit
    from organics.training.fitted import load_run as load_run
    from organics.training.loop import train as train
    from organics.training.report import NumbersReport as NumbersReport
    from organics.training.report import Report as Report
    from organics.training.report import TaskReport as TaskReport

_HOME_OF = {
    "BadCheckpoint": "training.checkpoint",
    "Diverged": "errors",
    "FileConfig": "training.config",
    "Fitted": "training.fitted",
    "GivenConfig": "training.config",
    "NumbersReport": "training.report",
    "Report": "training.report",
    "SequenceConfig": "training.config",
    "TaskConfig": "training.config",
    "TaskReport": "training.report",
    "TrainConfig": "training.config",
    "evaluate": "training.evaluation",
    "file_config": "training.choices",
    "fit": "training.fitted",
    "load_run": "training.fitted",
    "train": "training.loop",
}

__all__ = [
    "BadCheckpoint",
    "Diverged",
    "FileConfig",
    "Fitted",
    "GivenConfig",
    "NumbersReport",
    "Report",
    "SequenceConfig",
    "TaskConfig",
    "TaskReport",
    "TrainConfig",
    "evaluate",
    "file_config",
    "fit",
    "load_run",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'organics.training' has no attribute {name!r}")
    return getattr(import_module(f"organics.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return __all__
