"""The tables of claims, from the results.

    python -m organics.studies.harness.claims results docs/claims.md

writes a table of the paper's claims, and one of ours, between the two markers in the file. With
`--check` it changes nothing; the exit code says whether the tables are those of the results.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from organics.files.atomic import write_atomically
from organics.studies.catalog import TARGETS
from organics.studies.harness.runner import but_not, read, verdict_in_words
from organics.studies.harness.target import Target

BEGIN, END = "<!-- claims: begin (make results-table) -->", "<!-- claims: end -->"


@dataclass(frozen=True)
class Claims:
    """Write the tables of claims into a file."""

    results: Annotated[Path, tyro.conf.Positional] = Path("results")
    """Folder with the results, in its folders `paper` and `ours`."""
    file: Annotated[Path, tyro.conf.Positional] = Path("docs/claims.md")
    """File with the two markers."""
    check: bool = False
    """Change nothing; exit with 1 if the tables are not those of the results."""


def table(results: Path, targets: Sequence[Target]) -> str:
    """A Markdown table with a row for each target: claim, paper, here, verdict."""
    rows = ["| | claim | paper | here | verdict |", "|---|---|---|---|---|"]
    for target in targets:
        found = _read(target, results)
        here = f"not run: about {target.minutes:g} minutes" if found is None else found["here"]
        verdict = "not run" if found is None else _verdict(found)
        cells = (f"`{target.name}`", target.claim, target.paper or "", here, verdict)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _read(target: Target, results: Path) -> dict[str, Any] | None:
    return read(target, results / target.room)


def _verdict(document: dict[str, Any]) -> str:
    failed = but_not(document)
    return verdict_in_words(document) + (f"; {failed}" if failed else "")


def duration(results: Path) -> str:
    """A sentence on how long one run of everything took; empty if none was timed."""
    path = results / "reproduction.json"
    if not path.exists():
        return ""
    timed = json.loads(path.read_text())
    machine = f"{timed['machine']['cores']} cores of {timed['machine']['processor']}"
    return f"One run of all of them took {timed['minutes']:.0f} minutes on {machine}."


def not_run(results: Path) -> str:
    """A Markdown list of what was not run, with the command and the hours it would take."""
    lines = []
    for target in TARGETS:
        document = _read(target, results)
        costs = {} if document is None else document["numbers"].get("not_run", {})
        for what, cost in costs.items():
            hours = "" if cost["hours"] is None else f", about {cost['hours']:.2g} h"
            departs = cost.get("departs", "")
            lines.append(f"- {what}{hours}: `{cost['command']}`{departs}")
    return "\n".join(lines)


def replaced(text: str, results: Path) -> str:
    """`text` with the tables between its markers. Raises `ValueError` unless each marker occurs
    once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"`file` must have each of the markers {BEGIN!r} and {END!r} once.")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    paper = [target for target in TARGETS if target.room == "paper"]
    parts = [BEGIN, table(results, paper)]
    if took := duration(results):
        parts += [took]
    if left := not_run(results):
        parts += ["Not run here, and what it would take on 2 cores:", left]
    if ours := [target for target in TARGETS if target.room == "ours"]:
        parts += ["## Beyond the paper", table(results, ours)]
    return before + "\n\n".join([*parts, END]) + after


def main() -> None:
    """Write or check the table from the command line."""
    claims = tyro.cli(Claims)
    text = claims.file.read_text()
    new = replaced(text, claims.results)
    if claims.check:
        if new != text:
            sys.exit(f"the tables in {claims.file} are not those of {claims.results}; "
                     "run `make results-table`.")  # fmt: skip
        return
    write_atomically(claims.file, new.encode())


if __name__ == "__main__":
    main()
