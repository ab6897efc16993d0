"""What every benchmark needs: fair timing, a description of the machine, a file for the result."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, Literal

import tyro

from benchmarks._agenda import Agenda
from organics.files.atomic import write_atomically
from organics.machine import provenance

FLAGS = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
"""How options are given on the command line."""

Seconds = dict[str, list[float]]


def time_in_turn(functions: dict[str, Callable[[], Any]], rounds: Iterable[Any]) -> Seconds:
    """Wall time of each function in each round.

    They take turns, so that whatever else the machine does falls on all of them alike. What has to
    be compiled must have been so before.
    """
    seconds: Seconds = {name: [] for name in functions}
    for _ in rounds:
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
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


def command(name: str, **options: Any) -> str:
    """The command that measures the same; options that are `None` or false need not be given."""
    words = [f"python -m benchmarks.{name}"]
    for option, value in options.items():
        if value is None or value is False:
            continue
        values = () if value is True else value if isinstance(value, tuple) else (value,)
        words += [f"--{option.replace('_', '-')}", *map(str, values)]
    return " ".join(words)


def conclude(
    agenda: Agenda, command: str, found: dict[str, Any], out: Path | None
) -> dict[str, Any]:
    """The result of a benchmark, written as JSON to the file `out`, if there is to be one.

    A file that is there stays as it is if there was no time to measure anything.
    """
    result = {
        "benchmark": agenda.name,
        "command": command,
        **found,
        "left_out": agenda.left_out,
        "seconds": round(agenda.seconds(), 1),
        "machine": machine(),
    }
    if out is not None and agenda.measured:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, (json.dumps(result, indent=2) + "\n").encode())
    return result


def run_until(module: str, end: float | None, options: dict[str, Any]) -> dict[str, Any]:
    """Run a benchmark, which is to be done at the time `end`: importing it takes some of that."""
    run = import_module(module).run
    if end is not None:
        options["seconds"] = max(1.0, round(end - time.time(), 1))
    return run(**options)


def command_line(run: Callable[..., dict[str, Any]]) -> None:
    """A benchmark as a command of its own: its result on standard output."""

    def print_result() -> int:
        json.dump(tyro.cli(run, config=FLAGS), sys.stdout, indent=2)
        print()
        return 0

    sys.exit(exit_code(print_result))


def exit_code(command: Callable[[], int]) -> int:
    """What `command` returns; 2 if it is refused, 130 if it is interrupted, and a word about it."""
    try:
        return command()
    except (ValueError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbenchmarks: interrupted.", file=sys.stderr)
        return 130
