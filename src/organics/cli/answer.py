"""What a command answers, for people or for machines."""

import io
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from organics.files.atomic import naming
from organics.files.plain import as_plain

_LEAST_WIDTH = 80  # of a table; a narrower terminal breaks its lines


@dataclass(frozen=True)
class Answer:
    """The outcome of a command.

    Attributes
        document: everything, for `--json`: anything that `as_plain` takes.
        text: the same for people; strings and `rich` renderables, printed in order.
        positive: false if the question asked (`--check`) has a negative answer.
        wrote: the files that were written.
    """

    document: dict[str, Any]
    text: list[Any] = field(default_factory=list)
    positive: bool = True
    wrote: tuple[Path, ...] = ()


def show(answer: Answer, as_json: bool) -> None:
    """Print an answer: with `as_json` one JSON document on standard output and nothing else.

    Raises `OSError`, naming it, if standard output takes no more, as when the disk is full.
    """
    with naming("standard output", "write"):
        try:
            _print(answer, as_json)
            sys.stdout.flush()
        except OSError:
            _write_nowhere()
            raise


def _write_nowhere() -> None:
    """Have what is still to be written go nowhere: Python would fail once more when it ends."""
    with suppress(OSError, ValueError):  # standard output may be no file at all
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(answer: Answer, as_json: bool) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # a character that it has not is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    if as_json:
        wrote = {"wrote": answer.wrote} if answer.wrote else {}
        json.dump(as_plain(answer.document | wrote), sys.stdout, allow_nan=False)
        sys.stdout.write("\n")
        return
    from rich.console import Console
    from rich.table import Table

    # names of files may hold what would be markup
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    console.width = max(console.width, _LEAST_WIDTH)
    for piece in answer.text:
        for column in piece.columns if isinstance(piece, Table) else []:
            column.overflow = "fold"  # where there is no room, digits would be left out
        console.print(piece)
    for path in answer.wrote:
        console.print(f"wrote {path}")


def note(message: str) -> None:
    """Say something on standard error, which is never part of the answer."""
    print(message, file=sys.stderr)
