"""The records of a run: files with a line for each epoch, to which lines are only appended."""

import hashlib
import json
from pathlib import Path
from typing import Any

from organics.files.atomic import append, read_whole, write_atomically
from organics.files.documents import canonical, parse_object
from organics.files.plain import as_plain
from organics.settings import is_real

METRICS, STEPS = "metrics.jsonl", "steps.jsonl"

_ALWAYS = {
    METRICS: (
        "epoch", "step", "loss", "gradient_norm_mean", "gradient_norm_max", "validation_loss",
        "learning_rate", "seconds",
    ),
    STEPS: ("epoch", "loss", "gradient_norm"),
}  # fmt: skip
"""The entries of every line, for any model, besides the metric that says how good it is."""

_MOST_BYTES = 2**31


class History:
    """The lines of `METRICS` or of `STEPS` in a folder: JSON objects, the i-th of epoch i.

    An incomplete last line is ignored. The check sum covers the lines that this object appended or
    accepted, except their `seconds`, which alone differ when a run is repeated. `figure` is the
    metric that says how good a model is.
    """

    def __init__(self, folder: Path, name: str, figure: str):
        self.path = folder / name
        figures = (figure, f"validation_{figure}") if name == METRICS else (figure,)
        self._always = (*_ALWAYS[name], *figures)
        self._is_entry = _is_number if name == METRICS else _is_list
        self._sum = hashlib.sha256()

    @property
    def sum(self) -> str:
        """The check sum of the lines so far."""
        return self._sum.hexdigest()

    def append(self, line: dict[str, Any]) -> None:
        """Append a line; numbers that are not finite become null. Raises `OSError`, naming the
        file."""
        line = as_plain(line)
        append(self.path, (json.dumps(line, allow_nan=False) + "\n").encode())
        self._add(line)

    def lines(self) -> list[dict[str, Any]]:
        """The lines; none if there is no such file.

        Raises `ValueError`, naming the file and the line, for an invalid line.
        """
        return [self._line(i, data) for i, data in enumerate(self._whole_lines(), 1)]

    def __len__(self) -> int:
        return len(self._whole_lines())

    def accept(self, epochs: int, noted: str | None, *, and_no_more: bool = False) -> None:
        """Check and accept the lines of the first `epochs` epochs.

        `noted` is their check sum; None (earlier versions) is not compared. Raises `ValueError`,
        naming the file, if there are fewer lines (or, with `and_no_more`, more), or if they were
        changed.
        """
        data = self._whole_lines()
        if len(data) < epochs or (and_no_more and len(data) > epochs):
            raise ValueError(
                f"{self.path} has {len(data)} lines, but {epochs} epochs are complete."
            )
        self._sum = hashlib.sha256()
        for i in range(epochs):  # later lines may be anything
            self._add(self._line(i + 1, data[i]))
        if noted not in (None, self.sum):
            raise ValueError(
                f"{self.path} was changed since it was written: its check sum is another."
            )

    def cut(self, epochs: int) -> None:
        """Remove the lines of later epochs, and an incomplete last line."""
        if self.path.exists():
            write_atomically(self.path, b"".join(self._whole_lines()[:epochs]))

    def _add(self, line: dict[str, Any]) -> None:
        repeated = {name: value for name, value in line.items() if name != "seconds"}
        self._sum.update(canonical(repeated))

    def _line(self, epoch: int, data: bytes) -> dict[str, Any]:
        where = f"{self.path}, line {epoch},"
        try:
            line = parse_object(data)
        except ValueError as error:
            raise ValueError(f"{where} {error}") from None
        for name in self._always:
            if line.get(name) is None:
                raise ValueError(f"{where} lacks `{name}`.")
        if line["epoch"] != epoch:
            raise ValueError(f"{where} is not that of epoch {epoch}.")
        for name, value in line.items():
            if name != "epoch" and not self._is_entry(value):
                raise ValueError(f"{where} has a `{name}` that a run does not write.")
        return line

    def _whole_lines(self) -> list[bytes]:
        try:
            data = read_whole(self.path, _MOST_BYTES)
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise ValueError(f"{self.path} {error}") from None
        return [line + b"\n" for line in data.split(b"\n")[:-1]]


def _is_number(value: Any) -> bool:
    """Whether it is a number, or null for one that was not finite."""
    return value is None or is_real(value)


def _is_list(value: Any) -> bool:
    """Whether it is a list of such numbers, one for each step."""
    return isinstance(value, list) and all(map(_is_number, value))
