"""The two-dimensional circuit: every fixed point, none spurious; the data of phase portraits."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from organics.circuit.circuit import Circuit, State
from organics.circuit.file import load_circuit
from organics.linear.jacobian import jacobian
from organics.planar import fixed_points_2d, nullclines, phase_plane, portrait

velocity = jax.jit(lambda circuit, y, a, z: circuit.velocity(State(y[None], a[None]), z[None]))
jitted_jacobian = jax.jit(jacobian)
imbalances = jax.jit(jax.vmap(Circuit.imbalance, in_axes=(None, 0, None)))


def decades(low, high):
    return st.floats(low, high).map(lambda exponent: 10.0**exponent)


@st.composite
def circuits(draw, w_r=None, signs=(1, -1), extreme=False):
    """A circuit with n = 1 and a drive; half of the time `w_r > 1` and `b0 sigma` is small."""
    wide = 2 if extreme else 1
    if w_r is None:
        w_r = st.one_of(decades(-wide, 0), decades(0, 1.5 * wide))
    circuit = Circuit(
        W=[[draw(decades(-2 * wide, wide))]],
        W_r=[[draw(w_r)]],
        b=draw(decades(-wide, wide)),
        b0=draw(decades(-wide, 0.3)),
        sigma=draw(decades(-2 * wide, 0.5)),
        tau_y=draw(decades(-1, 2)),
        tau_a=draw(decades(-1, 2)),
        rectified=draw(st.booleans()),
    )
    return circuit, draw(st.sampled_from(signs)) * draw(decades(-2 * wide, 1))


def scalars(circuit, z):
    w, w_r = float(circuit.W[0, 0]), float(circuit.W_r[0, 0])
    return w, w_r, float(circuit.b[0]) * z, float(circuit.b0[0] * circuit.sigma[0])


def expected_count(circuit, z):
    """The counting table; None at the border of the inequality, where rounding decides."""
    w, w_r, p, k = scalars(circuit, z)
    if w_r == 0:
        main = 1 if w * p * p < 1 else 0
        return main if p > 0 or not circuit.rectified else 1
    folds = w_r > 1 and k < 1 - 1 / w_r
    if p == 0:
        return (2 if circuit.rectified else 3) if folds else 1
    left, right = (w_r * k) ** (2 / 3) + (w * p * p) ** (1 / 3), abs(w_r - 1) ** (2 / 3)
    if folds and abs(left - right) < 1e-6 * right:
        return None
    return 1 if circuit.rectified and p > 0 else 3 if folds and left < right else 1


def quartic_roots(circuit, z):
    """Fixed points by the roots of the quartic in s = sqrt(a), for p != 0; pairs (y, a)."""
    w, w_r, p, k = scalars(circuit, z)
    q, c = 1 - w_r, k * k
    coefficients = [
        w_r**2,
        2 * q * w_r,
        q**2 - w * p * p - c * w_r**2,
        -2 * q * w_r * c,
        -c * q * q,
    ]
    roots = np.roots(coefficients)
    s = roots.real[(abs(roots.imag) < 1e-7 * abs(roots)) & (roots.real > 0)]
    points = [(p / (q + w_r * s), s * s) for s in s]
    if circuit.rectified:
        points = [point for point in points if point[0] > 0] + ([(p, c)] if p <= 0 else [])
    return sorted(points)


def scan(circuit, z, points=200_000):
    """Number of fixed points for p != 0, by sign changes of the imbalance of `a` along `s`."""
    w, w_r, p, k = scalars(circuit, z)
    reach = (np.sqrt(w) * abs(p) * 2 + abs(w_r - 1)) / w_r + 2 * k  # beyond it, D > sqrt(w) |p| 2
    s = np.geomspace(k * (1 + 1e-12), 2 * reach, points)
    gain = 1 - w_r + w_r * s
    imbalance = gain**2 * (1 - (k / s) ** 2) - w * p * p
    changes = np.flatnonzero(np.diff(np.sign(imbalance)))
    count = len(changes)
    if circuit.rectified:
        count = int(np.sum(p / gain[changes] > 0)) + (p <= 0)
    return count


@settings(max_examples=60)
@given(case=circuits(signs=(1, -1, 0)))
def test_count_is_that_of_the_table(case):
    circuit, z = case
    expected = expected_count(circuit, z)
    assume(expected is not None)
    assert len(fixed_points_2d(circuit, z)) == expected


@settings(max_examples=60)
@given(case=circuits())
def test_points_are_the_roots_of_the_quartic(case):
    circuit, z = case
    assume(expected_count(circuit, z) is not None)
    found = [(point.y, point.a) for point in fixed_points_2d(circuit, z)]
    expected = quartic_roots(circuit, z)
    assert len(found) == len(expected)
    # a root of a quartic is only as good as its distance from the next one
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@settings(max_examples=60)
@given(case=circuits())
def test_grid_scan_finds_no_others(case):
    circuit, z = case
    w, w_r, p, k = scalars(circuit, z)
    edge = (w_r * k) ** (2 / 3) + (w * p * p) ** (1 / 3)
    assume(abs(edge - abs(w_r - 1) ** (2 / 3)) > 1e-3 * edge)
    assert len(fixed_points_2d(circuit, z)) == scan(circuit, z)


@pytest.mark.rounding
@given(case=circuits(signs=(1, -1, 0), extreme=True))
def test_residual_is_rounding(case):
    circuit, z = case
    w, w_r, p, k = scalars(circuit, z)
    for point in fixed_points_2d(circuit, z):
        assert point.residual <= 1e-12
        # and by hand, apart from the circuit's own equations
        q = max(point.y, 0.0) if circuit.rectified else point.y
        s = np.sqrt(point.a)
        error_y = -point.y + p + (1 - s) * w_r * q
        error_a = -point.a + k * k + w * q * q * point.a
        assert abs(error_y) <= 1e-12 * (abs(p) + (1 + w_r * (1 + s)) * abs(point.y))
        assert abs(error_a) <= 1e-12 * (point.a + k * k)
        assert point.a >= k * k * (1 - 1e-13)


@pytest.mark.rounding
@given(case=circuits(signs=(1, -1, 0), extreme=True))
def test_eigenvalues_are_those_of_the_jacobian(case):
    circuit, z = case
    for point in fixed_points_2d(circuit, z):
        state = State(jnp.array([point.y]), jnp.array([point.a]))
        matrix = np.asarray(jitted_jacobian(circuit, state))
        trace, determinant = point.eigenvalues.sum(), point.eigenvalues.prod()
        # the entries of `matrix` are differences of terms of these sizes
        size_y = (1 + float(circuit.W_r[0, 0]) * (1 + np.sqrt(point.a))) / float(circuit.tau_y[0])
        size_a = 2 / float(circuit.tau_a[0])
        assert abs(trace - np.trace(matrix)) <= 1e-12 * (size_y + size_a)
        products = size_y * size_a + abs(matrix[0, 1] * matrix[1, 0])
        assert abs(determinant - np.linalg.det(matrix)) <= 1e-12 * products
        first, second = point.eigenvalues
        assert (first.real, first.imag) >= (second.real, second.imag)


@given(case=circuits(signs=(1, -1, 0), extreme=True))
def test_kind_says_what_the_eigenvalues_say(case):
    for point in fixed_points_2d(*case):
        assume(point.kind not in ("non-hyperbolic", "half-stable"))
        real, imaginary = point.eigenvalues.real, point.eigenvalues.imag
        assert point.stable == bool(real[0] < 0)
        if point.kind == "saddle":
            assert real[0] > 0 > real[1]
        else:
            sign, shape = point.kind.split()
            assert (sign == "stable") == point.stable
            assert (shape == "focus") == bool(imaginary[0] > 0)
            assert real[0] * real[1] > 0


@settings(max_examples=60)
@given(case=circuits(extreme=True))
def test_point_of_positive_gain_is_always_stable(case):
    circuit, z = case
    with_drive = [point for point in fixed_points_2d(circuit, z) if point.y * z > 0]
    assert len(with_drive) == 1
    assert with_drive[0].stable


@settings(suppress_health_check=[HealthCheck.filter_too_much])  # one in ten may have such points
@given(case=circuits(w_r=decades(0, 2)))
def test_points_of_negative_gain(case):
    circuit, z = case
    against = sorted(
        (point for point in fixed_points_2d(circuit, z) if point.y * z < 0), key=lambda p: p.a
    )
    assume(len(against) == 2 and circuit.W_r is not None)
    saddle, other = against
    assert saddle.kind == "saddle"
    w, w_r, p, k = scalars(circuit, z)
    pull = abs(p / other.y) / float(circuit.tau_y[0])
    leak = k * k / other.a / float(circuit.tau_a[0])
    assert other.kind != "saddle" and other.stable == (pull < leak)


@given(case=circuits(w_r=decades(0, 2), signs=(0,)))
def test_without_drive(case):
    circuit, z = case
    w, w_r, _, k = scalars(circuit, z)
    assume(abs(1 - w_r + w_r * k) > 1e-9 * w_r)
    points = fixed_points_2d(circuit, z)
    silent = next(point for point in points if point.y == 0)
    others = [point for point in points if point.y != 0]
    folds = k < 1 - 1 / w_r
    assert silent.a == pytest.approx(k * k)
    assert silent.stable == (not folds)
    assert len(others) == (0 if not folds else 1 if circuit.rectified else 2)
    assert all(point.stable for point in others)
    if not circuit.rectified:
        decay = np.array([-(1 - w_r + w_r * k) / circuit.tau_y[0], -1 / circuit.tau_a[0]])
        np.testing.assert_allclose(silent.eigenvalues, np.sort(decay)[::-1], rtol=1e-9)


@given(case=circuits(signs=(-1,)))
def test_rectified_with_negative_drive(case):
    circuit, z = case
    assume(circuit.rectified)
    _, _, p, k = scalars(circuit, z)
    silent = fixed_points_2d(circuit, z)[0]
    assert (silent.y, silent.a) == pytest.approx((p, k * k))
    assert silent.kind == "stable node"
    taus = sorted([float(circuit.tau_y[0]), float(circuit.tau_a[0])])
    assert silent.eigenvalues.real.tolist() == pytest.approx([-1 / taus[1], -1 / taus[0]])


@given(case=circuits(signs=(1, -1, 0)))
def test_main_model_is_odd(case):
    circuit, z = case
    assume(not circuit.rectified)
    points, mirrored = fixed_points_2d(circuit, z), fixed_points_2d(circuit, -z)[::-1]
    assert [p.kind for p in mirrored] == [p.kind for p in points]
    found = [(-p.y, p.a) for p in mirrored]
    np.testing.assert_allclose(found, [(p.y, p.a) for p in points], rtol=1e-12)


def figure_1(w_r, b0, sigma, rectified=False, **changes):
    return Circuit([[1.0]], [[w_r]], b0=b0, sigma=sigma, rectified=rectified, **changes)


FIGURE_1 = [
    (0.5, 0.5, 0.1, 0.897971, 0.012910, -0.187615 + 0.056652j),
    (2.0, 0.5, 0.1, 0.997779, 0.563335, -0.126388 + 0.598494j),
    (2.0, 1.0, 1.0, 0.416648, 1.210061, -0.506615 + 0.294540j),
]


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize(("w_r", "b0", "sigma", "y", "a", "eigenvalue"), FIGURE_1)
def test_figure_1(w_r, b0, sigma, y, a, eigenvalue, rectified):
    points = fixed_points_2d(figure_1(w_r, b0, sigma, rectified), 1.0)
    assert len(points) == (3 if (w_r, b0, rectified) == (2.0, 0.5, False) else 1)
    assert points[-1].kind == "stable focus"
    found = [points[-1].y, points[-1].a, *points[-1].eigenvalues]
    np.testing.assert_allclose(found, [y, a, eigenvalue, eigenvalue.conjugate()], atol=6e-7)


def test_figure_1b_other_points():
    focus, saddle, _ = fixed_points_2d(figure_1(2.0, 0.5, 0.1), 1.0)
    assert (focus.kind, saddle.kind) == ("unstable focus", "saddle")
    np.testing.assert_allclose(
        [focus.y, focus.a, focus.eigenvalues[0]],
        [-0.978886, 0.059833, 0.117250 + 0.313226j],
        atol=6e-7,
    )
    np.testing.assert_allclose(
        [saddle.y, saddle.a, *saddle.eigenvalues],
        [-0.569235, 0.003698, 0.426294, -0.325094],
        atol=6e-7,
    )


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize(
    ("tau_a", "tau_y", "eigenvalue"),
    [
        (2.0, 2.0, -0.128099 + 0.330476j),
        (10.0, 2.0, -0.126118 + 0.096015j),
        (2.0, 10.0, -0.027600 + 0.156086j),
    ],
)
def test_figure_3(tau_a, tau_y, eigenvalue, rectified):
    circuit = Circuit([[1.0]], tau_a=tau_a, tau_y=tau_y, rectified=rectified)
    (point,) = fixed_points_2d(circuit, 1.0)
    assert point.y == pytest.approx(0.995037, abs=6e-7)
    assert point.a == pytest.approx(0.2525, rel=1e-12)
    np.testing.assert_allclose(point.eigenvalues[0], eigenvalue, atol=6e-7)


@pytest.mark.parametrize("name", ["1a", "1b", "1c", "1d", "1e", "1f", "3a", "3b", "3c"])
def test_examples_are_the_figures(name, pytestconfig):
    circuit, drives = load_circuit(pytestconfig.rootpath / f"examples/figure{name}.json")
    points = fixed_points_2d(circuit, drives[0])
    assert len(points) == (3 if name == "1b" else 1)
    assert points[-1].kind == "stable focus"


def test_bistability():
    # theory of the planar model: the outer point against the drive is stable for slow `y`
    circuit = figure_1(2.0, 0.5, 0.1, tau_y=100.0, tau_a=2.0)
    kinds = [point.kind for point in fixed_points_2d(circuit, 1.0)]
    assert Counter(kind.split()[0] for kind in kinds) == {"stable": 2, "saddle": 1}


@pytest.mark.rounding
@pytest.mark.parametrize("rectified", [False, True])
def test_tangent_fixed_points_are_one(rectified):
    # (w_r k)^(2/3) + |p|^(2/3) = (w_r - 1)^(2/3) with w_r = 9, w_r k = 1, |p| = 3^(3/2)
    circuit = Circuit([[1.0]], [[9.0]], b=1.0, b0=1.0, sigma=1 / 9, rectified=rectified)
    points = fixed_points_2d(circuit, -(3**1.5))
    assert [point.kind for point in points if point.y > 0] == ["non-hyperbolic"]
    assert len(points) == 2 and not points[1].stable
    near = [fixed_points_2d(circuit, -(3**1.5) * (1 + change)) for change in (-1e-9, 1e-9)]
    assert [len(points) for points in near] == [3, 1]


def test_pitchfork():
    circuit = Circuit([[1.0]], [[2.0]], b0=0.5, sigma=1.0)
    (point,) = fixed_points_2d(circuit, 0.0)
    assert (point.kind, point.stable, point.eigenvalues[0]) == ("non-hyperbolic", False, 0)
    rectified = Circuit([[1.0]], [[2.0]], b0=0.5, sigma=1.0, rectified=True)
    (point,) = fixed_points_2d(rectified, 0.0)
    assert (point.kind, point.stable) == ("half-stable", False)


def test_without_recurrence():
    for rectified in (False, True):
        circuit = Circuit([[4.0]], [[0.0]], b=0.5, b0=0.5, sigma=0.1, rectified=rectified)
        (point,) = fixed_points_2d(circuit, 0.5)
        assert (point.y, point.a) == pytest.approx((0.25, 0.0025 / 0.75))
        assert point.stable
        assert fixed_points_2d(circuit, 1.0) == []
        assert len(fixed_points_2d(circuit, -1.0)) == (1 if rectified else 0)


def test_without_normalization():
    circuit = Circuit([[0.0]], [[2.0]], b0=0.5, sigma=0.1)  # effective gain -0.9
    (point,) = fixed_points_2d(circuit, 1.0)
    assert (point.y, point.a) == pytest.approx((-0.5 / 0.9, 0.0025))
    assert point.kind == "saddle"
    rectified = Circuit([[0.0]], [[2.0]], b0=0.5, sigma=0.1, rectified=True)
    assert fixed_points_2d(rectified, 1.0) == []
    assert [point.kind for point in fixed_points_2d(rectified, -1.0)] == ["stable node", "saddle"]
    without_gain = Circuit([[0.0]], [[2.0]], b0=0.5, sigma=1.0)
    assert fixed_points_2d(without_gain, 1.0) == []
    with pytest.raises(ValueError, match="every `y` is a fixed point"):
        fixed_points_2d(without_gain, 0.0)


@pytest.mark.rounding
@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("w_r", "k", "p", "w"),
    [
        (1e3, 1e-6, 1e-6, 1.0),
        (1e3, 1e-6, 1e3, 1.0),
        (2.0, 1e-6, 1e-6, 1e-6),
        (1e-3, 1e-6, 1e3, 1e3),
        (1e-12, 1.0, 2.0, 1.0),
        (1 + 1e-9, 1e-12, 1e-6, 1.0),
        (1.0, 1e-6, 1e-6, 1e6),
        (2.0, 1e-30, 1e-20, 1.0),
        (2.0, 1e-100, 10.0, 1e-60),
    ],
)
def test_extreme_parameters(w_r, k, p, w, sign, rectified):
    circuit = Circuit([[w]], [[w_r]], b=1.0, b0=1.0, sigma=k, rectified=rectified)
    points = fixed_points_2d(circuit, sign * p)
    assert len(points) == expected_count(circuit, sign * p)
    assert all(point.residual <= 1e-12 for point in points)


def test_out_of_range():
    circuit = Circuit([[1.0]], [[1e-200]], b=1.0, b0=1.0, sigma=1.0)
    with pytest.raises(ArithmeticError, match="range of floating point"):
        fixed_points_2d(circuit, 10.0)
    for sigma in (1e-100, 1e-60):  # of the latter, the square is there, with a few digits
        vanishing = Circuit([[1.0]], b0=1e-100, sigma=sigma)
        with pytest.raises(ArithmeticError, match=f"`b0 sigma` = {1e-100 * sigma}"):
            fixed_points_2d(vanishing, 0.0)
    flat = Circuit([[1.0]], [[1e-100]], b=1e-100, b0=1.0, sigma=1.0)
    with pytest.raises(ArithmeticError, match="range of floating point"):
        fixed_points_2d(flat, 1e-50)
    faint = Circuit([[1e-100]], [[2.0]], sigma=0.1)  # sqrt(W) z is 0 in floating point
    with pytest.raises(ArithmeticError, match=r"sqrt\(W\) \|b z\| = 0 is out of the range"):
        fixed_points_2d(faint, 1e-300)


@pytest.mark.parametrize("drive", [0.7, [0.7], np.array(0.7), jnp.array([0.7], jnp.float32)])
def test_float32_circuits_and_forms_of_the_drive(drive):
    narrow = Circuit(np.ones((1, 1), np.float32), 1.5 * np.ones((1, 1), np.float32))
    wide = jax.tree.map(lambda leaf: leaf.astype(float), narrow)
    for one, other in zip(fixed_points_2d(narrow, drive), fixed_points_2d(wide, 0.7), strict=True):
        assert isinstance(one.y, float) and one.residual < 1e-12
        assert (one.y, one.a) == pytest.approx((other.y, other.a), rel=1e-7)
    with jax.enable_x64(False):
        assert [p.kind for p in fixed_points_2d(narrow, 0.7)] == [
            p.kind for p in fixed_points_2d(wide, 0.7)
        ]


def test_refusals():
    with pytest.raises(ValueError, match="`circuit` must have one principal neuron"):
        fixed_points_2d(Circuit(np.eye(2)), 1.0)
    with pytest.raises(ValueError, match="must have `W_r` >= 0 to be drawn in a plane, not -0.5"):
        fixed_points_2d(Circuit([[1.0]], [[-0.5]]), 1.0)
    for z in (np.nan, [1.0, 2.0], []):
        with pytest.raises(ValueError, match="`z` must be one finite number"):
            fixed_points_2d(Circuit([[1.0]]), z)
    for limits in ((1.0, 1.0), (0.0, np.inf), (2.0, -2.0)):
        with pytest.raises(ValueError, match="`y_limits` must be finite and rising"):
            nullclines(Circuit([[1.0]]), 1.0, limits, (0.0, 1.0))
        with pytest.raises(ValueError, match="`a_limits` must be finite and rising"):
            phase_plane(Circuit([[1.0]]), 1.0, (0.0, 1.0), limits)
    for curves in (nullclines, phase_plane):
        with pytest.raises(ValueError, match="`points` must be at least 2"):
            curves(Circuit([[1.0]]), 1.0, *WINDOW, points=1)


WINDOW = (-3.0, 3.0), (-1.0, 4.0)


@given(case=circuits(w_r=st.one_of(st.just(0.0), decades(-1, 1)), signs=(1, -1, 0)))
def test_velocity_vanishes_on_nullclines(case):
    circuit, z = case
    curves = nullclines(circuit, z, *WINDOW, points=60)
    w, w_r, p, _ = scalars(circuit, z)
    for component, group in enumerate(curves):
        for curve in group:
            assert np.all((curve[:, 0] >= -3) & (curve[:, 0] <= 3) & (curve[:, 1] <= 4 + 1e-9))
            y, a = np.resize(curve, (240, 2)).T  # rows repeat: one shape, compiled once
            state = State(jnp.asarray(y[:, None]), jnp.asarray(a[:, None]))
            error = np.abs(imbalances(circuit, state, jnp.full(1, z))[component])[:, 0]
            size_y = abs(p) + (1 + w_r * (1 + np.sqrt(np.maximum(a, 0)))) * abs(y)
            assert np.all(error <= 1e-9 * (size_y if component == 0 else 1 + abs(a)))


@given(case=circuits(w_r=st.one_of(st.just(0.0), decades(-1, 1)), signs=(1, -1)))
def test_nullclines_cross_at_the_fixed_points(case):
    circuit, z = case
    inside = [
        point for point in fixed_points_2d(circuit, z) if abs(point.y) < 3 and 1e-3 < point.a < 4
    ]
    curves = nullclines(circuit, z, *WINDOW, points=2000)
    for point in inside:
        for group in curves:
            distance = min(distance_to(curve, point) for curve in group)
            assert distance < 2e-2


def distance_to(curve, point):
    """Distance of a fixed point from a polyline."""
    start, along = curve[:-1], np.diff(curve, axis=0)
    offset = np.array([point.y, point.a]) - start
    length = np.maximum(np.sum(along**2, axis=1), 1e-300)
    share = np.clip(np.sum(offset * along, axis=1) / length, 0, 1)
    return np.min(np.hypot(*(offset - share[:, None] * along).T))


@given(case=circuits(w_r=decades(-1, 1), signs=(1, -1, 0)))
def test_nullclines_do_not_jump(case):
    circuit, z = case
    curves = nullclines(circuit, z, *WINDOW, points=400)
    for curve in (*curves.y, *curves.a):
        jumps = np.abs(np.diff(curve, axis=0))
        # a step of the grid in at least one direction, and no pole bridged in the other
        assert np.all(np.min(jumps / [6 / 399, 5 / 399], axis=1) <= 1 + 1e-6)
        assert np.all(np.max(jumps, axis=1) < 1)


def test_nullclines_split_at_the_pole():
    curves = nullclines(figure_1(2.0, 0.5, 0.1), 1.0, *WINDOW)
    assert len(curves.y) == 2 and len(curves.a) == 1
    (positive, negative) = curves.y
    assert np.all(positive[:, 0] > 0) and np.all(negative[:, 0] < 0)
    # both reach the window's edge on their side of the pole at a = s*^2 = 0.25
    assert positive[0, 0] == 3 and negative[-1, 0] == -3
    assert negative[-1, 1] < 0.25 < positive[0, 1]
    rectified = nullclines(figure_1(2.0, 0.5, 0.1, True), 1.0, *WINDOW)
    assert len(rectified.y) == 1 and np.all(rectified.y[0][:, 0] > 0)


def test_nullclines_without_drive():
    curves = nullclines(figure_1(2.0, 0.5, 0.1), 0.0, *WINDOW)
    vertical, horizontal = curves.y
    assert np.all(vertical[:, 0] == 0)
    np.testing.assert_allclose(horizontal[:, 1], 0.25)


def test_nullclines_outside_the_window_are_left_out():
    curves = nullclines(figure_1(2.0, 1.0, 1.0), 1.0, (-9.0, -8.0), (-2.0, -1.0))
    assert curves.y == () and curves.a == ()


def test_phase_plane_is_the_velocity():
    circuit = figure_1(2.0, 0.5, 0.1, tau_y=3.0, tau_a=5.0)
    plane = phase_plane(circuit, 1.0, (-2.0, 3.0), (-1.0, 4.0), points=7)
    assert plane.dy.shape == plane.da.shape == (7, 7)
    for i, j in [(0, 0), (2, 5), (6, 1)]:
        y, a = jnp.array(plane.y[j]), jnp.array(plane.a[i])
        dy, da = velocity(circuit, y, a, jnp.array(1.0))
        assert (plane.dy[i, j], plane.da[i, j]) == pytest.approx((float(dy[0]), float(da[0])))


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("z", [1.0, 0.0, -1.0])
def test_portrait_shows_every_fixed_point(rectified, z):
    circuit = figure_1(2.0, 0.5, 0.1, rectified)
    plane, curves, points = portrait(circuit, z)
    assert curves.y and curves.a
    for point in points:
        assert plane.y[0] < point.y < plane.y[-1] and plane.a[0] < point.a < plane.a[-1]
    custom = portrait(circuit, z, (-1.0, 1.0), (0.0, 1.0)).plane
    assert (custom.y[0], custom.y[-1], custom.a[0], custom.a[-1]) == (-1, 1, 0, 1)


def test_portrait_window():
    plane = portrait(figure_1(0.5, 0.5, 0.1), 1.0).plane
    y, a = 0.897971, 0.012910
    found = [plane.y[0], plane.y[-1], plane.a[0], plane.a[-1]]
    np.testing.assert_allclose(found, [y - 3, y + 3, a - 3, a + 5], atol=1e-5)


def test_portrait_without_fixed_points():
    runaway = Circuit([[4.0]], [[0.0]], b=0.5, b0=0.5, sigma=0.1)
    shown = portrait(runaway, 2.0)
    assert shown.fixed_points == [] and len(shown.nullclines.y) == 1
