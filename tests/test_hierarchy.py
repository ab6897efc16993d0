"""Areas with feedback: equations, steady states, stability, certificates, spectra."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from organics.circuit.circuit import Circuit, State
from organics.circuit.hierarchy import Hierarchy, joined, split
from organics.linear.jacobian import imbalance_blocks, jacobian
from organics.linear_stability.certificate import certify
from organics.linear_stability.spectrum import stability
from organics.rest.hierarchy import area_points
from organics.rest.search import given_state, steady_state
from organics.simulation.noise import Noise
from organics.spectra import cross_spectrum

SIZES = (3, 2, 4)
N = 36  # neurons of an area of the ring


def areas(seed, form, *, recurrence=None, rectified=(False, False, False)):
    """Three areas of different sizes, and a drive >= 0."""
    rng = np.random.default_rng(seed)
    circuits = []
    for n, silent in zip(SIZES, rectified, strict=True):
        W_r = None
        if recurrence is not None:
            W_r = 0.5 * np.eye(n) + rng.uniform(size=(n, n))
            W_r *= recurrence / np.linalg.norm(W_r, 2)
        W, b, sigma = rng.uniform(0.1, 1, (n, n)), rng.uniform(0.3, 1, n), rng.uniform(0.2, 1, n)
        taus = rng.uniform(1, 10, (2, n))
        circuits.append(Circuit(W, W_r, b, 0.5, sigma, *taus, rectified=silent))
    up = [rng.uniform(0.1, 1, (m, n)) for n, m in zip(SIZES[:-1], SIZES[1:], strict=True)]
    back = [rng.uniform(0, 0.5, (n, m)) for n, m in zip(SIZES[:-1], SIZES[1:], strict=True)]
    gamma = rng.uniform(0.3, 1.2, 2) if form == "balanced" else rng.uniform(0, 0.1, 2)
    h = Hierarchy(circuits, up, back, gamma, rng.uniform(0.3, 1, 2), form)
    return h, rng.uniform(0, 1, SIZES[0])


def stacked(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def as_numpy(h, k):
    area = h.areas[k]
    return (np.asarray(x) for x in (area.W, area.b, area.c))


@pytest.mark.parametrize("form", ["balanced", "additive"])
def test_the_jacobian_is_that_of_automatic_differentiation(form):
    rectified = (True, False, True)
    many, drives = zip(
        *(areas(seed, form, recurrence=0.9, rectified=rectified) for seed in range(20)), strict=True
    )
    rng = np.random.default_rng(5)
    x = rng.normal(size=(20, 2 * sum(SIZES)))  # some potentials negative
    for n, start in zip(SIZES, (0, 6, 10), strict=True):
        x[:, start + n : start + 2 * n] = rng.uniform(0.1, 1.5, (20, n))

    @jax.jit
    @jax.vmap
    def both(h, z, x):
        velocity = lambda x: joined(h.velocity(split(h, x), z))  # noqa: E731
        return jacobian(h, split(h, x)), jax.jacfwd(velocity)(x)

    analytic, automatic = both(stacked(many), np.stack(drives), x)
    np.testing.assert_allclose(analytic, automatic, rtol=0, atol=1e-9 * np.max(np.abs(automatic)))


@pytest.fixture(scope="module")
def additive():
    """Ten additive hierarchies with identity recurrence, without feedback and with, at rest."""
    many, drives = zip(*(areas(seed, "additive") for seed in range(10)), strict=True)
    without = [eqx.tree_at(lambda h: h.gamma, h, np.zeros(2)) for h in many]

    @jax.jit
    @jax.vmap
    def at_rest(h, z):
        point = steady_state(h, z)
        return stability(point), jacobian(point.system, point.state)

    both = stacked([*without, *many]), np.stack([*drives, *drives])
    return (*both, *jax.device_get(at_rest(*both)))


def test_a_cascade_is_normalization_and_its_spectrum_that_of_its_areas(additive):
    h, z, linear, J = additive
    point = linear.point
    assert np.all(point.converged) and np.all(point.residual[:10] < 1e-12)
    assert np.all(point.found.method[:10] == 0) and np.all(linear.stable)
    for i in range(10):
        drive, spectra = z[i], []
        for k, start in enumerate((0, 6, 10)):
            W, b, c = (np.asarray(x)[i] for x in (h.areas[k].W, h.areas[k].b, h.areas[k].c))
            a = c + W @ (b * drive) ** 2
            np.testing.assert_allclose(point.state[k].a[i], a, rtol=1e-12)
            np.testing.assert_allclose(point.state[k].y[i], b * drive / np.sqrt(a), rtol=1e-12)
            own = slice(start, start + 2 * SIZES[k])
            spectra.append(np.linalg.eigvals(J[i][own, own]))
            if k < 2:
                drive = np.asarray(h.feedforward[k])[i] @ point.state[k].y[i] ** 2
        areas_own = np.concatenate(spectra)
        far = np.abs(linear.eigenvalues[i][:, None] - areas_own[None])
        assert far.min(axis=1).max() < 1e-10 and far.min(axis=0).max() < 1e-10


def test_additive_feedback_normalizes_the_total_drive(additive):
    h, z, linear, _ = additive
    for i in range(10, 20):
        h_i = jax.tree.map(lambda leaf, i=i: leaf[i], h)
        states = jax.tree.map(lambda leaf, i=i: leaf[i], linear.point.state)
        drive = z[i]
        for k, (y, a) in enumerate(states):
            W, b, c = as_numpy(h_i, k)
            e = b * drive
            if k < 2:
                f = h_i.g[k] * h_i.feedback[k] @ states[k + 1].y
                e = e + (1 - np.sqrt(a)) * h_i.gamma[k] * f
                drive = h_i.feedforward[k] @ y**2
            np.testing.assert_allclose(a, c + W @ e**2, rtol=0, atol=1e-12)
            np.testing.assert_allclose(y, e / np.sqrt(a), rtol=0, atol=1e-12)


def test_a_balanced_state_is_that_of_the_published_circuit_and_can_be_differentiated():
    """With the gate `p` and the tracker `t = y` of the published circuit; any `W_r`."""
    many, drives = zip(
        *(areas(seed, "balanced", recurrence=0.8) for seed in range(10)), strict=True
    )
    many, drives = stacked(many), np.stack(drives)

    @jax.jit
    @jax.vmap
    def at_rest(h, z):
        def of(gamma):
            found = steady_state(eqx.tree_at(lambda h: h.gamma, h, gamma), z).found
            return joined(found.state), found

        return jax.jvp(of, (h.gamma,), (jnp.ones(2),))

    (x, found), (slope, _) = jax.device_get(at_rest(many, drives))
    assert np.all(found.converged)
    moved = eqx.tree_at(lambda h: h.gamma, many, many.gamma + 1e-5)
    (ahead, _), _ = jax.device_get(at_rest(moved, drives))
    np.testing.assert_allclose((ahead - x) / 1e-5, slope, rtol=0, atol=1e-4 * np.abs(slope).max())
    worst = 0.0
    for i in range(10):
        h = jax.tree.map(lambda leaf, i=i: leaf[i], many)
        states, drive = split(h, x[i]), drives[i]
        for k in range(2):
            y, a = (np.asarray(part) for part in states[k])
            W_r, (_, b, _) = np.asarray(h.areas[k].W_r), as_numpy(h, k)
            f, s = h.g[k] * h.feedback[k] @ np.asarray(states[k + 1].y), np.sqrt(a)
            p = (f / y + s) / (1 - s)
            dy = -y + b * drive + (W_r @ y + h.gamma[k] * f) / (1 + p)
            worst = max(worst, np.abs(dy).max(), np.abs(-p + f / y + s + p * s).max())
            drive = h.feedforward[k] @ y**2
    assert worst < 1e-9


def ring(gamma, g=1.0):
    """The reference ring."""
    distance = np.minimum(np.arange(N), N - np.arange(N))
    kernel = np.exp(-0.5 * (distance / 2) ** 2)
    G = np.stack([np.roll(kernel / kernel.sum(), i) for i in range(N)])
    area = Circuit(np.ones((N, N)))
    return Hierarchy([area, area], [G], [G], gamma, g)


def ring_drive(contrast):
    v = np.abs(np.cos((2 * np.pi * np.arange(N) / N - np.pi) / 2)) ** 17
    return 0.7 * contrast * v / np.linalg.norm(v)


# contrast, gamma, max y_1, a_1, max y_2, a_2, abscissa, peak and peak of coherence in Hz
TABLE = [
    (0.03, 0.5, 0.037377, 0.0025150, 0.009080, 0.0025010, -0.025005, 7.75, 8.50),
    (0.03, 1.0, 0.092938, 0.0026103, 0.059884, 0.0025452, -0.025225, 10.25, 0.25),
    (0.10, 0.5, 0.082353, 0.0025749, 0.043909, 0.0025227, -0.025113, 12.25, 10.25),
    (0.10, 1.0, 0.259328, 0.0037250, 0.325032, 0.0052373, -0.030516, 17.00, 0.25),
    (0.50, 0.5, 0.268681, 0.0036984, 0.331997, 0.0052578, -0.036255, 29.00, 19.75),
    (0.50, 1.0, 0.434815, 0.0331250, 0.425671, 0.0241340, -0.064369, 34.50, 33.75),
    (1.00, 0.5, 0.445990, 0.0302573, 0.431802, 0.0243760, -0.070352, 39.75, 41.75),
    (1.00, 1.0, 0.447670, 0.1250000, 0.428117, 0.0268080, -0.064247, 50.75, 46.75),
]
HERTZ = np.unique(
    np.concatenate(
        [np.arange(0.25, 100, 7), *(p + np.arange(-2, 3) / 4 for row in TABLE for p in row[-2:])]
    )
)
HERTZ = np.append(HERTZ[HERTZ > 0], [50e3, 100e3])


@jax.jit
@partial(jax.vmap, in_axes=(None, 0, 0, 0, 0))
def on_the_ring(base, gamma, g, z, noise):
    """States, abscissa and cross-spectrum of the preferred `y_1`, `y_2` at `HERTZ`."""
    h = eqx.tree_at(lambda h: (h.gamma, h.g), base, (gamma, g))
    point = steady_state(h, z)
    linear = stability(point)
    pair = jnp.asarray([N // 2, 2 * N + N // 2])
    S = cross_spectrum(point, HERTZ / 1000, noise)[:, pair][:, :, pair]
    blocks = imbalance_blocks(point.system, point.state)
    return point.found, linear.spectral_abscissa, linear.stable, S, blocks.from_above[0]


@pytest.fixture(scope="module")
def of_the_ring():
    """The rows of the table; nearly no contrast; `gamma = 1` with other `g`; and noise of `y` or of
    `a` alone."""
    rows = [(row[0], row[1], 1.0, 1.0, 1.0) for row in TABLE]
    rows += [(1e-9, 1.0, 1.0, 1.0, 1.0)]
    rows += [(0.5, 1.0, g, y, a) for g, y, a in ((0.3, 1.0, 0.0), (5.0, 0.0, 1.0))]
    contrast, gamma, g, *levels = np.array(rows).T
    drives = np.stack([ring_drive(c) for c in contrast])
    noise = Noise(*levels)
    return jax.device_get(on_the_ring(ring(1.0), gamma[:, None], g[:, None], drives, noise))


def test_the_reference_ring(of_the_ring):
    found, abscissa, stable, S, _ = of_the_ring
    assert np.all(found.converged) and np.all(stable)
    power = S[:, :-2, 0, 0].real
    for i, (_, _, y1, a1, y2, a2, rate, peak, together) in enumerate(TABLE):
        (below, above), hertz = found.state, HERTZ[:-2]
        have = [below.y[i].max(), below.a[i, 0], above.y[i].max(), above.a[i, 0], abscissa[i]]
        np.testing.assert_allclose(have, [y1, a1, y2, a2, rate], rtol=0, atol=1e-6)
        assert abs(hertz[np.argmax(power[i] / power[8])] - peak) <= 0.25
        S_i = S[i, :-2]
        coherence = np.abs(S_i[:, 0, 1]) ** 2 / (S_i[:, 0, 0] * S_i[:, 1, 1]).real
        assert abs(hertz[np.argmax(coherence)] - together) <= 0.25


def test_feedback_is_inert_at_gamma_1_whatever_its_gain(of_the_ring):
    found, abscissa, _, _, above = of_the_ring
    for i in (9, 10):
        for state in found.state:
            for values in state:
                np.testing.assert_array_equal(values[i], values[5])
        np.testing.assert_allclose(abscissa[i], abscissa[5], rtol=1e-9)
        assert np.all(above[i] == 0)


def test_the_tails_of_the_spectra(of_the_ring):
    *_, S, _ = of_the_ring
    tails = np.log2(S[:, -1, 0, 0].real / S[:, -2, 0, 0].real)
    np.testing.assert_allclose(tails[[5, 9, 10]], [-2, -2, -4], rtol=0, atol=1e-3)


def test_a_silent_neuron_is_activated_where_the_recurrent_gain_is_1():
    """At `gamma = 1/(1 - s_1)` its eigenvalue crosses 0; its row of the Jacobian is its own."""
    h, z = ring(1.0), ring_drive(0.5)
    z[0] = 0
    (y, a), above = steady_state(h, z).state
    critical = 1 / (1 - np.sqrt(a[0]))
    assert abs(critical - 1.4899) < 1e-3
    for gamma, sign in ((critical - 1e-6, -1), (critical + 1e-6, 1)):
        changed = eqx.tree_at(lambda h: h.gamma, h, jnp.full(1, gamma))
        row = np.asarray(jacobian(changed, (State(y.at[0].set(0.0), a), above)))[0]
        assert np.all(row[1:] == 0) and np.sign(row[0]) == sign


def pair(gamma, g, sigma, tau_a):
    """Two areas of one neuron with `W = feedforward = 1`."""
    one = np.ones((1, 1))
    areas = [Circuit(one, b=b, sigma=sigma, tau_a=tau_a) for b in (1.0, 0.5)]
    return Hierarchy(areas, [one], [one], gamma, g)


def curve(s, d, g, sigma):
    """`gamma` and the state of `pair` as functions of `s_1`."""
    c = (0.5 * sigma) ** 2
    y1 = np.sqrt(1 - c / s**2)
    d2 = 0.5 * y1**2
    a2 = c + d2**2
    f = g * d2 / np.sqrt(a2)
    gamma = ((y1 - d) * (y1 + f) / ((1 - s) * y1) - y1) / f
    states = State(y1[None], s[None] ** 2), State((d2 / np.sqrt(a2))[None], a2[None])
    return gamma, states


def at_rest(s, d, g, sigma, tau_a):
    gamma, states = curve(np.asarray(s), d, g, sigma)
    h = pair(gamma, g, sigma, tau_a)
    return gamma, given_state(h, np.array([d]), states)


def test_two_neurons_oscillate_from_a_hopf_point_on_and_the_small_gain_says_so_in_time():
    d, g, sigma, tau_a = 0.02, 0.3, 0.05, 10.0
    abscissa = lambda s: float(stability(at_rest(s, d, g, sigma, tau_a)[1]).spectral_abscissa)  # noqa: E731
    s = brentq(abscissa, 0.1, 0.13, xtol=1e-12)
    gamma, point = at_rest(s, d, g, sigma, tau_a)
    assert point.converged and abs(gamma - 1.437846) < 1e-5
    np.testing.assert_allclose(
        joined(point.state), [0.974738, 0.012529, 0.998618, 0.226304], rtol=0, atol=1e-5
    )
    leading = stability(point).eigenvalues[0]
    assert abs(leading.imag - 0.094170) < 1e-5 and abs(leading.real) < 1e-9
    kinds = []
    for wanted in (1.4, 1.42):
        s = brentq(lambda s, w=wanted: float(curve(np.asarray(s), d, g, sigma)[0]) - w, 0.05, 0.13)
        certificate = certify(at_rest(s, d, g, sigma, tau_a)[1])
        assert certificate.holds
        kinds.append(certificate.kind)
    assert kinds == ["small gain", "spectral"]


def test_two_neurons_with_feedback_are_bistable_between_two_folds():
    d, g, sigma = 5e-4, 1.0, 0.1
    s = np.sqrt(0.05**2 + d**2) + np.geomspace(1e-9, 0.4, 100_000)
    gamma = curve(s[None], d, g, sigma)[0][0]
    turns = np.flatnonzero(np.diff(np.sign(np.diff(gamma)))) + 1
    np.testing.assert_allclose(gamma[turns], [1.159286, 1.076991], rtol=0, atol=1e-5)
    np.testing.assert_allclose(s[turns], [0.05001, 0.05178], rtol=0, atol=1e-5)
    middle = gamma[turns].mean()
    crossings = np.flatnonzero(np.diff(np.sign(gamma - middle)))
    stable = [bool(stability(at_rest(s[i], d, g, sigma, 2.0)[1]).stable) for i in crossings]
    assert stable == [True, False, True]


def test_the_determinant_splits_into_the_areas_and_the_loop():
    h, z = ring(1.2), ring_drive(0.5)
    states = steady_state(h, z).state
    J, n = np.asarray(jacobian(h, states)), 2 * N
    for at in (0.1 + 0.3j, -0.05 + 1j, 0.7):
        blocks = J[:n, :n], J[n:, n:]
        one, two = (np.linalg.inv(at * np.eye(n) - block)[:N, :N] for block in blocks)
        L = one @ J[:N, n : n + N] @ two @ J[n : n + N, :N]
        parts = [np.linalg.slogdet(at * np.eye(n) - block)[1] for block in blocks]
        parts.append(np.linalg.slogdet(np.eye(N) - L)[1])
        assert abs(np.linalg.slogdet(at * np.eye(2 * n) - J)[1] - sum(parts)) < 1e-8
    certificate = certify(given_state(h, z, states))
    assert certificate.kind == "small gain" and certificate.holds


def test_without_feedback_the_certificate_is_that_of_each_area():
    h, z = ring(1.0), ring_drive(0.5)
    point = steady_state(h, z)
    certificate = certify(point)
    assert certificate.kind == "area by area" and certificate.holds
    assert len(certificate.T) == 2 and 0 < certificate.margin <= 1
    assert [one.system.n for one in area_points(point)] == [N, N]


def bad(**changes):
    def build():
        circuit, one = Circuit(np.ones((2, 2))), np.ones((2, 2))
        values = {"areas": [circuit, circuit], "feedforward": [one], "feedback": [one]} | changes
        return Hierarchy(**values)

    return build


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (bad(areas=[]), "`areas` must hold"),
        (bad(areas=[3]), r"`areas\[0\]` must be a `Circuit`"),
        (bad(feedforward=[]), "`feedforward` must hold 1 matri"),
        (bad(feedforward=[None]), r"`feedforward\[0\]` must be a matrix"),
        (bad(feedback=[np.ones((2, 3))]), r"`feedback\[0\]` must have shape \(2, 2\)"),
        (bad(feedback=[-np.ones((2, 2))]), r"`feedback\[0\]` must be >= 0 in the balanced"),
        (bad(feedback=[np.full((2, 2), np.nan)]), r"`feedback\[0\]` must be finite"),
        (bad(gamma=[1.0, 1.0]), "`gamma` must be one number"),
        (bad(g=-1.0), "`g` must be finite and >= 0"),
        (bad(form="other"), "`form` must be one of"),
    ],
)
def test_bad_arguments_are_refused_by_name(without_type_checks, build, said):
    del without_type_checks
    with pytest.raises(ValueError, match=said):
        build()


def test_what_exists_for_circuits_alone_says_so():
    from organics.linear_stability.oscillator import oscillator

    h, z = pair(1.0, 1.0, 0.1, 2.0), np.array([0.1])
    with pytest.raises(ValueError, match="`point` must be that of a `Circuit`"):
        oscillator(at_rest(0.2, 0.02, 0.3, 0.05, 10.0)[1])
    with pytest.raises(ValueError, match="must be left out for a hierarchy"):
        steady_state(h, z, matrix_free=True)
