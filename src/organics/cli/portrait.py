"""`organics portrait`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from organics.cli.answer import Answer
from organics.cli.circuits import about, check_figure_path, load, naming_file, one_drive


@dataclass(frozen=True)
class Portrait:
    """All fixed points of a circuit with n = 1 and W_r >= 0, stable or not, and its phase portrait.

    Example: organics portrait examples/figure1b.json --out portrait.png
    """

    file: Annotated[Path, tyro.conf.Positional]
    """Circuit file with n = 1, .json or .npz."""
    drive: int = 0
    """Which of the file's input drives, from 0."""
    check: bool = False
    """Exit with 1 unless some fixed point is stable."""
    out: Path | None = None
    """Figure: streamlines, nullclines and fixed points (.png, .svg or .pdf)."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        check_figure_path(self.out)
        why = "a portrait shows the two potentials of a circuit with n = 1"
        ((circuit, drives),) = load(self.file, only_circuits=why)
        z = one_drive(drives, self.drive)
        from organics.planar import fixed_points_2d

        with naming_file(self.file):
            points = fixed_points_2d(circuit, z)
        if self.out is not None:
            from organics.planar import portrait
            from organics.plots import phase_portrait, save_figure

            save_figure(phase_portrait(*portrait(circuit, z)), self.out)
        found = {"z": z, "fixed_points": [p._asdict() for p in points]}
        document = about(self.file, circuit) | found
        wrote = () if self.out is None else (self.out,)
        positive = any(p.stable for p in points) or not self.check
        return Answer(document, [_in_words(points)], positive, wrote)


def _in_words(points):
    from rich.table import Table

    if not points:
        return "no fixed point"
    table = Table("y", "a", "eigenvalues (1/ms)", "kind", box=None)
    for point in points:
        values = ", ".join(f"{value:.6g}" for value in point.eigenvalues)
        table.add_row(f"{point.y:.6g}", f"{point.a:.6g}", values, point.kind)
    return table


COMMANDS = Portrait
