"""`organics continue`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from organics.cli.answer import Answer, note, show
from organics.cli.circuits import (
    FIGURES,
    about,
    check_outputs,
    describe,
    is_hierarchy,
    load,
    one_drive,
    state_as_document,
)
from organics.names import Figure
from organics.settings import Needs

_BOUNDS = "from` and `to"  # as refusals name them


@dataclass(frozen=True)
class Continue:
    """How the steady states of a circuit or hierarchy move with a parameter: branches, folds, Hopf
    points.

    Branches are followed through folds, onto those that they meet, up to both bounds or to
    infinity.

    Example: organics continue examples/figure1b.json --parameter z --from -2 --to 2 --out z.png
    """

    file: Annotated[Path, tyro.conf.Positional]
    """Circuit file, .json or .npz."""
    low: Annotated[float, tyro.conf.arg(name="from")]
    """Smallest value of the parameter."""
    high: Annotated[float, tyro.conf.arg(name="to")]
    """Largest value of the parameter."""
    parameter: str = "z"
    """A factor on the drive ("z"), an entry ("W_r[0,1]") or an array of equal entries ("tau_a"). Of
    areas: "gamma", "g", "areas[0].W[0,1]", "feedback[0][1,2]", "feedforward[0][2,1]"."""
    second: str | None = None
    """A second parameter, NAME:FROM:TO; folds and Hopf points are followed over both."""
    cycles: bool = False
    """Follow the limit cycles that are born at Hopf points, too."""
    prove: bool = False
    """Prove in ball arithmetic that each fold and Hopf point exists and is nondegenerate."""
    drive: int = 0
    """Which of the file's input drives, from 0."""
    all: bool = False
    """Start from all steady states that a quick search finds, instead of one."""
    neuron: Annotated[int, Needs(">= 0", lambda value: value >= 0)] = 0
    """Whose `y` the figure shows, from 0, in the first area."""
    out: tuple[Path, ...] = ()
    """Files to write: a figure (.png, .svg, .pdf), the points (.csv, .npz) or the document
    (.json)."""
    figure: Figure = "branches"
    """What the figure shows: the branches, the folds and Hopf points in both parameters ("plane"),
    or the frequencies of cycles and of Hopf points ("frequency")."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        check_outputs(self.out, (*FIGURES, ".csv", ".npz", ".json"), [self.file])
        if not self.low < self.high:
            raise ValueError(f"`from` must be below `to`, not {self.low:g} and {self.high:g}.")
        second = None if self.second is None else _second(self.second)
        if self.figure == "plane" and second is None:
            raise ValueError('`figure` can be "plane" with a `second` parameter only.')
        ((circuit, drives),) = load(self.file, proves=self.prove)
        z = one_drive(drives, self.drive)
        if self.neuron >= circuit.n:
            raise ValueError(
                f"`neuron` must be below {circuit.n}, the number of neurons, not {self.neuron}."
            )
        bounds = self.low, self.high
        self._require_line(circuit, z, bounds)
        if is_hierarchy(circuit) or circuit.rectified:
            note("following branches: the first time, programs are compiled for up to a minute.")
        found = self._follow(circuit, z, bounds, second)
        if self.prove:
            from organics.proofs.bifurcations import prove_events

            found = prove_events(circuit, z, self.parameter, found)
        document = about(self.file, circuit) | as_document(found, circuit)
        for path in self.out:
            self._write(path, found, circuit, document)
        text = [f"{self.file}: {describe(circuit)}", str(found)]
        answer = Answer(document, text, wrote=self.out)
        if found.interrupted:
            show(answer, as_json=self.json)
            raise KeyboardInterrupt
        return answer

    def _require_line(self, circuit: Any, z: Any, bounds: tuple[float, float]) -> None:
        """Refuse, in the words of the command line, a parameter that does not exist and bounds that
        do not fit."""
        from organics.branches.continuation import as_system, require_valid_range
        from organics.branches.family import as_line

        line = as_line(as_system(circuit, z, self.parameter), self.parameter)
        require_valid_range(line, bounds, _BOUNDS)
        if self.all and not self.low <= line.value <= self.high:
            raise ValueError(
                f"`{_BOUNDS}` must include {line.value:g}, the file's own {line.name}, where "
                f"`--all` looks for states, not {self.low:g} and {self.high:g}."
            )

    def _follow(self, circuit: Any, z: Any, bounds: tuple[float, float], second: Any) -> Any:
        from organics.branches.continuation import continuation
        from organics.errors import NoSteadyState

        start = _all_states(circuit, z) if self.all else None
        try:
            return continuation(
                circuit, z, self.parameter, bounds, second=second, start=start, cycles=self.cycles
            )
        except NoSteadyState:
            other = "" if self.all else ", or `--all`"
            raise NoSteadyState(
                "no steady state was found to start from: give other values of `--from` and `--to`"
                f"{other}."
            ) from None

    def _write(self, path: Path, found: Any, circuit: Any, document: dict[str, Any]) -> None:
        if path.suffix.lower() in FIGURES:
            from organics.plots import (
                bifurcation_diagram,
                event_plane,
                rhythm_frequencies,
                save_figure,
            )

            if self.figure == "branches":
                figure = bifurcation_diagram(found, neuron=self.neuron)
            else:
                figure = event_plane(found) if self.figure == "plane" else rhythm_frequencies(found)
            save_figure(figure, path)
        elif path.suffix.lower() == ".json":
            import json

            from organics.files.atomic import write_atomically
            from organics.files.plain import as_plain

            write_atomically(
                path, (json.dumps(as_plain(document), allow_nan=False) + "\n").encode()
            )
        else:
            from organics.cli.tables import write_table

            write_table(path, _columns(found, circuit))


def _second(words: str) -> tuple[str, tuple[float, float]]:
    name, *ends = words.rsplit(":", 2)
    try:
        low, high = map(float, ends)
    except ValueError:
        raise ValueError(f"`second` must be NAME:FROM:TO, as tau_a:1:10, not {words!r}.") from None
    return name, (low, high)


def _all_states(circuit: Any, z: Any) -> list[Any] | None:
    """The steady states that a search finds; `None` if it finds none."""
    from organics.enumeration.states import steady_states

    return [found.point for found in steady_states(circuit, z).states] or None


def as_document(found: Any, circuit: Any) -> dict[str, Any]:
    """The branches and their events, as JSON has them."""

    def state(x: Any) -> dict[str, Any]:
        return state_as_document(circuit.split(x))

    branches = [
        {
            "points": [
                {"parameter": value, **state(x), "stable": bool(stable)}
                for value, x, stable in zip(branch.parameter, branch.x, branch.stable, strict=True)
            ],
            "events": [
                {
                    "kind": event.kind,
                    "parameter": event.parameter,
                    **state(event.x),
                    "frequency_hz": event.frequency_hz,
                    "first_lyapunov": event.first_lyapunov,
                    "also_unstable": event.also_unstable,
                    "coefficient": event.coefficient,
                    "switched": event.switched,
                    "unstable": event.unstable,
                    "confirmed": event.confirmed,
                    "proved": event.proved,
                }
                for event in branch.events
            ],
            "ends": branch.ends,
        }
        for branch in found.branches
    ]
    cycles = [
        {
            "hopf": cycle.hopf.parameter,
            "points": [
                {"parameter": cycle.parameter[i], "period_ms": cycle.period[i],
                 "low": state(cycle.low[i]), "high": state(cycle.high[i]),
                 "multipliers": cycle.multipliers[i], "stable": bool(cycle.stable[i])}
                for i in range(len(cycle.parameter))
            ],
            "events": [
                {"kind": e.kind, "parameter": e.parameter, "period_ms": e.period}
                for e in cycle.events
            ],
            "end": cycle.end,
        }
        for cycle in found.cycles
    ]  # fmt: skip
    curves = [
        {
            "kind": curve.kind,
            "values": curve.values,
            "frequency_hz": curve.frequency_hz,
            "first_lyapunov": curve.first_lyapunov,
            "points": [{"kind": p.kind, "values": p.values, **state(p.x)} for p in curve.points],
            "ends": curve.ends,
        }
        for curve in found.curves
    ]
    return {
        "parameter": found.parameter,
        "from": found.bounds[0],
        "to": found.bounds[1],
        "branches": branches,
        "cycles": cycles,
        "without_cycles": [event.parameter for event in found.without_cycles],
        "second": found.second,
        "curves": curves,
        "interrupted": found.interrupted,
    }


def _columns(found: Any, circuit: Any) -> dict[str, Any]:
    import numpy as np

    branches = found.branches
    x = np.concatenate([branch.x for branch in branches])
    states = circuit.by_area(circuit.split(x))
    areas = [f"area{k + 1}_" for k in range(len(states))] if is_hierarchy(circuit) else [""]
    which = [np.full(len(branch.parameter), i) for i, branch in enumerate(branches)]
    return {
        "branch": np.concatenate(which),
        "parameter": np.concatenate([branch.parameter for branch in branches]),
        "stable": np.concatenate([branch.stable for branch in branches]).astype(int),
        **{
            f"{area}{name}": values
            for area, state in zip(areas, states, strict=True)
            for name, values in state._asdict().items()
        },
    }


COMMANDS = Continue
