"""All benchmarks, one after another.

    python -m benchmarks [--only NAME ...] [--quick] [--out FOLDER]

Each runs in a process of its own, so that no one's settings of JAX or compiled functions are
another's, and leaves `benchmark_NAME.json` in the folder. The machine should be doing nothing else.
"""

import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks._common import run_by_name

Name = Literal["startup", "stability_scan", "sde_stepping", "static_epoch", "recurrence"]


@dataclass(frozen=True)
class Benchmarks:
    """Run the benchmarks, one after another, and print what they found.

    Example: python -m benchmarks --only startup stability_scan
    """

    only: tuple[Name, ...] = get_args(Name)
    """Which of them."""
    quick: bool = False
    """Small sizes and few rounds, to see that they work; the times mean nothing, and nothing is
    written unless a folder is given."""
    out: Path | None = None
    """Folder for the results; by default `results`."""

    def run(self) -> int:
        """Run them; returns the number of those that failed."""
        console = Console()
        out = Path("results") if self.out is None and not self.quick else self.out
        failed = 0
        for name in self.only:
            with console.status(f"{name} ..."):
                try:
                    result = _in_its_own_process(name, out, self.quick)
                except Exception:
                    traceback.print_exc()
                    failed += 1
                    console.print(f"{name}: failed", style="red")
                    continue
            console.print(_table(name, result))
        return failed


def _in_its_own_process(name: str, out: Path | None, quick: bool) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(run_by_name, name, out, quick).result()


def _table(name: str, result: dict[str, Any]) -> Table:
    """The targets of a benchmark, and all its other single numbers and spreads."""
    table = Table(title=name, title_justify="left", box=None)
    for column in ("measured", "value", "target", ""):
        table.add_column(column, overflow="fold")
    for goal in result.get("targets", []):
        verdict = "[green]met[/]" if goal["met"] else "[red]missed[/]"
        table.add_row(goal["what"], f"{goal['value']:g}", goal["target"], verdict)
    for label, value in _numbers(result):
        table.add_row(label, value, style="dim")
    return table


def _numbers(value: Any, label: str = "") -> list[tuple[str, str]]:
    """Single numbers of a result by where they stand in it; a spread is one of them."""
    if isinstance(value, bool | str | None):
        return []
    if isinstance(value, int | float):
        return [(label, f"{value:g}")]
    if isinstance(value, list):
        items = enumerate(value)
    elif {"median", "min", "max"} <= value.keys():
        return [(label, f"{value['median']:g} ({value['min']:g} to {value['max']:g})")]
    else:
        items = ((key, item) for key, item in value.items() if key not in ("targets", "machine"))
    return [pair for key, item in items for pair in _numbers(item, f"{label}.{key}".strip("."))]


if __name__ == "__main__":
    sys.exit(1 if tyro.cli(Benchmarks).run() else 0)
