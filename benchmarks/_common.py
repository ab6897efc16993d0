"""What every benchmark needs: fair timing, a description of the machine, a file for the result."""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal

import tyro

from organics import provenance
from organics.atomic import write_atomically

Seconds = dict[str, list[float]]


def time_in_turn(functions: dict[str, Callable[[], Any]], rounds: int) -> Seconds:
    """Wall time of each function in each of `rounds` rounds.

    They take turns, so that whatever else the machine does falls on all of them alike. What has to
    be compiled must have been so before.
    """
    seconds: Seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = perf_counter()
            function()
            seconds[name].append(perf_counter() - start)
    return seconds


def spread(values: list[float], digits: int = 4) -> dict[str, Any]:
    """Median, extremes and the values themselves, to `digits` decimal places."""
    return {
        "median": round(median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "runs": [round(value, digits) for value in values],
    }


def target(
    what: str, value: float, kind: Literal["at least", "at most"], bound: float
) -> dict[str, Any]:
    """A measured value against what it is meant to reach."""
    met = value >= bound if kind == "at least" else value <= bound
    return {"what": what, "value": round(value, 3), "target": f"{kind} {bound:g}", "met": met}


def machine() -> dict[str, Any]:
    """The machine, how busy it is with other things, and the versions that matter."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        **provenance.machine(),
        "load_average": None if load is None else round(load, 2),
        "versions": provenance.versions(),
    }


def write(out: Path | None, result: dict[str, Any]) -> None:
    """Write a result as JSON to the file `out`, if there is to be one."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, (json.dumps(result, indent=2) + "\n").encode())


def command_line(run: Callable[..., dict[str, Any]]) -> None:
    """A benchmark as a command of its own: its result on standard output."""
    json.dump(tyro.cli(run), sys.stdout, indent=2)
    print()


def run_by_name(name: str, out: Path | None, quick: bool) -> dict[str, Any]:
    """Run the benchmark of this name, with its result in the folder `out` (`None`: no file)."""
    run = import_module(f"benchmarks.{name}").run
    return run(out=None if out is None else out / f"benchmark_{name}.json", quick=quick)
