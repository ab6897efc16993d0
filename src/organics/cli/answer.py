"""The answer of a command, for people or for machines."""

import io
import json
import os
import sys
import unicodedata
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
        document: everything, for `--json`; any value that `as_plain` takes.
        text: the same for people; strings and `rich` renderables, printed in order.
        positive: false if the answer to `--check` is negative.
        wrote: the files that were written.
    """

    document: dict[str, Any]
    text: list[Any] = field(default_factory=list)
    positive: bool = True
    wrote: tuple[Path, ...] = ()


def show(answer: Answer, as_json: bool) -> None:
    """Print an answer; with `as_json`, as one JSON document on standard output.

    Raises `OSError`, naming standard output, if it cannot be written, as when the disk is full.
    """
    with naming("standard output", "write"):
        try:
            _print(answer, as_json)
            sys.stdout.flush()
        except OSError:
            _write_nowhere()
            raise


def _write_nowhere() -> None:
    """Discard output that is still buffered: Python would fail again at exit."""
    with suppress(OSError, ValueError):  # standard output may be no file at all
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print(answer: Answer, as_json: bool) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # do not fail for characters that it cannot encode
        sys.stdout.reconfigure(errors="backslashreplace")
    if as_json:
        wrote = {"wrote": answer.wrote} if answer.wrote else {}
        json.dump(as_plain(answer.document | wrote), sys.stdout, allow_nan=False)
        sys.stdout.write("\n")
        return
    from rich.console import Console
    from rich.table import Table

    # file names may look like markup
    console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
    console.width = max(console.width, _LEAST_WIDTH)
    for piece in answer.text:
        for column in piece.columns if isinstance(piece, Table) else []:
            column.overflow = "fold"  # otherwise digits are cut off if there is no room
        console.print(printable(piece) if isinstance(piece, str) else piece)
    for path in answer.wrote:
        console.print(f"wrote {path}")


def note(message: str) -> None:
    """Print a message on standard error; it is not part of the answer."""
    print(printable(message), file=sys.stderr)


def printable(text: str) -> str:
    """`text` without control characters but line breaks: names in a file may hold some, and a
    terminal would obey them."""
    return "".join("?" if unicodedata.category(c) == "Cc" and c not in "\n\t" else c for c in text)
