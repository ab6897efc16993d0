"""The end of every study: a JSON file that records its command, also printed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from organics.files.atomic import write_atomically


def command(name: str) -> str:
    """The command line of the study `name`, as given."""
    return " ".join([f"python -m organics.studies.ours.{name}", *sys.argv[1:]])


def write(path: Path, found: dict[str, Any]) -> None:
    """Write the outcome so far to `path`, whose folder need not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(found, indent=2) + "\n").encode())


def run_from_command_line(compute: Callable[[Any], dict[str, Any]], config: type) -> None:
    """Read the settings, a dataclass, from the command line, and print the result of `compute`."""
    json.dump(compute(tyro.cli(config)), sys.stdout, indent=2)
    print()
