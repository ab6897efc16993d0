"""Phase portraits of two-dimensional circuits, compared with simulations."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from organics.circuit.circuit import Circuit, State
from organics.files.plain import as_number, rounded
from organics.planar import FixedPoint2D, Limits, Portrait, portrait
from organics.plots import letter, phase_portrait
from organics.simulation.ode import simulate
from organics.studies.harness.target import Check

RESIDUAL = 1e-12
"""Bound on the relative residual of every fixed point."""

ARRIVED = 1e-6
"""Distance in `(y, a)` within which a simulation has reached a fixed point."""

SAME_RATES = 1e-9
"""Difference, in 1/ms, within which two eigenvalues count as equal."""

_BESIDE_STABLE, _BESIDE_UNSTABLE = 0.1, 1e-3  # how far from a fixed point simulations begin
_COLUMNS = ((0.5, 0.5, 0.1), (2.0, 0.5, 0.1), (2.0, 1.0, 1.0))  # w_r, b0, sigma
_DIRECTIONS = 8
_BATCH = 64  # simulations
_DECAYS = 50  # simulated time, in times of the slowest decay
_NULLCLINE_POINTS = 40  # stored points of each curve


class Case(NamedTuple):
    """A panel: letter, title, and a circuit with n = 1 and its drive."""

    letter: str
    title: str
    circuit: Circuit
    z: float


def one_neuron_circuits(z: float) -> list[Case]:
    """The six circuits of Figure 1 under a given drive: three of the main model, three
    rectified."""
    return [
        Case(
            letter,
            rf"$w_r={w_r:g}$, $b_0={b0:g}$, $\sigma={sigma:g}$",
            Circuit([[1.0]], [[w_r]], b=0.5, b0=b0, sigma=sigma, rectified=rectified),
            z,
        )
        for letter, (rectified, (w_r, b0, sigma)) in zip(
            "abcdef", product((False, True), _COLUMNS), strict=True
        )
    ]


class Panel(NamedTuple):
    """The content of a panel, also as plain numbers.

    Attributes
        case: the circuit and its drive.
        portrait: velocity, nullclines and fixed points.
        numbers: parameters, window, nullclines; for each fixed point the largest difference of its
            eigenvalues from those of the automatically differentiated velocity, the largest
            distance at which simulations from nearby end (`ends_at_most`), and how many simulations
            from the whole window end there.
    """

    case: Case
    portrait: Portrait
    numbers: dict[str, Any]


def counts(panels: Sequence[Panel]) -> dict[str, tuple[int, int]]:
    """Number of fixed points and of stable ones in each panel, by its letter."""
    points = {panel.case.letter: panel.portrait.fixed_points for panel in panels}
    return {name: (len(of), sum(point.stable for point in of)) for name, of in points.items()}


def examine_all(cases: Sequence[Case], across: int = 9) -> list[Panel]:
    """`examine` all cases in a common window that is large enough for each."""
    planes = [portrait(case.circuit, case.z).plane for case in cases]
    y_limits, a_limits = (
        (min(along[0] for along in axis), max(along[-1] for along in axis))
        for axis in ([plane.y for plane in planes], [plane.a for plane in planes])
    )
    return [examine(case, across, y_limits, a_limits) for case in cases]


def examine(
    case: Case, across: int = 9, y_limits: Limits | None = None, a_limits: Limits | None = None
) -> Panel:
    """All fixed points of a circuit, and simulations from nearby and from the whole window.

    `across` is the number of the latter along each axis. They begin with `a > 0`, which then stays
    true. Needs float64.
    """
    circuit, found = case.circuit, portrait(case.circuit, case.z, y_limits, a_limits)
    points = found.fixed_points
    (y_low, y_high), a_high = found.plane.y[[0, -1]], found.plane.a[-1]
    along_y = np.linspace(y_low, y_high, across)
    along_a = np.linspace(0, a_high, across + 1)[1:]
    grid = np.stack(np.meshgrid(along_y, along_a), axis=-1).reshape(-1, 2)
    starts = np.concatenate([*map(_beside, points), grid])
    slowest = max(np.real(point.eigenvalues).max() for point in points if point.stable)
    ends, ok = _simulate(
        circuit, jnp.full(1, case.z), State(*jnp.asarray(starts.T[:, :, None])), _DECAYS / -slowest
    )
    at = np.array([(point.y, point.a) for point in points])
    distances = np.linalg.norm(ends[:, None] - at[None], axis=2)
    distances = np.where(ok[:, None], distances, np.inf)
    beside = distances[: len(points) * _DIRECTIONS].reshape(len(points), _DIRECTIONS, -1)
    across_window = distances[len(points) * _DIRECTIONS :]
    ends_at = (across_window <= ARRIVED).sum(axis=0)
    numbers = {
        "panel": case.letter,
        "z": case.z,
        **{
            name: np.asarray(getattr(circuit, name)).item()
            for name in ("W", "b", "b0", "sigma", "tau_y", "tau_a")
        },
        "W_r": np.asarray(circuit.recurrent).item(),
        "rectified": circuit.rectified,
        "y_limits": found.plane.y[[0, -1]],
        "a_limits": found.plane.a[[0, -1]],
        "fixed_points": [
            {
                **point._asdict(),
                "eigenvalue_difference": _difference(circuit, case.z, point),
                "ends_at_most": beside[i, :, i].max(),
                "simulations_from_the_window": ends_at[i],
            }
            for i, point in enumerate(points)
        ],
        "simulations_from_the_window": len(across_window),
    }
    curves = {
        name: [curve[_thinned(len(curve))] for curve in curves]
        for name, curves in found.nullclines._asdict().items()
    }
    return Panel(case, found, rounded(numbers, 9) | {"nullclines": rounded(curves, 4)})


def count_check(
    panels: Sequence[Panel], expected: Mapping[str, tuple[int, int]], paper: str | None
) -> Check:
    """Whether each panel has the given numbers of fixed points and of stable ones."""
    found = counts(panels)
    return Check(
        what="each panel has these fixed points, and as many of them are stable",
        here=count_in_words(found),
        holds=found == expected,
        paper=paper,
        tolerance="equal numbers",
    )


def count_in_words(found: Mapping[str, tuple[int, int]]) -> str:
    """The numbers of fixed points in words, grouping panels with the same numbers."""
    kinds = dict.fromkeys(found.values())
    return "; ".join(
        f"{', '.join(letter for letter, count in found.items() if count == kind)}: "
        f"{kind[1]} stable, {kind[0] - kind[1]} unstable"
        for kind in kinds
    )


def point_checks(panels: Sequence[Panel]) -> list[Check]:
    """Checks of the eigenvalues, simulations and residuals of all fixed points of the panels."""
    points = [point for panel in panels for point in panel.numbers["fixed_points"]]
    stable = [point for point in points if point["stable"]]
    unstable = [point for point in points if not point["stable"]]
    residual = max(point["residual"] for point in points)
    difference = max(point["eigenvalue_difference"] for point in points)
    abscissa = max(point["eigenvalues"][0][0] for point in stable)
    returns = max(as_number(point["ends_at_most"]) for point in stable)
    starts = sum(panel.numbers["simulations_from_the_window"] for panel in panels)
    attracting = [point for point in points if point["kind"].startswith(("stable", "half-stable"))]
    arrived = sum(point["simulations_from_the_window"] for point in attracting)
    half = " (or, from its stable side, at a half-stable one)" if attracting != stable else ""
    checks = [
        Check(
            what="every fixed point satisfies the circuit's equations",
            here=f"largest relative residual {residual:.1e}",
            holds=residual <= RESIDUAL,
            tolerance=f"at most {RESIDUAL:g}",
        ),
        Check(
            what="the eigenvalues are those of the differentiated velocity, negative real parts "
            "where a point is called stable",
            here=f"largest difference {difference:.1e}, largest real part {abscissa:.4f} per ms",
            holds=difference <= SAME_RATES and abscissa < 0,
            tolerance=f"difference at most {SAME_RATES:g} per ms",
        ),
        Check(
            what=f"a simulation from {_BESIDE_STABLE:g} beside a stable point, in "
            f"{_DIRECTIONS} directions, returns to it",
            here=f"ends at most {returns:.1e} from it",
            holds=returns <= ARRIVED,
            tolerance=f"at most {ARRIVED:g}",
        ),
        Check(
            what="a simulation from anywhere in the window with a > 0 ends at a stable "
            f"point{half}",
            here=f"{arrived} of {starts}",
            holds=arrived == starts,
            tolerance=f"within {ARRIVED:g}",
        ),
    ]
    if unstable:
        leaves = min(as_number(point["ends_at_most"]) for point in unstable)
        checks.append(
            Check(
                what=f"from {_BESIDE_UNSTABLE:g} beside an unstable point, in some direction, the "
                "circuit leaves it",
                here=f"ends at least {leaves:.2f} from it",
                holds=leaves > _BESIDE_STABLE,
                tolerance=f"farther than {_BESIDE_STABLE:g}",
            )
        )
    return checks


def draw_panels(panels: Sequence[Panel], axes: Sequence[Axes] | np.ndarray) -> None:
    """Draw each phase portrait into its axes, with letter and title, without a legend."""
    for panel, ax in zip(panels, axes, strict=True):
        phase_portrait(*panel.portrait, axes=ax, legend=False)
        letter(ax, panel.case.letter, panel.case.title)


def shared_legend(figure: Figure, axes: Sequence[Axes] | np.ndarray) -> None:
    """One legend above all panels, with every label that occurs in one of them."""
    entries = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=len(entries))


def _beside(point: FixedPoint2D) -> Float[np.ndarray, "directions 2"]:
    angle = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    radius = _BESIDE_STABLE if point.stable else _BESIDE_UNSTABLE
    return np.array([point.y, point.a]) + radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def _simulate(
    circuit: Circuit, z: Float[Array, " 1"], starts: State, duration: float
) -> tuple[Float[np.ndarray, "starts 2"], Bool[np.ndarray, " starts"]]:
    count = len(starts.y)
    padded = -(-count // _BATCH) * _BATCH  # few sizes, as each compiles anew
    starts = jax.tree.map(lambda x: jnp.resize(x, (padded, 1)), starts)
    state, ok = _ends(circuit, z, starts, jnp.asarray(duration))
    return np.concatenate(state, axis=1)[:count], np.asarray(ok)[:count]


@partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # it runs for a moment
def _ends(circuit: Circuit, z, starts: State, duration):
    times = jnp.stack([jnp.zeros_like(duration), duration])

    def one(start):
        path = simulate(
            circuit, z, times, start, rtol=1e-9, atol=1e-12, max_steps=100_000, throw=False
        )
        return State(path.state.y[-1], path.state.a[-1]), path.ok

    return jax.vmap(one)(starts)


def _difference(circuit: Circuit, z: float, point: FixedPoint2D) -> float:
    state = State(*jnp.asarray([[point.y], [point.a]]))
    found = np.linalg.eigvals(np.asarray(differentiated(circuit, state, jnp.full(1, z))))
    found = found[np.lexsort((-np.imag(found), -np.real(found)))]
    return float(np.abs(found - point.eigenvalues).max())


@jax.jit
def differentiated(
    circuit: Circuit, state: State, z: Float[Array, " n"]
) -> Float[Array, "two_n two_n"]:
    """The Jacobian by automatic differentiation."""
    blocks = jax.jacfwd(lambda state: circuit.velocity(state, z))(state)
    return jnp.block([list(row) for row in blocks])


def _thinned(length: int):
    return np.unique(np.linspace(0, length - 1, min(length, _NULLCLINE_POINTS)).astype(int))
