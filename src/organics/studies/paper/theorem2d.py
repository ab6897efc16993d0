r"""The two-dimensional circuit (n = 1) has a stable fixed point for every `w_r > 0`.

With `p = b z`, `k = b0 sigma`, `s = sqrt(a)` and `D = 1 - w_r + w_r s` the fixed points are
`y = p / D`, where `s` is a positive root of the quartic `(s^2 - k^2) D^2 = w p^2 s^2`. Over a grid
of the parameters, the roots are computed as eigenvalues of a companion matrix and counted. Exact
algebra gives their number: one with `D > 0`, and two with `D < 0` if and only if

    (w_r k)^(2/3) + (sqrt(w) |p|)^(2/3) < (w_r - 1)^(2/3),    w_r > 1.

The rectified model keeps those with `y > 0`, and also has `(p, k^2)` if `p < 0`. Stability is
decided by trace and determinant, and again by the eigenvalues of the library's Jacobian.

Stability depends on the time constants only through their ratio; `tau_a = 1 ms` here.

Source: Rawat et al. 2024, Sections 4 and 5.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from organics.circuit.circuit import Circuit, State
from organics.linear.jacobian import eigenvalues, jacobian
from organics.planar import fixed_points_2d
from organics.plots import BLACK, COLUMN, letter, style
from organics.printing import model_in_words
from organics.studies.harness.target import Check, Job, Outcome

GRID = {  # of the full size; 1,025,000 sets of parameters with both signs of z and both models
    "w_r": np.geomspace(0.02, 50, 41),
    "w": np.geomspace(0.01, 100, 5),
    "abs(b z)": np.geomspace(1e-3, 10, 25),
    "b0 sigma": np.geomspace(1e-3, 10, 10),
    "tau_y/tau_a": np.geomspace(0.01, 100, 5),
}
QUICK_EVERY = {"w_r": 4, "w": 2, "abs(b z)": 3, "b0 sigma": 3, "tau_y/tau_a": 2}
SAMPLE, QUICK_SAMPLE = 400, 40  # sets solved by `fixed_points_2d` as well; one in ten has z = 0

SLICES = ((False, 1.0), (False, 30.0), (True, 1.0))  # model and tau_y/tau_a of each panel
SLICE_W, SLICE_K = 1.0, 0.05  # those of Figure 1
SLICE_SIDE, QUICK_SLICE_SIDE = 120, 60  # even, so that z = 0 is not included

NEAR_EQUALITY = 1e-6  # relative, within which rounding decides how many roots are real
RESIDUAL = 1e-9  # of a fixed point, relative to the terms of each equation
_REAL = 1e-6  # largest imaginary part of a real root, relative to its size
_UNDECIDED = 1e-9  # real part of an eigenvalue relative to its size, or trace to its terms
_CLASSES = ("1 stable", "1 stable, 2 unstable", "2 stable, 1 unstable", "none stable", "other")
_COLOURS = ("#EDEDED", "#F3C98B", "#7FB8DC", "#000000", "#D55E00")


class Points(NamedTuple):
    """Fixed points of circuits with n = 1, each array of shape (sets, 3), NaN where there is none.

    The first column has the point with `D > 0`, or `(p, k^2)` of a silent neuron; the others those
    with `D < 0`, by rising `a`.
    """

    y: Float[np.ndarray, "sets 3"]
    s: Float[np.ndarray, "sets 3"]
    gain: Float[np.ndarray, "sets 3"]
    silent: Bool[np.ndarray, "sets 3"]

    @property
    def number(self) -> np.ndarray:
        """Number of fixed points in each set."""
        return np.sum(np.isfinite(self.y), axis=1)


class Sets(NamedTuple):
    """Parameters of circuits with n = 1, each of shape (sets,)."""

    w_r: Float[np.ndarray, " sets"]
    w: Float[np.ndarray, " sets"]
    p: Float[np.ndarray, " sets"]
    k: Float[np.ndarray, " sets"]


def compute(job: Job) -> Outcome:
    """Count the fixed points on the grid and on the slices, and judge their stability."""
    axes = {name: values[:: QUICK_EVERY[name]] if job.quick else values
            for name, values in GRID.items()}  # fmt: skip
    *parameters, ratios = axes.values()
    w_r, w, size, k = (grid.ravel() for grid in np.meshgrid(*parameters, indexing="ij"))
    rows = []
    with jax.enable_x64(True):
        for rectified in (False, True):
            for sign in (1.0, -1.0):
                job.progress(
                    len(rows) / 5, f"{model_in_words(rectified)} model, z {'<>'[sign > 0]} 0"
                )
                rows.append(_row(Sets(w_r, w, sign * size, k), ratios, rectified))
        job.progress(0.8, "by `fixed_points_2d`")
        sample = _sample(axes, QUICK_SAMPLE if job.quick else SAMPLE, job.seed)
        side = QUICK_SLICE_SIDE if job.quick else SLICE_SIDE
        slices = [_slice(rectified, ratio, side) for rectified, ratio in SLICES]
    return conclude(rows, sample, slices, {name: len(values) for name, values in axes.items()})


def conclude(
    rows: list[dict[str, Any]],
    sample: dict[str, Any],
    slices: list[dict[str, Any]],
    grid: dict[str, int],
) -> Outcome:
    """Checks of the theorem from the counts."""
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key.startswith("count_")}
    here = (
        f"{total['count_with_a_stable_point']:,} of {total['count_sets']:,} sets have a stable "
        f"fixed point, {total['count_bistable']:,} two"
    )
    numbers = {
        "grid": grid,
        "total": total,
        "by_model": rows,
        "sample": sample,
        "classes": _CLASSES,
        "slices": slices,
    }
    return Outcome(here, _checks(total, rows, sample), numbers)


def _checks(
    total: dict[str, int], rows: list[dict[str, Any]], sample: dict[str, Any]
) -> list[Check]:
    number, stable, points = (
        total[f"count_{what}"] for what in ("sets", "with_a_stable_point", "points")
    )
    return [
        Check(
            "a stable fixed point exists",
            f"in {stable:,} of {number:,} sets of parameters",
            stable == number,
            paper="all",
            tolerance="by trace and determinant",
        ),
        Check(
            "the fixed point with D > 0, or of a silent neuron, is stable",
            f"{total['count_first_stable']:,} of {total['count_first']:,}",
            total["count_first_stable"] == total["count_first"] == number,
            paper="all",
            tolerance="each set has one, and it is stable",
        ),
        Check(
            "as many fixed points as the exact condition says",
            f"{total['count_differing']:,} sets differ, {total['count_near_equality']:,} more are "
            f"within {NEAR_EQUALITY:g} of equality; {total['count_with_three']:,} have three",
            total["count_differing"] == 0,
            tolerance="no set differs that is not near equality",
        ),
        Check(
            "each is a fixed point of the circuit's own equations",
            f"largest relative imbalance {max(row['largest_residual'] for row in rows):.1e}",
            all(row["largest_residual"] <= RESIDUAL for row in rows),
            tolerance=f"{RESIDUAL:g}",
        ),
        Check(
            "trace and determinant agree with the eigenvalues",
            f"for {points - total['count_disputed'] - total['count_undecided']:,} of {points:,} "
            f"fixed points, {total['count_undecided']:,} on the border of stability",
            total["count_disputed"] == 0,
            tolerance="no fixed point differs that is not on the border",
        ),
        Check(
            "of two fixed points with D < 0 that with the smaller a is a saddle",
            f"{total['count_saddles']:,} of {total['count_pairs']:,}",
            total["count_saddles"] == total["count_pairs"],
            tolerance="its determinant is negative",
        ),
        Check(
            "the same as `fixed_points_2d`, also without input",
            f"{sample['agreeing']} of {sample['sets']} sets, largest relative difference "
            f"{sample['largest_difference']:.1e}; stable points in {sample['with_a_stable_point']}",
            sample["agreeing"] == sample["with_a_stable_point"] == sample["sets"],
            tolerance="as many, as stable, at the same place to 1e-6",
        ),
    ]


@style()
def draw(outcome: Outcome) -> Figure:
    """Number of stable and unstable fixed points over slices of the plane of recurrent weight
    and drive, with the exact border between them.
    """
    slices = outcome.numbers["slices"]
    figure = Figure(figsize=(2 * COLUMN, 2.75))
    panels = list(figure.subplots(1, len(slices), sharey=True))
    seen: set[int] = set()
    for axes, one, name in zip(panels, slices, "abcdefg", strict=False):
        _draw_slice(axes, one)
        seen |= {int(digit) for row in one["map"] for digit in row}
        model = model_in_words(one["rectified"])
        letter(axes, name, rf"{model}, $\tau_y/\tau_a = {one['tau_y/tau_a']:g}$")
        axes.set_xlabel("$w_r$")
    panels[0].set_ylabel("$b z$")
    handles: list[Any] = [Patch(color=_COLOURS[i], label=_CLASSES[i]) for i in sorted(seen)]
    handles += panels[0].get_legend_handles_labels()[0]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def _draw_slice(axes: Axes, one: dict[str, Any]) -> None:
    classes = np.array([[int(digit) for digit in row] for row in one["map"]])
    extent = (*one["w_r"], *one["bz"])
    axes.imshow(
        classes, cmap=ListedColormap(_COLOURS), vmin=-0.5, vmax=len(_COLOURS) - 0.5,
        extent=extent, origin="lower", aspect="auto", interpolation="nearest",
    )  # fmt: skip
    w_r, bz = one["curve"]
    for sign in (-1,) if one["rectified"] else (-1, 1):  # rectified, z > 0: always one
        label = "exact border" if sign == -1 else None
        axes.plot(w_r, sign * np.asarray(bz), "--", color=BLACK, linewidth=1, label=label)
    axes.set(xlim=extent[:2], ylim=extent[2:])


def fixed_points(sets: Sets, rectified: bool) -> Points:
    """All fixed points for `w_r > 0` and `p != 0`, from the roots of the quartic in `s`."""
    drive = np.sqrt(sets.w) * np.abs(sets.p)
    s = _positive_roots(sets.w_r, drive, sets.k)
    gain = 1 - sets.w_r[:, None] + sets.w_r[:, None] * s
    below = np.sort(np.where(gain < 0, s, np.nan), axis=1)[:, :2]
    above = np.sort(np.where(gain >= 0, s, np.nan), axis=1)[:, :1]
    s = np.concatenate([above, below], axis=1)
    gain = 1 - sets.w_r[:, None] + sets.w_r[:, None] * s
    y = sets.p[:, None] / gain
    silent = np.zeros(y.shape, bool)
    if rectified:
        absent = ~(y > 0)
        y, s, gain = (np.where(absent, np.nan, x) for x in (y, s, gain))
        silent[:, 0] = sets.p < 0
        y, s, gain = (
            np.where(silent, x, other)
            for x, other in ((sets.p[:, None], y), (sets.k[:, None], s), (1.0, gain))
        )
    return Points(y, s, gain, silent)


def expected_count(sets: Sets, rectified: bool) -> np.ndarray:
    """How many fixed points there are for `w_r > 0` and `p != 0`, by the exact condition."""
    three = distance_to_equality(sets) < 0
    return np.where(three & ~(rectified & (sets.p > 0)), 3, 1)


def distance_to_equality(sets: Sets) -> Float[np.ndarray, " sets"]:
    """Left side of the exact condition over its right side, less 1; inf where `w_r <= 1`."""
    power = 2 / 3
    left = (sets.w_r * sets.k) ** power + (np.sqrt(sets.w) * np.abs(sets.p)) ** power
    right = np.maximum(sets.w_r - 1, 0) ** power
    return np.where(right > 0, left / np.where(right > 0, right, 1) - 1, np.inf)


def _positive_roots(w_r: np.ndarray, drive: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Real roots `s > k` of `(s^2 - k^2) (1 - w_r + w_r s)^2 = drive^2 s^2`, shape (sets, 4)."""
    e, c = 1 - w_r, k * k
    monic = np.stack(
        [2 * e / w_r, (e**2 - drive**2) / w_r**2 - c, -2 * e * c / w_r, -(e**2) * c / w_r**2]
    )
    companion = np.zeros((len(w_r), 4, 4))
    companion[:, 0] = -monic.T
    companion[:, [1, 2, 3], [0, 1, 2]] = 1
    roots = np.asarray(eigenvalues(companion))
    s = np.where(np.abs(np.imag(roots)) <= _REAL * np.abs(roots), np.real(roots), np.nan)
    # for w_r = 1 zero is a double root, but not one of the circuit
    s = np.where(s > k[:, None] / 2, s, np.nan)
    for _ in range(3):  # Newton on the difference of the square roots, which has simple roots
        gain, slope = e[:, None] + w_r[:, None] * s, w_r[:, None]
        rest = np.sqrt(np.maximum((s - k[:, None]) * (s + k[:, None]), 0))
        side = np.sign(gain)
        value = side * gain * rest - drive[:, None] * s
        with np.errstate(divide="ignore", invalid="ignore"):
            step = value / (side * (slope * rest + gain * s / rest) - drive[:, None])
        small = np.isfinite(step) & (np.abs(step) < 1e-3 * (s - k[:, None]))
        s = np.where(small, s - step, s)
    return s


class _Judgement(NamedTuple):
    """Whether each fixed point is stable, and whether it is a saddle; shape (sets, 3)."""

    stable: Bool[np.ndarray, "sets 3"]
    saddle: Bool[np.ndarray, "sets 3"]
    undecided: Bool[np.ndarray, "sets 3"]


def by_trace(sets: Sets, points: Points, ratio: float) -> _Judgement:
    """Stability from trace and determinant of the Jacobian in closed form."""
    with np.errstate(invalid="ignore"):
        rest = (sets.k[:, None] / points.s) ** 2  # 1 - w y^2
        cross = np.where(points.silent, 0, sets.w_r[:, None] * points.s * (1 - rest))
        trace_terms = np.stack([-points.gain / ratio, -rest])
        trace, determinant = trace_terms.sum(axis=0), points.gain * rest + cross
        undecided = np.abs(trace) <= _UNDECIDED * np.abs(trace_terms).sum(axis=0)
        undecided |= np.abs(determinant) <= _UNDECIDED * (np.abs(points.gain * rest) + cross)
        return _Judgement((trace < 0) & (determinant > 0), determinant < 0, undecided)


def by_eigenvalues(
    sets: Sets, points: Points, ratio: float, rectified: bool
) -> tuple[_Judgement, Float[np.ndarray, "sets 3"]]:
    """Stability from eigenvalues of the library's Jacobian; and the relative imbalance there."""
    exists = np.isfinite(points.y)
    there = Sets(*(np.broadcast_to(values[:, None], exists.shape)[exists] for values in sets))
    found = _linearized(there, points.y[exists], points.s[exists], ratio, rectified)
    J, residual = jax.device_get(found)
    rates = np.asarray(eigenvalues(J))
    growth, size = np.real(rates), np.abs(rates).max(axis=1)
    top = growth.max(axis=1)
    spread = lambda values: _scatter(exists, values)  # noqa: E731
    return _Judgement(
        spread(top < 0),
        spread((top > 0) & (growth.min(axis=1) < 0)),
        spread(np.abs(top) <= _UNDECIDED * size),
    ), spread(residual)


def _scatter(where: np.ndarray, values: np.ndarray) -> np.ndarray:
    full = np.zeros(where.shape, values.dtype)
    full[where] = values
    return full


def _linearized(sets: Sets, y: np.ndarray, s: np.ndarray, ratio: float, rectified: bool):
    def one(sets, y, s):
        w_r, w, p, k = sets
        vector = lambda x: jnp.reshape(x, 1)  # noqa: E731
        circuit = Circuit(
            jnp.reshape(w, (1, 1)), jnp.reshape(w_r, (1, 1)), b=1.0, b0=1.0, sigma=vector(k),
            tau_y=ratio, tau_a=1.0, rectified=rectified,
        )  # fmt: skip
        state = State(vector(y), vector(s * s))
        dy, da = circuit.imbalance(state, vector(p))
        of_y = jnp.abs(p) + (1 + w_r * (1 + s)) * jnp.abs(y)
        residual = jnp.maximum(jnp.abs(dy[0]) / of_y, jnp.abs(da[0]) / (s * s + k * k))
        return jacobian(circuit, state), residual

    return jax.jit(jax.vmap(one))(sets, y, s)


def _row(sets: Sets, ratios: np.ndarray, rectified: bool) -> dict[str, Any]:
    """Counts over all sets of one model and one sign of the drive."""
    points = fixed_points(sets, rectified)
    distance = distance_to_equality(sets)
    near = np.abs(distance) <= NEAR_EQUALITY
    differ = points.number != expected_count(sets, rectified)
    exists = np.isfinite(points.y)
    row: dict[str, Any] = {
        "rectified": rectified,
        "sign_of_z": int(np.sign(sets.p[0])),
        "count_sets": 0, "count_points": 0, "count_first": 0, "count_first_stable": 0,
        "count_with_a_stable_point": 0, "count_with_three": 0, "count_bistable": 0,
        "count_pairs": 0, "count_saddles": 0, "count_undecided": 0, "count_disputed": 0,
        "count_differing": int(np.sum(differ & ~near)) * len(ratios),
        "count_near_equality": int(np.sum(near)) * len(ratios),
        "largest_residual": 0.0,
    }  # fmt: skip
    for ratio in ratios:
        exact = by_trace(sets, points, ratio)
        other, residual = by_eigenvalues(sets, points, ratio, rectified)
        stable = exact.stable & exists
        undecided = (exact.undecided | other.undecided) & exists
        disputed = ((exact.stable != other.stable) | (exact.saddle != other.saddle)) & exists
        pairs = exists[:, 1] & exists[:, 2]
        for key, mask in (
            ("sets", np.ones(len(near), bool)),
            ("points", exists),
            ("first", exists[:, 0]),
            ("first_stable", stable[:, 0]),
            ("with_a_stable_point", stable.any(axis=1)),
            ("with_three", points.number == 3),
            ("bistable", stable.sum(axis=1) == 2),
            ("pairs", pairs),
            ("saddles", pairs & exact.saddle[:, 1]),
            ("undecided", undecided),
            ("disputed", disputed & ~undecided),
        ):
            row[f"count_{key}"] += int(mask.sum())
        row["largest_residual"] = max(row["largest_residual"], float(f"{residual.max():.3g}"))
    return row


def _sample(axes: dict[str, np.ndarray], count: int, seed: int) -> dict[str, Any]:
    """Sets drawn from the grid, a tenth of them without input, solved by `fixed_points_2d`."""
    rng = np.random.default_rng(seed)
    agreeing, stable, largest = 0, 0, 0.0
    for i in range(count):
        w_r, w, p, k, ratio = (float(rng.choice(values)) for values in axes.values())
        p, rectified = p * float(rng.choice([-1, 1])) * (i % 10 != 0), bool(rng.integers(2))
        circuit = Circuit(
            jnp.array([[w]]), jnp.array([[w_r]]), b=1.0, b0=1.0, sigma=k, tau_y=ratio, tau_a=1.0,
            rectified=rectified,
        )  # fmt: skip
        known = fixed_points_2d(circuit, p)
        stable += any(point.stable for point in known)
        sets = Sets(*(np.array([value]) for value in (w_r, w, p, k)))
        if p == 0:  # the quartic does not include `y = 0`
            agreeing += len(known) == _count_without_input(w_r, k, rectified)
            continue
        points = fixed_points(sets, rectified)
        exists = np.isfinite(points.y[0])
        judged = by_trace(sets, points, ratio).stable[0][exists]
        found = sorted(zip(points.y[0][exists], points.s[0][exists] ** 2, judged, strict=True))
        if len(found) != len(known):
            continue
        difference = max(
            max(abs(y - point.y) / abs(point.y), abs(a - point.a) / point.a)
            for (y, a, _), point in zip(found, known, strict=True)
        )
        largest = max(largest, float(difference))
        same = [is_stable for _, _, is_stable in found] == [point.stable for point in known]
        agreeing += same and difference <= 1e-6
    return {
        "sets": count,
        "agreeing": int(agreeing),
        "with_a_stable_point": int(stable),
        "largest_difference": float(f"{largest:.2g}"),
    }


def _count_without_input(w_r: float, k: float, rectified: bool) -> int:
    """Number of fixed points for `z = 0`."""
    return (2 if rectified else 3) if w_r > 1 and k < 1 - 1 / w_r else 1


def _slice(rectified: bool, ratio: float, side: int) -> dict[str, Any]:
    """Class of each point in the plane `(w_r, b z)`, a row of digits for each `b z`."""
    most, edge = 4.0, 2.5
    w_r = (np.arange(side) + 0.5) * most / side
    bz = -edge + (np.arange(side) + 0.5) * 2 * edge / side
    at_w_r, at_bz = (grid.ravel() for grid in np.meshgrid(w_r, bz))
    ones = np.ones(side * side)
    sets = Sets(at_w_r, SLICE_W * ones, at_bz, SLICE_K * ones)
    points = fixed_points(sets, rectified)
    stable = np.sum(by_trace(sets, points, ratio).stable & np.isfinite(points.y), axis=1)
    count = points.number
    classes = np.select(
        [stable == 0, (count == 1), (count == 3) & (stable == 1), (count == 3) & (stable == 2)],
        [3, 0, 1, 2],
        4,
    ).reshape(side, side)
    tip = 1 / (1 - SLICE_K)
    # closer together where the curve is steep, at its tip
    along = tip + (most - tip) * np.linspace(0, 1, 101) ** 3
    rest = np.maximum((along - 1) ** (2 / 3) - (along * SLICE_K) ** (2 / 3), 0)
    return {
        "rectified": rectified,
        "tau_y/tau_a": ratio,
        "w": SLICE_W,
        "b0 sigma": SLICE_K,
        "w_r": [0.0, most],
        "bz": [-edge, edge],
        "curve": [np.round(along, 5), np.round(rest**1.5 / np.sqrt(SLICE_W), 5)],
        "map": ["".join(str(digit) for digit in line) for line in classes],
    }
