"""The progress bar of a training run, on standard error."""

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class ProgressBar:
    """Epoch, loss, accuracy, examples per second and time left; silent if `visible` is false.

    `figure` is the metric that is shown: an accuracy, or another.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        done: int = 0,
        visible: bool = True,
        figure: str = "accuracy",
    ):
        self._epochs = epochs
        self._figure = figure
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not visible,
        )
        self._task = self._progress.add_task(
            f"epoch {done + 1}/{epochs}",
            total=epochs * steps_per_epoch,
            completed=done * steps_per_epoch,
            figures="",
        )
        self._validation = ""

    def __enter__(self) -> "ProgressBar":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del kind, error, trace
        self._progress.stop()

    def advance(self, steps: int, loss: float, figure: float, examples_per_second: float) -> None:
        """Advance by some steps, with these means over them."""
        shown, rate = self._shown(figure), f"{examples_per_second:,.0f}/s"
        figures = f"loss {loss:.4f}  {self._figure.replace('_', ' ')} {shown}  {rate}"
        self._progress.update(self._task, advance=steps, figures=figures + self._validation)

    def finish_epoch(self, epoch: int, validated: float) -> None:
        """Show a complete epoch and the metric on the validation examples."""
        self._validation = f"  validation {self._shown(validated)}"
        name = f"epoch {min(epoch + 1, self._epochs)}/{self._epochs}"
        self._progress.update(self._task, description=name)

    def _shown(self, figure: float) -> str:
        return f"{figure:.2%}" if self._figure == "accuracy" else f"{figure:.4f}"
