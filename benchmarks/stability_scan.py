"""Stability of thousands of random circuits, against a plain SciPy loop and bare eigenvalues.

    python -m benchmarks.stability_scan [--quick] [--seconds N] [--out FILE]

The scan is `organics.run_trials`: draw the circuits (as in the paper's trials, largest singular
value of `W_r` 1), find their steady states, and compute the eigenvalues of the Jacobians there. It
is compared with

* the loop: for each circuit, integrate from rest until well after settling, polish with a root
  finder, and call `numpy.linalg.eigvals`. It has the circuits as NumPy arrays, the analytic
  Jacobian, and a tolerance that leaves the last digits to the polishing. It is the fastest loop of
  those tried (LSODA with and without the Jacobian, and RK45, at tolerances from 1e-2 to 1e-6),
  timed on the first circuits of the scan and scaled to all;
* the bare eigenvalues: `numpy.linalg.eigvals` of all the Jacobians in one call.

Both use LAPACK's own threads or not, whichever is faster. The loop, too, must compute eigenvalues,
so no scan that does can be faster than the loop by more than `most_times_faster_possible`: the time
of the loop divided by that of the bare eigenvalues on all cores at once. Speeds are reported only
if all three give the same spectral abscissae.

A scan that only asks which circuits are stable needs few eigenvalues, or none:

* the scans for the largest abscissa and for verdicts are `run_trials` with `abscissae="largest"`
  (as `organics stability`) and `"none"`;
* the verdicts are `organics.linear.abscissa.decaying` of the same Jacobians as those of the bare
  eigenvalues, on one core, and of Jacobians of circuits with larger recurrent weights. Speeds are
  reported only if every verdict is that of the eigenvalues.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.integrate import solve_ivp
from scipy.optimize import root
from threadpoolctl import threadpool_limits

from benchmarks._agenda import LEAST, Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target, time_in_turn
from organics import Circuit, jacobian, run_trials, steady_state
from organics.linear.abscissa import compare, decaying
from organics.trials import trial

SEED = 0
SETTLING_TIME = 200.0  # ms; time constants are 2 ms, the slowest modes decay within some 10 ms
OTHER_NORMS = (2.0, 3.0)  # largest singular values, for verdicts
FEW_STEPS = 300  # of relaxation, for these: steady or not, the Jacobians are as good
SAME = 1e-6  # relative difference of spectral abscissae that counts as the same answer


class Size(NamedTuple):
    """Number of circuits of n neurons to scan, and how many of them for the loop.

    `before` and `each`: seconds, as in `Measurement`.
    """

    n: int
    trials: int
    looped: int
    before: float
    each: float


FULL = (Size(10, 10_000, 200, 30, 3), Size(100, 1_000, 20, 70, 19))
QUICK = (Size(10, 200, 10, 10, 0), Size(100, 10, 2, 10, 0))


def run(
    out: Path | None = None, quick: bool = False, seconds: float | None = None
) -> dict[str, Any]:
    """Time a stability scan against a plain SciPy loop and against bare eigenvalues.

    Arguments
        out: file for the result.
        quick: a few circuits and rounds, as a test; the times mean nothing.
        seconds: limit; sizes that do not fit into it are left out.
    """
    agenda = Agenda("stability_scan", 5, quick=quick, seconds=seconds)
    measurements = [
        Measurement(
            f"{size.trials:,} circuits, n = {size.n}",
            size.before,
            size.each,
            partial(_compare, agenda, size),
        )
        for size in (QUICK if quick else FULL)
    ]
    with jax.enable_x64(True):
        sizes = list(agenda.take(measurements).values())
    found = {
        "precision": "float64",
        "sizes": sizes,
        "targets": [goal for size in sizes for goal in _targets(size)],
    }
    return conclude(agenda, command("stability_scan", quick=quick, seconds=seconds), found, out)


def _targets(size: dict[str, Any]) -> list[dict[str, Any]]:
    where = f"n = {size['n']}: "
    faster = size["times_faster_than_loop"]["median"]
    relative = size["time_relative_to_bare"]["median"]
    verdicts = size["verdicts"][0]["time_relative_to_bare"]["median"]
    decided = (
        target(where + "verdicts, times faster than bare eigenvalues", 1 / verdicts, "at least", 3)
        if size["n"] == 100
        else target(where + "verdicts, time relative to bare eigenvalues", verdicts, "at most", 0.7)
    )
    return [
        target(where + "times faster than the loop", faster, "at least", 20),
        target(where + "time relative to bare eigenvalues", relative, "at most", 1.5),
        decided,
    ]


def _compare(agenda: Agenda, size: Size) -> dict[str, Any]:
    n, trials, looped = size[:3]
    scan = partial(run_trials, n, trials, 1.0, seed=SEED)
    start = perf_counter()
    found = scan()
    first = perf_counter() - start
    jacobians = _jacobians(n, trials, 1.0)
    circuits, drives = jax.device_get(jax.vmap(partial(_trial, n))(jnp.arange(looped)))
    few = max(1, looped // 10), max(1, trials // 10)
    loop_threads = _better_threads(lambda: _loop(circuits, drives[: few[0]]))
    bare_threads = _better_threads(lambda: np.linalg.eigvals(jacobians[: few[1]]))
    loop = _with_threads(loop_threads, lambda: _loop(circuits, drives))
    bare = _with_threads(bare_threads, lambda: np.linalg.eigvals(jacobians))
    _require_same("bare eigenvalues", bare().real.max(axis=1), found.spectral_abscissa)
    _require_same("loop", loop(), found.spectral_abscissa[:looped])

    verdicts = _with_threads(1, partial(decaying, jacobians))
    _require_same_verdicts(verdicts(), jacobians)
    scans = {f"scan_{which}": partial(scan, abscissae=which) for which in ("largest", "none")}
    for name, other in scans.items():
        if not np.array_equal(other().stable, found.stable):
            raise RuntimeError(f"{name} and the scan do not find the same circuits stable.")
    timed = {"scan": scan, **scans, "loop": loop, "bare": bare, "verdicts": verdicts}
    seconds = time_in_turn(timed, agenda.rounds())
    scaled = [trials / looped * time for time in seconds["loop"]]
    possible = (os.cpu_count() or 1) * median(scaled) / median(seconds["bare"])
    return {
        "n": n,
        "circuits": trials,
        "stable": int(found.stable.sum()),
        "largest_residual": float(found.residual.max()),
        "scan_seconds": spread(seconds["scan"]),
        "seconds_to_compile": round(first - median(seconds["scan"]), 4),
        "looped_circuits": looped,
        "loop_seconds": spread(seconds["loop"]),
        "loop_seconds_scaled": spread(scaled),
        "loop_lapack_threads": loop_threads,
        "bare_seconds": spread(seconds["bare"]),
        "bare_lapack_threads": bare_threads,
        "times_faster_than_loop": spread(_ratios(scaled, seconds["scan"]), 2),
        "most_times_faster_possible": round(possible, 2),
        "time_relative_to_bare": spread(_ratios(seconds["scan"], seconds["bare"]), 3),
        "scan_for_largest_seconds": spread(seconds["scan_largest"]),
        "scan_for_verdicts_seconds": spread(seconds["scan_none"]),
        "scan_for_largest_relative_to_bare": spread(
            _ratios(seconds["scan_largest"], seconds["bare"]), 3
        ),
        "scan_for_verdicts_relative_to_bare": spread(
            _ratios(seconds["scan_none"], seconds["bare"]), 3
        ),
        "verdicts": [
            _verdicts(1.0, jacobians, seconds["verdicts"], seconds["bare"]),
            *(_other_verdicts(n, norm, max(1, trials // 10)) for norm in OTHER_NORMS),
        ],
    }


def _other_verdicts(n: int, norm: float, count: int) -> dict[str, Any]:
    """Verdicts and bare eigenvalues of circuits with another norm of `W_r`."""
    jacobians = _jacobians(n, count, norm)
    _require_same_verdicts(decaying(jacobians), jacobians)
    functions = {"verdicts": decaying, "bare": np.linalg.eigvals}
    timed = {name: _with_threads(1, partial(f, jacobians)) for name, f in functions.items()}
    return _verdicts(norm, jacobians, *time_in_turn(timed, range(LEAST)).values())


def _verdicts(
    norm: float, jacobians: np.ndarray, verdicts: list[float], bare: list[float]
) -> dict[str, Any]:
    return {
        "spectral_norm": norm,
        "circuits": len(jacobians),
        "left_to_eigenvalues": int(np.sum(compare(jacobians) == 0)),
        "seconds": spread(verdicts),
        "time_relative_to_bare": spread(_ratios(verdicts, bare), 3),
    }


def _ratios(above: list[float], below: list[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def _require_same(name: str, abscissa: np.ndarray, found: np.ndarray) -> None:
    difference = np.max(np.abs(abscissa - found) / np.abs(found))
    if not difference <= SAME:
        raise RuntimeError(
            f"the {name} and the scan differ by {difference:.1e} (relative) in a spectral "
            "abscissa: their times cannot be compared."
        )


def _require_same_verdicts(decays: np.ndarray, jacobians: np.ndarray) -> None:
    if not np.array_equal(decays, np.linalg.eigvals(jacobians).real.max(axis=1) < 0):
        raise RuntimeError("the verdicts are not those of the eigenvalues.")


def _with_threads(threads: int | None, function: Callable[[], Any]) -> Callable[[], Any]:
    """`function` with so many threads for LAPACK; `None` is its default number."""

    def limited():
        with threadpool_limits(threads, user_api="blas"):
            return function()

    return limited


def _better_threads(function: Callable[[], Any]) -> int | None:
    """One thread for LAPACK or its default, whichever makes `function` faster."""
    choices = {str(threads): _with_threads(threads, function) for threads in (None, 1)}
    seconds = time_in_turn(choices, range(3))
    return None if median(seconds["None"]) < median(seconds["1"]) else 1


def _trial(n: int, index: Any, norm: Any = 1.0):
    """Circuit and drive."""
    return trial(SEED, index, n, norm)


def _jacobians(n: int, count: int, norm: float) -> np.ndarray:
    """The Jacobians of the first `count` circuits."""
    steps = {} if norm <= 1 else {"relaxation_steps": FEW_STEPS}

    @jax.jit
    @jax.vmap
    def linearize(index):
        circuit, z = _trial(n, index, norm)
        return jacobian(circuit, steady_state(circuit, z, spectral_norm=norm, **steps).state)

    pieces = np.array_split(np.arange(count), 10)
    return np.concatenate([np.asarray(linearize(jnp.asarray(piece))) for piece in pieces])


def _loop(circuits: Circuit, drives: Float[np.ndarray, "looped n"]) -> Float[np.ndarray, " looped"]:
    """Spectral abscissae by SciPy, one circuit after another."""
    abscissae = []
    for i, z in enumerate(drives):
        velocity, velocity_jacobian = _equations(jax.tree.map(lambda x, i=i: x[i], circuits), z)
        rest = np.concatenate([np.zeros_like(z), circuits.c[i]])
        settled = solve_ivp(
            velocity, (0, SETTLING_TIME), rest, "LSODA", jac=velocity_jacobian, rtol=1e-3, atol=1e-6
        )
        polished = root(
            partial(velocity, 0.0), settled.y[:, -1], jac=partial(velocity_jacobian, 0.0), tol=1e-12
        )
        abscissae.append(np.linalg.eigvals(velocity_jacobian(0.0, polished.x)).real.max())
    return np.array(abscissae)


def _equations(circuit: Circuit, z: np.ndarray):
    """Velocity and Jacobian of the main model in NumPy, as functions of the time and `(y, a)`."""
    n, W, W_r, d, c = len(z), circuit.W, circuit.W_r, circuit.b * z, circuit.c
    tau = np.concatenate([circuit.tau_y, circuit.tau_a])
    identity = np.eye(n)

    def velocity(t, x):
        del t
        y, a = x[:n], np.maximum(x[n:], 0)
        dy = d - y + (1 - np.sqrt(a)) * (W_r @ y)
        da = c - x[n:] + W @ (y * y * a)
        return np.concatenate([dy, da]) / tau

    def velocity_jacobian(t, x):
        del t
        y, a = x[:n], x[n:]
        s = np.sqrt(a)
        J = np.empty((2 * n, 2 * n))
        J[:n, :n] = (1 - s)[:, None] * W_r - identity
        J[:n, n:] = np.diag(-(W_r @ y) / (2 * s))
        J[n:, :n] = W * (2 * a * y)
        J[n:, n:] = W * (y * y) - identity
        return J / tau[:, None]

    return velocity, velocity_jacobian


if __name__ == "__main__":
    command_line(run)
