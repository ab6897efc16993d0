"""Branches of steady states, and the events on them."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Complex, Float

from organics.printing import Lines


class Event(NamedTuple):
    """A point of a branch where the steady states, or their stability, change.

    Attributes
        kind: "fold", "hopf", "branch point" or "pitchfork" (a branch point of which one branch has
            the parameter as its extreme); where a neuron of the rectified model falls silent or
            becomes active, "nonsmooth fold" if the branch turns there, else "switch"; or
            "multiple bifurcation", where more eigenvalues cross the imaginary axis than at the
            other kinds, as in circuits with symmetries: branches that meet there are not followed.
        parameter: the value of the parameter.
        x: the state, `y` then `a` of a circuit, (m,).
        confirmed: whether Newton's method for the equations that define such a point ends there,
            with a last step below 1e-10 in units of the state.
        error: that step; NaN at a multiple bifurcation, which no such equations define.
        frequency_hz: of the oscillation born at a Hopf point, in Hz; else `None`.
        first_lyapunov: of a Hopf point, per squared unit of the state; else `None`.
        also_unstable: how many eigenvalues besides the pair have a positive real part at a Hopf
            point; if any, the cycle is unstable whatever `first_lyapunov` is. Else `None`.
        speed: how fast the critical real part changes with the parameter there, in 1/ms; else
            `None`.
        coefficient: of the normal form of a fold, in 1/ms; else `None`.
        vector: the null vector of a fold, or the complex eigenvector of a Hopf point, (m,).
        proved: whether `prove_event` proved it; `None` if it was not asked.
        switched: the neurons that fall silent or become active, from 0; in a hierarchy by name,
            such as "2.y1" for the first one of the second area.
        unstable: at a switch, nonsmooth fold or multiple bifurcation, how many eigenvalues have a
            positive real part on either side, in the order of the branch; else `None`.
    """

    kind: str
    parameter: float
    x: Float[np.ndarray, " m"]
    confirmed: bool
    error: float
    frequency_hz: float | None = None
    first_lyapunov: float | None = None
    also_unstable: int | None = None
    speed: float | None = None
    coefficient: float | None = None
    vector: Any = None
    proved: bool | None = None
    switched: tuple = ()
    unstable: tuple | None = None

    @property
    def words(self) -> str:
        """What it is, in words."""
        sure = "" if self.confirmed else ", unconfirmed"
        if self.proved is not None:
            sure = ", proved" if self.proved else ", not proved"
        if self.unstable is not None:
            many = "s" * (len(self.switched) > 1)
            who = f" of neuron{many} {', '.join(map(str, self.switched))}" if self.switched else ""
            before, after = self.unstable
            jump = "" if before == after else f", unstable eigenvalues {before} -> {after}"
            return f"{self.kind}{who}{jump}{sure}"
        if self.kind != "hopf" or self.first_lyapunov is None:
            return f"{self.kind}{sure}"
        attracts = self.first_lyapunov < 0
        way = "supercritical" if attracts else "subcritical"
        born = "a stable cycle is born" if attracts else "an unstable cycle is born"
        if self.also_unstable:
            many = "s are" if self.also_unstable > 1 else " is"
            born = (
                f"an unstable cycle is born, as {self.also_unstable} more eigenvalue{many} unstable"
            )
        hertz = "" if self.frequency_hz is None else f", {self.frequency_hz:.4g} Hz"
        return f"hopf, {way}{hertz} (l1 = {self.first_lyapunov:.4g}: {born}){sure}"


class Branch(NamedTuple):
    """Steady states in the order in which the branch passes them.

    Attributes
        parameter: values of the parameter, (k,).
        x: the states, (k, m): `y` then `a` of a circuit.
        eigenvalues: of the Jacobian, in 1/ms, by falling real part, (k, m).
        events: those on it, in order.
        ends: how it ends on either side, each one of `ENDS`.
    """

    parameter: Float[np.ndarray, " k"]
    x: Float[np.ndarray, "k m"]
    eigenvalues: Complex[np.ndarray, "k m"]
    events: list[Event]
    ends: tuple

    @property
    def stable(self) -> np.ndarray:
        """Which states are stable."""
        return np.real(self.eigenvalues[:, 0]) < 0


class CycleEvent(NamedTuple):
    """A cycle where cycles, or their stability, change.

    Attributes
        kind: "fold of cycles", "branch point of cycles", "period doubling" or "torus".
        parameter, period: of that cycle; the period in ms.
        x: its state at time 0, (m,).
    """

    kind: str
    parameter: float
    period: float
    x: Float[np.ndarray, " m"]


class CycleBranch(NamedTuple):
    """Limit cycles, from the Hopf point where they are born.

    Attributes
        hopf: that point.
        parameter: values of the parameter, (k,).
        period: in ms, (k,).
        x: a state of each cycle, (k, m).
        low, high: the extremes of each number over a period, (k, m), by parabolas through steps of
            the flow, and so less precise than the cycle.
        multipliers: the Floquet multipliers by falling size, (k, m).
        events: those on it, in order.
        end: how it ends.
    """

    hopf: Event
    parameter: Float[np.ndarray, " k"]
    period: Float[np.ndarray, " k"]
    x: Float[np.ndarray, "k m"]
    low: Float[np.ndarray, "k m"]
    high: Float[np.ndarray, "k m"]
    multipliers: Complex[np.ndarray, "k m"]
    events: list[CycleEvent]
    end: str

    @property
    def error(self) -> Float[np.ndarray, " k"]:
        """How far the trivial multiplier of each cycle is from 1."""
        return np.min(np.abs(self.multipliers - 1), axis=1)

    @property
    def stable(self) -> np.ndarray:
        """Which cycles are stable: all other multipliers are inside the unit circle."""
        trivial = np.argmin(np.abs(self.multipliers - 1), axis=1)
        others = np.abs(self.multipliers)
        others[np.arange(len(trivial)), trivial] = 0
        return np.max(others, axis=1) < 1


class EventPoint(NamedTuple):
    """A point of a curve of events where their kind changes: "cusp", "bogdanov-takens" or
    "generalized hopf", the values of both parameters, and the state, (m,)."""

    kind: str
    values: tuple
    x: Float[np.ndarray, " m"]


class EventCurve(NamedTuple):
    """Folds or Hopf points in two parameters.

    Attributes
        kind: "fold" or "hopf".
        values: of both parameters, (k, 2).
        x: the states, (k, m).
        frequency_hz, first_lyapunov: of Hopf points, (k,); else `None`.
        points: the special ones on it, in order.
        ends: how it ends on either side.
    """

    kind: str
    values: Float[np.ndarray, "k 2"]
    x: Float[np.ndarray, "k m"]
    frequency_hz: Any
    first_lyapunov: Any
    points: list[EventPoint]
    ends: tuple


class Diagram(NamedTuple):
    """All branches that were found.

    Attributes
        parameter: its name.
        bounds: the range of its values.
        branches: of steady states.
        cycles: of limit cycles.
        without_cycles: the Hopf points whose cycles were asked for and not found: the point is
            unconfirmed, or the first cycle needs more steps of the flow than are tried.
        interrupted: whether Ctrl-C ended the work before its end.
        second, second_bounds: name and range of the second parameter, if there is one.
        curves: of folds and of Hopf points in both parameters.
    """

    parameter: str
    bounds: tuple
    branches: list[Branch]
    cycles: list[CycleBranch]
    interrupted: bool
    second: str | None = None
    second_bounds: tuple | None = None
    curves: list[EventCurve] = []
    without_cycles: list[Event] = []

    @property
    def events(self) -> list[Event]:
        """Those of all branches of steady states."""
        return [event for branch in self.branches for event in branch.events]

    def lines(self) -> Lines:
        """The result as a verdict and lines of text."""
        name = self.parameter
        rows = [
            row for i, branch in enumerate(self.branches) for row in _of_branch(i, branch, name)
        ]
        for i, cycle in enumerate(self.cycles):
            rows += _of_cycles(i, cycle, name)
        if self.without_cycles:
            values = ", ".join(f"{event.parameter:.6g}" for event in self.without_cycles)
            rows.append(("cycles", f"NOT found from the Hopf points at {name} = {values}"))
        for i, curve in enumerate(self.curves):
            rows += _of_curve(i, curve, name, self.second)
        if self.interrupted:
            rows.append(("interrupted", "this is what was found until then"))
        said = f"{len(self.branches)} branch(es) of steady states over {name}"
        return Lines(said, tuple(rows))

    def __str__(self) -> str:
        return str(self.lines())

    def _repr_html_(self) -> str:
        return self.lines().html()


def _of_branch(i: int, branch: Branch, name: str) -> list[tuple[str, str]]:
    low, high = branch.parameter.min(), branch.parameter.max()
    where = f"{len(branch.parameter)} points from {low:.6g} to {high:.6g}"
    rows = [(f"branch {i}", f"{where}; {branch.ends[0]}, and {branch.ends[1]}")]
    rounding = 1e-12 * (high - low)
    for event in branch.events:
        value = 0.0 if abs(event.parameter) < rounding else event.parameter
        rows.append(("", f"{name} = {value:.10g}: {event.words}"))
    return rows


def _of_cycles(i: int, cycle: CycleBranch, name: str) -> list[tuple[str, str]]:
    first, last = cycle.hopf.parameter, cycle.parameter[-1]
    where = f"{len(cycle.parameter)} cycles from {name} = {first:.6g} to {last:.6g}"
    period = f"period {cycle.period[0]:.6g} to {cycle.period[-1]:.6g} ms"
    rows = [(f"cycles {i}", f"{where}, {period}; {_stable_in_words(cycle.stable)}; {cycle.end}")]
    return rows + [
        ("", f"{name} = {e.parameter:.10g}: {e.kind}, period {e.period:.6g} ms")
        for e in cycle.events
    ]


def _of_curve(i: int, curve: EventCurve, name: str, second: str | None) -> list[tuple[str, str]]:
    where = f"{len(curve.values)} points over {name} and {second}"
    rows = [(f"{curve.kind}s {i}", f"{where}; {curve.ends[0]}, and {curve.ends[1]}")]
    return rows + [
        ("", f"{name} = {p.values[0]:.10g}, {second} = {p.values[1]:.10g}: {p.kind}")
        for p in curve.points
    ]


def _stable_in_words(stable: np.ndarray) -> str:
    if np.all(stable):
        return "stable"
    return f"{np.sum(stable)} of them stable" if np.any(stable) else "unstable"
