"""`organics states`"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from organics.cli.answer import Answer, note, show
from organics.cli.circuits import about, describe, is_hierarchy, load, state_as_document
from organics.printing import numbers

if TYPE_CHECKING:
    from organics.enumeration.states import SteadyStates

_SHOWN = 30  # states shown as text


@dataclass(frozen=True)
class States:
    """All steady states of a circuit or hierarchy, stable or not, for each of its drives.

    Says whether they are all: as far as a search can tell, or with --prove by a proof. That is
    "all, proved"; "at least these, proved" if more boxes than --max-boxes would be needed; or
    "undecided", as where two states meet. Boxes are examined up to n = 8, and none of a hierarchy.

    Example: organics states examples/two_stable_states.json --prove
    """

    file: Annotated[Path, tyro.conf.Positional]
    """Circuit file, .json or .npz."""
    prove: bool = False
    """Prove that each state exists and is stable or not, and that there are no others."""
    max_boxes: int = 10_000_000
    """Most boxes that a proof examines, for each drive."""
    check: bool = False
    """Exit with 1 unless the states of each drive are complete; with --prove, unless that is
    proved."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        from organics.arguments import require_whole

        require_whole("max_boxes", self.max_boxes)
        ((circuit, drives),) = load(self.file, proves=self.prove)
        import numpy as np

        from organics.enumeration.states import require_few, steady_states

        for z in np.asarray(drives):
            require_few(circuit, z)
        if is_hierarchy(circuit) and not circuit.is_cascade:
            note("looking for states: the first time, programs are compiled for up to a minute.")
        answers: list[tuple[Any, SteadyStates]] = []
        for z in np.asarray(drives):
            try:
                found = steady_states(circuit, z, prove=self.prove, max_boxes=self.max_boxes)
            except KeyboardInterrupt:
                note(f"drive {len(answers)} and later ones are missing.")
                show(self._answer(circuit, answers), as_json=self.json)
                raise
            answers.append((z, found))
        return self._answer(circuit, answers)

    def _answer(self, circuit, answers: "list[tuple[Any, SteadyStates]]") -> Answer:
        documents = [_as_document(z, found) for z, found in answers]
        document = about(self.file, circuit) | {"drives": documents}
        tables = [_as_table(i, z, found) for i, (z, found) in enumerate(answers)]
        positive = all(found.proved if self.prove else found.complete for _, found in answers)
        text = [f"{self.file}: {describe(circuit)}", *tables]
        return Answer(document, text, positive or not self.check)


def _as_document(z, found: "SteadyStates") -> dict[str, Any]:
    return {
        "z": z,
        "complete": found.complete,
        "proved": found.proved,
        "outcome": found.outcome,
        "why": found.why,
        "boxes": found.boxes,
        "remaining": found.remaining,
        "degree": found.degree._asdict(),
        "states": [
            {
                **state_as_document(state.state),
                "stable": state.stable,
                "eigenvalues": state.linear.eigenvalues,
                "spectral_abscissa": state.linear.spectral_abscissa,
                "unstable_dimensions": state.unstable_dimensions,
                "proved": state.proved,
                "found_by": state.found_by,
            }
            for state in found.states
        ],
    }


def _as_table(index: int, z, found: "SteadyStates") -> Any:
    from rich.table import Table

    from organics.circuit.areas import named

    table = Table(title=f"drive {index}", title_justify="left", show_header=False, box=None)
    table.add_row("z", numbers(z))
    table.add_row("steady states", found.verdict)
    table.add_row("why", found.why)
    for i, state in enumerate(found.states[:_SHOWN]):
        abscissa = numbers(state.linear.spectral_abscissa, "1/ms")
        table.add_row(f"state {i}", f"{state.kind}; largest real part {abscissa}")
        for name, values in named(state.state):
            table.add_row(f"  {name}", numbers(values))
    if len(found.states) > _SHOWN:
        table.add_row("", f"and {len(found.states) - _SHOWN} more: --json has them")
    return table


COMMANDS = States
