"""The time to import the package, and of `organics --help`.

    python -m benchmarks.startup [--quick] [--seconds N] [--out FILE]

Wall time of whole processes, and of the bare interpreter. Importing JAX takes most of a second, so
neither may import it: `-X importtime` shows whether `organics --help` does.
"""

import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target, time_in_turn

HEAVY = ("jax", "jaxlib", "equinox", "diffrax", "optax", "scipy", "sklearn", "matplotlib")
SECONDS = 0.5


def run(
    out: Path | None = None, quick: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Time the start of the package and of its command.

    Arguments
        out: file for the result.
        quick: two rounds instead of fifteen.
        seconds: limit; with less time fewer rounds, or no result.
    """
    agenda = Agenda("startup", 15, quick=quick, seconds=seconds)
    processes = Measurement("processes", 4, 1.2, partial(_processes, agenda))
    found = agenda.take([processes]).get(processes.what, {})
    return conclude(agenda, command("startup", quick=quick, seconds=seconds), found, out)


def _processes(agenda: Agenda) -> dict[str, Any]:
    python = [sys.executable, "-c"]
    organics = str(Path(sysconfig.get_path("scripts")) / "organics")
    commands = {
        "bare_python": [*python, "pass"],
        "import_organics": [*python, "import organics"],
        "import_circuit": [*python, "from organics import Circuit"],
        "organics_help": [organics, "--help"],
        "organics_train_help": [organics, "train", "--help"],
        "organics_analyze_help": [organics, "analyze", "--help"],
    }
    imported = {name: _heavy_imports(commands[name][1:]) for name in commands if "help" in name}
    processes = {name: partial(_start, command) for name, command in commands.items()}
    time_in_turn(processes, range(1))  # the first start also compiles to bytecode
    seconds = time_in_turn(processes, agenda.rounds())
    import_times = [
        package - bare
        for package, bare in zip(seconds["import_organics"], seconds["bare_python"], strict=True)
    ]
    return {
        "process_seconds": {name: spread(times) for name, times in seconds.items()},
        "import_seconds": spread(import_times),
        "heavy_packages_imported": imported,
        "targets": [
            target(
                "seconds to `import organics`", spread(import_times)["median"], "at most", SECONDS
            ),
            target(
                "seconds of `organics --help`",
                spread(seconds["organics_help"])["median"],
                "at most",
                SECONDS,
            ),
            target("heavy packages that it imports", len(imported["organics_help"]), "at most", 0),
        ],
    }


def _start(command: list[str]) -> str:
    """Run a process to its end and return its standard error."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stderr


def _heavy_imports(arguments: list[str]) -> list[str]:
    """The heavy packages that `organics` imports with these arguments."""
    code = f"from organics.cli import main; main({arguments!r})"
    lines = _start([sys.executable, "-X", "importtime", "-c", code]).splitlines()
    modules = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time")}
    return [package for package in HEAVY if package in modules]


if __name__ == "__main__":
    command_line(run)
