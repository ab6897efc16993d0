"""Figure 2: identity recurrence as coupled damped oscillators; zero and negative drive.

The circuits are drawn by `Circuit.random`, with time constants from 0.5 to 20 ms (log-uniform) and
a Gaussian drive of norm 1.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.linalg
from jaxtyping import Array, Complex, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

from organics.circuit.circuit import Circuit, State, random_drive
from organics.files.plain import as_number, rounded
from organics.linear.jacobian import eigenvalues
from organics.linear_stability.certificate import diagonal_certificate
from organics.linear_stability.energy import energy
from organics.linear_stability.oscillator import oscillator
from organics.machine.lapack import single_threaded_lapack
from organics.plots import BLACK, BLUE, COLUMN, GREY, ORANGE, VERMILION, letter, style
from organics.printing import model_in_words
from organics.rest.search import steady_state
from organics.simulation.ode import simulate
from organics.studies.harness.target import Check, Job, Outcome
from organics.studies.paper.portraits import (
    Panel,
    differentiated,
    draw_panels,
    examine,
    one_neuron_circuits,
    point_checks,
    shared_legend,
)

SAME_SPECTRUM = 1e-6
"""Largest distance of matched eigenvalues, relative to the largest one, for equal spectra:
eigenvalues of matrices that are not normal move by more than the rounding of the entries."""

NO_RISE = 1e-9
"""Relative rise of an energy that counts as rounding."""

DISTANCE = 1e-2
"""Distance of a near start from the steady state, relative to that state."""

AT_REST = 1e-6
"""A circuit has come to rest below this fraction of its initial energy."""

_DRIVES = (-1.0, 0.0)
_DRAWN_SIZE = 50  # of the circuit whose spectrum is drawn
_ENERGY_SIZE = 10
_DECAYS = 12.0  # duration of trajectories, in times of the slowest decay
_SAMPLES = 361  # of an energy
_SHOWN = 12  # trajectories that are drawn, with every _THINNED-th sample
_THINNED = 9


def compute(job: Job) -> Outcome:
    """Spectra and certificates by size, energies along trajectories, two-dimensional portraits."""
    sizes = (_DRAWN_SIZE,) if job.quick else (2, 5, 10, 20, _DRAWN_SIZE, 100)
    circuits = 10 if job.quick else 100
    with jax.enable_x64(True), single_threaded_lapack():
        panels = [
            examine(case, across=4 if job.quick else 14)
            for z in _DRIVES
            for case in one_neuron_circuits(z)
        ]  # fmt: skip
        rows = []
        for i, n in enumerate(sizes):
            job.progress((1 + i) / (2 + len(sizes)), f"circuits of {n} neurons")
            rows += [_oscillators(job.seed, n, circuits, model) for model in (False, True)]
        job.progress((1 + len(sizes)) / (2 + len(sizes)), "energies")
        energies = _energies(job.seed, circuits)
    margin = min(row["margin"]["least"] for row in rows)
    return Outcome(
        here=f"{sum(row['circuits'] for row in rows)} circuits of {sizes[0]} to {sizes[-1]} "
        f"neurons: {sum(row['certified'] for row in rows)} certified, margin at least {margin:.2g}",
        checks=[
            *oscillator_checks(rows),
            *energy_checks(energies),
            number_check(panels),
            *point_checks(panels),
        ],
        numbers={
            "oscillators": rows,
            "energy": energies,
            "panels": [_in_numbers(panel) for panel in panels],
        },
        data=panels,
    )


def oscillator_checks(rows: Sequence[dict[str, Any]]) -> list[Check]:
    """Checks of eigenvalues and certificates; each row has the circuits of one size."""
    mismatch = max(row["mismatch"]["most"] for row in rows)
    abscissa = max(row["spectral_abscissa"]["most"] for row in rows)
    margin = min(row["margin"]["least"] for row in rows)
    total, certified = (sum(row[name] for row in rows) for name in ("circuits", "certified"))
    return [
        Check(
            what="the Jacobian has the spectrum of the oscillators x'' + B x' + K x = 0",
            here=f"largest distance of matched eigenvalues {mismatch:.1e} of the largest",
            holds=mismatch <= SAME_SPECTRUM,
            tolerance=f"at most {SAME_SPECTRUM:g}",
        ),
        Check(
            what="the steady state of every circuit is stable",
            here=f"largest real part of {total} circuits {abscissa:.2e} per ms",
            holds=abscissa < 0,
            paper="all",
            tolerance="negative",
        ),
        Check(
            what="B is an M-matrix and T B + B^T T positive definite in every circuit",
            here=f"{certified} of {total}, smallest scaled eigenvalue {margin:.2g}",
            holds=certified == total and margin > 0,
            paper="all",
            tolerance="every inequality of the proof",
        ),
    ]


def energy_checks(energies: dict[str, Any]) -> list[Check]:
    """Checks of the energy along the linearized flow and along the circuit's own."""
    linear, near, far = (energies[name] for name in ("linear", "near", "far"))
    rise = max(linear["largest_rise"], energies["largest_rate"])
    return [
        Check(
            what="the energy never increases on the linearized flow (ours)",
            here=f"largest rise {linear['largest_rise']:.1e} of the energy; largest eigenvalue of "
            f"its rate of change {energies['largest_rate']:.1e} of the size of that",
            holds=rise <= NO_RISE,
            tolerance=f"at most {NO_RISE:g}",
        ),
        Check(
            what=f"from {DISTANCE:g} away it rises at most at third order in the distance (ours)",
            here=f"{near['rising']} of {energies['circuits']} rise, by at most "
            f"{near['largest_rise']:.1e} of the energy",
            holds=near["largest_rise"] <= DISTANCE,
            tolerance=f"at most {DISTANCE:g} of the energy, which is of second order",
        ),
        Check(
            what="from far it vanishes in the end (ours)",
            here=f"at most {as_number(far['end']):.1e} of it remains; on the way "
            f"{far['rising']} of {energies['circuits']} rise",
            holds=as_number(far["end"]) <= AT_REST,
            tolerance=f"at most {AT_REST:g}",
        ),
    ]


def number_check(panels: Sequence[Panel]) -> Check:
    """Whether the portraits have the number of fixed points that follows from the parameters."""
    found = [len(panel.portrait.fixed_points) for panel in panels]
    expected = [number_of_fixed_points(panel.case.circuit, panel.case.z) for panel in panels]
    by_drive = {z: [str(n) for n, p in zip(found, panels, strict=True) if p.case.z == z]
                for z in _DRIVES}  # fmt: skip
    return Check(
        what="under negative and zero drive there are as many fixed points as "
        "(w_r b0 sigma)^(2/3) + (b |z|)^(2/3) < (w_r - 1)^(2/3) says",
        here="; ".join(f"z = {z:g}: {', '.join(numbers)}" for z, numbers in by_drive.items()),
        holds=found == expected,
        tolerance="equal numbers",
    )


def number_of_fixed_points(circuit: Circuit, z: float) -> int:
    """Number of fixed points for n = 1, `w_r > 0` and `z <= 0`: a strong recurrent weight folds the
    nullcline of y, which then crosses that of a twice more."""
    w_r, w = np.asarray(circuit.recurrent).item(), np.asarray(circuit.pool).item()
    k, p = math.sqrt(circuit.c.item()), circuit.b.item() * z
    if w_r <= 1 or k >= 1 - 1 / w_r:
        return 1
    if z == 0:
        return 2 if circuit.rectified else 3
    folded = (w_r * k) ** (2 / 3) + (math.sqrt(w) * abs(p)) ** (2 / 3) < (w_r - 1) ** (2 / 3)
    return 3 if folded else 1


def _is_drawn(panel: Panel) -> bool:
    return panel.case.letter in "be"  # those with the strong recurrent weight


def _in_numbers(panel: Panel) -> dict[str, Any]:
    """The panel's numbers without curves that are not drawn."""
    left_out = () if _is_drawn(panel) else ("nullclines",)
    return {name: value for name, value in panel.numbers.items() if name not in left_out}


@style()
def draw(outcome: Outcome) -> Figure:
    """Identity recurrence as oscillators; and portraits under negative and zero drive. a, b, d,
    e: with a strong recurrent weight. c, f: spectrum of the Jacobian beside that of the
    oscillators, of one circuit, and the worst of each size. g, h (ours): energy along
    trajectories from near the steady state and from far. i: least margin of the certificate.
    """
    figure = Figure(figsize=(2 * COLUMN, 6.2))
    axes = figure.subplots(3, 3)
    shown = [panel for panel in outcome.data if _is_drawn(panel)]
    for panel, name, ax in zip(
        shown, "adbe", (axes[0, 0], axes[1, 0], axes[0, 1], axes[1, 1]), strict=True
    ):
        sign = "<" if panel.case.z < 0 else "="
        title = f"{'rectified' if panel.case.circuit.rectified else 'main'}, $z {sign} 0$"
        case = panel.case._replace(letter=name, title=title)
        draw_panels([panel._replace(case=case)], [ax])
    for ax in axes[:2, 1]:
        ax.set_ylabel("")
    for ax in axes[0, :2]:
        ax.set_xlabel("")
    shared_legend(figure, axes[:2, :2].ravel())
    rows, energies = outcome.numbers["oscillators"], outcome.numbers["energy"]
    _draw_spectrum(axes[0, 2], next(row for row in rows if "example" in row))
    _draw_by_size(axes[1, 2], rows, "mismatch", "most")
    axes[1, 2].axhline(SAME_SPECTRUM, color=GREY, linestyle="--", linewidth=0.8)
    axes[1, 2].text(1, SAME_SPECTRUM, "allowed", transform=axes[1, 2].get_yaxis_transform(),
                    ha="right", va="bottom", fontsize=7)  # fmt: skip
    axes[1, 2].set(ylabel="mismatch / largest", yscale="log", ylim=(1e-16, 1e-4))
    axes[1, 2].set_xlabel("neurons $n$")
    axes[1, 2].legend(loc="upper left", bbox_to_anchor=(0, 0.8))
    letter(axes[1, 2], "f", "spectra, worst of each size")
    for name, ax, start in (("near", axes[2, 0], "g"), ("far", axes[2, 1], "h")):
        _draw_energy(ax, energies, name)
        letter(ax, start, f"energy from {name} (ours)")
    axes[2, 1].set_ylabel("")
    _draw_by_size(axes[2, 2], rows, "margin", "least")
    axes[2, 2].set(ylabel="margin of certificate", xlabel="neurons $n$", ylim=(0, 1))
    axes[2, 2].legend()
    letter(axes[2, 2], "i", "proof, worst of each size")
    return figure


def _draw_spectrum(ax: Axes, row: dict[str, Any]) -> None:
    jacobian, oscillators = (np.array(row["example"][name]) for name in ("jacobian", "oscillators"))
    ax.plot(*jacobian.T, "o", color=BLUE, markersize=5, fillstyle="none", label="Jacobian")
    ax.plot(*oscillators.T, ".", color=BLACK, markersize=2.5, label="oscillators")
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.set(xlabel=r"$\mathrm{Re}\,\lambda$ (1/ms)", ylabel=r"$\mathrm{Im}\,\lambda$ (1/ms)")
    ax.margins(x=0.08, y=0.3)
    ax.legend(loc="upper left", handletextpad=0.2, borderaxespad=0.1)
    letter(ax, "c", f"spectrum, $n={row['n']}$")


def _draw_by_size(ax: Axes, rows: Sequence[dict[str, Any]], name: str, which: str) -> None:
    for rectified, colour, marker in ((False, BLUE, "o"), (True, ORANGE, "s")):
        chosen = [row for row in rows if row["rectified"] == rectified]
        ax.plot(
            [row["n"] for row in chosen], [row[name][which] for row in chosen], color=colour,
            marker=marker, markersize=3, label=model_in_words(rectified),
        )  # fmt: skip
    sizes = sorted({row["n"] for row in rows})
    ax.set(xscale="log")
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.set_xticks([], minor=True)


def _draw_energy(ax: Axes, energies: dict[str, Any], name: str) -> None:
    time = energies["time"]
    for i, curve in enumerate(energies[name]["curves"]):
        label = "circuit" if i == 0 else None
        ax.plot(time, curve, color=VERMILION, linewidth=0.6, alpha=0.7, label=label)
    if name == "near":
        for i, curve in enumerate(energies["linear"]["curves"]):
            label = "linearized" if i == 0 else None
            ax.plot(time, curve, ":", color=BLACK, linewidth=0.8, label=label)
        ax.legend(loc="upper right")
    ax.set(
        xlabel="time / slowest decay time", ylabel="energy / at start", yscale="log",
        xlim=(0, time[-1]),
    )  # fmt: skip


def _random(key, index, n: int, rectified: bool) -> tuple[Circuit, Float[Array, " n"]]:
    k_circuit, k_tau, k_drive = jr.split(jr.fold_in(jr.fold_in(key, n), index), 3)
    tau = 0.5 * 40 ** jr.uniform(k_tau, (2, n), float)
    circuit = Circuit.random(k_circuit, n, None, tau_y=tau[0], tau_a=tau[1], rectified=rectified)
    return circuit, random_drive(k_drive, n)


# compiled for each size and run once: the compiler need not optimise
_once = {"xla_backend_optimization_level": 0}


@partial(jax.jit, static_argnums=(2, 3), compiler_options=_once)
def _linearize(key, indices, n: int, rectified: bool):
    def one(index):
        circuit, z = _random(key, index, n, rectified)
        point = steady_state(circuit, z)
        _, margin, checks = diagonal_certificate(point)
        proven = point.converged & jnp.all(jnp.stack(list(checks.values())))
        companion = oscillator(point).companion
        return differentiated(circuit, point.state, z), companion, margin, proven

    return jax.vmap(one)(indices)


def _oscillators(seed: int, n: int, circuits: int, rectified: bool) -> dict[str, Any]:
    """Spectra and certificates of random circuits of one size."""
    J, companion, margin, proven = map(
        np.asarray, _linearize(jr.key(seed), jnp.arange(circuits), n, rectified)
    )
    of_circuit, of_oscillators = eigenvalues(J), eigenvalues(companion)
    mismatch = np.array([*map(spectral_mismatch, of_circuit, of_oscillators)])
    abscissa = np.real(of_circuit).max(axis=1)
    row = {
        "n": n,
        "rectified": rectified,
        "circuits": circuits,
        "certified": np.sum(proven),
        "mismatch": {"median": np.median(mismatch), "most": mismatch.max()},
        "margin": {"least": margin.min(), "median": np.median(margin)},
        "spectral_abscissa": {"median": np.median(abscissa), "most": abscissa.max()},
    }
    if n == _DRAWN_SIZE and not rectified:
        row["example"] = {"jacobian": of_circuit[0], "oscillators": of_oscillators[0]}
    return rounded(row)


def spectral_mismatch(one: Complex[np.ndarray, " m"], other: Complex[np.ndarray, " m"]) -> float:
    """Largest distance between optimally matched eigenvalues of two spectra, relative to the
    largest eigenvalue."""
    distances = np.abs(one[:, None] - other[None, :])
    return distances[linear_sum_assignment(distances)].max() / np.abs(one).max()


@partial(jax.jit, static_argnums=2, compiler_options=_once)
def _at_rest(key, indices, n: int):
    """Steady states as `(y, a)`, with Jacobians and the quadratic forms of the energies."""

    def one(index):
        circuit, z = _random(key, index, n, False)
        point = steady_state(circuit, z)
        of_vector = lambda x: energy(point, State(*jnp.split(x, 2)))  # noqa: E731
        rest = jnp.concatenate(point.state)
        return rest, differentiated(circuit, point.state, z), jax.hessian(of_vector)(rest) / 2

    return jax.vmap(one)(indices)


@partial(jax.jit, static_argnums=4, compiler_options=_once)
def _follow(key, indices, starts, ends, n: int):
    """Energies of random circuits from their `starts`, shape (circuits, starts, 2 n), on."""

    def one(index, starts, end):
        circuit, z = _random(key, index, n, False)
        point = steady_state(circuit, z)
        times = jnp.linspace(0, end, _SAMPLES)

        def along(start):
            path = simulate(
                circuit, z, times, State(*jnp.split(start, 2)), rtol=1e-10, atol=1e-14,
                max_steps=200_000, throw=False,
            )  # fmt: skip
            found = jax.vmap(lambda state: energy(point, state))(path.state)
            return jnp.where(path.ok, found, jnp.nan)

        return jax.vmap(along)(starts)

    return jax.vmap(one)(indices, starts, ends)


def _energies(seed: int, circuits: int) -> dict[str, Any]:
    """Energies along the linearized flow and the circuits' own, from near and from far."""
    n, key, indices = _ENERGY_SIZE, jr.key(seed), jnp.arange(circuits)
    rest, J, form = map(np.asarray, _at_rest(key, indices, n))
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=rest.shape)
    away = DISTANCE * rest * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    far = np.concatenate([rng.normal(size=(circuits, n)), rest[:, n:]], axis=1)
    ends = _DECAYS / -np.real(eigenvalues(J)).max(axis=1)
    starts = np.stack([rest + away, far], axis=1)
    followed = _follow(key, indices, jnp.asarray(starts), jnp.asarray(ends), n)
    linear = map(_linear_energy, J, form, away, ends)
    energies = (np.array([*linear]), *np.asarray(followed).swapaxes(0, 1))
    found = {}
    for name, curves in zip(("linear", "near", "far"), energies, strict=True):
        curves = curves / curves[:, :1]
        rises = np.diff(curves).max(axis=1)
        found[name] = {
            "rising": np.sum(rises > NO_RISE),
            "largest_rise": rises.max(),
            "end": curves[:, -1].max(),
            "curves": rounded(curves[:_SHOWN, ::_THINNED], 3),
        }
    time = np.linspace(0, _DECAYS, _SAMPLES)[::_THINNED]
    rate = max(map(growth, J, form))
    return rounded({"n": n, "circuits": circuits, "largest_rate": rate, "time": time, **found})


def _linear_energy(J, form, away, end) -> Float[np.ndarray, " samples"]:
    step, moved = scipy.linalg.expm(J * end / (_SAMPLES - 1)), [away]
    for _ in range(_SAMPLES - 1):
        moved.append(step @ moved[-1])
    return np.einsum("ti,ij,tj->t", moved, form, moved)


def growth(J: Float[np.ndarray, "m m"], form: Float[np.ndarray, "m m"]) -> float:
    """Largest eigenvalue of the rate of change `J^T form + form J` of a quadratic form on the
    linear flow, relative to the size of the others; scaled so that the form has a unit diagonal."""
    scale = 1 / np.sqrt(np.diag(form))
    rates = np.linalg.eigvalsh(scale[:, None] * (J.T @ form + form @ J) * scale[None, :])
    return rates[-1] / np.abs(rates).max()
