"""The README's table of claims, from the results.

    python -m organics.reproduction.claims results/paper README.md

writes the table between the two markers in the file; with `--check` it only says, by its exit code,
whether the table there is that of the results.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from organics.atomic import write_atomically
from organics.reproduction.catalog import TARGETS
from organics.reproduction.runner import read, verdict_in_words

BEGIN, END = "<!-- claims: begin (make results-table) -->", "<!-- claims: end -->"


@dataclass(frozen=True)
class Claims:
    """Write the table of claims into a file."""

    results: Annotated[Path, tyro.conf.Positional] = Path("results/paper")
    """Folder with the results."""
    file: Annotated[Path, tyro.conf.Positional] = Path("README.md")
    """File with the two markers."""
    check: bool = False
    """Change nothing; exit with 1 if the table is not that of the results."""


def table(results: Path) -> str:
    """Claim, paper, here, verdict: a row a target, in Markdown."""
    rows = ["| | claim | paper | here | verdict |", "|---|---|---|---|---|"]
    for target in TARGETS:
        found = read(target, results)
        here = f"not run: about {target.minutes:g} minutes" if found is None else found["here"]
        verdict = "not run" if found is None else verdict_in_words(found)
        cells = (f"`{target.name}`", target.claim, target.paper or "", here, verdict)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def replaced(text: str, results: Path) -> str:
    """`text` with the table between its markers. Raises `ValueError` if it has not both, once."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"`file` must have each of the markers {BEGIN!r} and {END!r} once.")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}"


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
