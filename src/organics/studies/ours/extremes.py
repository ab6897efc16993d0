"""Is "converged" or "stable" ever wrong? Circuits over ten decades, checked in ball arithmetic.

All parameters and drives of these random circuits are spread over ten decades; weights and drives
may be 0. A quarter of the circuits each has a `W_r` that is spread as widely; close to the
identity; Gaussian with a norm from 0.1 to 10; or Gaussian and singular, with columns that add up to
0 or of rank 1. Some entries of the nonsingular ones are 0. The results of the floating-point search
are compared with ball arithmetic, which does not depend on how a state was found:

* each equation must balance at the state, relative to the terms of its own row,
  `|b_i z_i|`, `|y_i|` and `|1 - sqrt(a_i)| sum_j |W_r,ij| |q_j|`, and likewise for `a_i`;
* Krawczyk's test must enclose a steady state around it, and the state must be near it, relative to
  the same terms; the same neurons must be active there, except those whose `y_i` is within the
  rounding of its terms of 0;
* the Lyapunov inequality of `organics.proofs.lyapunov` tells whether it is stable; in the
  rectified model, where some `y_i` is 0, for each combination of their slopes, unless it is clear
  that these neurons fade.

It also counts stable steady states that are found but not called stable.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flint import arb
from jaxtyping import Array, Bool, Float, ScalarLike

from organics.circuit.circuit import Circuit, State
from organics.linear_stability.spectrum import stability
from organics.printing import model_in_words
from organics.proofs import lyapunov
from organics.proofs.balls import (
    BallCircuit,
    Box,
    column,
    enclose,
    exact,
    exact_matrix,
    from_entries,
    rates,
)
from organics.proofs.precision import precision
from organics.rest.search import steady_state
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.pieces import kept_document
from organics.studies.harness.target import Check, Job, Outcome, Table

Kind = Literal["float32", "float64"]
Values = dict[str, np.ndarray]

_DECADES = 10
_BATCH = 500  # circuits solved at once
_BITS = (106, 424, 1696)  # precisions of the balls, until they decide
_ROUNDING = 0.75  # a tolerance is `eps` to this power, and "near" a third of that power
_VECTORS = ("b", "b0", "sigma", "tau_y", "tau_a")


@dataclass(frozen=True)
class Sample:
    """The circuits that are drawn."""

    circuits: int = 100_000
    """Number of circuits, divided equally among sizes, types and models."""
    sizes: tuple[int, ...] = (1, 2, 3, 6)
    """Neurons."""
    kinds: tuple[Kind, ...] = ("float32", "float64")
    """Floating-point types."""
    rectified: tuple[bool, ...] = (False, True)
    """Models, main or rectified."""
    relaxation_steps: int = 2000
    """Limit of the integration in the search: these circuits are too stiff to gain from more."""
    seed: int = 0
    """Seed of all circuits and drives."""


class Claim(NamedTuple):
    """The results of the search for some circuits, with a leading axis."""

    state: State
    converged: Bool[Array | np.ndarray, " circuits"]
    stable: Bool[Array | np.ndarray, " circuits"]


class Judgement(NamedTuple):
    """The judgement of one claimed steady state in ball arithmetic.

    Attributes
        imbalance: the largest imbalance of an equation, relative to its terms.
        distance: to the enclosed steady state, relative to the terms; infinite if none was
            enclosed.
        stable: whether that is stable, `None` if the balls do not decide.
    """

    imbalance: float
    distance: float
    stable: bool | None


def compute(job: Job) -> Outcome:
    """Judge every claim about the sample's circuits."""
    sample = Sample(seed=job.seed)
    if job.quick:
        sample = replace(sample, circuits=400, sizes=(2,), kinds=("float64",))
    return conclude(measure(sample, job))


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """Draw, solve and judge; a group of circuits of one size, type and model is a piece."""
    groups: list[tuple[Kind, bool, int]] = [
        (kind, rectified, n)
        for kind in sample.kinds
        for rectified in sample.rectified
        for n in sample.sizes
    ]
    rows = []
    for i, (kind, rectified, n) in enumerate(groups):
        model = model_in_words(rectified)
        job.progress(i / len(groups), f"{kind}, {model}, n = {n}")
        count = sample.circuits // len(groups)
        name = f"{kind}-{model}-{n}-{count}-{sample.relaxation_steps}-{sample.seed}.json"
        row = kept_document(job.folder / name, partial(_judged, sample, kind, rectified, n, count))
        rows.append(row)
        jax.clear_caches()
    return {
        "decades": _DECADES,
        "relaxation_steps": sample.relaxation_steps,
        "total": {key: sum(row[key] for row in rows) for key in rows[0] if key in _COUNTS},
        "rows": rows,
    }


def conclude(found: dict[str, Any]) -> Outcome:
    """Checks of the counts; `found` is the result of `measure`."""
    total = found["total"]

    def none_of(name: str, among: str, what: str) -> Check:
        words = f"{total[name]:,} of {total[among]:,}"
        return Check(what, words, total[name] == 0, tolerance="not one")

    missed, stable = total["stable_but_not_said_so"], total["stable"]
    checks = [
        none_of("converged_wrongly", "converged", "a state is where the circuit rests"),
        none_of("stable_wrongly", "stable", "a state that is said to be stable is stable"),
        none_of("stable_not_decided", "stable", "ball arithmetic decides whether it is"),
        Check(
            "a stable state that is found is said to be stable",
            f"{missed:,} are not, beside {stable:,} that are",
            missed == 0,
            tolerance="not one",
            decides=False,
        ),
    ]
    here = (
        f"of {total['circuits']:,} circuits {total['converged']:,} are said to rest, "
        f"{total['converged_wrongly']} of them wrongly; {stable:,} to be stable, "
        f"{total['stable_wrongly']} of them wrongly"
    )
    columns = ("type", "model", "neurons", "circuits", "at rest", "wrongly", "stable", "wrongly",
               "stable, not said so")  # fmt: skip
    return Outcome(here, checks, found, Table(columns, [_cells(row) for row in found["rows"]]))


def _cells(row: dict[str, Any]) -> list[str]:
    counts = ("circuits", "converged", "converged_wrongly", "stable", "stable_wrongly",
              "stable_but_not_said_so")  # fmt: skip
    model = model_in_words(row["rectified"])
    return [row["type"], model, str(row["n"]), *(f"{row[name]:,}" for name in counts)]


def random_circuits(
    rng: np.random.Generator, n: int, count: int, kind: Kind
) -> tuple[Values, Float[np.ndarray, "count n"]]:
    """Parameters by name, and drives, over ten decades around 1."""

    def spread(*shape: int) -> np.ndarray:
        return 10 ** rng.uniform(-_DECADES / 2, _DECADES / 2, (count, *shape))

    def present(*shape: int, least: float) -> np.ndarray:
        density = rng.choice([least, (1 + least) / 2, 1.0], (count, *(1 for _ in shape)))
        return rng.uniform(size=(count, *shape)) < density

    gauss = rng.normal(size=(count, n, n))
    gauss /= np.linalg.norm(gauss, 2, axis=(1, 2))[:, None, None]
    wide = spread(n, n) * rng.choice([-1.0, 1.0], (count, n, n))
    near_identity = np.eye(n) + 0.3 * gauss * present(n, n, least=0.3)
    scaled = gauss * 10 ** rng.uniform(-1, 1, (count, 1, 1))
    which = rng.integers(8, size=(count, 1, 1))
    masked = present(n, n, least=0.3)
    rank_one = gauss[:, :, :1] * gauss[:, :1, :]
    singular = np.where(which % 2 == 0, gauss - gauss.mean(axis=1, keepdims=True), rank_one)
    singular *= 10 ** rng.uniform(-1, 2, (count, 1, 1))
    values = {name: spread(n) for name in _VECTORS}
    values["W"] = spread(n, n) * present(n, n, least=0.3)
    values["W_r"] = np.select(
        [which < 2, which < 4, which < 6], [wide * masked, near_identity, scaled * masked], singular
    )
    drives = spread(n) * rng.choice([-1.0, 1.0], (count, n)) * present(n, least=0.8)
    return {name: value.astype(kind) for name, value in values.items()}, drives.astype(kind)


def claims(
    values: Values, drives: Float[np.ndarray, "count n"], rectified: bool, relaxation_steps: int
) -> Claim:
    """The results of `steady_state` and `stability`, in the type of the values."""

    with jax.enable_x64(bool(drives.dtype == np.float64)):
        found = []
        for start in range(0, len(drives), _BATCH):
            # padded with earlier entries, so that it compiles once
            chosen = np.resize(np.arange(len(drives))[start : start + _BATCH], _BATCH)
            parts = {name: jnp.asarray(value[chosen]) for name, value in values.items()}
            z = jnp.asarray(drives[chosen])
            found.append(jax.device_get(_claims(parts, z, relaxation_steps, rectified)))
        return jax.tree.map(lambda *x: np.concatenate(x)[: len(drives)], *found)


@partial(jax.jit, static_argnums=3)
def _claims(
    values: dict[str, Array], drives: Float[Array, "count n"], steps: ScalarLike, rectified: bool
) -> Claim:
    def one(values, z):
        circuit = Circuit(**values, rectified=rectified)
        point = steady_state(circuit, z, relaxation_steps=steps)
        return Claim(point.state, point.converged, stability(point).stable)

    return jax.vmap(one)(values, drives)


def judge(
    values: Values,
    z: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    a: Float[np.ndarray, " n"],
    rectified: bool,
) -> Judgement:
    """Judge one claim, of a circuit with these parameters, in ball arithmetic."""
    said = y > 0 if rectified else np.ones(len(y), bool)
    found, imbalance = None, float("inf")
    for bits in _BITS:
        with precision(bits):
            claimed = Box(exact(y), exact(a))
            left, terms = _imbalance(values, _balls(values, z, said), claimed, said)
            imbalance = _largest(left, terms)
            open_signs = _open_signs(y, terms, _tolerance(z.dtype)) if rectified else []
            for active in _patterns(said, open_signs):
                # without its silent neurons, the circuit is one of the main model
                circuit = _balls(values, z, active)
                numbers, _ = enclose(circuit, np.asarray([*y, *a], float))
                if numbers is None or not _consistent(Box.of(numbers), active, rectified):
                    continue
                box = Box.of(numbers)
                moved = [abs(x - x_0) for x, x_0 in zip([*box.y, *box.a], [*y, *a], strict=True)]
                _, terms = _imbalance(values, circuit, box, active)
                stable = _stable(values, z, box, active)
                found = Judgement(imbalance, _largest(moved, terms), stable)
                if stable is not None:
                    return found
                break
    return Judgement(imbalance, float("inf"), None) if found is None else found


def _tolerance(kind: np.typing.DTypeLike) -> float:
    return float(np.finfo(kind).eps) ** _ROUNDING


def _open_signs(y: Float[np.ndarray, " n"], terms: list[arb], tolerance: float) -> list[int]:
    """The neurons whose `y_i` may be rounded across 0."""
    return [i for i, y_i in enumerate(y) if abs(float(y_i)) <= tolerance * terms[i]]


def _patterns(
    active: Bool[np.ndarray, " n"], open_signs: list[int]
) -> Iterator[Bool[np.ndarray, " n"]]:
    """Which neurons are active: as given, then with any of these the other way."""
    for k in range(len(open_signs) + 1):
        for chosen in combinations(open_signs, k):
            other = active.copy()
            other[list(chosen)] ^= True
            yield other


_COUNTS = (
    "circuits", "converged", "converged_wrongly", "stable", "stable_wrongly",
    "stable_not_decided", "stable_but_not_said_so",
)  # fmt: skip


def _judged(sample: Sample, kind: Kind, rectified: bool, n: int, count: int) -> dict[str, Any]:
    rng = np.random.default_rng([sample.seed, n, rectified, np.dtype(kind).itemsize])
    values, drives = random_circuits(rng, n, count, kind)
    claim = claims(values, drives, rectified, sample.relaxation_steps)
    tolerance = _tolerance(kind)
    counts: Counter[str] = Counter()
    imbalances, distances, wrong = [0.0], [0.0], []
    for i in np.flatnonzero(claim.converged):
        one = {name: value[i] for name, value in values.items()}
        y, a = (np.asarray(x[i]) for x in claim.state)
        found = judge(one, drives[i], y, a, rectified)
        there = found.imbalance <= 2 * tolerance and found.distance <= tolerance ** (1 / 3)
        said = bool(claim.stable[i])
        counts["converged_wrongly"] += not there
        counts["stable"] += said
        counts["stable_wrongly"] += said and (not there or found.stable is False)
        counts["stable_not_decided"] += said and there and found.stable is None
        counts["stable_but_not_said_so"] += found.stable is True and not said
        if not there or (said and not found.stable):
            wrong.append(int(i))
        imbalances.append(found.imbalance)
        distances.append(found.distance)
    counts["circuits"], counts["converged"] = count, int(claim.converged.sum())
    return {
        "type": kind,
        "rectified": rectified,
        "n": n,
        **{name: counts[name] for name in _COUNTS},
        "largest_imbalance": float(f"{max(imbalances):.2e}"),
        "largest_distance": float(f"{max(distances):.2e}"),
        "indices_to_look_at": wrong,
    }


def _balls(values: Values, z: np.ndarray, heard: Bool[np.ndarray, " n"]) -> BallCircuit:
    """The circuit of the main model in which only the neurons `heard` affect others."""
    b, b0, sigma, tau_y, tau_a = (exact(values[name]) for name in _VECTORS)
    return BallCircuit(
        W=exact_matrix(values["W"].astype(float) * heard),
        W_r=exact_matrix(values["W_r"].astype(float) * heard),
        d=[gain * drive for gain, drive in zip(b, exact(z), strict=True)],
        c=[(gain * value) ** 2 for gain, value in zip(b0, sigma, strict=True)],
        tau_y=tau_y,
        tau_a=tau_a,
        rectified=False,
        undriven=[],
    )


def _imbalance(
    values: Values, circuit: BallCircuit, state: Box, active: Bool[np.ndarray, " n"]
) -> tuple[list[arb], list[arb]]:
    """The imbalance of each equation at a state, and the sum of its terms, written out here; with
    so much more that the rounding of `a` is below the tolerance."""
    y, a = state
    rounding = float(np.finfo(values["W_r"].dtype).eps) ** 0.25
    q = [y if on else arb(0) for y, on in zip(y, active, strict=True)]
    left, terms = [], []
    for i, row in enumerate(exact(row) for row in values["W_r"]):
        gate = 1 - a[i].sqrt()
        heard = [gate * w * q for w, q in zip(row, q, strict=True)]
        left.append(circuit.d[i] - y[i] + _sum(heard))
        rounded = [rounding * a[i].sqrt() * w * q for w, q in zip(row, q, strict=True)]
        terms.append(abs(circuit.d[i]) + abs(y[i]) + _sum(map(abs, [*heard, *rounded])))
    for i, row in enumerate(exact(row) for row in values["W"]):
        pooled = circuit.c[i] + _sum(w * q * q * a for w, q, a in zip(row, q, a, strict=True))
        left.append(pooled - a[i])
        terms.append(pooled + a[i])
    return left, terms


def _sum(balls: Any) -> arb:
    return sum(balls, arb(0))


def _largest(parts: list[arb], terms: list[arb]) -> float:
    """The largest ratio of a part to its terms; 0 for a part that may be 0."""
    pairs = zip(parts, terms, strict=True)
    ratios = (
        0.0 if part.contains(0) else float((abs(part) / whole).mid()) for part, whole in pairs
    )
    return max(value if value == value else float("inf") for value in ratios)


def _consistent(box: Box, active: Bool[np.ndarray, " n"], rectified: bool) -> bool:
    """Whether exactly the neurons taken as active are active."""
    pairs = zip(box.y, active, strict=True)
    return not rectified or all(y > 0 if on else not y > 0 for y, on in pairs)


def _stable(values: Values, z: np.ndarray, box: Box, active: Bool[np.ndarray, " n"]) -> bool | None:
    """Whether it is stable. If silent neurons may have `y_i = 0`: each combination of slopes is
    stable; or these neurons receive no input and decay, and the circuit without them is stable."""
    open_signs = [i for i, y in enumerate(box.y) if not active[i] and not y < 0]
    left = _verdict(_balls(values, z, active), box)
    if not open_signs or left is not True:
        return left
    subsets = (s for k in range(1, len(open_signs) + 1) for s in combinations(open_signs, k))
    verdicts = []
    for chosen in subsets:
        heard = active.copy()
        heard[list(chosen)] = True
        verdicts.append(_verdict(_balls(values, z, heard), box))
    if all(verdicts) or _fade(values, z, box, active, open_signs):
        return True
    return False if False in verdicts else None


def _fade(
    values: Values, z: np.ndarray, box: Box, active: Bool[np.ndarray, " n"], which: list[int]
) -> bool:
    """Whether neurons without input decay. `relu(y)` is bounded by a linear system with the
    excitatory weights alone, which decays if `x - relu(M) x > 0` for a positive `x`, from a linear
    solve."""
    W_r, k = values["W_r"], len(which)
    if np.any(z[which]) or np.any(W_r[which][:, active]):
        return False
    gates = [1 - box.a[i].sqrt() for i in which]
    weights = exact_matrix(W_r[np.ix_(which, which)])

    def weight(i: int, j: int) -> arb:
        w = gates[i] * weights[i, j]
        return w if i == j else arb.max(w, arb(0))

    M = from_entries(k, weight)
    gap = from_entries(k, lambda i, j: int(i == j) - M[i, j])
    try:
        x = gap.solve(column([arb(1)] * k), algorithm="approx").mid()
    except ZeroDivisionError:
        return False
    return all(x > 0 for x in x.entries()) and all(x > 0 for x in (gap * x).entries())


def _verdict(circuit: BallCircuit, box: Box) -> bool | None:
    J = rates(circuit, [*box.y, *box.a])
    verdicts = (lyapunov.conclude(J, candidate).stable for candidate in lyapunov.candidates(J))
    return next((stable for stable in verdicts if stable is not None), None)
