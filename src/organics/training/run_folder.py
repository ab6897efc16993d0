"""A training run on disk.

    config.json                  what the run is
    metrics.jsonl                one line per epoch: means over its steps; then the model on
                                 validation examples: loss, accuracy, whatever it can diagnose;
                                 a diagnosis that is not finite is null
    steps.jsonl                  one line per epoch, with every step: loss, accuracy, gradient norm,
                                 and the model's measures of its parameters
    checkpoint-000012.safetensors    the state after so many epochs; the last two are kept
    model.safetensors            parameters of the epoch with the best validation accuracy; for a
                                 user's data of that with the least validation loss, the names of
                                 the classes, and how inputs are standardised
    report.json                  the outcome, once the run is complete

Files are replaced as a whole, except the two `.jsonl`, whose lines after the last checkpoint are
removed when a run is resumed. Settings, report and tensor files contain their own check sum;
checkpoints and report also contain that of the lines, and the report that of the model. A file that
does not match its check sum, or lacks lines, is refused by name; files from versions without check
sums are accepted. `steps.jsonl` and the checkpoints may be removed once the run is complete.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import PyTree

from organics.files.atomic import (
    LEFTOVERS,
    naming,
    read_whole,
    remove_leftovers,
    write_atomically,
)
from organics.files.documents import parse_object, sealed, unsealed
from organics.files.lock import NAME as LOCK
from organics.files.lock import Taken, alone_in
from organics.settings import fields_of
from organics.training.checkpoint import BadCheckpoint, load_tree, read_arrays, save_tree
from organics.training.config import AnyConfig, read_config
from organics.training.history import METRICS, STEPS, History
from organics.training.report import Report

_CONFIG, _MODEL, _REPORT = "config.json", "model.safetensors", "report.json"
_PREPARATION = "preparation"  # in the notes of the model
_CHECKPOINTS = f"checkpoint-{'[0-9]' * 6}.safetensors"
_CHECKPOINTS_KEPT = 2
_MOST_BYTES = 2**20  # of settings or of a report


class NoRun(ValueError):
    """A folder that does not hold a run."""


@dataclass(frozen=True)
class _Notes:
    """Notes in a checkpoint: the number of complete epochs, the best epoch and its validation, and
    the check sums of the lines so far."""

    epoch: int
    best: dict[str, float]
    best_epoch: int
    sums: dict[str, str]


@dataclass(frozen=True)
class _Sums:
    """The check sums in a report of the run's other files."""

    sums: dict[str, str]


class RunFolder:
    """The files of one run. `path` is the folder, `config` the run's settings."""

    def __init__(self, path: Path, config: AnyConfig):
        self.path = path
        self.config = config
        self._histories = {name: History(path, name, config.figure) for name in (METRICS, STEPS)}

    @classmethod
    @contextmanager
    def begin(
        cls, path: str | Path, config: AnyConfig, resume: bool = False
    ) -> Iterator["RunFolder"]:
        """The folder as `create` makes it, locked against other processes.

        A run that ends without a checkpoint, for example because data are missing, leaves the
        folder empty for another run. Raises `ValueError` if another process holds the folder, and
        whatever `create` raises.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise ValueError(f"`out` must be a folder; {path} is a file.")
        if path.exists() and _CONFIG not in (files := _files(path)) and files:
            if resume:
                cls.open(path)
            raise _not_empty(path)  # before anything there is touched
        with ExitStack() as stack:
            try:
                stack.enter_context(alone_in(path))
            except Taken:
                raise ValueError(f"`out`: another process is training in {path}.") from None
            remove_leftovers(path)
            folder = cls.create(path, config, resume)
            try:
                yield folder
            finally:
                if _files(path) == {_CONFIG}:
                    (path / _CONFIG).unlink()

    @classmethod
    def create(cls, path: str | Path, config: AnyConfig, resume: bool = False) -> "RunFolder":
        """The folder of a new run, or, with `resume`, of a run begun with the same settings.

        Raises `ValueError` if the folder is not empty or, with `resume`, holds a run with other
        settings, which are named.
        """
        new = cls(Path(path), config)
        path = new.path
        with naming(path, "make"):
            path.mkdir(parents=True, exist_ok=True)
        if not _files(path):
            text = json.dumps(sealed(json.loads(config.to_json())), indent=2) + "\n"
            write_atomically(path / _CONFIG, text.encode())
            return new
        if not resume:
            raise _not_empty(path)
        begun = cls.open(path)
        differing = config.differing(begun.config)
        if now_and_then := differing.get("data_sha256"):
            now, then = now_and_then
            raise ValueError(
                f"the run in {path} is about other data, or they changed since: their SHA-256 is "
                f"{now} and was {then}."
            )
        if differing:
            words = ", ".join(
                f"`{name}` is {here!r} and was {there!r}"
                for name, (here, there) in differing.items()
            )
            raise ValueError(f"the run in {path} has other settings: {words}.")
        return begun

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """The folder of an existing run. Raises `NoRun` if there is none, and `ValueError` if its
        settings are damaged."""
        path = Path(path)
        try:
            return cls(path, read_config(read_whole(path / _CONFIG, _MOST_BYTES)))
        except (FileNotFoundError, NotADirectoryError):
            raise NoRun(f"{path} is not the folder of a run: no {_CONFIG} in it.") from None
        except ValueError as error:
            raise ValueError(f"{path / _CONFIG} is not that of a run: {error}") from None

    def verify(self) -> None:
        """Check the files of a complete run.

        Raises `ValueError`, naming the file, if lines of the `.jsonl` files are missing or changed,
        or if the report or the model is changed or of another run.
        """
        stored = self._stored_report()
        if stored is None:
            if (notes := self._newest_notes()) is not None:
                self._accept(notes)
            return
        report, sums = stored
        for name, history in self._histories.items():
            if name == METRICS or history.path.exists():
                history.accept(report["epochs"], sums.get(name), and_no_more=True)
        self._verify_model(sums)

    def append(self, file: str, line: dict[str, Any]) -> None:
        """Append a line to a `.jsonl` file; numbers that are not finite become null."""
        self._histories[file].append(line)

    def lines(self, file: str) -> list[dict[str, Any]]:
        """The lines of a `.jsonl` file; none if there is no such file.

        Raises `ValueError`, naming the file, for an invalid line.
        """
        return self._histories[file].lines()

    def go_back_to(self, notes: dict[str, Any]) -> None:
        """Restore the files to their content when the checkpoint with these notes was written.

        Removes lines of later epochs and an incomplete last line. Raises `ValueError`, naming the
        file, if lines or the model are missing or changed.
        """
        self._accept(_Notes(**notes))
        if notes["best_epoch"]:
            self._sum_of_model()
        elif (begun := len(self._histories[METRICS])) > 1:
            raise ValueError(
                f"{self.path / METRICS} has {begun} lines, but there is no checkpoint."
            )
        for history in self._histories.values():
            history.cut(notes["epoch"])
        self._remove_checkpoints_before(notes["epoch"])

    def save_checkpoint(self, epoch: int, state: PyTree, notes: dict[str, Any]) -> None:
        """Write the checkpoint after `epoch` epochs, and remove old ones."""
        sums = {name: history.sum for name, history in self._histories.items()}
        save_tree(self._checkpoint(epoch), state, {"epoch": epoch, **notes, "sums": sums})
        self._remove_checkpoints_before(epoch)

    def load_checkpoint(self, like: PyTree) -> tuple[PyTree, dict[str, Any]] | None:
        """State and notes of the newest readable checkpoint; None if there is none.

        Warns of damaged ones. Raises `BadCheckpoint` if there are checkpoints and all are damaged.
        """
        return self._newest(lambda path: load_tree(path, like))

    def checkpoints(self) -> list[Path]:
        """The existing checkpoints, oldest first."""
        return sorted(self.path.glob(_CHECKPOINTS))

    def save_model(
        self, model: PyTree, epoch: int, preparation: dict[str, Any] | None = None
    ) -> None:
        """Write the parameters of the best model so far, their epoch, and how its inputs are
        prepared."""
        notes = {} if preparation is None else {_PREPARATION: preparation}
        save_tree(self.path / _MODEL, model, {"epoch": epoch} | notes)

    def load_preparation(self) -> dict[str, Any] | None:
        """How the inputs of the best model are prepared; None if they are not.

        Raises `ValueError` if there is no model, or it is damaged.
        """
        return read_arrays(self._model)[1].get(_PREPARATION)

    @property
    def _model(self) -> Path:
        path = self.path / _MODEL
        if not path.exists():
            raise ValueError(f"the run in {self.path} has no model yet: no epoch was completed.")
        return path

    def load_model(self, like: PyTree, epoch: int | None = None) -> PyTree:
        """The best model so far; it must be of `epoch`, if that is given.

        Raises `ValueError` if there is none, it is of another epoch, or it is damaged.
        """
        path = self._model
        if (stored := self._stored_report()) is not None:
            self._verify_model(stored[1])
        model, notes = load_tree(path, like)
        if epoch is not None and notes.get("epoch", epoch) != epoch:
            raise ValueError(
                f"{path} is of epoch {notes['epoch']}, which was not completed; epoch {epoch} is "
                "the best."
            )
        return model

    def save_report(self, report: dict[str, Any]) -> None:
        """Write the report, in the form of `Report.to_document`."""
        sums = {name: history.sum for name, history in self._histories.items()}
        document = sealed(report | {"sums": sums | {_MODEL: self._sum_of_model()}})
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
        write_atomically(self.path / _REPORT, text.encode())

    def load_report(self) -> dict[str, Any] | None:
        """The report; None if the run is not complete. Raises `ValueError` if it is damaged."""
        stored = self._stored_report()
        return None if stored is None else stored[0]

    def _stored_report(self) -> tuple[dict[str, Any], dict[str, str]] | None:
        """The report, and its check sums of the other files."""
        path = self.path / _REPORT
        try:
            document = unsealed(parse_object(read_whole(path, _MOST_BYTES)))
            sums = fields_of(_Sums, {"sums": document.pop("sums", {})})["sums"]
            Report.from_document(document)
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(f"{path} is not the report of a run: {error}") from None
        return document, sums

    def _newest_notes(self) -> _Notes | None:
        found = self._newest(lambda path: read_arrays(path)[:2])
        return None if found is None else _Notes(**found[1])

    def _newest(
        self, read: Callable[[Path], tuple[Any, dict[str, Any]]]
    ) -> tuple[Any, dict[str, Any]] | None:
        """The result of `read` for the newest readable checkpoint, and its notes."""
        checkpoints = self.checkpoints()
        for path in reversed(checkpoints):
            try:
                found, notes = read(path)
                return found, self._checked(path, notes)
            except BadCheckpoint as error:
                if path == checkpoints[0]:
                    raise
                warnings.warn(f"{error}; going back to the one before.", stacklevel=4)
        return None

    def _checked(self, path: Path, notes: dict[str, Any]) -> dict[str, Any]:
        try:
            notes = fields_of(_Notes, {"sums": {}} | notes)
            if notes["best"].keys() != {self.config.figure, "loss"}:
                raise ValueError(
                    f"`best` must be {self.config.figure} and loss, not {notes['best']}."
                )
            if path != self._checkpoint(notes["epoch"]):
                raise ValueError(f"it is of epoch {notes['epoch']}.")
        except ValueError as error:
            raise BadCheckpoint(f"{path} is no checkpoint of a run: {error}") from None
        return notes

    def _remove_checkpoints_before(self, epoch: int) -> None:
        """Keep the last checkpoints up to `epoch`; later ones are not in use."""
        newest = self._checkpoint(epoch)
        for path in [path for path in self.checkpoints() if path <= newest][:-_CHECKPOINTS_KEPT]:
            with naming(path, "remove"):
                path.unlink()

    def _accept(self, notes: _Notes) -> None:
        for name, history in self._histories.items():
            history.accept(notes.epoch, notes.sums.get(name))

    def _verify_model(self, sums: dict[str, str]) -> None:
        if _MODEL in sums and sums[_MODEL] != self._sum_of_model():
            raise ValueError(f"{self.path / _MODEL} is not the model that {_REPORT} is about.")

    def _sum_of_model(self) -> str:
        return read_arrays(self.path / _MODEL)[2]

    def _checkpoint(self, epoch: int) -> Path:
        return self.path / f"checkpoint-{epoch:06d}.safetensors"


def _files(folder: Path) -> set[str]:
    """The names of the files, without temporary ones."""
    passing = {path.name for path in folder.glob(LEFTOVERS)} | {LOCK}
    return {path.name for path in folder.iterdir()} - passing


def _not_empty(folder: Path) -> ValueError:
    return ValueError(
        f"`out`: the folder {folder} is not empty. Resume the run in it, or name another."
    )
