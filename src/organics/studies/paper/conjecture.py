"""The conjecture on general recurrence: proofs, random circuits, and a hunt for exceptions.

Two statements are tested: that of the paper, and one with bounds on all parameters, those of
`Circuit.random` (see `organics.proofs.proof`). Both are refuted by proof. What remains is how rare
the exceptions are, and for which recurrent matrices there are none:

* a survey of a million random circuits (`organics.studies.paper.survey`);
* a hunt for exceptions by gradient ascent (`organics.studies.paper.hunt`), with any `W_r` and with
  symmetric positive semidefinite ones. Its worst circuits are written beside the results.

Source: Rawat et al. 2024, the conjecture and the trials behind it.
"""

import os
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from organics.circuit.circuit import Circuit, State
from organics.circuit.file import save_circuit
from organics.files.plain import rounded
from organics.machine.lapack import single_threaded_lapack
from organics.machine.side_by_side import call_each
from organics.plots import BLACK, COLOURS, COLUMN, GREY, letter, style
from organics.proofs.existence import NONE_EXISTS, NONE_STABLE
from organics.proofs.proof import prove
from organics.rest.search import given_state, steady_state
from organics.simulation.resting import comes_to_rest
from organics.studies.harness.pieces import Piece, count_kept
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.paper.hunt import (
    TIME,
    Hunt,
    all_found,
    alone,
    circuit_of,
    hunt,
)
from organics.studies.paper.survey import Piecework, fractions, pieces, survey
from organics.trials import trial

CONJECTURE = (
    "if the largest singular value of W_r is at most 1 and |z| <= 1, there is a locally "
    "asymptotically stable steady state (W >= 0, b, b0, sigma, tau_y, tau_a > 0)"
)
BOUNDED_CONJECTURE = (
    "the same, if besides 0 <= W_ij <= 1 and 0 < b, b0, sigma < 1, the law of the random trials"
)

TRIALS = {  # numbers for spectral norms 0.5, 1, 2, 3 and 5
    2: (100_000, 200_000, 40_000, 20_000, 20_000),
    4: (120_000, 200_000, 30_000, 10_000, 10_000),
    8: (60_000, 120_000, 20_000, 5_000, 5_000),
    16: (10_000, 20_000, 5_000, 1_000, 1_000),
    32: (800, 1_600, 600, 200, 200),
    64: (200, 400, 200, 100, 50),
}
RECTIFIED_TRIALS = {n: (TRIALS[n][-1],) * 5 for n in (2, 4, 8, 16)}
QUICK_TRIALS, QUICK_PIECE = {2: (640, 640, 256, 256, 256)}, 64 * 10

_ASCENT = {2: (256, 400), 4: (128, 400), 8: (64, 300), 16: (32, 200)}  # starts, steps
HUNTS = (
    *(Hunt(n, norm, "any", *_ASCENT[n]) for n in (2, 4, 8) for norm in (0.1, 0.3, 1.0)),
    *(Hunt(n, norm, "semidefinite", *_ASCENT[n]) for n in (2, 4, 8)
      for norm in (0.5, 0.8, 0.9, 0.95, 1.0)),
    *(Hunt(16, norm, "any", *_ASCENT[16]) for norm in (0.1, 1.0)),
    *(Hunt(16, norm, "semidefinite", *_ASCENT[16]) for norm in (0.8, 0.9, 1.0)),
    *(Hunt(n, norm, "semidefinite", *_ASCENT[n], True) for n in (2, 4) for norm in (0.5, 1.0)),
)  # fmt: skip
QUICK_HUNTS = (Hunt(2, 1.0, "semidefinite", 32, 120),)

_EDGES = ("none_up_to", "first", "at_most")
_POWELL = 300  # starts of the search for further steady states of a worst circuit
_POINTS = 40  # of a curve


def compute(job: Job) -> Outcome:
    """Prove what can be proved, survey random circuits, and hunt."""
    hunts = QUICK_HUNTS if job.quick else HUNTS
    trials = pieces(QUICK_TRIALS, False, QUICK_PIECE) if job.quick else [
        *pieces(TRIALS, False), *pieces(RECTIFIED_TRIALS, True)
    ]  # fmt: skip
    names = [work.name for work in (*hunts, *trials)]
    # so that hosts sharing the folder seldom compute the same piece
    order = random.Random(os.getpid())
    call_each(
        _make,
        [
            (job.folder, job.seed, work)
            for group in (hunts, trials)  # the longer ones first
            for work in order.sample(group, len(group))
        ],
        job.submit,
        watch=lambda: job.progress(
            0.9 * count_kept(job.folder, names) / len(names), "hunts, and random circuits"
        ),
    )
    job.progress(0.9, "what was found")
    with jax.enable_x64(True), single_threaded_lapack():
        return conclude(_proofs(), _surveyed(job, trials), _hunted(job, hunts))


def _make(folder: Path, seed: int, work: Hunt | Piecework) -> None:
    """Compute a piece of the hunts or of the survey, unless it exists."""
    with jax.enable_x64(True), single_threaded_lapack():
        if isinstance(work, Hunt):
            hunt(folder, seed, work)
        else:
            survey(folder, seed, work)


def conclude(
    proofs: dict[str, dict[str, Any]],
    surveyed: list[dict[str, Any]],
    hunted: list[dict[str, Any]],
) -> Outcome:
    """The verdict of all parts on the conjecture."""
    main = [row for row in surveyed if not row["rectified"]]
    numbers = {
        "conjecture": CONJECTURE,
        "bounded_conjecture": BOUNDED_CONJECTURE,
        "trivial_exceptions": "a block diagonal circuit with a block that has no stable steady "
        "state has none: each exception is one for every larger n",
        "found_means": "a stable steady state was found: the fraction is a lower bound",
        "trials": sum(row["trials"] for row in surveyed),
        "proofs": proofs,
        "freeing_tau": _freeing_tau(hunted),
        "first_exceptions": first_exceptions(hunted, proofs),
        "survey": surveyed,
        "hunts": hunted,
    }
    refuted = sum(map(_refutes, proofs.values()))
    here = (
        f"{refuted} counterexamples proved; stable for {_in_words(_of_norm(main, 0, 1))} random "
        f"circuits at norm at most 1, {_in_words(_of_norm(main, 1, 2))} at 2, "
        f"{_in_words(_of_norm(main, 2, 3))} at 3"
    )
    checks = [*_proof_checks(proofs), *_survey_checks(main), *_hunt_checks(hunted)]
    return Outcome(here, checks, numbers, _first_table(numbers["first_exceptions"]))


def _of_norm(rows: list[dict[str, Any]], above: int, up_to: int) -> list[dict[str, Any]]:
    return [row for row in rows if above < row["spectral_norm"] <= up_to]


def _proof_checks(proofs: dict[str, dict[str, Any]]) -> list[Check]:
    """One counterexample decides, whatever random circuits do."""
    return [
        Check(
            what,
            f"{proof['verdict']} for {proof['circuit']}: {proof['statement']}",
            not _refutes(proof),
            paper=paper,
            tolerance="no counterexample is proved in ball arithmetic",
            decides=decides,
        )
        for what, proof, paper, decides in (
            ("the conjecture", proofs["conjecture"], "conjectured", True),
            ("the bounded conjecture", proofs["bounded"], None, True),
            ("the bounded, of symmetric semidefinite W_r", proofs["semidefinite"], None, False),
        )
    ]


def _survey_checks(main: list[dict[str, Any]]) -> list[Check]:
    """Checks of random circuits of the main model with norms up to 1, 2 and 3."""
    inside, at_2, at_3 = (_of_norm(main, norm - 1, norm) for norm in (1, 2, 3))
    checks = [
        Check(
            f"a stable steady state for all random circuits of norm {what}",
            _in_words(rows),
            all(row["found"] == row["trials"] for row in rows) if rows else None,
            paper="100 % of trials",
            tolerance="found for every circuit",
            decides=False,
        )
        for what, rows in (("at most 1", inside), ("2", at_2))
    ]
    fewer = Check(
        "fewer at norm 3 than at 2",
        f"{_in_words(at_3)}, against {_in_words(at_2)}",
        all(_fewer(at_3, at_2)) if at_3 and at_2 else None,
        paper="breaks at 3",
        tolerance="a smaller fraction for every number of neurons",
        decides=False,
    )
    return [*checks, fewer]


def _hunt_checks(hunted: list[dict[str, Any]]) -> list[Check]:
    """Checks whether there are exceptions of norm at most 1, for each kind of `W_r`."""
    checks = []
    for kind, which in (("any", "any W_r"), ("semidefinite", "symmetric semidefinite W_r")):
        rows = [row for row in hunted if row["kind"] == kind and not row["free_tau"]]
        inside = [row for row in rows if row["spectral_norm"] <= 1]
        checks.append(
            Check(
                f"the hunt finds no exception of norm at most 1, {which}",
                _hunt_in_words(inside),
                not any(row["confirmed"] for row in inside) if inside else None,
                tolerance="no circuit whose steady state is unstable or lost, and which never "
                "rests in simulations from several states",
                decides=False,
            )
        )
    return checks


def _freeing_tau(hunted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The hunts with free time constants compared with those that fix them."""
    alike = ("kind", "n", "spectral_norm")
    return [
        {name: row[name] for name in alike}
        | {
            "exceptions": row["confirmed"],
            "worst_abscissa": row["worst"]["abscissa"],
            "worst_abscissa_fixed": other["worst"]["abscissa"],
        }
        for row in hunted
        for other in hunted
        if row["free_tau"]
        and not other["free_tau"]
        and all(row[name] == other[name] for name in alike)
    ]


def first_exceptions(
    hunted: list[dict[str, Any]], proofs: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """The smallest known norm of exceptions, for each kind of `W_r` and number of neurons.

    `first` is the smallest norm of a hunt with exceptions, `none_up_to` the largest smaller one of
    a hunt without. `at_most` is the smallest norm of an exception with as many neurons or fewer, as
    neurons without input can be added to any. It includes the proofs for a single neuron, whose
    norm can be arbitrarily small.
    """
    single = [p["spectral_norm"] for p in proofs.values() if p["n"] == 1 and _refutes(p)]
    rows = []
    for kind, known in (("any", single), ("semidefinite", [])):
        mine = [row for row in hunted if row["kind"] == kind and not row["free_tau"]]
        for n in sorted({row["n"] for row in mine}):
            at_n = [row for row in mine if row["n"] == n]
            some = [row["spectral_norm"] for row in at_n if row["confirmed"]]
            known = [*known, *some]
            first = min(some, default=None)
            none = [row["spectral_norm"] for row in at_n if not row["confirmed"]]
            below = [norm for norm in none if first is None or norm < first]
            row = {"kind": kind, "n": n, "none_up_to": max(below, default=None), "first": first}
            rows.append(row | {"at_most": min(known, default=None)})
    return rows


def _first_table(rows: list[dict[str, Any]]) -> Table:
    columns = ("W_r", "neurons", "hunts without exceptions up to norm", "first exception at",
               "exceptions from at most, as fewer neurons have them")  # fmt: skip
    cells = [
        [row["kind"], str(row["n"])]
        + ["none" if (norm := row[key]) is None else f"{norm:g}" for key in _EDGES]
        for row in rows
    ]
    return Table(columns, cells)


def _refutes(proof: dict[str, Any]) -> bool:
    """Whether it is proved that no stable steady state exists, not only that one is unstable."""
    return proof["statement"].startswith((NONE_STABLE, NONE_EXISTS))


def _fewer(some: list[dict[str, Any]], others: list[dict[str, Any]]) -> list[bool]:
    """For each number of neurons, whether the fraction found is smaller in `some` than in
    `others`."""
    fractions = {row["n"]: row["fraction"] for row in others}
    return [row["fraction"] < fractions[row["n"]] for row in some if row["n"] in fractions]


@style()
def draw(outcome: Outcome) -> Figure:
    """a: fraction of random circuits for which no stable steady state was found, by the
    spectral norm of W_r. b: largest spectral abscissa reached by the ascents at norm 1. c: that
    of the worst circuit of each hunt; for diamonds neither the search nor a simulation finds a
    stable steady state.
    """
    figure = Figure(figsize=(2 * COLUMN, 2.9))
    panels = list(figure.subplots(1, 3))
    surveyed, hunted = outcome.numbers["survey"], outcome.numbers["hunts"]
    sizes = sorted({row["n"] for row in (*surveyed, *hunted)})
    colours: dict[int, str] = dict(zip(sizes, COLOURS, strict=False))
    _draw_survey(panels[0], [row for row in surveyed if not row["rectified"]], colours)
    fixed = [row for row in hunted if not row["free_tau"]]
    _draw_ascents(panels[1], [row for row in fixed if row["spectral_norm"] == 1], colours)
    _draw_worst(panels[2], fixed, colours)
    for axes, name in zip(panels, "abc", strict=True):
        letter(axes, name)
    handles = [Line2D([], [], color=colours[n], marker="o", markersize=3, label=f"$n = {n}$")
               for n in sizes]  # fmt: skip
    handles += [
        Line2D([], [], color=BLACK, linestyle="--", label="any $W_r$"),
        Line2D([], [], color=BLACK, label="semidefinite $W_r$"),
    ]
    handles += [
        Line2D([], [], color=GREY, marker=marker, markersize=4, markerfacecolor=face,
               linestyle="none", label=label)
        for marker, face, label in (
            ("v", "none", "a: none, upper bound"), ("D", GREY, "c: exception"),
            ("o", GREY, "c: stable"),
        )
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
    return figure


def _draw_survey(axes: Axes, rows: list[dict[str, Any]], colours: dict[int, str]) -> None:
    shifts = np.geomspace(0.93, 1.075, len(colours))
    for (n, colour), shift in zip(colours.items(), shifts, strict=True):
        chosen = [row for row in rows if row["n"] == n]
        norm = shift * np.array([row["spectral_norm"] for row in chosen])
        low, high = (1 - np.array([row["interval_95"][k] for row in chosen]) for k in (1, 0))
        missed = 1 - np.array([row["fraction"] for row in chosen])
        some = missed > 0
        axes.errorbar(
            norm[some], missed[some], [(missed - low)[some], (high - missed)[some]], fmt="o-",
            color=colour, markersize=2.5, elinewidth=0.8, linewidth=0.8,
        )  # fmt: skip
        axes.plot(norm[~some], high[~some], "v", color=colour, markersize=4, fillstyle="none")
    norms = sorted({row["spectral_norm"] for row in rows})
    axes.set(
        xlabel="spectral norm of $W_r$", ylabel="fraction not found stable", xscale="log",
        yscale="log", xticks=norms, xticklabels=[f"{norm:g}" for norm in norms],
    )  # fmt: skip
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)


def _draw_ascents(axes: Axes, rows: list[dict[str, Any]], colours: dict[int, str]) -> None:
    for row in rows:
        axes.plot(
            row["step"], row["highest"], "-" if row["kind"] == "semidefinite" else "--",
            color=colours[row["n"]], linewidth=1,
        )  # fmt: skip
    _border(axes)
    axes.set(xlabel="step of the ascent", ylabel=r"$\max\,\mathrm{Re}\,\lambda$ so far (1/ms)")


def _draw_worst(axes: Axes, rows: list[dict[str, Any]], colours: dict[int, str]) -> None:
    beside = {n: 0.014 * (i - 1.5) for i, n in enumerate(colours)}  # so that none is hidden
    for n, colour in colours.items():
        for kind, dashes in (("semidefinite", "-"), ("any", "--")):
            chosen = [row for row in rows if (row["n"], row["kind"]) == (n, kind)
                      and row["worst"]["abscissa"] is not None]  # fmt: skip
            norm = [row["spectral_norm"] + beside[n] for row in chosen]
            worst = [row["worst"]["abscissa"] for row in chosen]
            axes.plot(norm, worst, dashes, color=colour, linewidth=0.8)
            for row in chosen:
                exception = row["confirmed"] > 0
                axes.plot(
                    row["spectral_norm"] + beside[n], row["worst"]["abscissa"],
                    "D" if exception else "o", color=colour, markersize=4 if exception else 3,
                )  # fmt: skip
    _border(axes)
    axes.set(xlabel="spectral norm of $W_r$", ylabel=r"worst $\max\,\mathrm{Re}\,\lambda$ (1/ms)")


def _border(axes: Axes) -> None:
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_yscale("symlog", linthresh=1e-3, linscale=0.6)
    axes.margins(y=0.1)
    axes.autoscale_view()


def counterexamples() -> dict[str, tuple[str, Circuit, jax.Array]]:
    """Circuits that refute the conjectures, by name: description, circuit and drive.

    The first three are in `examples/`. The others are like the second, with ever weaker recurrence:
    for n = 1, `W_r < 0` and all else close to 1 there is no stable steady state.
    """
    lone = partial(Circuit, tau_y=2.0, tau_a=2.0)
    array = partial(jnp.array, dtype=float)
    cases = {
        "conjecture": (
            "n = 2, W_r = diag(1, 0), W = 5 I, b = 1, b0 = 0.5, sigma = 0.1, z = (0.6, 0.8)",
            lone(5 * jnp.eye(2), array([[1.0, 0.0], [0.0, 0.0]]), b=1.0, b0=0.5, sigma=0.1),
            array([0.6, 0.8]),
        ),
        "bounded": (
            "n = 1, W_r = -1, W = b = b0 = sigma = 0.9, z = 1",
            lone([[0.9]], [[-1.0]], b=0.9, b0=0.9, sigma=0.9),
            array([1.0]),
        ),
        "semidefinite": (
            "n = 2, W_r = [[0.01, -0.08], [-0.08, 0.99]], W = [[0.13, 1], [0.23, 0.01]], "
            "b = (0.75, 0.88), b0 = (0.04, 0.01), sigma = (0.06, 0.01), z = (0.47, 0.88)",
            lone(
                [[0.13, 1.0], [0.23, 0.01]], [[0.01, -0.08], [-0.08, 0.99]], b=[0.75, 0.88],
                b0=[0.04, 0.01], sigma=[0.06, 0.01],
            ),
            array([0.47, 0.88]),
        ),
    }  # fmt: skip
    for norm, gap in ((0.1, 1e-4), (0.01, 1e-6)):
        cases[f"bounded, norm {norm:g}"] = (
            f"n = 1, W_r = -{norm:g}, W = z = 1, b = b0 = sigma = 1 - {gap:g}",
            lone([[1.0]], [[-norm]], b=1 - gap, b0=1 - gap, sigma=1 - gap),
            array([1.0]),
        )
    return cases


def _proofs() -> dict[str, dict[str, Any]]:
    """Proofs about the counterexamples in ball arithmetic."""
    return {
        name: {
            "circuit": words,
            "n": circuit.n,
            "spectral_norm": rounded(np.linalg.norm(np.asarray(circuit.W_r), 2)),
            **_proof(circuit, z),
        }
        for name, (words, circuit, z) in counterexamples().items()
    }


def _proof(circuit: Circuit, z: jax.Array, state: State | None = None) -> dict[str, Any]:
    proof = prove(steady_state(circuit, z) if state is None else given_state(circuit, z, state))
    return {"verdict": proof.verdict, "statement": proof.statement, "bits": proof.bits}


def _surveyed(job: Job, trials: list[Piecework]) -> list[dict[str, Any]]:
    rows = fractions(trials, [survey(job.folder, job.seed, work) for work in trials])
    if not job.quick:
        for row in rows:
            if row["spectral_norm"] <= 1 and row["first_not_found"]:
                row["simulated"] = _simulated(row, job.seed)
    return rows


def _simulated(row: dict[str, Any], seed: int) -> dict[str, int]:
    """Whether the first circuits of a group without a stable steady state come to rest."""
    draw_one = partial(
        trial, seed, n=row["n"], spectral_norm=row["spectral_norm"], rectified=row["rectified"]
    )
    indices = jnp.asarray(row["first_not_found"])
    circuits, drives = jax.vmap(lambda index: draw_one(index))(indices)
    states = jax.jit(jax.vmap(steady_state))(circuits, drives).state
    rests = comes_to_rest(circuits, drives, states, TIME, seed=seed)
    return {"circuits": len(rests), "come_to_rest": int(rests.sum())}


def _hunted(job: Job, hunts: Sequence[Hunt]) -> list[dict[str, Any]]:
    return [_hunt_row(what, hunt(job.folder, job.seed, what), job) for what in hunts]


def _hunt_row(what: Hunt, piece: Piece, job: Job) -> dict[str, Any]:
    step = np.unique(np.linspace(0, what.steps - 1, min(_POINTS, what.steps)).astype(int))
    digits = lambda values: [float(f"{value:.3g}") for value in values]  # noqa: E731
    exceptions = np.flatnonzero(piece["rests"] == 0)
    return {
        "kind": what.kind,
        "n": what.n,
        "spectral_norm": what.spectral_norm,
        "free_tau": what.free_tau,
        "starts": what.starts,
        "not_found": int(np.sum(~piece["found"])),
        "simulated": int(np.sum(piece["rests"] >= 0)),
        "come_to_rest": int(np.sum(piece["rests"] == 1)),
        "confirmed": len(exceptions),
        "without_one_found_by_the_search": int(np.sum(~piece["converged"][exceptions])),
        "step": step,
        "highest": digits(piece["highest"][step]),
        "median": digits(piece["median"][step]),
        "worst": _worst(what, piece, exceptions, job),
    }


def _worst(what: Hunt, piece: Piece, exceptions: np.ndarray, job: Job) -> dict[str, Any]:
    """The worst exception, or the circuit closest to one; also written to a file."""
    among = exceptions if len(exceptions) else np.flatnonzero(piece["found"])
    if not len(among):
        among = np.arange(len(piece["found"]))
    growth = np.where(piece["converged"][among], piece["abscissa"][among], -np.inf)
    index = int(among[np.argmax(growth)])
    circuit, z = circuit_of(piece, index)
    folder = job.out / "conjecture"
    folder.mkdir(parents=True, exist_ok=True)
    tau = "-free-tau" if what.free_tau else ""
    file = folder / f"{what.title}{tau}.json"
    save_circuit(file, circuit, z)
    abscissa = piece["abscissa"][index] if piece["converged"][index] else None
    row: dict[str, Any] = {
        "file": str(Path("conjecture") / file.name),
        "proof": _proof(circuit, z),
    }
    if len(exceptions) and not job.quick:
        row["neurons_that_are_exceptions_alone"] = alone(piece, index)
        found = all_found(circuit, z, job.seed, _POWELL)
        row["abscissae_of_all_steady_states_found"] = rounded([one.abscissa for one in found], 3)
        if abscissa is None and found:  # lost by the search
            abscissa = found[0].abscissa
            if row["proof"]["verdict"] == "undecided":
                row["proof"] = _proof(circuit, z, found[0].state)
    return row | {"abscissa": rounded(abscissa, 4)}


def _in_words(rows: list[dict[str, Any]]) -> str:
    found, trials = (sum(row[key] for row in rows) for key in ("found", "trials"))
    if found == trials:
        return f"all of {trials:,}"
    return f"{found:,} of {trials:,} ({100 * found / trials:.2f} %)"


def _hunt_in_words(rows: list[dict[str, Any]]) -> str:
    exceptions = [row for row in rows if row["confirmed"]]
    if not rows or not exceptions:
        return f"none in {len(rows)} hunts"
    norm = min(row["spectral_norm"] for row in exceptions)
    sizes = sorted({row["n"] for row in exceptions})
    proofs = [row["worst"]["proof"] for row in exceptions]
    none_stable = sum(map(_refutes, proofs))
    unstable = sum(proof["verdict"] == "disproved" for proof in proofs) - none_stable
    trivial = sum(bool(row["worst"].get("neurons_that_are_exceptions_alone")) for row in exceptions)
    return (
        f"exceptions in {len(exceptions)} of {len(rows)} hunts, for n = "
        f"{', '.join(map(str, sizes))}, the smallest norm {norm:g}; of the worst of each, "
        f"{none_stable} proved to have no stable steady state, {unstable} that the one found is "
        f"unstable, {trivial} with a neuron that is one by itself"
    )
