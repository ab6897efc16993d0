"""`organics inspect`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from organics.cli.answer import Answer


@dataclass(frozen=True)
class Inspect:
    """Fixed points of a trained network for each constant input of its task, and their stability.

    For a run of `organics train` on a task made on the fly. A fixed point is stable if all
    eigenvalues of the derivative of a step, gates included, have a magnitude below 1, on both sides
    of `y = 0` where a neuron rests there. Others may exist besides those that are found. For the
    flip-flop: which of the eight outputs are held.

    Example: organics inspect runs/flip-flop-organics-32-seed0 --prove --out plane.png
    """

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    trials: int = 32
    """Trials that are run."""
    starts: int = 64
    """States of these trials from which each search starts."""
    seed: int = 0
    """Of the trials, and of the choice of states."""
    prove: bool = False
    """Prove that each stable fixed point exists and attracts, in interval arithmetic. For organics
    with one circuit; takes seconds to minutes for each, by the number of units."""
    check: bool = False
    """Exit with 1 unless there is a stable fixed point for every input; of the flip-flop, unless
    all eight outputs are held; with --prove, provably."""
    out: Path | None = None
    """Figure: trials and fixed points in the plane of the first two principal components (.png,
    .svg or .pdf)."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        from organics.cli.circuits import check_figure_path
        from organics.inspection.network import inspect

        check_figure_path(self.out)
        found = inspect(
            self.run_folder, trials=self.trials, starts=self.starts, seed=self.seed,
            prove=self.prove,
        )  # fmt: skip
        if self.out is not None:
            from organics.plots import rest_plane, save_figure

            shown = {
                rest.condition.name: [
                    (found.plane.place(one.point.output), one.point.stable) for one in rest.found
                ]
                for rest in found.rests
            }
            save_figure(rest_plane(found.plane.courses, found.plane.explained, shown), self.out)
        text: list[Any] = []
        for rest in found.rests:
            text.append(f"{rest.condition.name}: {_count(rest.found)}")
            if rest.found:
                text.append(_table(rest.found, self.prove))
        held = [number for _, number in found.patterns if number is not None]
        if found.patterns:
            text.append(f"{len(set(held))} of {len(found.patterns)} outputs are held")
        first = found.rests[0].found
        document = {
            "run": self.run_folder,
            "task": found.task,
            "explained": found.plane.explained,
            "inputs": [_document(rest) for rest in found.rests],
            "patterns": [
                {"output": pattern, "fixed_point": number} for pattern, number in found.patterns
            ],
        }
        wrote = () if self.out is None else (self.out,)
        if found.patterns:
            positive = len(set(held)) == len(found.patterns)
            positive &= not self.prove or all(_proved(first[number]) for number in held)
        else:
            positive = all(any(_holds(one, self.prove) for one in r.found) for r in found.rests)
        return Answer(document, text, positive or not self.check, wrote)


def _proved(one: Any) -> bool:
    return one.attraction is not None and one.attraction.attracts


def _holds(one: Any, prove: bool) -> bool:
    return one.point.stable and (not prove or _proved(one))


def _count(found: list[Any]) -> str:
    stable = sum(one.point.stable for one in found)
    points = "fixed point" if len(found) == 1 else "fixed points"
    return f"{len(found)} {points} found, {stable} stable" if found else "no fixed point found"


def _table(found: list[Any], prove: bool) -> Any:
    from rich.table import Table

    further = ["proved"] if prove else []
    table = Table("", "says", "largest |eigenvalue|", "unstable", "attracted", *further, box=None)
    for i, one in enumerate(found[:20]):
        said = ", ".join(f"{value:.3f}" for value in one.said[:8])
        row = [
            f"{i}", said, f"{one.point.radius:.6f}", f"{one.point.unstable_directions}",
            f"{one.point.attracted:.0%}",
        ]  # fmt: skip
        if prove:
            attraction = one.attraction
            row.append("" if attraction is None else "yes" if attraction.attracts else "no")
        table.add_row(*row)
    return table


def _document(rest: Any) -> dict[str, Any]:
    return {
        "name": rest.condition.name,
        "input": rest.condition.input,
        "fixed_points": [
            {
                "state": one.point.state,
                "said": one.said,
                "residual": one.point.residual,
                "stable": one.point.stable,
                "radius": one.point.radius,
                "unstable_directions": one.point.unstable_directions,
                "attracted": one.point.attracted,
                "circuit_abscissa": one.circuit_abscissa,
                "proved": None if one.attraction is None else one.attraction.attracts,
                "proof": None if one.attraction is None else one.attraction.statement,
            }
            for one in rest.found
        ],
    }


COMMANDS = Inspect
