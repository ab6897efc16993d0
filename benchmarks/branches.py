"""Steady states of random circuits followed over contrast, in one batch, and by jaxcont and
AUTO-07p in a loop.

    python -m benchmarks.branches [--quick] [--seconds N] [--out FILE]

The circuits have n = 10 and `W_r` of norm 2; contrast goes from 0, where the state is known, to 2.
Folds and Hopf points are located. Every event is checked by NumPy: the equations balance, and the
Jacobian, by complex steps, has the eigenvalue 0 or a pair on the imaginary axis; between events the
number of unstable eigenvalues does not change. Events for which that fails are listed.

jaxcont (`pip install jaxcont`) and AUTO (`benchmarks/_auto.py` says how) are left out if they are
not installed. Their events are compared with ours; those without a partner within 1e-6 are listed.
"""

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from benchmarks._agenda import Agenda, Measurement
from benchmarks._auto import Auto
from benchmarks._common import command, command_line, conclude, spread, target, time_in_turn
from organics.branches.branch import Branch, Event
from organics.branches.continuation import continuations
from organics.circuit.circuit import Circuit, State, random_drive

N, NORM = 10, 2.0
COUNT, TIMED = 1000, 200  # circuits followed and checked; those of a timed round
BOUNDS = (0.0, 2.0)
PEER_COUNT = 3  # branches in a round of jaxcont
AUTO_COUNT = 24  # in a round of AUTO
COMPARED = {"jaxcont": 6, "auto": 200}  # branches whose events are compared
_SAME = 1e-6  # distance of two finds of one event, in contrast
_BALANCED, _ON_AXIS = (
    1e-10,
    1e-7,
)  # of the events: imbalance, and eigenvalue relative to the largest


def run(
    out: Path | None = None, quick: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Follow random circuits over contrast.

    Arguments
        out: file for the result.
        quick: 16 circuits instead of 1,000, and few rounds.
        seconds: limit; what does not fit into it is left out.
    """
    agenda = Agenda("branches", 5, quick=quick, seconds=seconds)
    count = 16 if quick else COUNT
    with jax.enable_x64(True):
        circuits, drives = _draw(count)
        measurements = [Measurement("organics", 60, 20, partial(_ours, agenda, circuits, drives))]
        try:
            auto = _Program(count)
            measurements.append(
                Measurement("auto", 20, 5, partial(_auto, agenda, auto, circuits, drives))
            )
        except FileNotFoundError as error:
            auto = None
            agenda.leave_out("AUTO-07p", str(error))
        if _jaxcont() is None:
            agenda.leave_out("jaxcont", "it is not installed")
        else:
            each = 10.0 * PEER_COUNT
            measurements.append(
                Measurement("jaxcont", 60, each, partial(_peer, agenda, circuits, drives))
            )
        found = agenda.take(measurements)
        document: dict[str, Any] = {
            "n": N,
            "norm": NORM,
            "circuits": count,
            "timed": min(count, TIMED),
        }
        document["contrast"] = BOUNDS
        document["seconds_per_branch"] = found
        if "organics" in found:
            branches = _follow(circuits, drives)
            document["events"] = _checked(circuits, drives, branches)
            peers = {}
            if "jaxcont" in found:
                peers["jaxcont"] = partial(_by_jaxcont, circuits, drives)
            if auto is not None and "auto" in found:
                peers["auto"] = partial(auto.follow, circuits, drives)
            document["events_of_others"] = {
                name: _compared(branches, [follow(i) for i in range(min(count, COMPARED[name]))])
                for name, follow in peers.items()
            }
    document["targets"] = [
        target(f"faster than {name}, per branch", found[name]["median"]
               / found["organics"]["median"], "at least", bound)
        for name, bound in (("jaxcont", 100), ("auto", 3)) if {name, "organics"} <= set(found)
    ]  # fmt: skip
    return conclude(agenda, command("branches", quick=quick, seconds=seconds), document, out)


def _jaxcont() -> Any:
    try:
        import jaxcont
    except ImportError:
        return None
    return jaxcont


def _draw(count: int) -> tuple[Circuit, Any]:
    def one(key):
        k_circuit, k_drive = jr.split(key)
        return Circuit.random(k_circuit, N, NORM), random_drive(k_drive, N)

    return jax.jit(jax.vmap(one))(jr.split(jr.key(0), count))


def _follow(circuits: Circuit, drives: Any) -> list[Branch]:
    found = continuations(circuits, drives, "z", BOUNDS, start="rest")
    return [diagram.branches[0] for diagram in found]


def _ours(agenda: Agenda, circuits: Circuit, drives: Any) -> dict[str, Any]:
    circuits, drives = jax.tree.map(lambda leaf: leaf[:TIMED], (circuits, drives))
    _follow(circuits, drives)  # compile
    times = time_in_turn({"organics": lambda: _follow(circuits, drives)}, agenda.rounds())
    return spread([value / len(drives) for value in times["organics"]])


def _peer(agenda: Agenda, circuits: Circuit, drives: Any) -> dict[str, Any]:
    _by_jaxcont(circuits, drives, 0)
    times = time_in_turn(
        {"jaxcont": lambda: [_by_jaxcont(circuits, drives, i) for i in range(PEER_COUNT)]},
        agenda.rounds(),
    )
    return spread([value / PEER_COUNT for value in times["jaxcont"]])


def _by_jaxcont(circuits: Circuit, drives: Any, i: int) -> list[tuple[str, float]]:
    """The events of a branch, with their contrast. It also reports some outside the bounds."""
    peer = _jaxcont()
    circuit = jax.tree.map(lambda leaf: leaf[i], circuits)
    tau = np.concatenate([circuit.tau_y, circuit.tau_a])

    def velocity(x, contrast, args):
        del args
        y, a = x[:N], x[N:]
        return jnp.concatenate(circuit.imbalance(State(y, a), contrast * drives[i])) / tau

    start = np.concatenate([np.zeros(N), circuit.c])
    problem = peer.bif_problem(velocity, start, 0.0)
    settings = peer.ContinuationPar(max_steps=400, newton_tol=1e-10)
    found = peer.continuation(
        problem, p_span=BOUNDS, settings=settings, events=[peer.Fold(), peer.Hopf()]
    )
    events = [(event.kind, float(event.p)) for event in found.events]
    return [event for event in events if BOUNDS[0] <= event[1] <= BOUNDS[1]]


class _Program:
    """AUTO, compiled for these circuits, in a folder that lasts as long as this object."""

    def __init__(self, count: int):
        self.folder = tempfile.TemporaryDirectory()
        self.auto = Auto(Path(self.folder.name), N, BOUNDS)
        self.timed = min(count, AUTO_COUNT)

    def follow(self, circuits: Circuit, drives: Any, i: int) -> list[tuple[str, float]]:
        """The events of a branch, with their contrast."""
        circuit = jax.tree.map(lambda leaf: np.asarray(leaf)[i], circuits)
        return self.auto.follow(circuit, np.asarray(drives)[i])


def _auto(agenda: Agenda, program: _Program, circuits: Circuit, drives: Any) -> dict[str, Any]:
    """Each branch is a run of the program, its start and its files included."""

    def all_branches():
        for i in range(program.timed):
            program.follow(circuits, drives, i)

    times = time_in_turn({"auto": all_branches}, agenda.rounds())
    return spread([value / program.timed for value in times["auto"]])


def _compared(branches: list[Branch], theirs: list) -> dict[str, Any]:
    """How many events both have, and those that only one of them has."""
    same, only = 0, []
    for i, other in enumerate(theirs):
        left = list(other)
        for event in branches[i].events:
            near = [e for e in left if e[0] == event.kind and abs(e[1] - event.parameter) < _SAME]
            if near:
                same += 1
                left.remove(near[0])
            else:
                only.append(_listed(i, event.kind, event.parameter, "organics"))
        only += [_listed(i, kind, value, "the other") for kind, value in left]
    return {"branches": len(theirs), "same": same, "without_partner": only}


def _listed(i: int, kind: str, value: float, by: str) -> dict[str, Any]:
    return {"circuit": i, "kind": kind, "parameter": value, "found_by": by}


def _checked(circuits: Circuit, drives: Any, branches: list[Branch]) -> dict[str, Any]:
    """How many events there are, and those that NumPy does not confirm."""
    kinds: dict[str, int] = {}
    doubtful = []
    for i, branch in enumerate(branches):
        circuit = jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], circuits)
        for event in branch.events:
            kinds[event.kind] = kinds.get(event.kind, 0) + 1
            if not (event.confirmed and _is_event(circuit, np.asarray(drives[i]), event)):
                doubtful.append({"circuit": i, "kind": event.kind, "parameter": event.parameter})
        changes = np.abs(np.diff(np.sum(np.real(branch.eigenvalues) > 0, axis=1)))
        wanted = sum(1 if event.kind == "fold" else 2 for event in branch.events)
        if np.sum(changes) != wanted:
            doubtful.append({"circuit": i, "kind": "count of unstable eigenvalues"})
    return {"found": kinds, "not_confirmed": doubtful}


def _is_event(circuit: Circuit, z: np.ndarray, event: Event) -> bool:
    b, W, W_r = (np.asarray(v) for v in (circuit.b, circuit.W, circuit.W_r))
    c = (np.asarray(circuit.b0) * np.asarray(circuit.sigma)) ** 2

    def imbalance(x):
        y, a = x[:N], x[N:]
        first = -y + event.parameter * b * z + (1 - np.sqrt(a)) * (W_r @ y)
        return np.concatenate([first, -a + c + W @ (y * y * a)])

    steps = event.x[:, None] + 1e-30j * np.eye(2 * N)
    J = np.stack([imbalance(x) for x in steps.T], axis=1).imag / 1e-30
    tau = np.concatenate([np.asarray(circuit.tau_y), np.asarray(circuit.tau_a)])
    values = np.linalg.eigvals(J / tau[:, None])
    scale = np.max(np.abs(values))
    small = np.abs(values) if event.kind == "fold" else np.abs(values.real)
    if event.kind == "hopf":
        small = np.where(np.abs(values.imag) > 1e-6 * scale, small, np.inf)
    balanced = np.max(np.abs(imbalance(event.x))) < _BALANCED * max(1, np.max(np.abs(event.x)))
    return bool(balanced and np.min(small) < _ON_AXIS * scale)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    command_line(run)
