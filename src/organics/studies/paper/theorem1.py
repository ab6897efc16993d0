r"""Unconditional stability, tested on random circuits with identity recurrence.

Every entry of `W`, `|z|`, `sigma`, `b`, `b0`, `tau_y` and `tau_a` is drawn independently,
log-uniform from 1e-3 to 1e3; an entry of `W` is 0 instead with probability 1/4, and the signs of
`z` are random. There are equally many circuits of each size n, half of them rectified.

The rates of such a circuit may span twelve decades and more, so its computed eigenvalues do not
simply tell whether it is stable. Each circuit is judged in three ways:

* *structure*: the diagonal certificate, whose margin lies in (0, 1] whatever the rates;
* *spectrum*: the spectral abscissa by LAPACK, relative to the fastest rate `max |lambda|`. Its
  error is at least about `2 n eps` on this scale; closer to zero, the sign of the abscissa is not
  known;
* *proof*: ball arithmetic, for some circuits of each size, and for every circuit for which one of
  the above disagrees with the theorem.

Source: Rawat et al. 2024, Section 4.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from organics.circuit.circuit import Circuit, State
from organics.linear.jacobian import eigenvalues, jacobian
from organics.linear_stability.certificate import diagonal_certificate
from organics.machine.lapack import single_threaded_lapack
from organics.plots import BLUE, COLUMN, GREY, VERMILION, letter, style
from organics.printing import model_in_words
from organics.proofs.proof import prove
from organics.rest.search import steady_state
from organics.studies.harness.pieces import Piece, joined, kept
from organics.studies.harness.target import Check, Job, Outcome

SIZES, CIRCUITS, PROOFS = (1, 2, 3, 4, 6, 9, 14, 21, 32, 50), 10_000, 1_000
QUICK_SIZES, QUICK_CIRCUITS, QUICK_PROOFS = (1, 6, 20), 400, 40
DECADES = 3.0  # either side of 1
ABSENT = 0.25  # probability that an entry of `W` is 0
RESIDUAL = 1e-11  # of a steady state, relative to the terms of each equation

_PIECE = 1_000  # circuits, of one size and model
_VERDICTS = ("undecided", "proved", "disproved")
_UNTRIED = -1
_QUANTILES = (0.0, 0.01, 0.5, 1.0)  # of the margin, and of the negative abscissa


def compute(job: Job) -> Outcome:
    """Judge all the circuits, those of a size and model in pieces of 1,000."""
    sizes, circuits, proofs = (
        (QUICK_SIZES, QUICK_CIRCUITS, QUICK_PROOFS) if job.quick else (SIZES, CIRCUITS, PROOFS)
    )
    groups: list[tuple[int, bool, Piece]] = []
    with jax.enable_x64(True), single_threaded_lapack():
        for n in sizes:
            for rectified in (False, True):
                count = min(_PIECE, circuits // 2)
                pieces = []
                for index in range(circuits // 2 // count):
                    make = partial(
                        _judged, job.seed, n, rectified, index, count, proofs * count // circuits
                    )
                    name = f"n{n}-{model_in_words(rectified)}-{index}-of-{count}"
                    pieces.append(kept(job.folder, name, make))
                    done = sum(len(piece["margin"]) for _, _, piece in groups)
                    done += count * (index + 1)
                    job.progress(
                        done / (circuits * len(sizes)), f"n = {n}, {model_in_words(rectified)}"
                    )
                groups.append((n, rectified, joined(pieces)))
    return conclude(groups)


def conclude(groups: list[tuple[int, bool, Piece]]) -> Outcome:
    """Checks of the theorem on the judged circuits of each size and model."""
    rows = [_summary(n, rectified, piece) for n, rectified, piece in groups]
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key.startswith("count_")}
    number, stable = total["count_circuits"], total["count_stable"]
    margins = min(row["smallest_margin_verified"] for row in rows)
    relative = max(row["relative_abscissa"][0] for row in rows)
    proofs = total["count_proofs"]
    checks = [
        Check(
            "the closed form is a steady state",
            f"largest relative imbalance {max(row['largest_residual'] for row in rows):.1e}",
            all(row["largest_residual"] <= RESIDUAL for row in rows),
            tolerance=f"each equation balances to {RESIDUAL:g} of its terms",
        ),
        Check(
            "the diagonal certificate exists",
            f"verified in floating point for {total['count_certified']:,} of {number:,} circuits, "
            f"smallest margin {margins:.2g}; by proof for {total['count_certified_by_proof']:,} "
            "more, which rounding leaves open",
            total["count_certified"] + total["count_certified_by_proof"] == number,
            paper="all",
            tolerance="all its inequalities hold, or are proved in ball arithmetic",
        ),
        Check(
            "the spectral abscissa is negative",
            f"by LAPACK for {total['count_abscissa_negative']:,} of {number:,}, "
            f"{total['count_abscissa_unresolved']:,} of all below its rounding error; largest "
            f"{relative:.1e} of the fastest rate",
            total["count_abscissa_positive"] == 0,
            paper="all",
            tolerance="no abscissa above 2 n eps max |lambda| and not overruled by a proof",
        ),
        Check(
            "ball arithmetic proves it",
            f"{total['count_proved']:,} of {proofs:,} tried, "
            f"{total['count_disproved']:,} disproved",
            total["count_proved"] == proofs if proofs else None,
            paper="all",
            tolerance="each circuit tried is proved stable",
        ),
    ]
    numbers: dict[str, Any] = {
        "law": {
            "decades": [-DECADES, DECADES],
            "log_uniform": ["W", "abs(z)", "sigma", "b", "b0", "tau_y", "tau_a"],
            "probability_of_0_in_W": ABSENT,
            "W_r": "identity",
        },
        "quantiles": _QUANTILES,
        "relative_abscissa_is": "max Re lambda / max |lambda|",
        "total": total,
        "groups": rows,
    }
    here = (
        f"{stable:,} of {number:,} circuits stable, {proofs:,} of them tried in ball arithmetic, "
        f"{total['count_proved']:,} proved"
    )
    return Outcome(here, checks, numbers)


@style()
def draw(outcome: Outcome) -> Figure:
    """a: margin of the certificate of stability, b: spectral abscissa relative to the fastest
    rate, both against the number of neurons: the least, the hundredth part and the median of
    the circuits of each size.
    """
    figure = Figure(figsize=(2 * COLUMN, 2.7))
    left, right = figure.subplots(1, 2)
    rows = outcome.numbers["groups"]
    for rectified, colour, marker in ((False, BLUE, "o"), (True, VERMILION, "D")):
        chosen = [row for row in rows if row["rectified"] == rectified]
        n = [row["n"] for row in chosen]
        name = model_in_words(rectified)
        for axes, key, sign in ((left, "margin", 1), (right, "relative_abscissa", -1)):
            values = sign * np.array([row[key] for row in chosen])
            least, hundredth, median, _ = values.T
            axes.plot(n, least, color=colour, marker=marker, markersize=3, label=f"{name}, least")
            axes.plot(n, hundredth, "--", color=colour, linewidth=0.8, label=f"{name}, 1 %")
            axes.plot(n, median, ":", color=colour, label=f"{name}, median")
    sizes = np.array(sorted({row["n"] for row in rows}))
    resolution = 2 * sizes * np.finfo(float).eps
    right.plot(sizes, resolution, color=GREY, linewidth=0.8)
    right.annotate(
        r"rounding, $2n\,\epsilon$", (sizes[-1], resolution[-1]), xytext=(0, -10),
        textcoords="offset points", ha="right", va="top", color="0.4",
    )  # fmt: skip
    right.margins(y=0.08)
    left.set(ylabel=r"margin of $TB + B^\top T \succ 0$", yscale="log")
    right.set(ylabel=r"$-\max\,\mathrm{Re}\,\lambda\;/\;\max\,|\lambda|$", yscale="log")
    for axes, name in ((left, "a"), (right, "b")):
        axes.set(xlabel="principal neurons, $n$", xscale="log", xticks=sizes)
        axes.set_xticklabels([str(n) for n in sizes])
        axes.minorticks_off()
        letter(axes, name)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    return figure


def random_circuits(
    rng: np.random.Generator, n: int, count: int
) -> tuple[dict[str, Float[np.ndarray, "count ..."]], Float[np.ndarray, "count n"]]:
    """Parameters of `count` circuits with identity recurrence, stacked by name, and their drives.

    Their distribution is described in the module's docstring.
    """

    def spread(*shape: int) -> np.ndarray:
        return 10 ** rng.uniform(-DECADES, DECADES, (count, *shape))

    parameters = {"W": spread(n, n) * (rng.uniform(size=(count, n, n)) >= ABSENT)}
    parameters |= {name: spread(n) for name in ("b", "b0", "sigma", "tau_y", "tau_a")}
    return parameters, spread(n) * rng.choice([-1.0, 1.0], (count, n))


def _judged(seed: int, n: int, rectified: bool, index: int, count: int, proofs: int) -> Piece:
    """The verdicts on one piece of circuits; the first `proofs` circuits are also proved."""
    rng = np.random.default_rng([seed, n, int(rectified), index])
    parameters, drives = random_circuits(rng, n, count)
    residual, margin, passed, J = jax.device_get(_structure(parameters, drives, rectified))
    rates = eigenvalues(J)
    abscissa, fastest = np.real(rates).max(axis=1), np.abs(rates).max(axis=1)
    doubtful = ~passed.all(axis=1) | ~(abscissa < -_resolution(n, fastest))
    proof = np.full(count, _UNTRIED, np.int8)
    bits = np.zeros(count, np.int16)
    for i in np.flatnonzero(doubtful | (np.arange(count) < proofs)):
        values = {name: jnp.asarray(value[i]) for name, value in parameters.items()}
        circuit = Circuit(**values, rectified=rectified)
        found = prove(steady_state(circuit, jnp.asarray(drives[i])))
        proof[i], bits[i] = _VERDICTS.index(found.verdict), found.bits
    return {
        "residual": residual, "margin": margin, "certified": passed.all(axis=1),
        "abscissa": abscissa, "fastest": fastest, "proof": proof, "bits": bits,
    }  # fmt: skip


@partial(jax.jit, static_argnums=2)
def _structure(
    parameters: dict[str, Array], drives: Float[Array, "count n"], rectified: bool
) -> tuple[Array, Array, Array, Array]:
    def one(values, z):
        circuit = Circuit(**values, rectified=rectified)
        found = steady_state(circuit, z)
        _, margin, checks = diagonal_certificate(found)
        residual = _relative_imbalance(circuit, found.state, z)
        passed = jnp.stack([found.converged, *checks.values()])
        return residual, margin, passed, jacobian(circuit, found.state)

    return jax.vmap(one)(parameters, drives)


def _relative_imbalance(circuit: Circuit, state: State, z: Float[Array, " n"]) -> Float[Array, ""]:
    """Largest imbalance of an equation, relative to the sum of the sizes of its terms."""
    y, a = state
    dy, da = circuit.imbalance(state, z)
    q = circuit.rectify(y)
    of_y = jnp.abs(y) + jnp.abs(circuit.b * z) + jnp.abs(1 - jnp.sqrt(a)) * jnp.abs(q)
    of_a = a + circuit.c + circuit.pool.apply(jnp.square(q) * a)
    return jnp.maximum(jnp.max(jnp.abs(dy) / of_y), jnp.max(jnp.abs(da) / of_a))


def _resolution(n: int, fastest: Float[np.ndarray, " count"]) -> Float[np.ndarray, " count"]:
    """The least rounding error of an eigenvalue, in 1/ms."""
    return 2 * n * np.finfo(float).eps * fastest


def _summary(n: int, rectified: bool, piece: Piece) -> dict[str, Any]:
    abscissa, proof = piece["abscissa"], piece["proof"]
    certified = piece["certified"].astype(bool)
    resolution = _resolution(n, piece["fastest"])
    proved = proof == _VERDICTS.index("proved")
    disproved = proof == _VERDICTS.index("disproved")
    negative = abscissa < -resolution
    positive = ~(abscissa <= resolution)  # a NaN too
    relative = abscissa / piece["fastest"]
    digits = lambda values: [float(f"{value:.3g}") for value in values]  # noqa: E731
    return {
        "n": n,
        "rectified": rectified,
        "count_circuits": len(abscissa),
        "count_stable": int(np.sum(~disproved & (proved | (certified & negative)))),
        "count_certified": int(certified.sum()),
        "count_certified_by_proof": int(np.sum(~certified & proved)),
        "count_abscissa_negative": int(np.sum(abscissa < 0)),
        "count_abscissa_unresolved": int(np.sum(~negative & ~positive)),
        "count_abscissa_positive": int(np.sum(positive & ~proved)),
        "count_abscissa_positive_but_proved": int(np.sum(positive & proved)),
        "count_proofs": int(np.sum(proof != _UNTRIED)),
        "count_proved": int(proved.sum()),
        "count_disproved": int(disproved.sum()),
        "most_bits": int(piece["bits"].max()),
        "largest_residual": float(f"{piece['residual'].max():.3g}"),
        "smallest_margin_verified": float(
            f"{np.min(piece['margin'][certified], initial=np.inf):.3g}"
        ),
        "margin": digits(np.quantile(piece["margin"], _QUANTILES)),
        "relative_abscissa": digits(-np.quantile(-relative, _QUANTILES)),
    }
