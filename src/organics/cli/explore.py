"""`organics explore`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from organics.cli.answer import Answer
from organics.cli.circuits import about, check_outputs, describe, load, naming_file, one_drive

_WHY = "the page draws one circuit"


@dataclass(frozen=True)
class Explore:
    """A page to explore a circuit in a browser: one file, which needs no network.

    For n = 1 with sliders for all parameters: phase portrait, trajectories, eigenvalues, spectrum.
    For up to 30 neurons with a slider for the contrast, which multiplies the drive. Needs the extra
    "explore".

    Example: organics explore examples/figure1b.json --out explorer.html
    """

    file: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[FILE]")] = None
    """Circuit file, .json or .npz; by default the circuit of the paper's Figure 1b."""
    drive: int = 0
    """Which of the file's input drives, from 0."""
    out: Path = Path("explorer.html")
    """The page (.html)."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        check_outputs((self.out,), (".html", ".htm"))
        circuit, drives, texts = _figure_1b() if self.file is None else _from(self.file)
        z = one_drive(drives, self.drive)
        from organics.explorer.page import as_page
        from organics.files.atomic import write_atomically

        with naming_file(self.file):
            page = as_page(circuit, z, **texts).encode()
        write_atomically(self.out, page)
        document = about(self.file, circuit) | {"z": z, "out": self.out, "bytes": len(page)}
        name = "Figure 1b" if self.file is None else self.file
        text = [f"{name}: {describe(circuit)}", f"{len(page):,} bytes, for any browser"]
        return Answer(document, text, wrote=(self.out,))


def _from(file: Path):
    """Circuit, drives and texts of a file."""
    ((circuit, drives),) = load(file, only_circuits=_WHY)
    from organics.circuit.file import read

    content = read(file)
    texts = {"title": content.get("name", file.name), "comment": content.get("comment", "")}
    return circuit, drives, texts


def _figure_1b():
    from organics.cli.circuits import in_double_precision

    in_double_precision()
    from organics.circuit.circuit import Circuit

    circuit = Circuit([[1.0]], [[2.0]])
    return circuit, [[1.0]], {"title": "Figure 1b", "comment": "Rawat, Heeger & Martiniani 2024"}


COMMANDS = Explore
