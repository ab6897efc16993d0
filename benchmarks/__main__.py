"""All benchmarks, one after another.

    python -m benchmarks [--only NAME ...] [--quick] [--full] [--seconds N] [--out FOLDER] [--json]

Each runs in a process of its own, so that benchmarks share neither JAX settings nor compiled
functions, and writes `benchmark_NAME.json` into the folder when it ends. Nothing else should run on
the machine.
"""

import math
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks._agenda import positive_seconds
from benchmarks._common import FLAGS, exit_code, run_until
from benchmarks._progress import Progress
from organics.cli.answer import Answer, show
from organics.machine.side_by_side import apart


class Estimate(NamedTuple):
    """A benchmark's module, and about how long it takes on two cores.

    Attributes
        module: its name.
        seconds: for everything it measures by default.
        least: seconds below which it is not started.
        quick: seconds for `--quick`.
        full: seconds for `--full`, if that is more.
    """

    module: str
    seconds: float
    least: float
    quick: float
    full: float | None = None


BENCHMARKS = {
    "startup": Estimate("benchmarks.startup", 22, 11, 7),
    "stability_scan": Estimate("benchmarks.stability_scan", 210, 45, 30),
    "sde_stepping": Estimate("benchmarks.sde_stepping", 44, 17, 14),
    "hierarchy": Estimate("benchmarks.hierarchy", 120, 40, 15),
    "perturbed": Estimate("benchmarks.perturbed", 400, 140, 60),
    "compact": Estimate("benchmarks.compact", 400, 110, 90),
    "image_layer": Estimate("benchmarks.image_layer", 60, 45, 40),
    "drives": Estimate("benchmarks.drives", 25, 25, 8),
    "static_epoch": Estimate("benchmarks.static_epoch", 72, 63, 27),
    "recurrence": Estimate("benchmarks.recurrence", 175, 16, 9, full=650),
    "modulation": Estimate("benchmarks.modulation", 60, 25, 8),
    "bfloat16": Estimate("benchmarks.bfloat16", 110, 60, 20),
    "fitting": Estimate("benchmarks.fitting", 100, 60, 15),
    "branches": Estimate("benchmarks.branches", 300, 120, 60),
    "cells": Estimate("benchmarks.cells", 85, 30, 10),
    "tasks": Estimate("benchmarks.tasks", 45, 25, 10),
    "libraries": Estimate("benchmarks.libraries", 45, 40, 20),
    "explorer": Estimate("benchmarks.explorer", 140, 60, 60),
    "torch_layer": Estimate("benchmarks.torch_layer", 62, 30, 10),
    "steady_states": Estimate("benchmarks.steady_states", 260, 30, 15, full=1500),
}


@dataclass(frozen=True)
class Benchmarks:
    """Run the benchmarks, one after another, and print the results.

    Example: python -m benchmarks --only startup stability_scan --seconds 120
    """

    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = tuple(BENCHMARKS)
    """Benchmarks to run."""
    quick: bool = False
    """Small sizes and few rounds, as a test; the times mean nothing, and files are written only if
    a folder is given."""
    full: bool = False
    """Include the sizes that take minutes each."""
    seconds: float | None = None
    """Approximate limit for all benchmarks together: with less time they do fewer rounds, at least
    five, and skip what does not fit."""
    out: Path | None = None
    """Folder for the results; by default `results`."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> int:
        """Run them; returns 1 if any failed, else 0.

        Raises `ValueError` for contradictory settings, and `OSError` if the folder cannot be made.
        """
        todo = self._todo()
        limit = math.inf if self.seconds is None else positive_seconds(self.seconds)
        out = Path("results") if self.out is None and not self.quick else self.out
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        begin = time.monotonic()
        results = {}
        for i, (name, estimate) in enumerate(todo.items()):
            spent = time.monotonic() - begin
            done, rest = list(todo.values())[:i], list(todo.values())[i:]
            seconds = share(rest, limit - spent)
            pace = spent / _seconds(done) if done and limit == math.inf else 1.0
            _say(
                f"{name}, {i + 1} of {len(todo)}: "
                f"about {min(seconds, pace * estimate.seconds):.0f} s; "
                f"{spent:.0f} s of about {min(limit, spent + pace * _seconds(rest)):.0f} s for all"
            )
            results[name] = self._one(name, estimate, seconds, out)
            if not self.json:
                Console().print(_table(name, results[name]))
        spent = time.monotonic() - begin
        _say(f"done in {spent:.0f} s")
        if self.json:
            show(Answer({"benchmarks": results, "seconds": round(spent, 1)}), as_json=True)
        return int(any("error" in result for result in results.values()))

    def _todo(self) -> dict[str, Estimate]:
        """The chosen benchmarks, and how long they take."""
        unknown = [name for name in self.only if name not in BENCHMARKS]
        if unknown or not self.only:
            what = f"there is no {', '.join(unknown)}" if unknown else "none is named"
            raise ValueError(f"--only: {what}; there are {', '.join(BENCHMARKS)}.")
        if self.quick and self.full:
            raise ValueError("--quick is for small sizes, --full for the large ones: not both.")
        todo = {}
        for name in dict.fromkeys(self.only):
            estimate = BENCHMARKS[name]
            if self.quick:
                estimate = estimate._replace(seconds=estimate.quick, least=estimate.quick)
            if self.full and estimate.full is not None:
                estimate = estimate._replace(seconds=estimate.full)
            todo[name] = estimate
        return todo

    def _one(
        self, name: str, estimate: Estimate, seconds: float, out: Path | None
    ) -> dict[str, Any]:
        """The result of a benchmark, or the reason why there is none."""
        if not seconds:
            _say(f"{name}: left out: no time")
            return {"benchmark": name, "left_out": [{"what": "all of it", "why": "no time"}]}
        options: dict[str, Any] = {"quick": self.quick}
        if out is not None:
            options["out"] = out / f"benchmark_{name}.json"
        if estimate.full is not None:
            options["full"] = self.full
        end = None if seconds == math.inf else time.time() + seconds
        try:
            return apart(run_until, estimate.module, end, options)
        except Exception as error:
            traceback.print_exc()
            _say(f"{name}: failed")
            return {"benchmark": name, "error": f"{type(error).__name__}: {error}"}


def share(rest: Sequence[Estimate], left: float) -> float:
    """The share of the remaining seconds for the first of `rest`; 0 if too few are left."""
    first = rest[0]
    if left < first.least:
        return 0.0
    fair = left * first.seconds / _seconds(rest)
    return max(first.least, min(fair, left))


def _seconds(estimates: Sequence[Estimate]) -> float:
    return sum(one.seconds for one in estimates)


def _say(text: str) -> None:
    Progress(sys.stderr).line(text)


def _table(name: str, result: dict[str, Any]) -> Table:
    """A table of a benchmark's targets, other numbers and spreads, and of what was left out."""
    table = Table(title=name, title_justify="left", box=None)
    for column in ("measured", "value", "target", ""):
        table.add_column(column, overflow="fold")
    for goal in result.get("targets", []):
        verdict = "[green]met[/]" if goal["met"] else "[red]missed[/]"
        table.add_row(goal["what"], f"{goal['value']:g}", goal["target"], verdict)
    for label, value in _numbers(result):
        table.add_row(label, value, style="dim")
    for one in result.get("left_out", []):
        table.add_row(one["what"], "left out", one["why"])
    if "error" in result:
        table.add_row(result["error"], style="red")
    return table


def _numbers(value: Any, label: str = "") -> list[tuple[str, str]]:
    """The numbers and spreads in a result, by their path in it."""
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return exit_code(
        lambda: tyro.cli(
            Benchmarks, prog="python -m benchmarks", args=arguments, config=FLAGS
        ).run()
    )


if __name__ == "__main__":
    sys.exit(main())
