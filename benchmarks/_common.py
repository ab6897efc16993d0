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
"""Format of options on the command line."""

Seconds = dict[str, list[float]]


def time_in_turn(functions: dict[str, Callable[[], Any]], rounds: Iterable[Any]) -> Seconds:
    """Wall time of each function in each round.

    The functions take turns, so that other load on the machine affects all alike. They must be
    compiled before.
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
    """A measured value compared with its target."""
    met = value >= bound if kind == "at least" else value <= bound
    return {"what": what, "value": round(value, 3), "target": f"{kind} {bound:g}", "met": met}


def machine() -> dict[str, Any]:
    """The machine, its load, and the relevant versions."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        **provenance.machine(),
        "load_average": None if load is None else round(load, 2),
        "versions": provenance.versions(),
    }


def command(name: str, **options: Any) -> str:
    """The command that repeats the measurement; omits options that are `None` or false."""
    words = [f"python -m benchmarks.{name}"]
    for option, value in options.items():
        if value is None or value is False:
            continue
        values = () if value is True else value if isinstance(value, tuple) else (value,)
        words += [f"--{option.replace('_', '-')}", *map(str, values)]
    return " ".join(words)


def prepare_torch(
    torch: Any, peers: str, agenda: Agenda, out: Path | None, without_torch: bool
) -> None:
    """Have PyTorch flush denormal numbers; without it, leave out its `peers`.

    Raises `ValueError` if it is missing and there is a file to write, unless `without_torch`.
    """
    if torch is not None:
        torch.set_flush_denormal(True)
        return
    if out is not None and not without_torch:
        raise ValueError(
            f"{out} is to have PyTorch's times, but it is not installed: `pip install '.[bench]'`, "
            f"or write the file without them by `python -m benchmarks.{agenda.name} "
            "--without-torch`."
        )
    agenda.leave_out(peers, "PyTorch is not installed")


def conclude(
    agenda: Agenda, command: str, found: dict[str, Any], out: Path | None
) -> dict[str, Any]:
    """The result of a benchmark, also written as JSON to `out`, if that is given.

    An existing file is kept if there was no time to measure anything.
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
    """Run a benchmark that should end at the time `end`, including its import."""
    run = import_module(module).run
    if end is not None:
        options["seconds"] = max(1.0, round(end - time.time(), 1))
    return run(**options)


def command_line(run: Callable[..., dict[str, Any]]) -> None:
    """Run a benchmark as a command; prints the result on standard output."""

    def print_result() -> int:
        json.dump(tyro.cli(run, config=FLAGS), sys.stdout, indent=2)
        print()
        return 0

    sys.exit(exit_code(print_result))


def exit_code(command: Callable[[], int]) -> int:
    """The result of `command`; 2 for an invalid request, 130 for an interruption, with a
    message."""
    try:
        return command()
    except (ValueError, OSError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbenchmarks: interrupted.", file=sys.stderr)
        return 130
