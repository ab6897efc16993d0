"""All steady states of random circuits: by search, and proved to be all.

    python -m benchmarks.steady_states [--quick] [--full] [--seconds N] [--out FILE]

The circuits are those of the paper's trials, with the largest singular value of `W_r` at 1, 2 and 3
in turn, under drives of norm 1. One process without threads; the seconds are those in which it has
the processor, so that other work on the machine counts less.

* proof: seconds a circuit until no box remains, natively and by NumPy; and until each state is
  proved to be stable or unstable, too.
* search: seconds a circuit, and those that Newton's method takes from 10,000 random starts, by the
  same code; the states that it finds and the search does not.
"""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target
from organics.circuit.circuit import Circuit
from organics.enumeration import contraction, native
from organics.enumeration.enclosed import Enclosed
from organics.enumeration.enclosure import enclose_all
from organics.enumeration.reduced import Reduced
from organics.enumeration.search import is_among, newton, random_starts, search
from organics.enumeration.states import steady_states

GOALS = {2: 0.02, 3: 0.05, 4: 0.15, 5: 0.4, 6: 8.0}
"""Seconds a circuit, for the proof, by number of neurons."""
BY_NUMPY = (2, 3, 4)
STARTS, BATCH = 10_000, 500
MOST_BOXES = 20_000_000


def run(
    out: Path | None = None, quick: bool = False, full: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Time searches and proofs.

    Arguments
        out: file for the result.
        quick: few and small circuits.
        full: proofs for 7 neurons, too.
        seconds: limit; what does not fit into it is left out.
    """
    sizes = (2, 3) if quick else (*GOALS, 7) if full else tuple(GOALS)
    large = 10 if quick else 50
    agenda = Agenda("steady_states", 20, quick=quick, seconds=seconds)
    few = Agenda("steady_states", 6, quick=quick, seconds=seconds)
    cost = {2: 0.1, 3: 0.1, 4: 0.2, 5: 0.6, 6: 5.0, 7: 60.0}
    with jax.enable_x64(True), threadpool_limits(1), np.errstate(all="ignore"):
        proofs = agenda.take(
            [Measurement(f"n = {n}", 2, cost[n], partial(_proofs, agenda, n)) for n in sizes]
        )
        numpy = agenda.take(
            [
                Measurement(f"n = {n}, NumPy", 1, 20 * cost[n], partial(_by_numpy, agenda, n))
                for n in sizes
                if n in BY_NUMPY
            ]
        )
        searches = few.take([Measurement(f"n = {large}", 1, 13, partial(_searches, few, large))])
    targets = [
        target(f"proof, n = {n}, seconds", proofs[f"n = {n}"]["seconds"]["median"], "at most", goal)
        for n, goal in GOALS.items()
        if f"n = {n}" in proofs
    ]
    targets += [
        target(f"proof, n = {n}, circuits complete of {one['circuits']}", one["complete"],
               "at least", one["circuits"])
        for n, one in ((n, proofs.get(f"n = {n}")) for n in GOALS) if one
    ]  # fmt: skip
    for name, one in searches.items():
        targets += [
            target(f"search, {name}, seconds", one["seconds"]["median"], "at most", 0.1),
            target(f"random starts over search, {name}", one["ratio"], "at least", 20),
            target(f"states only random starts find, {name}", one["missed"], "at most", 0),
        ]
    document = {
        "kernel": native.available(),
        "proof": proofs,
        "proof_by_numpy": numpy,
        "search": searches,
        "targets": targets,
    }
    options = command("steady_states", quick=quick, full=full, seconds=seconds)
    return conclude(agenda, options, document, out)


def random_circuit(k: int, n: int) -> tuple[Circuit, np.ndarray]:
    """The circuit with this number, and its drive."""
    rng = np.random.default_rng([k, n])
    b, b0, sigma = 1 - rng.uniform(size=(3, n))  # not 0
    W, W_r, z = rng.uniform(size=(n, n)), rng.normal(size=(n, n)), rng.normal(size=n)
    W_r *= (1, 2, 3)[k % 3] / np.linalg.norm(W_r, 2)
    return Circuit(W, W_r, b, b0, sigma), z / np.linalg.norm(z)


def _enclose(circuit: Circuit, z: np.ndarray) -> tuple[float, Enclosed]:
    begin = time.process_time()
    found = enclose_all(circuit, z, Reduced.of(circuit, z), MOST_BOXES)
    return time.process_time() - begin, found


def _proofs(agenda: Agenda, n: int) -> dict[str, Any]:
    steady_states(*random_circuit(0, n), prove=n < 6)  # compiles
    alone, whole, found = [], [], []
    for k in agenda.rounds():
        circuit, z = random_circuit(k, n)
        seconds, enclosed = _enclose(circuit, z)
        alone.append(seconds)
        found.append(enclosed)
        if n < 6:
            begin = time.process_time()
            steady_states(circuit, z, prove=True)
            whole.append(time.process_time() - begin)
    boxes = [one.boxes for one in found]
    result = {
        "circuits": len(found),
        "complete": sum(one.outcome == "all, proved" for one in found),
        "seconds": spread(alone),
        "boxes_median": int(np.median(boxes)),
        "boxes_most": max(boxes),
        "states": [len(one.v) for one in found],
    }
    return result | ({"seconds_with_stability": spread(whole)} if whole else {})


def _by_numpy(agenda: Agenda, n: int) -> dict[str, Any]:
    with patch("organics.enumeration.enclosure.contract", contraction.contract):
        return spread([_enclose(*random_circuit(k, n))[0] for k in agenda.rounds()])


def _searches(agenda: Agenda, n: int) -> dict[str, Any]:
    ours, theirs, missed, states, agrees = [], [], 0, [], 0
    for k in agenda.rounds():
        system = Reduced.of(*random_circuit(k, n))
        begin = time.process_time()
        found = search(system)
        ours.append(time.process_time() - begin)
        states.append(len(found.v))
        agrees += found.expected == sum(found.signs)
        rng = np.random.default_rng(k)
        begin = time.process_time()
        ends = [newton(system, random_starts(system, rng, BATCH)) for _ in range(STARTS // BATCH)]
        theirs.append(time.process_time() - begin)
        others: list[np.ndarray] = []
        for v in np.concatenate(ends):
            if not is_among(v, np.array([*found.v, *others])):
                others.append(v)
        missed += len(others)
    return {
        "circuits": len(states),
        "seconds": spread(ours),
        "seconds_of_random_starts": spread(theirs),
        "ratio": float(np.median(np.array(theirs) / np.array(ours))),
        "states": states,
        "signs_add_up": agrees,
        "missed": missed,
    }


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    command_line(run)
