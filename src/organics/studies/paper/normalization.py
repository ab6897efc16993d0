"""Divisive normalization: how far it reaches beyond identity recurrence, and what follows from it.

Random circuits have `b = b0 = 0.5`, `sigma = 0.1`, `W ~ U(0, 1)` and `W_r = (1 - e) I + e R` with a
Gaussian `R` of largest singular value 1, so that the largest one of `W_r` is at most 1. The rest
uses a ring of rectified neurons with identity recurrence, each tuned to an orientation.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
from jaxtyping import Array, Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import curve_fit

from organics.circuit.circuit import Circuit, State, random_drive
from organics.files.plain import as_number, rounded
from organics.linear_stability.spectrum import stability
from organics.machine.lapack import single_threaded_lapack
from organics.plots import BLACK, BLUE, COLOURS, COLUMN, ORANGE, VERMILION, letter, style
from organics.rest.search import steady_state
from organics.simulation.noise import Noise
from organics.simulation.ode import simulate
from organics.spectra import cross_spectrum
from organics.studies.harness.target import Check, Job, Outcome

EXACT = 1e-10
"""Relative distance from the normalization equation that counts as 0."""

FITTED = 1e-4
"""Relative difference of a fitted exponent or semi-saturation contrast from the equation's."""

SATURATED = 0.9
"""A saturated response is above this fraction of its asymptote."""

_N = 10
_NORMS = (0.1, 0.3, 1.0)  # of the drives of random circuits
_RING = 10  # neurons
_MASKS = (0.0, 0.1, 0.3, 1.0)  # contrasts of the orthogonal grating
_CONTRASTS = np.geomspace(0.02, 1, 25)
_OSCILLATING = np.geomspace(0.2, 1, 9)
_SPECTRA_SHOWN = slice(None, None, 2)
_FREQUENCIES = np.linspace(0.0005, 0.1, 400)  # kHz
_PLAID = 0.5  # contrast of each grating in it
_TIME = 600.0  # ms of the simulations


def ring() -> Circuit:
    """Neurons with evenly spaced preferred orientations and broadly tuned pools."""
    difference = _orientations()[:, None] - _orientations()[None, :]
    return Circuit(0.1 + 0.4 * np.exp(np.cos(2 * difference) - 1), rectified=True)


def grating(contrast: float, orientation: float = np.pi / 2) -> Float[np.ndarray, " n"]:
    """Drive of the ring's neurons by a grating; that of a plaid is the sum of two."""
    return contrast * np.exp(2 * (np.cos(2 * (_orientations() - orientation)) - 1))


def _orientations() -> Float[np.ndarray, " n"]:
    return np.pi / _RING * np.arange(_RING)


def compute(job: Job) -> Outcome:
    """Distances from the equation, and responses and oscillations of the ring."""
    circuits = 10 if job.quick else 100
    mixtures = np.concatenate([[0.0], np.geomspace(1e-3, 1, 4 if job.quick else 13)])
    with jax.enable_x64(True), single_threaded_lapack():
        numbers = {
            "distance": _distances(job.seed, circuits, mixtures),
            "ring": _responses(),
            "oscillation": _oscillations(),
        }
    distance, masks = numbers["distance"], numbers["ring"]["masks"]
    first, last = (distance["drives"][-1]["median"][i] for i in (0, -1))
    fast, slow = (numbers["oscillation"]["eigenfrequency"][i] for i in (-1, 0))
    return Outcome(
        here=f"distance from normalization {as_number(first):.0e} at W_r = I, "
        f"{as_number(last):.2g} at W_r random; exponent {masks[0]['exponent']:.3f}; a mask of "
        f"contrast 1 multiplies c50 by {masks[-1]['c50'] / masks[0]['c50']:.1f}; "
        f"{slow:.0f} to {fast:.0f} Hz with contrast",
        checks=[
            *distance_checks(distance),
            *response_checks(numbers["ring"]),
            *oscillation_checks(numbers["oscillation"]),
        ],
        numbers=numbers,
    )


def distance_checks(distance: dict[str, Any]) -> list[Check]:
    """Checks of the normalization equation in circuits whose recurrence leaves the identity."""
    drives = distance["drives"]
    exact = max(as_number(row["largest"][0]) for row in drives)
    growing = all(_rises([*map(as_number, row["median"])]) for row in drives)
    total = distance["circuits"] * len(distance["mixture"]) * len(drives)
    return [
        Check(
            what="every random circuit comes with a stable steady state",
            here=f"{distance['stable']} of {total}",
            holds=distance["stable"] == total,
            tolerance="all",
        ),
        Check(
            what="with W_r = I the steady state is the normalization equation",
            here=f"largest relative distance {exact:.1e}",
            holds=exact <= EXACT,
            paper="exactly",
            tolerance=f"at most {EXACT:g}",
        ),
        Check(
            what="the distance from it grows as W_r leaves the identity, for each drive",
            here="; ".join(
                f"|z| = {row['norm']:g}: {as_number(row['median'][1]):.1e} to "
                f"{as_number(row['median'][-1]):.2g}"
                for row in drives
            ),
            holds=growing,
            tolerance="median rises at every step",
        ),
    ]


def response_checks(ring: dict[str, Any]) -> list[Check]:
    """Checks of the contrast response and mask suppression of the neuron that prefers the
    grating."""
    masks = ring["masks"]
    alone, masked = masks[0], masks[1:]
    off = max(
        abs(alone["exponent"] / ring["exponent_of_the_equation"] - 1),
        abs(alone["c50"] / ring["c50_of_the_equation"] - 1),
    )
    fraction = alone["response"][-1] / alone["asymptote"]
    suppressed = [
        with_mask < without
        for row in masked
        for with_mask, without in zip(row["response"], alone["response"], strict=True)
    ]
    simulated = as_number(ring["simulation_differs_by"])
    return [
        Check(
            what="a simulation from rest ends at these responses",
            here=f"differs by at most {simulated:.1e}",
            holds=simulated <= 1e-6,
            tolerance="at most 1e-06",
        ),
        Check(
            what="the response saturates with contrast",
            here=f"at contrast 1 {100 * fraction:.1f} % of its asymptote",
            holds=_rises(alone["response"]) and fraction >= SATURATED,
            paper="saturates",
            tolerance=f"rising, at least {100 * SATURATED:g} %",
        ),
        Check(
            what="its fitted exponent and semi-saturation contrast are those of the equation",
            here=f"exponent {alone['exponent']:.5f}, c50 {alone['c50']:.5f}; equation "
            f"{ring['exponent_of_the_equation']:g}, {ring['c50_of_the_equation']:.5f}",
            holds=off <= FITTED,
            tolerance=f"relative difference at most {FITTED:g}",
        ),
        Check(
            what="an orthogonal mask suppresses the response to the grating",
            here=f"at {sum(suppressed)} of {len(suppressed)} pairs of contrasts; c50 "
            + ", ".join(f"{row['c50']:.3f}" for row in masks),
            holds=all(suppressed) and _rises([row["c50"] for row in masks]),
            paper="suppresses",
            tolerance="at every pair, c50 rises with the mask",
        ),
    ]


def oscillation_checks(oscillation: dict[str, Any]) -> list[Check]:
    """Checks whether the frequency rises with contrast, from eigenvalues and power spectrum."""
    checks = []
    for name, what in (
        ("eigenfrequency", "the frequency of the leading complex pair of eigenvalues"),
        ("peak", "the frequency of the largest power of the population's fluctuations"),
    ):
        values = oscillation[name]
        checks.append(
            Check(
                what=f"{what} rises with contrast",
                here=f"{values[0]:.1f} to {values[-1]:.1f} Hz from contrast "
                f"{oscillation['contrast'][0]:g} to {oscillation['contrast'][-1]:g}",
                holds=_rises(values),
                paper="rises",
                tolerance="at every step",
            )
        )
    return checks


@style()
def draw(outcome: Outcome) -> Figure:
    """a: distance of the steady state from the normalization equation as the recurrence leaves
    the identity. b, c: responses of a ring of neurons to a grating with and without an
    orthogonal mask. d: power of its fluctuations. e, f: frequency and decay of its oscillation,
    by contrast.
    """
    figure = Figure(figsize=(2 * COLUMN, 4.6))
    axes = figure.subplots(2, 3)
    numbers = outcome.numbers
    _draw_distance(axes[0, 0], numbers["distance"])
    letter(axes[0, 0], "a", "random circuits: median, range")
    _draw_masks(axes[0, 1], numbers["ring"])
    letter(axes[0, 1], "b", "contrast response (ring)")
    _draw_population(axes[0, 2], numbers["ring"]["population"])
    letter(axes[0, 2], "c", f"population, contrasts {_PLAID:g}")
    _draw_spectra(axes[1, 0], numbers["oscillation"])
    letter(axes[1, 0], "d", "fluctuations, by contrast")
    oscillation = numbers["oscillation"]
    ax = axes[1, 1]
    ax.plot(oscillation["contrast"], oscillation["eigenfrequency"], color=BLUE, label="eigenvalue")
    ax.plot(oscillation["contrast"], oscillation["peak"], "o", color=VERMILION, markersize=3,
            label="peak of power")  # fmt: skip
    ax.set(xlabel="contrast", ylabel="frequency (Hz)", ylim=(0, None))
    ax.legend(loc="lower right")
    letter(ax, "e", "oscillation")
    ax = axes[1, 2]
    ax.plot(oscillation["contrast"], oscillation["damping"], color=BLUE)
    ax.set(xlabel="contrast", ylabel=r"$\mathrm{Re}\,\lambda$ of that pair (1/ms)")
    ax.axhline(0, color=BLACK, linewidth=0.6)
    letter(ax, "f", "its decay")
    return figure


def _draw_distance(ax: Axes, distance: dict[str, Any]) -> None:
    mixture = np.array(distance["mixture"][1:])
    for row, colour in zip(distance["drives"], COLOURS, strict=False):
        median, least, largest = (np.array(row[k][1:]) for k in ("median", "least", "largest"))
        ax.fill_between(mixture, least, largest, color=colour, alpha=0.2, linewidth=0)
        ax.plot(mixture, median, ".-", color=colour, markersize=4, label=f"$|z|={row['norm']:g}$")
    ax.set(
        xscale="log", yscale="log", ylabel="relative distance from DN",
        xlabel="$e$, with $W_r=(1-e)I+eR$",
    )  # fmt: skip
    ax.legend(loc="lower right")


def _draw_masks(ax: Axes, ring: dict[str, Any]) -> None:
    shades = matplotlib.colormaps["cividis"](np.linspace(0, 0.85, len(ring["masks"])))
    for row, shade in zip(ring["masks"], shades, strict=True):
        ax.plot(ring["contrast"], row["response"], color=shade, label=f"{row['mask']:g}")
        ax.plot(ring["simulated_contrast"], row["simulated"], "o", color=shade, markersize=2.5)
    ax.plot([], [], "o", color=BLACK, markersize=2.5, label="simulated")
    ax.set(xscale="log", xlabel="contrast of grating", ylabel="$y^+$ of preferred neuron")
    ax.set_ylim(0, 1.35)
    ax.legend(loc="upper left", title="mask", title_fontsize=7, borderaxespad=0.1)


def _draw_population(ax: Axes, population: dict[str, Any]) -> None:
    lines = (("grating", BLUE, "o"), ("mask", ORANGE, "s"), ("plaid", BLACK, "D"))
    for name, colour, marker in lines:
        ax.plot(population["orientation"], population[name], marker=marker, markersize=3,
                color=colour, label=name)  # fmt: skip
    ax.set(xlabel="preferred orientation (°)", ylabel="$y^+$", ylim=(0, 1.4))
    ax.set_xticks([0, 45, 90, 135])
    ax.legend(loc="upper center", ncols=3, columnspacing=0.8, handletextpad=0.4)


def _draw_spectra(ax: Axes, oscillation: dict[str, Any]) -> None:
    spectra = oscillation["spectra"]
    shades = matplotlib.colormaps["cividis"](np.linspace(0, 0.85, len(spectra)))
    for row, shade in zip(spectra, shades, strict=True):
        ax.plot(oscillation["frequency"], row["power"], color=shade, label=f"{row['contrast']:.2g}")
    ax.set(xlabel="frequency (Hz)", ylabel="power density (1/kHz)", yscale="log", ylim=(None, 1e-2))
    ax.legend(loc="upper right", borderaxespad=0.1)


def _rises(values: Sequence[float]) -> bool:
    return all(before < after for before, after in pairwise(values))


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def _random_steady_states(key, indices, mixtures, norms):
    """`y_s+`, the equation for it, and whether the state is stable: circuits, mixtures, drives."""

    def one(index, mixture, norm) -> tuple[Array, Array, Bool[Array, ""]]:
        k_W, k_R, k_z = jr.split(jr.fold_in(key, index), 3)
        R = jr.normal(k_R, (_N, _N), float)
        W_r = (1 - mixture) * jnp.eye(_N) + mixture * R / jnp.linalg.norm(R, 2)
        circuit = Circuit(jr.uniform(k_W, (_N, _N), float), W_r)
        z = norm * random_drive(k_z, _N)
        found = stability(steady_state(circuit, z))
        rates = circuit.firing_rates(found.point.state).y_plus
        pool = jnp.square(circuit.sigma) + circuit.pool.apply(jnp.square(z))
        return rates, jnp.square(jax.nn.relu(z)) / pool, found.stable

    over_norms = jax.vmap(one, (None, None, 0))
    over_mixtures = jax.vmap(over_norms, (None, 0, None))
    return jax.vmap(over_mixtures, (0, None, None))(indices, mixtures, norms)


def _distances(seed: int, circuits: int, mixtures: Float[np.ndarray, " e"]) -> dict[str, Any]:
    rates, equation, stable = map(
        np.asarray,
        _random_steady_states(
            jr.key(seed), jnp.arange(circuits), jnp.asarray(mixtures), jnp.asarray(_NORMS)
        ),
    )
    distance = np.linalg.norm(rates - equation, axis=-1) / np.linalg.norm(equation, axis=-1)
    drives = [
        {
            "norm": norm,
            "median": np.median(distance[:, :, i], axis=0),
            "least": distance[:, :, i].min(axis=0),
            "largest": distance[:, :, i].max(axis=0),
        }
        for i, norm in enumerate(_NORMS)
    ]
    return rounded(
        {"circuits": circuits, "stable": stable.sum(), "mixture": mixtures, "drives": drives}
    )


@jax.jit
def _ring_rates(circuit: Circuit, drives: Float[Array, "drives n"]) -> Float[Array, "drives n"]:
    of_drive = lambda z: circuit.firing_rates(steady_state(circuit, z).state).y_plus  # noqa: E731
    return jax.vmap(of_drive)(drives)


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def _simulated_rates(
    circuit: Circuit, drives: Float[Array, "drives n"]
) -> Float[Array, "drives n"]:
    def of_drive(z):
        path = simulate(circuit, z, jnp.asarray([0.0, _TIME]), rtol=1e-9, atol=1e-12, throw=False)
        last = State(path.state.y[-1], path.state.a[-1])
        return jnp.where(path.ok, circuit.firing_rates(last).y_plus, jnp.nan)

    return jax.vmap(of_drive)(drives)


def _responses() -> dict[str, Any]:
    """Responses of the ring to gratings, with and without an orthogonal mask."""
    circuit, preferred = ring(), _RING // 2
    drives = np.array([[grating(c) + grating(m, 0.0) for c in _CONTRASTS] for m in _MASKS])
    some = slice(None, None, 4)
    rates = _apply(_ring_rates, circuit, drives)[..., preferred]
    simulated = _apply(_simulated_rates, circuit, drives[:, some])[..., preferred]
    parts = grating(_PLAID), grating(_PLAID, 0.0)
    population = _apply(_ring_rates, circuit, np.array([*parts, sum(parts)]))
    # y+ = (b c)^2 / ((b0 sigma)^2 + b^2 c^2 W z^2) with the drive z of contrast 1
    pool = (np.asarray(circuit.W) @ grating(1.0) ** 2)[preferred]
    b, k = float(circuit.b[0]), float(np.sqrt(circuit.c[0]))
    masks = []
    for mask, response, at_end in zip(_MASKS, rates, simulated, strict=True):
        asymptote, c50, exponent = _fit(response)
        masks.append(
            {
                "mask": mask, "response": response, "simulated": at_end,
                "asymptote": asymptote, "c50": c50, "exponent": exponent,
            }
        )  # fmt: skip
    return rounded(
        {
            "contrast": _CONTRASTS,
            "simulated_contrast": _CONTRASTS[some],
            "masks": masks,
            "simulation_differs_by": np.abs(simulated - rates[:, some]).max(),
            "exponent_of_the_equation": 2.0,
            "c50_of_the_equation": k / (b * np.sqrt(pool)),
            "population": {
                "orientation": np.degrees(_orientations()),
                **dict(zip(("grating", "mask", "plaid"), population, strict=True)),
            },
        }
    )


def _apply(function, circuit: Circuit, drives: Float[np.ndarray, "*shape n"]) -> np.ndarray:
    flat = jnp.asarray(drives.reshape(-1, drives.shape[-1]))
    return np.asarray(function(circuit, flat)).reshape(drives.shape)


def _fit(response: Float[np.ndarray, " contrasts"]) -> tuple[float, float, float]:
    """Asymptote, semi-saturation contrast and exponent of `R c^N / (c50^N + c^N)`."""

    def curve(c, log_asymptote, log_c50, exponent):
        return np.exp(log_asymptote) / (1 + np.exp(exponent * (log_c50 - np.log(c))))

    start = (np.log(response[-1]), np.log(0.1), 2.0)
    (log_asymptote, log_c50, exponent), _ = curve_fit(
        curve, _CONTRASTS, response, start, ftol=1e-14, xtol=1e-14
    )
    return float(np.exp(log_asymptote)), float(np.exp(log_c50)), float(exponent)


@jax.jit
def _linearized(circuit: Circuit, drives, frequencies):
    """Eigenvalues, and the power of the fluctuations of the population's response `y_s . y`."""

    def of_drive(z):
        linear = stability(steady_state(circuit, z))
        state = linear.point.state
        weights = state.y / jnp.linalg.norm(state.y)
        S = cross_spectrum(linear.point, frequencies, Noise(additive_y=0.01))
        S = S[:, : circuit.n, : circuit.n].real  # the imaginary part cancels in the quadratic form
        return linear.eigenvalues, jnp.einsum("i,fij,j->f", weights, S, weights)

    return jax.vmap(of_drive)(drives)


def _oscillations() -> dict[str, Any]:
    """Leading complex pair and power spectrum of the ring by contrast, in Hz."""
    drives = jnp.asarray(np.array([grating(c) for c in _OSCILLATING]))
    values, power = map(np.asarray, _linearized(ring(), drives, jnp.asarray(_FREQUENCIES)))
    oscillating = np.where(np.imag(values) > 1e-9, np.real(values), -np.inf)
    leading = np.take_along_axis(values, oscillating.argmax(axis=1)[:, None], axis=1)[:, 0]
    thinned = slice(None, None, 5)
    return rounded(
        {
            "contrast": _OSCILLATING,
            "eigenfrequency": 1000 * np.imag(leading) / (2 * np.pi),
            "damping": np.real(leading),
            "peak": 1000 * _FREQUENCIES[power.argmax(axis=1)],
            "frequency": 1000 * _FREQUENCIES[thinned],
            "spectra": [
                {"contrast": contrast, "power": spectrum[thinned]}
                for contrast, spectrum in zip(
                    _OSCILLATING[_SPECTRA_SHOWN], power[_SPECTRA_SHOWN], strict=True
                )
            ],
        }
    )
