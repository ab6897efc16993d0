r"""The two-dimensional circuit (n = 1): all its fixed points, and the data of its phase portrait.

With `p = b z`, `k = b0 sigma`, `s = sqrt(a)` and the effective gain `D(s) = 1 - w_r + w_r s`, a
fixed point of the main model satisfies

    y D(s) = p,    w y^2 = 1 - (k/s)^2.

Squaring gives a quartic in `s`. Here the roots are found branch by branch instead. Each is the only
crossing of a monotone function, so none is missed and none is spurious:

* `D > 0`: exactly one fixed point, for every `w_r > 0`; it is always stable.
* `D < 0` (needs `w_r > 1` and `k < s* = 1 - 1/w_r`): `|D| sqrt(1 - (k/s)^2)` vanishes at both ends
  of the branch and has one maximum, so it meets `sqrt(w) |p|` zero, one (tangent) or two times.

The unknown is always the distance from an end of the branch. `D` and `s - k` are then sums of
positive terms: no digits cancel, however close `D` is to zero or `s` to `k`.

Source: Rawat, Heeger & Martiniani 2024, the two-dimensional model; counting by the equations above.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float
from scipy.optimize import brentq

from organics.arguments import require_whole
from organics.circuit.circuit import Circuit, State
from organics.circuit.values import Values

EPS, TINY = float(np.finfo(float).eps), float(np.finfo(float).tiny)

_imbalance = jax.jit(Circuit.imbalance)
_velocities = jax.jit(jax.vmap(Circuit.velocity, in_axes=(None, 0, None)))

Limits = tuple[float | int, float | int]
Curve = Float[np.ndarray, "_ 2"]


class FixedPoint2D(NamedTuple):
    """A fixed point of a circuit of one principal and one modulator neuron.

    Attributes
        y, a: the membrane potentials.
        eigenvalues: of the Jacobian there, in 1/ms; the one with the larger real part first, and in
            a conjugate pair the one with positive imaginary part.
        stable: whether the point is linearly, hence locally asymptotically, stable.
        kind: "stable node", "stable focus", "saddle", "unstable node" or "unstable focus";
            "non-hyperbolic" if, to rounding, an eigenvalue has real part zero (the tangent point
            where two fixed points merge, a pitchfork or a Hopf bifurcation); "half-stable" for the
            point `(0, (b0 sigma)^2)` of the rectified model with `z = 0` if it attracts linearly
            from `y < 0` only.
        residual: largest entry of `circuit.imbalance` there, relative to its terms.
    """

    y: float
    a: float
    eigenvalues: Complex[np.ndarray, " 2"]
    stable: bool
    kind: str
    residual: float


class Nullclines(NamedTuple):
    """Curves on which one component of the velocity vanishes; rows are points `(y, a)`.

    Attributes
        y: curves where `dy/dt = 0`, one for each side of the pole of `y = p / D(sqrt(a))`.
        a: curves where `da/dt = 0`, up to where `a = c / (1 - w y^2)` leaves the window.
    """

    y: tuple[Curve, ...]
    a: tuple[Curve, ...]


class PhasePlane(NamedTuple):
    """The velocity on a grid: entry `[i, j]` belongs to `(y[j], a[i])`; `dy`, `da` are per ms."""

    y: Float[np.ndarray, " columns"]
    a: Float[np.ndarray, " rows"]
    dy: Float[np.ndarray, "rows columns"]
    da: Float[np.ndarray, "rows columns"]


class Portrait(NamedTuple):
    """The contents of a phase portrait; `organics.plots.phase_portrait` draws it."""

    plane: PhasePlane
    nullclines: Nullclines
    fixed_points: list[FixedPoint2D]


def fixed_points_2d(circuit: Circuit, z: "Values") -> list[FixedPoint2D]:
    """All fixed points of a circuit with n = 1 for the input drive `z` (a number), by rising `y`.

    There is at least one, except with `w_r = 0` and `w (b z)^2 >= 1` (the modulator's excitation
    outgrows its decay) and with `W = 0` where the effective gain vanishes; the list is then empty.
    Computed in float64 from concrete values, whatever the type of the circuit.

    In the rectified model the velocity is not differentiable at `y = 0`, which is a fixed point for
    `z = 0`. Its `eigenvalues` are those of the left slope, as in `organics.jacobian`, but it is
    `stable` only if the circuit is linearly stable on both sides.

    Raises
        `ValueError` if the circuit has more than one neuron, `w_r < 0`, `z` is not one finite
            number, or the fixed points form a line (`W = 0`, `z = 0` and no effective gain).
        `ArithmeticError` if `(b0 sigma)^2` or a fixed point is out of the range of floating point.
    """
    planar = _planar(circuit, z)
    points = sorted(_roots(planar), key=lambda root: (root.y, root.s))
    return [_fixed_point(circuit, planar, root) for root in points]


def nullclines(
    circuit: Circuit,
    z: "Values",
    y_limits: Limits,
    a_limits: Limits,
    points: int = 400,
) -> Nullclines:
    """Both nullclines of a circuit with n = 1 inside a window, split where they blow up.

    Each curve is sampled at `points` equally spaced values of `y` and of `a`, so that flat and
    steep parts are both smooth, and it reaches the edge of the window.

    Raises `ValueError` and `ArithmeticError` for the arguments `fixed_points_2d` refuses, and
    `ValueError` for an empty window or fewer than two points.
    """
    planar = _planar(circuit, z)
    _check_window(y_limits, a_limits)
    require_whole("points", points, 2)
    grid_y, grid_a = np.linspace(*y_limits, points), np.linspace(*a_limits, points)
    return Nullclines(
        y=tuple(_y_nullclines(planar, grid_y, grid_a)),
        a=tuple(_a_nullclines(planar, grid_y, grid_a)),
    )


def phase_plane(
    circuit: Circuit,
    z: "Values",
    y_limits: Limits,
    a_limits: Limits,
    points: int = 81,
) -> PhasePlane:
    """The velocity of a circuit with n = 1 on a grid of `points` by `points` states, per ms.

    Raises `ValueError` and `ArithmeticError` for the arguments `fixed_points_2d` refuses, and
    `ValueError` for an empty window or fewer than two points.
    """
    _planar(circuit, z)
    _check_window(y_limits, a_limits)
    require_whole("points", points, 2)
    y, a = np.linspace(*y_limits, points), np.linspace(*a_limits, points)
    at_y, at_a = (jnp.asarray(grid.reshape(-1, 1), circuit.dtype) for grid in np.meshgrid(y, a))
    drive = jnp.asarray(z, circuit.dtype).reshape(1)
    velocity = _velocities(circuit, State(at_y, at_a), drive)
    dy, da = (np.asarray(v, float).reshape(points, points) for v in velocity)
    return PhasePlane(y, a, dy, da)


def portrait(
    circuit: Circuit,
    z: "Values",
    y_limits: Limits | None = None,
    a_limits: Limits | None = None,
) -> Portrait:
    """Velocity, nullclines and all fixed points of a circuit with n = 1 for the drive `z`.

    Limits that are not given keep every fixed point well inside: 3 on either side of the stable
    points in `y`, from 3 below to 5 above them in `a` (3 above in the rectified model).

    Raises `ValueError` and `ArithmeticError` as `fixed_points_2d`, and for an empty window.
    """
    points = fixed_points_2d(circuit, z)
    planar = _planar(circuit, z)
    stable = [(point.y, point.a) for point in points if point.stable]
    centres = stable or [(point.y, point.a) for point in points] or [(planar.p, planar.k**2)]
    if y_limits is None:
        y_limits = _around([y for y, _ in centres], [p.y for p in points], 3.0, 3.0)
    if a_limits is None:
        above = 3.0 if planar.rectified else 5.0
        a_limits = _around([a for _, a in centres], [p.a for p in points], 3.0, above)
    return Portrait(
        phase_plane(circuit, z, y_limits, a_limits),
        nullclines(circuit, z, y_limits, a_limits),
        points,
    )


class _Planar(NamedTuple):
    """The scalars of a circuit with n = 1: `p = b z`, `k = b0 sigma`, `gain = D(k)`."""

    w: float
    w_r: float
    p: float
    k: float
    gain: float
    tau_y: float
    tau_a: float
    rectified: bool

    def effective_gain(self, a: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """`D(sqrt(relu(a)))`."""
        return 1 - self.w_r + self.w_r * np.sqrt(np.maximum(a, 0))


class _Root(NamedTuple):
    """A fixed point, and the quantities that decide its stability, computed without cancellation.

    `s = sqrt(a)`; `gain = D(s)`; `saturation = w relu(y)^2 = 1 - (k/s)^2` (`y^2` in the main
    model). `silent` marks `y <= 0` in the rectified model, where the recurrent terms vanish.
    """

    y: float
    s: float
    gain: float
    saturation: float
    silent: bool = False


def _planar(circuit: Circuit, z: Values) -> _Planar:
    if circuit.n != 1:
        raise ValueError(
            f"`circuit` must have one principal neuron (n = 1), not {circuit.n}. For larger "
            "circuits use `steady_states`, or `organics states`."
        )
    circuit.require_valid()
    drive = np.asarray(z, float)
    if drive.size != 1 or not np.all(np.isfinite(drive)):
        raise ValueError(f"`z` must be one finite number for a circuit with n = 1, not {z!r}.")
    w_r = np.asarray(circuit.recurrent).item()
    if w_r < 0:
        raise ValueError(
            f"`circuit` must have `W_r` >= 0 to be drawn in a plane, not {w_r}: use "
            "`steady_states`, or `organics states`."
        )
    p = float(circuit.b[0]) * float(drive.reshape(()))
    k = float(circuit.b0[0]) * float(circuit.sigma[0])
    if not (math.isfinite(p) and np.finfo(float).tiny <= k * k < math.inf):
        raise ArithmeticError(
            f"`b z` = {p} or `b0 sigma` = {k} squared is out of the range of floating point."
        )
    gain = 1 - w_r + w_r * k
    if abs(gain) <= 4 * EPS * max(1.0, w_r):
        gain = 0.0  # its sign would be a rounding error
    return _Planar(
        w=np.asarray(circuit.pool).item(),
        w_r=w_r,
        p=p,
        k=k,
        gain=gain,
        tau_y=float(circuit.tau_y[0]),
        tau_a=float(circuit.tau_a[0]),
        rectified=circuit.rectified,
    )


def _roots(c: _Planar) -> list[_Root]:
    roots = list(_main_roots(c))
    if c.rectified:
        roots = [root for root in roots if root.y > 0]
        if c.p <= 0:
            roots.append(_Root(c.p, c.k, 1.0, 0.0, silent=True))
    return roots


def _main_roots(c: _Planar) -> Iterable[_Root]:
    """Fixed points of the main model."""
    if c.w == 0:
        yield from _uncoupled_roots(c)
    elif c.p == 0:
        yield _Root(0.0, c.k, c.gain, 0.0)
        if c.gain < 0:
            s, saturation = _beyond(c, -c.gain / c.w_r)
            y = math.sqrt(saturation / c.w)
            yield from (_Root(y, s, 0.0, saturation), _Root(-y, s, 0.0, saturation))
    elif c.w_r == 0:
        product = math.sqrt(c.w) * abs(c.p)
        if product < 1:
            rest = (1 - product) * (1 + product)
            yield _Root(c.p, c.k / math.sqrt(rest), 1.0, product * product)
    else:
        yield from _positive_gain_root(c)
        if c.gain < 0:
            yield from _negative_gain_roots(c)


def _uncoupled_roots(c: _Planar) -> Iterable[_Root]:
    """`w = 0`: the modulator neuron rests at `a = k^2` and `y` obeys a linear equation."""
    if c.gain != 0:
        yield _Root(c.p / c.gain, c.k, c.gain, 0.0)
    elif c.p == 0:
        raise ValueError(
            "every `y` is a fixed point: with `W` = 0, `z` = 0 and `1 - W_r + W_r b0 sigma` = 0 "
            "the equation of `y` vanishes. Change one of them."
        )


def _beyond(c: _Planar, excess: float) -> tuple[float, float]:
    """`s = k + excess` and `1 - (k/s)^2`."""
    s = c.k + excess
    return s, (excess / s) * ((excess + 2 * c.k) / s)


def _positive_gain_root(c: _Planar) -> Iterable[_Root]:
    drive = math.sqrt(c.w) * abs(c.p)

    def at(x: float) -> tuple[float, float, float]:  # x: how far D is above max(D(k), 0)
        s, saturation = _beyond(c, (x + max(-c.gain, 0.0)) / c.w_r)
        return x + max(c.gain, 0.0), s, saturation

    # there D >= 2 drive and s >= 2 k, hence saturation >= 3/4
    top = max(2 * drive, c.w_r * c.k)
    gain, s, saturation = at(_crossing(at, drive, top))
    yield _Root(c.p / gain, s, gain, saturation)


def _negative_gain_roots(c: _Planar) -> Iterable[_Root]:
    drive = math.sqrt(c.w) * abs(c.p)
    # |D| sqrt(saturation) peaks at s = cbrt(k^2 s*), where saturation = 1 - (k/s*)^(2/3)
    ratio = c.w_r * c.k / (c.w_r - 1)  # k/s*, its logarithm below also exact close to 1
    log_ratio = math.log(ratio) if ratio < 0.5 else math.log1p(c.gain / (c.w_r - 1))
    peak_excess = c.k * math.expm1(-log_ratio / 3)
    peak_gain = -c.gain - c.w_r * peak_excess

    def near(excess: float) -> tuple[float, float, float]:  # between s = k and the peak
        s, saturation = _beyond(c, excess)
        return peak_gain + c.w_r * (peak_excess - excess), s, saturation

    def far(gain: float) -> tuple[float, float, float]:  # between the peak and s = s*
        s, saturation = _beyond(c, peak_excess + (peak_gain - gain) / c.w_r)
        return gain, s, saturation

    peak = peak_gain * math.sqrt(_beyond(c, peak_excess)[1])
    if drive > peak * (1 + 8 * EPS):
        return
    if drive >= peak * (1 - 8 * EPS):
        found = [near(peak_excess)]
    else:
        found = [
            near(_crossing(near, drive, peak_excess)),
            far(_crossing(far, drive, peak_gain)),
        ]
    for gain, s, saturation in found:
        yield _Root(-c.p / gain, s, -gain, saturation)


def _crossing(at: Callable[[float], tuple[float, float, float]], drive: float, top: float) -> float:
    """The x in (0, top) at which `gain sqrt(saturation)` from `at(x)` equals `drive`.

    That product rises with x, from 0 at x = 0 to more than `drive` at `top`.
    """

    def excess(x: float) -> float:
        gain, _, saturation = at(x)
        return gain * math.sqrt(saturation) / drive - 1

    if drive < TINY:
        raise ArithmeticError(f"sqrt(W) |b z| = {drive:g} is out of the range of floating point.")
    low, ratio = top, 1e-3
    while excess(low) > 0:
        low *= ratio
    if low < TINY:
        raise ArithmeticError("the fixed points are out of the range of floating point.")
    if low == top:
        return top
    # in log(x/low), which is small, so that x has a relative error of a few roundings
    scaled = lambda u: excess(low * math.exp(u))  # noqa: E731
    solution: Any = brentq(scaled, 0.0, -math.log(ratio), xtol=EPS)
    return low * math.exp(solution)


def _fixed_point(circuit: Circuit, c: _Planar, root: _Root) -> FixedPoint2D:
    y, a = root.y, root.s * root.s
    if not (math.isfinite(y) and math.isfinite(a) and a > 0):
        raise ArithmeticError(
            f"a fixed point is out of the range of floating point: y = {y}, sqrt(a) = {root.s}."
        )
    eigenvalues, kind = _linear_type(c, root)
    if root.silent and c.p == 0 and c.gain <= 0:
        kind = "half-stable"
    return FixedPoint2D(
        y=y,
        a=a,
        eigenvalues=eigenvalues,
        stable=kind.startswith("stable"),
        kind=kind,
        residual=_residual(circuit, c, y, a),
    )


def _linear_type(c: _Planar, root: _Root) -> tuple[Complex[np.ndarray, " 2"], str]:
    """Eigenvalues and kind from the entries of the Jacobian `[[yy, .], [., aa]]`.

    `cross` is the product of the other two entries; `1 - w y^2` is written `1 - saturation` =
    `(k/s)^2`, which keeps its digits when `a` is much larger than `k^2`.
    """
    yy = -root.gain / c.tau_y
    aa = -((c.k / root.s) ** 2) / c.tau_a
    cross = 0.0 if root.silent else -c.w_r * root.s * root.saturation / c.tau_y / c.tau_a
    trace, determinant = yy + aa, yy * aa - cross
    half_difference = (yy - aa) / 2
    discriminant = half_difference * half_difference + cross
    if discriminant < 0:
        frequency = math.sqrt(-discriminant)
        pair = [complex(trace / 2, frequency), complex(trace / 2, -frequency)]
    else:
        larger = trace / 2 + math.copysign(math.sqrt(discriminant), trace)
        pair = sorted([larger, determinant / larger if larger else 0.0], reverse=True)
    return np.array(pair, complex), _kind(yy, aa, cross, discriminant)


def _kind(yy: float, aa: float, cross: float, discriminant: float) -> str:
    trace, determinant = yy + aa, yy * aa - cross
    tolerance = 1e-12
    if abs(determinant) <= tolerance * (abs(yy * aa) + abs(cross)):
        return "non-hyperbolic"
    if determinant < 0:
        return "saddle"
    if abs(trace) <= tolerance * (abs(yy) + abs(aa)):
        return "non-hyperbolic"
    return f"{'stable' if trace < 0 else 'unstable'} {'focus' if discriminant < 0 else 'node'}"


def _residual(circuit: Circuit, c: _Planar, y: float, a: float) -> float:
    """Relative residual of the circuit's own equations, in the widest type that JAX is set to."""
    wide = jnp.dtype(jax.dtypes.canonicalize_dtype(float))
    circuit = jax.tree.map(lambda leaf: leaf.astype(wide), circuit)
    vector = lambda value: jnp.full(1, value, wide)  # noqa: E731
    drive = vector(c.p) / circuit.b
    dy, da = _imbalance(circuit, State(vector(y), vector(a)), drive)
    size_y = abs(c.p) + (1 + c.w_r * (1 + math.sqrt(a))) * abs(y)
    residual = max(abs(float(dy[0])) / (size_y or 1.0), abs(float(da[0])) / (a + c.k * c.k))
    if not residual <= 1e4 * float(jnp.finfo(wide).eps):
        raise ArithmeticError(
            f"the fixed point y = {y}, a = {a} leaves a relative residual of {residual:.1e}: "
            f"the circuit's values are out of the range of {wide}."
        )
    return residual


def _y_nullclines(
    c: _Planar, grid_y: Float[np.ndarray, " points"], grid_a: Float[np.ndarray, " points"]
) -> Iterable[Curve]:
    is_vertical = c.p == 0 or (c.rectified and c.p < 0)
    if is_vertical and grid_y[0] <= c.p <= grid_y[-1]:
        yield np.column_stack([np.full_like(grid_a, c.p), grid_a])
    if c.p == 0:
        pole = ((c.w_r - 1) / c.w_r) ** 2 if c.w_r > 1 else math.inf
        active = grid_y[grid_y >= 0] if c.rectified else grid_y
        if grid_a[0] <= pole <= grid_a[-1] and len(active) > 1:
            yield np.column_stack([active, np.full_like(active, pole)])
        return
    curve = _join(_y_of_a(c, grid_a), _a_of_y(c, grid_y), by=1)
    inside = (curve[:, 0] >= grid_y[0]) & (curve[:, 0] <= grid_y[-1])
    inside &= (curve[:, 1] >= grid_a[0]) & (curve[:, 1] <= grid_a[-1])
    for sign in (1, -1):
        if not c.rectified or sign * c.p > 0:
            branch = curve[inside & (np.sign(curve[:, 0]) == sign * np.sign(c.p))]
            if len(branch) > 1:
                yield branch


def _y_of_a(c: _Planar, a: Float[np.ndarray, " points"]) -> Curve:
    gain = c.effective_gain(a)
    a, gain = a[gain != 0], gain[gain != 0]
    return np.column_stack([c.p / gain, a])


def _a_of_y(c: _Planar, y: Float[np.ndarray, " points"]) -> Curve:
    if c.w_r == 0:
        return np.empty((0, 2))
    y = y[y != 0]
    s = (c.p / y - 1 + c.w_r) / c.w_r
    return np.column_stack([y, s**2])[s >= 0]


def _a_nullclines(
    c: _Planar, grid_y: Float[np.ndarray, " points"], grid_a: Float[np.ndarray, " points"]
) -> Iterable[Curve]:
    c_squared, top = c.k * c.k, grid_a[-1]
    q = np.maximum(grid_y, 0) if c.rectified else grid_y
    rest = 1 - c.w * q**2
    y, rest = grid_y[rest > 0], rest[rest > 0]
    flat = np.column_stack([y, c_squared / rest])
    steep = np.empty((0, 2))
    if c.w > 0:
        a = grid_a[grid_a >= c_squared]
        y = np.sqrt((1 - c_squared / a) / c.w)
        steep = np.column_stack([y, a])
        if not c.rectified:
            steep = np.concatenate([np.column_stack([-y, a]), steep])
    curve = _join(flat[flat[:, 1] <= top], steep, by=0)
    curve = curve[(curve[:, 0] >= grid_y[0]) & (curve[:, 0] <= grid_y[-1])]
    if len(curve) > 1:
        yield curve


def _join(first: Curve, second: Curve, by: int) -> Curve:
    points = np.concatenate([first, second])
    return points[np.argsort(points[:, by], kind="stable")]


def _around(
    centres: Iterable[float], points: Iterable[float], below: float, above: float
) -> Limits:
    centres, points = list(centres), list(points)
    low = min([min(centres) - below, *(point - below / 6 for point in points)])
    high = max([max(centres) + above, *(point + above / 6 for point in points)])
    return low, high


def _check_window(y_limits: Limits, a_limits: Limits) -> None:
    for name, (low, high) in (("y_limits", y_limits), ("a_limits", a_limits)):
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"`{name}` must be finite and rising, not {(low, high)}.")
