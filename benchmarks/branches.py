"""Steady states of random circuits followed over contrast, in one batch, and by jaxcont in a loop.

    python -m benchmarks.branches [--quick] [--seconds N] [--out FILE]

The circuits have n = 10 and `W_r` of norm 2; contrast goes from 0, where the state is known, to 2.
Folds and Hopf points are located. Every event is checked by NumPy: the equations balance, and the
Jacobian, by complex steps, has the eigenvalue 0 or a pair on the imaginary axis; between events the
number of unstable eigenvalues does not change. Events for which that fails are listed.

jaxcont (`pip install jaxcont`) is left out if it is not installed.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target, time_in_turn
from organics.branches.branch import Branch, Event
from organics.branches.continuation import continuations
from organics.circuit.circuit import Circuit, State, random_drive

N, NORM = 10, 2.0
COUNT, TIMED = 1000, 200  # circuits followed and checked; those of a timed round
BOUNDS = (0.0, 2.0)
PEER_COUNT = 3  # branches in a round of jaxcont
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
            document["events"] = _checked(circuits, drives)
    if len(found) == 2:
        faster = found["jaxcont"]["median"] / found["organics"]["median"]
        document["targets"] = [target("faster than jaxcont, per branch", faster, "at least", 100)]
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
    peer = _jaxcont()

    def follow(i: int) -> Any:
        circuit = jax.tree.map(lambda leaf: leaf[i], circuits)
        tau = np.concatenate([circuit.tau_y, circuit.tau_a])

        def velocity(x, contrast, args):
            del args
            y, a = x[:N], x[N:]
            return jnp.concatenate(circuit.imbalance(State(y, a), contrast * drives[i])) / tau

        start = np.concatenate([np.zeros(N), circuit.c])
        problem = peer.bif_problem(velocity, start, 0.0)
        settings = peer.ContinuationPar(max_steps=400, newton_tol=1e-10)
        return peer.continuation(
            problem, p_span=BOUNDS, settings=settings, events=[peer.Fold(), peer.Hopf()]
        )

    follow(0)
    times = time_in_turn(
        {"jaxcont": lambda: [follow(i) for i in range(PEER_COUNT)]}, agenda.rounds()
    )
    return spread([value / PEER_COUNT for value in times["jaxcont"]])


def _checked(circuits: Circuit, drives: Any) -> dict[str, Any]:
    """How many events there are, and those that NumPy does not confirm."""
    kinds: dict[str, int] = {}
    doubtful = []
    for i, branch in enumerate(_follow(circuits, drives)):
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
