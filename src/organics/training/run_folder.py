"""A training run on disk.

    config.json                  what the run is
    metrics.jsonl                one line per epoch: means over its steps, and then the model on
                                 validation examples: loss, accuracy, whatever it can diagnose;
                                 a diagnosis that is not finite is null
    steps.jsonl                  one line per epoch with every step: loss, accuracy, gradient norm,
                                 and whatever of its parameters the model monitors
    checkpoint-000012.safetensors    where it stands after so many epochs; the last two are kept
    model.safetensors            parameters of the epoch with the best validation accuracy
    report.json                  the outcome, once the run is complete

Every file is replaced whole, except the two `.jsonl`, whose lines after the last checkpoint are
dropped when a run is resumed.
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from organics.atomic import write_atomically
from organics.plain import as_plain
from organics.training.checkpoint import BadCheckpoint, load_tree, save_tree
from organics.training.config import AnyConfig, read_config

try:
    import fcntl
except ImportError:  # not a POSIX system: then nothing keeps two processes apart
    fcntl = None

_CONFIG = "config.json"
_CHECKPOINTS_KEPT = 2
_TEMPORARY = ".*.tmp"  # what a process killed while it wrote a file leaves behind


class RunFolder:
    """The files of one run. `path` is the folder, `config` the run's settings."""

    def __init__(self, path: Path, config: AnyConfig):
        self.path = path
        self.config = config

    @classmethod
    def create(cls, path: str | Path, config: AnyConfig, resume: bool = False) -> "RunFolder":
        """The folder of a new run, or with `resume` of one that was begun with the same settings.

        Raises `ValueError` if the folder exists and is not empty, or, with `resume`, if the run in
        it has other settings, which are named.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise ValueError(f"`out` must be a folder; {path} is a file.")
        if not path.is_dir() or not set(path.iterdir()) - set(path.glob(_TEMPORARY)):
            path.mkdir(parents=True, exist_ok=True)
            write_atomically(path / _CONFIG, config.to_json().encode())
            return cls(path, config)
        if not resume:
            raise ValueError(
                f"`out`: the folder {path} is not empty. Resume the run in it, or name another."
            )
        begun = cls.open(path)
        if differing := config.differing(begun.config):
            words = ", ".join(
                f"`{name}` is {here!r} and was {there!r}"
                for name, (here, there) in differing.items()
            )
            raise ValueError(f"the run in {path} has other settings: {words}.")
        return begun

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """The folder of an existing run. Raises `ValueError` if it is none."""
        path = Path(path)
        try:
            text = (path / _CONFIG).read_text()
        except OSError:
            raise ValueError(f"{path} is not the folder of a run: no {_CONFIG} in it.") from None
        try:
            return cls(path, read_config(text))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path / 'config.json'} is not that of a run: {error}") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the folder from other processes meanwhile; the lock ends with the process.

        A run that ends without a checkpoint, as for want of data, leaves the folder empty, for
        another to begin in. Raises `ValueError` if another process has it.
        """
        with (self.path / _CONFIG).open() as stream:
            if fcntl is not None:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ValueError(
                        f"`out`: another process is training in {self.path}."
                    ) from None
            try:
                yield
            finally:
                if {path.name for path in self.path.iterdir()} == {_CONFIG}:
                    (self.path / _CONFIG).unlink()

    def append(self, file: str, line: dict[str, Any]) -> None:
        """Add a line to a `.jsonl` file; what is not finite is null there."""
        with (self.path / file).open("a") as stream:
            stream.write(json.dumps(as_plain(line), allow_nan=False) + "\n")

    def lines(self, file: str) -> list[dict[str, Any]]:
        """The lines of a `.jsonl` file; none if there is no such file."""
        path = self.path / file
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def forget_after(self, epoch: int) -> None:
        """Drop the lines of later epochs, and whatever was being written when the run stopped."""
        for path in self.path.glob(_TEMPORARY):
            path.unlink()
        for file in ("metrics.jsonl", "steps.jsonl"):
            path = self.path / file
            if path.exists():
                kept = path.read_bytes().splitlines(keepends=True)[:epoch]
                write_atomically(path, b"".join(kept))

    def save_checkpoint(self, epoch: int, state: PyTree, notes: dict[str, Any]) -> None:
        """Write the checkpoint after `epoch` epochs, and remove those that are no longer kept."""
        save_tree(self._checkpoint(epoch), state, {"epoch": epoch, **notes})
        for path in self.checkpoints()[:-_CHECKPOINTS_KEPT]:
            path.unlink()

    def load_checkpoint(self, like: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
        """State and notes of the newest checkpoint that can be read; None if there is none.

        Warns of damaged ones. Raises `BadCheckpoint` if there are checkpoints and all are damaged.
        """
        checkpoints = self.checkpoints()
        for path in reversed(checkpoints):
            try:
                return load_tree(path, like)
            except BadCheckpoint as error:
                if path == checkpoints[0]:
                    raise
                warnings.warn(f"{error}; going back to the one before.", stacklevel=2)
        return None

    def checkpoints(self) -> list[Path]:
        """The checkpoints that are there, oldest first."""
        return sorted(self.path.glob("checkpoint-*.safetensors"))

    def save_model(self, model: PyTree) -> None:
        """Write the parameters of the best model so far."""
        save_tree(self.path / "model.safetensors", model)

    def load_model(self, like: PyTree) -> PyTree:
        """The best model so far. Raises `ValueError` if there is none, or it is damaged."""
        path = self.path / "model.safetensors"
        if not path.exists():
            raise ValueError(f"the run in {self.path} has no model yet: no epoch was completed.")
        return load_tree(path, like)[0]

    def save_report(self, report: dict[str, Any]) -> None:
        """Write the outcome; what is not finite is null there."""
        text = json.dumps(as_plain(report), indent=2, allow_nan=False) + "\n"
        write_atomically(self.path / "report.json", text.encode())

    def load_report(self) -> dict[str, Any] | None:
        """The outcome; None if the run is not complete."""
        path = self.path / "report.json"
        return json.loads(path.read_text()) if path.exists() else None

    def _checkpoint(self, epoch: int) -> Path:
        return self.path / f"checkpoint-{epoch:06d}.safetensors"
