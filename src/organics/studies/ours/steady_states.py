"""Random circuits: is a steady state always found, is it stable, and does the circuit reach it?

Two questions, for the main and the rectified model:

* search: circuits of each size. For one half, the largest singular value of `W_r` and the norm of
  the drive are at the bound 1 of the conjecture, for the other half below. Is every steady state
  found, and with what residual?
* stability: circuits with the largest singular value of `W_r` at 1, 2 and 3 (those of
  `organics stability`). How many have a stable steady state, and does a long simulation end there?
  The simulation uses another integrator than the search, with tight tolerances, until the velocity
  vanishes or the time is up.

A circuit without a stable steady state is simulated from several starts. If a simulation does not
end at the stable steady state, another one, from nearby and ten times as long, must return there.

Source: Rawat et al. 2024, the conjecture on general recurrence, and the trials behind it.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from organics.circuit.circuit import Circuit, State, random_drive
from organics.linear.jacobian import eigenvalues, jacobian
from organics.machine.lapack import single_threaded_lapack
from organics.printing import model_in_words
from organics.rest.point import METHODS, SteadyState
from organics.rest.search import steady_state
from organics.simulation.resting import comes_to_rest, near_rest, settle
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.pieces import kept_document
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.trials import fraction_interval, trial

BOUND = 1e-10
"""Target for the residual of every steady state of the search."""

_PATIENCE = 10  # factor of the time for a state that is approached slowly
_SAME = 1e-4  # largest difference between two states that count as the same, relative to their size


@dataclass(frozen=True)
class Sample:
    """The circuits, and the length of their simulations."""

    largest: int = 50
    """Largest size in the search, which covers all sizes from 1."""
    circuits_per_size: int = 200
    """Circuits of the search, for each size and model."""
    n: int = 10
    """Size of the circuits that are simulated."""
    norms: tuple[float, ...] = (1.0, 2.0, 3.0)
    """Largest singular values of their `W_r`."""
    trials: int = 1000
    """Number of simulated circuits, for each norm and model."""
    time: float = 4000.0
    """Simulated time in ms; the time constants are 2 ms."""
    starts: int = 5
    """Number of further simulations, from random states, if no stable steady state is found."""
    rectified: tuple[bool, ...] = (False, True)
    """Models, main or rectified."""
    seed: int = 0
    """Seed of all circuits, drives and random states."""


def compute(job: Job) -> Outcome:
    """Search and simulate; every size and norm is a piece."""
    sample = Sample(seed=job.seed)
    if job.quick:
        sample = replace(sample, largest=2, circuits_per_size=20, n=2, trials=10, time=400.0)
    return conclude(measure(sample, job))


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """The rows of both questions, for each model."""
    outcome: dict[str, Any] = {"search": [], "stability": []}
    parts = len(sample.rectified) * (sample.largest + len(sample.norms))
    done = iter(range(parts))

    def kept(question, **settings) -> dict[str, Any]:
        name = "-".join([question.__name__.strip("_"), *map(str, settings.values())])
        job.progress(next(done) / parts, name)
        shared = f"seed{sample.seed}-{sample.starts}-{sample.time:g}"
        return kept_document(
            job.folder / shared / f"{name}.json", partial(_answered, sample, question, settings)
        )

    with jax.enable_x64(True), single_threaded_lapack():
        for rectified in sample.rectified:
            by_size = [
                kept(_search, n=n, circuits=sample.circuits_per_size, rectified=rectified)
                for n in range(1, sample.largest + 1)
            ]
            outcome["search"].append(_together(by_size))
            outcome["stability"] += [
                kept(
                    _stability,
                    n=sample.n,
                    spectral_norm=norm,
                    trials=sample.trials,
                    rectified=rectified,
                )
                for norm in sample.norms
            ]
    return outcome


def _answered(sample: Sample, question, settings: dict[str, Any]) -> dict[str, Any]:
    answer = question(**settings, starts=sample.starts, time=sample.time, seed=sample.seed)
    if question is _search:
        # every size compiles anew, and a process may map only a limited number of code pages
        jax.clear_caches()
    return answer


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the counts; `found` is the result of `measure`."""
    search, stability = found["search"], found["stability"]
    checks = [check for row in search for check in _search_checks(row)]
    checks += [check for row in stability for check in _stability_checks(row)]
    circuits = sum(row["circuits"] for row in search)
    simulated = sum(row["stable"] for row in stability)
    here = (
        f"of {circuits:,} circuits within the bounds {sum(row['converged'] for row in search):,} "
        f"have a steady state that is found, {sum(row['stable'] for row in search):,} a stable one;"
        f" {sum(map(_ending_there, stability)):,} of {simulated:,} simulations end at it"
    )
    columns = ("model", "neurons", "norm", "circuits", "found", "stable", "simulations end there",
               "not stable, rests elsewhere")  # fmt: skip
    rows = [*map(_search_cells, search), *map(_stability_cells, stability)]
    return Outcome(here, checks, found, Table(columns, rows))


def _search_checks(row: dict[str, Any]) -> list[Check]:
    model, circuits = model_in_words(row["rectified"]), row["circuits"]

    def all_but(count: int, what: str, **more) -> Check:
        words = f"{count:,} of {circuits:,}"
        return Check(f"{model}: {what}", words, count == circuits, tolerance="all", **more)

    return [
        all_but(row["converged"], "a steady state is found"),
        all_but(row[f"residual_at_most_{BOUND:g}"], f"its residual is at most {BOUND:g}"),
        all_but(row["stable"], "it is stable, as the conjecture has it", decides=False),
    ]


def _stability_checks(row: dict[str, Any]) -> list[Check]:
    of = f"{model_in_words(row['rectified'])}, norm {row['spectral_norm']:g}"
    there, rests = _ending_there(row), _resting_elsewhere(row)
    return [
        Check(
            f"{of}: a long simulation ends at the stable steady state",
            f"{there:,} of {row['stable']:,}",
            there == row["stable"],
            tolerance="all, from where the search began or from nearby",
        ),
        Check(
            f"{of}: without a stable steady state found, no simulation comes to rest",
            f"{rests} of {row['not_stable']} do",
            rests == 0,
            tolerance="not one",
            decides=False,
        ),
    ]


def _ending_there(row: dict[str, Any]) -> int:
    ends = row["stable_and_a_simulation_of_it"]
    return ends["ends_there"] + ends["of_the_last_two_ends_there_from_nearby"]


def _resting_elsewhere(row: dict[str, Any]) -> int:
    others = row["not_stable_and_a_simulation_of_it"]
    return max(others["rests"], others["rests_from_one_of_several_starts"])


def _search_cells(row: dict[str, Any]) -> list[str]:
    first, last = row["sizes"]
    counts = (row["circuits"], row["converged"], row["stable"])
    resting = str(row["not_stable_but_rests_in_a_simulation"])
    return [
        model_in_words(row["rectified"]),
        f"{first} to {last}",
        "at most 1",
        *map("{:,}".format, counts),
        "",
        resting,
    ]


def _stability_cells(row: dict[str, Any]) -> list[str]:
    there, rests = _ending_there(row), _resting_elsewhere(row)
    return [
        model_in_words(row["rectified"]),
        str(row.get("n", "")),
        f"{row['spectral_norm']:g}",
        f"{row['circuits']:,}",
        "",
        f"{row['stable']:,}",
        f"{there:,}",
        str(rests),
    ]


def _search(n: int, circuits: int, rectified: bool, starts: int, time: float, seed: int):
    """The search results for `circuits` circuits of n neurons within the bounds of the
    conjecture."""
    found, J, (circuit, z) = _find(jr.key(seed), jnp.arange(circuits), n, rectified)
    converged, residual = np.asarray(found.converged), np.asarray(found.residual)
    abscissa = _abscissa(J)
    stable = converged & (abscissa < 0)
    return {
        "n": n,
        "circuits": circuits,
        "rectified": rectified,
        "converged": int(converged.sum()),
        "within_bound": int(np.sum(converged & (residual <= BOUND))),
        "stable": int(stable.sum()),
        "not_stable": np.flatnonzero(~stable).tolist(),
        "not_stable_but_rests_in_a_simulation": _resting(
            circuit, z, found.state, ~stable, starts, time, seed
        ),
        "largest_residual": float(residual[converged].max()),
        "largest_spectral_abscissa": float(abscissa[stable].max()),
        "most_iterations": int(np.max(np.asarray(found.iterations)[converged])),
        "methods": np.bincount(np.asarray(found.method)[stable], minlength=len(METHODS)).tolist(),
    }


# compiled for each size and run once, so the compiler need not optimise
@partial(jax.jit, static_argnums=(2, 3), compiler_options={"xla_backend_optimization_level": 0})
def _find(key, indices, n: int, rectified: bool) -> tuple[SteadyState, Array, tuple]:
    def one(index):
        circuit, z = inside_bounds(jr.fold_in(jr.fold_in(key, n), index), index, n, rectified)
        found = steady_state(circuit, z).found
        return found, jacobian(circuit, found.state), (circuit, z)

    return jax.vmap(one)(indices)


def inside_bounds(
    key: PRNGKeyArray, index: Int[Array, ""], n: int, rectified: bool
) -> tuple[Circuit, Float[Array, " n"]]:
    """A random circuit and drive; both norms are 1 if `index` is even, else below."""
    k_norms, k_circuit, k_drive = jr.split(key, 3)
    norm, size = jnp.where(index % 2 == 0, 1, jr.uniform(k_norms, (2,), float))
    circuit = Circuit.random(k_circuit, n, norm, rectified=rectified)
    return circuit, size * random_drive(k_drive, n)


def _together(by_size: list[dict[str, Any]]) -> dict[str, Any]:
    """One row for all sizes."""
    total = lambda name: sum(row[name] for row in by_size)  # noqa: E731
    most = lambda name: max(row[name] for row in by_size)  # noqa: E731
    methods = np.sum([row["methods"] for row in by_size], axis=0).tolist()
    return {
        "rectified": by_size[0]["rectified"],
        "sizes": [by_size[0]["n"], by_size[-1]["n"]],
        "circuits": total("circuits"),
        "converged": total("converged"),
        f"residual_at_most_{BOUND:g}": total("within_bound"),
        "stable": total("stable"),
        "stable_by_method": dict(zip(METHODS, methods, strict=True)),
        "not_stable_by_size": {row["n"]: row["not_stable"] for row in by_size if row["not_stable"]},
        "not_stable_but_rests_in_a_simulation": total("not_stable_but_rests_in_a_simulation"),
        "largest_residual": most("largest_residual"),
        "largest_spectral_abscissa_of_the_stable": most("largest_spectral_abscissa"),
        "most_iterations": most("most_iterations"),
        "largest_residual_by_size": [float(f"{row['largest_residual']:.2e}") for row in by_size],
    }


def _stability(
    n: int,
    spectral_norm: float,
    trials: int,
    rectified: bool,
    starts: int,
    time: float,
    seed: int,
) -> dict[str, Any]:
    """Stable steady states of random circuits, compared with simulations."""
    draw = lambda index: trial(seed, index, n, spectral_norm, rectified=rectified)  # noqa: E731
    circuits, drives = jax.jit(jax.vmap(draw))(jnp.arange(trials))
    found, J = _solve(circuits, drives)
    converged = np.asarray(found.converged)
    stable = converged & (_abscissa(J) < 0)
    ends, rests = settle(circuits, drives, near_rest(circuits), time)
    there = rests & _same(found.state, ends)
    elsewhere = stable & ~there
    return {
        "n": n,
        "spectral_norm": spectral_norm,
        "rectified": rectified,
        "circuits": trials,
        "stable": int(stable.sum()),
        "fraction_stable": float(stable.mean()),
        "interval_95": fraction_interval(int(stable.sum()), trials),
        "largest_residual_of_the_stable": float(np.asarray(found.residual)[stable].max()),
        "stable_and_a_simulation_of_it": {
            "ends_there": int(np.sum(stable & there)),
            "ends_at_another_state": int(np.sum(elsewhere & rests)),
            "never_rests": int(np.sum(elsewhere & ~rests)),
            "of_the_last_two_ends_there_from_nearby": _returning(
                circuits, drives, found.state, elsewhere, _PATIENCE * time
            ),
        },
        "not_stable": int(np.sum(~stable)),
        "not_stable_and_a_simulation_of_it": {
            "never_rests": int(np.sum(~stable & ~rests)),
            "rests": int(np.sum(~stable & rests)),
            "rests_from_one_of_several_starts": _resting(
                circuits, drives, found.state, ~stable, starts, time, seed
            ),
        },
    }


@jax.jit
def _solve(circuits: Circuit, drives: Array) -> tuple[SteadyState, Array]:
    def one(circuit, z):
        found = steady_state(circuit, z).found
        return found, jacobian(circuit, found.state)

    return jax.vmap(one)(circuits, drives)


def _abscissa(J: Array) -> Float[np.ndarray, " circuits"]:
    return np.real(eigenvalues(np.asarray(J))).max(axis=1)


def _same(one: State, other: State) -> Bool[np.ndarray, " circuits"]:
    x, y = (np.concatenate([np.asarray(s.y), np.asarray(s.a)], axis=1) for s in (one, other))
    size = np.maximum(1, np.max(np.abs(x), axis=1))
    return np.max(np.abs(x - y), axis=1) <= _SAME * size


def _resting(circuits, drives, states: State, which, starts: int, time: float, seed: int) -> int:
    """How many of the circuits come to rest in at least one of several simulations."""
    circuits, drives, states = _choose(which, (circuits, drives, states))
    if not len(drives):
        return 0
    return int(comes_to_rest(circuits, drives, states, time, starts=starts, seed=seed).sum())


def _returning(circuits, drives, states: State, which, time: float) -> int:
    """How many of the circuits return to a state when started a thousandth away from it."""
    circuits, drives, states = _choose(which, (circuits, drives, states))
    if not len(drives):
        return 0
    y = states.y + 1e-3 * np.max(np.abs(states.y), axis=1, keepdims=True)
    ends, rests = settle(circuits, drives, State(y, 1.001 * states.a), time)
    return int(np.sum(rests & _same(states, ends)))


def _choose(which, stacked):
    chosen = np.flatnonzero(which)
    return jax.tree.map(lambda leaf: leaf[chosen], jax.device_get(stacked))
