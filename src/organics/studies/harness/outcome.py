"""How every experiment ends: a JSON file that says which command made it, printed as well."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from organics.files.atomic import write_atomically


def command(name: str) -> str:
    """The command line of the experiment `name`, as it was given."""
    return " ".join([f"python -m organics.studies.ours.{name}", *sys.argv[1:]])


def write(path: Path, found: dict[str, Any]) -> None:
    """Leave the outcome so far in `path`, whose folder need not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(found, indent=2) + "\n").encode())


def run_from_command_line(compute: Callable[[Any], dict[str, Any]], config: type) -> None:
    """Read the settings, a dataclass, from the command line; print what `compute` makes of them."""
    json.dump(compute(tyro.cli(config)), sys.stdout, indent=2)
    print()
