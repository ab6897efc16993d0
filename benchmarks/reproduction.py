"""How long `organics reproduce --all` takes, from nothing but trained sequence networks.

    python -m benchmarks.reproduction [--quick] [--trained FOLDER] [--folder NEW] [--out FILE]

The wall time of the command, once; the time that each target's file notes, which includes that of
others beside it; and its verdict. Not among the benchmarks that `python -m benchmarks` runs; the
result that is kept is `results/reproduction.json`.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._agenda import LEAST, Agenda
from benchmarks._common import command, command_line, conclude, target

MINUTES = 60.0


def run(
    out: Path | None = None,
    quick: bool = False,
    trained: Path = Path("results/trained"),
    folder: Path | None = None,
) -> dict[str, Any]:
    """Time the command.

    Arguments
        out: file for the result.
        quick: with small samples.
        trained: folder of the trained sequence networks.
        folder: new folder for what the command writes; by default it is not kept.
    """
    agenda = Agenda("reproduction", LEAST, quick=quick)  # whose rounds are not used
    if folder is not None and folder.exists():
        raise ValueError(f"`folder` must be new; {folder} exists.")
    with tempfile.TemporaryDirectory() as temporary:
        minutes, documents = _timed(quick, trained.resolve(), folder or Path(temporary))
    agenda.measured = True
    found = {
        "minutes": round(minutes, 1),
        "targets": [target("minutes of `organics reproduce --all`", minutes, "at most", MINUTES)],
        "made": [
            {key: document[key] for key in ("name", "seconds", "verdict", "here")}
            for document in documents
        ],
    }
    return conclude(agenda, command("reproduction", quick=quick), found, out)


def _timed(quick: bool, trained: Path, folder: Path) -> tuple[float, list[dict[str, Any]]]:
    """The minutes of the command, and what it wrote of each target."""
    words = [sys.executable, "-m", "organics", "reproduce", "--all", "--json"]
    words += [*(["--quick"] if quick else []), "--out", str(folder / "out")]
    words += ["--runs", str(folder / "runs"), str(trained)]
    begin = time.perf_counter()
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    minutes = (time.perf_counter() - begin) / 60
    if done.returncode:
        raise ValueError(f"`{' '.join(words[2:])}` failed with exit code {done.returncode}.")
    names = [one["name"] for one in json.loads(done.stdout)["targets"]]
    return minutes, [json.loads((folder / "out" / f"{name}.json").read_text()) for name in names]


if __name__ == "__main__":
    command_line(run)
