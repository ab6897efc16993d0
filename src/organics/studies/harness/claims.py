"""The table of the paper's claims, from the results.

    python -m organics.studies.harness.claims results/paper docs/claims.md

writes the table between the two markers in the file. With `--check` it changes nothing; the exit
code says whether the table is that of the results.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from organics.files.atomic import write_atomically
from organics.studies.harness.runner import but_not, read, verdict_in_words
from organics.studies.paper.catalog import TARGETS

BEGIN, END = "<!-- claims: begin (make results-table) -->", "<!-- claims: end -->"


@dataclass(frozen=True)
class Claims:
    """Write the table of claims into a file."""

    results: Annotated[Path, tyro.conf.Positional] = Path("results/paper")
    """Folder with the results."""
    file: Annotated[Path, tyro.conf.Positional] = Path("docs/claims.md")
    """File with the two markers."""
    check: bool = False
    """Change nothing; exit with 1 if the table is not that of the results."""


def table(results: Path) -> str:
    """A Markdown table with a row for each target: claim, paper, here, verdict."""
    rows = ["| | claim | paper | here | verdict |", "|---|---|---|---|---|"]
    for target in TARGETS:
        found = read(target, results)
        here = f"not run: about {target.minutes:g} minutes" if found is None else found["here"]
        verdict = "not run" if found is None else _verdict(found)
        cells = (f"`{target.name}`", target.claim, target.paper or "", here, verdict)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _verdict(document: dict[str, Any]) -> str:
    failed = but_not(document)
    return verdict_in_words(document) + (f"; {failed}" if failed else "")


def not_run(results: Path) -> str:
    """A Markdown list of what was not run, with the command and the hours it would take."""
    lines = []
    for target in TARGETS:
        document = read(target, results)
        costs = {} if document is None else document["numbers"].get("not_run", {})
        for what, cost in costs.items():
            hours = "" if cost["hours"] is None else f", about {cost['hours']:.2g} h"
            departs = cost.get("departs", "")
            lines.append(f"- {what}{hours}: `{cost['command']}`{departs}")
    return "\n".join(lines)


def replaced(text: str, results: Path) -> str:
    """`text` with the table between its markers. Raises `ValueError` unless each marker occurs
    once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"`file` must have each of the markers {BEGIN!r} and {END!r} once.")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    left = not_run(results)
    words = f"\n\nNot run here, and what it would take on 2 cores:\n\n{left}" if left else ""
    return f"{before}{BEGIN}\n\n{table(results)}{words}\n\n{END}{after}"


def main() -> None:
    """Write or check the table from the command line."""
    claims = tyro.cli(Claims)
    text = claims.file.read_text()
    new = replaced(text, claims.results)
    if claims.check:
        if new != text:
            sys.exit(f"the table in {claims.file} is not that of {claims.results}; "
                     "run `make results-table`.")  # fmt: skip
        return
    write_atomically(claims.file, new.encode())


if __name__ == "__main__":
    main()
