"""The training loop: steps, validation, checkpoints, and when to stop."""

import math
import os
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from organics.errors import Diverged
from organics.machine.lapack import single_threaded_lapack
from organics.machine.provenance import system, versions
from organics.models import Model, count_parameters
from organics.training.config import (
    AnyConfig,
    OwnConfig,
    SequenceConfig,
    TaskConfig,
    TrainConfig,
)
from organics.training.evaluation import diagnose, figures, load_model, load_task, mean_metrics
from organics.training.group import Group
from organics.training.progress import ProgressBar
from organics.training.report import NumbersReport, Outcome, Report, TaskReport
from organics.training.room import require_room_for_batches, require_room_for_model
from organics.training.run_folder import RunFolder
from organics.training.step import (
    Metrics,
    TrainState,
    advance,
    initial_state,
    learning_rate,
    make_optimizer,
    metric_dtypes,
)
from organics.training.task import Sets, Task, task_of, varied

_PIECES = 20  # parts of an epoch, after each of which progress is shown and divergence checked
_DIAGNOSED = 0.02  # largest fraction of the training examples in a diagnosis: bounds its time
_OUTLIER = 1000  # times the median of an epoch, from which on the norm of a gradient is told


def _divergence(
    step: int, epoch: int, checkpoint: Path | None, config: AnyConfig, *, validation: bool = False
) -> Diverged:
    what = (
        f"the validation loss is not finite after step {step} (the last of epoch {epoch})"
        if validation
        else f"the loss or its gradient is not finite at step {step} (in epoch {epoch})"
    )
    kept = f"the last good checkpoint is {checkpoint}" if checkpoint else "no checkpoint yet"
    message = f"{what}; {kept}. Lower `learning_rate`.{config.other_remedy}"
    return Diverged(message, step, checkpoint)


@overload
def train(
    config: TrainConfig | SequenceConfig,
    out: str | Path,
    resume: bool = ...,
    progress: bool = ...,
    devices: int = ...,
    on_epoch: Callable[[int, Model], None] | None = ...,
) -> Report: ...


@overload
def train(
    config: TaskConfig,
    out: str | Path,
    resume: bool = ...,
    progress: bool = ...,
    devices: int = ...,
    on_epoch: Callable[[int, Model], None] | None = ...,
) -> TaskReport: ...


@overload
def train(
    config: OwnConfig,
    out: str | Path,
    resume: bool = ...,
    progress: bool = ...,
    devices: int = ...,
    on_epoch: Callable[[int, Model], None] | None = ...,
) -> Report | NumbersReport: ...


def train(
    config: AnyConfig,
    out: str | Path,
    resume: bool = False,
    progress: bool = True,
    devices: int = 1,
    on_epoch: Callable[[int, Model], None] | None = None,
) -> Report | NumbersReport | TaskReport:
    """Train a model and write everything about the run to the folder `out`; see
    `organics.training.run_folder`.

    With `resume`, a run begun in `out` with the same settings continues from its last checkpoint;
    the results are bit for bit those of an uninterrupted run (on the same machine and versions). If
    there is no run, it is begun; if it is complete, only its report is returned.

    `devices` of this process, and as many of every other process of `jax.distributed`, share every
    batch. Every process must make the same call; only the first reads and writes files and shows
    the bar, and all return the report. The results are those of one device, except for rounding.

    `on_epoch(epoch, model)` is called after each epoch, and with 0 before the first, with the
    validated model. It is called before the epoch's checkpoint is written: after an interruption no
    epoch is missed, but one may be repeated. With several processes only the first calls it.

    Raises `ValueError` if the settings do not fit the data, the devices or the memory, if there are
    too few devices, if `out` is not empty (or, with `resume`, holds another run or a damaged one)
    or if another process is training in it; `OSError`, naming the file, if one cannot be written
    (the run can then be resumed from its last checkpoint); `organics.data.DataUnavailable` if the
    data set is not available; and `Diverged` if the loss is not finite in training or validation,
    before anything of that epoch is written.
    """
    return run(task_of(config), out, resume, progress, devices, on_epoch)


def run(
    task: Task,
    out: str | Path,
    resume: bool = False,
    progress: bool = True,
    devices: int = 1,
    on_epoch: Callable[[int, Model], None] | None = None,
) -> Report | NumbersReport | TaskReport:
    """`train` for a task."""
    config = task.config
    task.input_shape()  # raises before a folder is made
    require_room_for_model(task)
    group = Group(devices)
    if config.batch_size % group.size:
        raise ValueError(
            f"`batch_size` must be a multiple of the {group.size} devices that share a batch, "
            f"not {config.batch_size}."
        )
    folder: RunFolder | None = None
    with ExitStack() as stack:

        def begin() -> dict[str, Any] | None:
            nonlocal folder
            folder = stack.enter_context(RunFolder.begin(out, config, resume))
            stored = folder.load_report()
            if stored is not None:
                folder.verify()
            return stored

        if (stored := group.agree(begin)) is None:
            stored = _train(task, folder, group, progress, on_epoch)
        return Outcome.from_document(stored)


def _train(
    task: Task,
    folder: RunFolder | None,
    group: Group,
    progress: bool,
    on_epoch: Callable[[int, Model], None] | None,
) -> dict[str, Any]:
    """Train and test; returns the report as stored."""
    sets = task.sets(load_task(task))
    require_room_for_batches(task, sets.training.size)
    run = _Run(task, folder, group, sets, on_epoch)
    with single_threaded_lapack():  # for the singular values of bounded weights
        run.complete(progress and group.first)
    model = run.best_model()
    count = sets.test.size
    tested = mean_metrics(group.replicate(model), group.replicate(sets.test), count, group)
    return group.agree(lambda: run.report(model, tested))


class _Run:
    """A run in progress: its state, the best result so far, and its folder.

    `folder` is `None` in all processes but the first.
    """

    def __init__(
        self,
        task: Task,
        folder: RunFolder | None,
        group: Group,
        sets: Sets,
        on_epoch: Callable[[int, Model], None] | None = None,
    ):
        self.task, self.sets = task, sets
        self.config = config = task.config
        self.folder = folder
        self.on_epoch = on_epoch
        self.group = group
        self.source = varied(sets.training, config)
        self.training = group.replicate(self.source)
        self.validation = group.replicate(sets.validation)
        self.count = sets.training.size
        self.steps_per_epoch = math.ceil(self.count / config.batch_size)
        steps = config.epochs * self.steps_per_epoch
        self.schedule = learning_rate(config, steps)
        self.optimizer = make_optimizer(config, steps)
        state = initial_state(task.build(), self.optimizer, config.averaging)
        batch = min(config.batch_size, self.count)
        self.metrics = metric_dtypes(state, self.optimizer, self.source, batch)

        def resume() -> dict[str, Any]:
            nonlocal state
            folder = self._own_folder
            begin = {"loss": math.inf, config.figure: -1.0}
            notes = {"epoch": 0, "best": begin, "best_epoch": 0, "sums": {}}
            if (found := folder.load_checkpoint(state)) is not None:
                state, notes = found
            folder.go_back_to(notes)
            return notes

        notes = group.agree(resume)
        self.done, self.best, self.best_epoch = (
            notes[name] for name in ("epoch", "best", "best_epoch")
        )
        self.state: TrainState = group.replicate(group.of_first(state))

    def complete(self, progress: bool) -> None:
        """Run all remaining epochs."""
        if self.done == 0:
            self.group.agree(self._tell)
        bar = ProgressBar(
            self.config.epochs, self.steps_per_epoch, self.done, progress, self.config.figure
        )
        with bar:
            while not self.over:
                self._epoch(self.done + 1, bar)

    @property
    def over(self) -> bool:
        """Whether no epochs are left, or patience has ended."""
        patience = self.config.patience or self.config.epochs
        return self.done == self.config.epochs or self.done - self.best_epoch >= patience

    def best_model(self) -> Model:
        """The model of the best epoch, in all processes."""
        model = self.state.evaluated

        def load() -> None:
            nonlocal model
            model = load_model(self._own_folder, self.best_epoch, self.task)

        self.group.agree(load)
        return self.group.of_first(model)

    def report(self, model: Model, tested: dict[str, float]) -> dict[str, Any]:
        """Write the report of the best model and return it as stored. Only in the first process."""
        config, sets = self.config, self.sets
        seconds = [line["seconds"] for line in self._own_folder.lines("metrics.jsonl")]
        shared: dict[str, Any] = dict(
            dataset=sets.name,
            model=config.model,
            layers=config.sizes,
            recurrent=config.recurrent,
            seed=config.seed,
            parameters=count_parameters(model),
            epochs=self.done,
            best_epoch=self.best_epoch,
            test_loss=tested["loss"],
            seconds_per_epoch=float(np.median(seconds)),
            device=jax.devices()[0].device_kind,
            platform=f"{system()}, {os.cpu_count()} cores",
            versions=versions(),
            devices=self.group.size,
        )
        further = figures(model, sets, sets.test)
        if sets.trivial is not None:
            measure, score = sets.trivial
            report = TaskReport(
                **shared,
                measure=measure,
                validation_score=self.best[measure],
                test_score=tested[measure],
                trivial_score=score,
            )
        elif config.figure == "accuracy":
            report = Report(
                **shared,
                validation_accuracy=self.best["accuracy"],
                test_accuracy=tested["accuracy"],
                test_guessing=further.get("guessing"),
                classes=further.get("classes", {}),
            )
        else:
            report = NumbersReport(
                **shared,
                validation_error=figures(model, sets, sets.validation)["error"],
                test_error=further["error"],
                test_guessing=further["guessing"],
            )
        found = report.to_document()
        self._own_folder.save_report(found)
        return found

    @property
    def _own_folder(self) -> RunFolder:
        assert self.folder is not None  # only the first process calls this
        return self.folder

    def _epoch(self, epoch: int, bar: ProgressBar) -> None:
        begin = time.perf_counter()
        record, weights = self._steps(epoch, bar)
        seconds = time.perf_counter() - begin
        self._tell_outlier(record["gradient_norm"], epoch)
        model = self.state.evaluated
        validated = mean_metrics(model, self.validation, self.validation.size, self.group)
        if not math.isfinite(validated["loss"]):
            raise self._diverged(int(self.state.step) - 1, epoch, validation=True)
        improved = self._rank(validated) > self._rank(self.best)
        if improved:
            self.best = {name: validated[name] for name in (self.config.figure, "loss")}
            self.best_epoch = epoch
        self.done = epoch

        def put_down() -> None:
            self._tell()
            self._write(record, weights, seconds, validated, improved)

        self.group.agree(put_down)
        bar.finish_epoch(epoch, validated[self.config.figure])

    def _rank(self, metrics: dict[str, float]) -> tuple[float, float]:
        """A key for ranking, greater is better: by accuracy, then by loss, or by loss alone."""
        accuracy = 0.0 if self.config.chosen_by_loss else metrics["accuracy"]
        return accuracy, -metrics["loss"]

    def _tell(self) -> None:
        if self.on_epoch is not None:
            self.on_epoch(self.done, self.group.local(self.state.evaluated))

    def _tell_outlier(self, norms: np.ndarray, epoch: int) -> None:
        """Warn of a gradient that Adam will not forget: its steps are small ever after."""
        median, largest = np.median(norms), np.max(norms)
        unforgotten = self.config.optimizer in ("adam", "adamw") and self.config.clipped_at is None
        if unforgotten and largest > _OUTLIER * median and self.group.first:
            step = int(self.state.step) - len(norms) + int(np.argmax(norms))
            warnings.warn(
                f"the norm of the gradient at step {step} (in epoch {epoch}) is {largest:.3g}, and "
                f"{median:.3g} in the median of the epoch; after it, {self.config.optimizer} takes "
                f"small steps for a long time. Lower `learning_rate`.{self.config.other_remedy}",
                stacklevel=2,
            )

    def _write(
        self,
        record: dict[str, np.ndarray],
        weights: np.ndarray,
        seconds: float,
        validated: dict[str, float],
        improved: bool,
    ) -> None:
        """Write the files of a complete epoch."""
        folder = self._own_folder
        state = self.group.local(self.state)
        if improved:
            prepared = self.sets.preparation
            document = None if prepared is None else prepared.to_document()
            folder.save_model(state.evaluated, self.done, document)
        step = int(state.step)
        record = {name: np.asarray(values, np.float64) for name, values in record.items()}
        means = {
            name: float(np.average(values, weights=weights))
            for name, values in record.items()
            if name != "gradient_norm"
        }
        sample = min(math.ceil(_DIAGNOSED * self.count), self.validation.size)
        line = {
            "epoch": self.done,
            "step": step,
            **means,
            "gradient_norm_mean": float(np.mean(record["gradient_norm"])),
            "gradient_norm_max": float(np.max(record["gradient_norm"])),
            **{f"validation_{name}": value for name, value in validated.items()},
            **diagnose(state.evaluated, self.group.local(self.validation), sample),
            "learning_rate": float(jnp.asarray(self.schedule(step - 1))),
            "seconds": seconds,
        }
        folder.append("metrics.jsonl", line)
        steps = {name: values.tolist() for name, values in record.items()}
        folder.append("steps.jsonl", {"epoch": self.done, **steps})
        notes = {"best": self.best, "best_epoch": self.best_epoch}
        folder.save_checkpoint(self.done, state, notes)

    def _steps(self, epoch: int, bar: ProgressBar) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Run all steps of an epoch; returns every metric at each step, and the size of each
        batch."""
        order = self.source.order(self.config.seed, epoch)
        full = self.count // self.config.batch_size
        cut = full * self.config.batch_size
        batches = [order[:cut].reshape(full, -1)] if full else []
        if cut < self.count:
            batches.append(order[None, cut:])  # the smaller last batch of an epoch
        records = [self._take(rows, epoch, bar) for rows in batches]
        record = {name: np.concatenate([r[name] for r in records]) for name in records[0]}
        weights = np.concatenate([np.full(len(rows), rows.shape[1]) for rows in batches])
        return record, weights

    def _take(self, order: np.ndarray, epoch: int, bar: ProgressBar) -> dict[str, np.ndarray]:
        steps, size = order.shape
        place = self.group.replicate
        record: Metrics = place(
            {name: np.zeros(steps, dtype) for name, dtype in self.metrics.items()}
        )
        rows = self.group.share(order)
        piece = math.ceil(steps / _PIECES)
        for first in range(0, steps, piece):
            last = min(first + piece, steps)
            begin = time.perf_counter()
            self.state, record = advance(
                (self.state, record),
                self.optimizer,
                self.training,
                rows,
                place(np.int32(first)),
                place(np.int32(last)),
                self.group.mesh,
            )
            taken = {name: np.asarray(values)[first:last] for name, values in record.items()}
            self._stop_if_diverged(taken, epoch)
            rate = (last - first) * size / (time.perf_counter() - begin)
            loss, figure = (float(np.mean(taken[name])) for name in ("loss", self.config.figure))
            bar.advance(last - first, loss, figure, rate)
        return {name: np.asarray(values) for name, values in record.items()}

    def _stop_if_diverged(self, taken: dict[str, np.ndarray], epoch: int) -> None:
        good = np.isfinite(taken["loss"]) & np.isfinite(taken["gradient_norm"])
        if not np.all(good):
            step = int(self.state.step) - len(good) + int(np.argmin(good))
            raise self._diverged(step, epoch)

    def _diverged(self, step: int, epoch: int, validation: bool = False) -> Diverged:
        checkpoints = [] if self.folder is None else self.folder.checkpoints()
        checkpoint = checkpoints[-1] if checkpoints else None
        return _divergence(step, epoch, checkpoint, self.config, validation=validation)
