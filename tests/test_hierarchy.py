"""Areas with feedback: equations, steady states, stability, certificates, spectra."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.optimize import brentq

from organics.branches.continuation import continuation
from organics.circuit.areas import joined
from organics.circuit.circuit import Circuit, State
from organics.circuit.hierarchy import Hierarchy
from organics.linear.jacobian import imbalance_blocks, jacobian
from organics.linear_stability.certificate import certify
from organics.linear_stability.spectrum import stability
from organics.rest.point import area_points
from organics.rest.search import given_state, steady_state
from organics.simulation.noise import Noise, simulate_noisy
from organics.simulation.ode import simulate
from organics.spectra import cross_spectrum, stationary_covariance
from organics.studies.ours.hierarchy import N, grating, ring

SIZES = (3, 2, 4)


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
    return area.W, area.b, (area.b0 * area.sigma) ** 2


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
        velocity = lambda x: joined(h.velocity(h.split(x), z))  # noqa: E731
        return jacobian(h, h.split(x)), jax.jacfwd(velocity)(x)

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
        point = steady_state(h, z, tolerance=1e-14)
        linear = stability(point)
        kept = linear.eigenvalues, linear.stable
        return point.found, kept, jacobian(point.system, point.state)

    both = stacked([*without, *many]), np.stack([*drives, *drives])
    return (*both, *jax.device_get(at_rest(*both)))


def test_a_cascade_is_normalization_and_its_spectrum_that_of_its_areas(additive):
    h, z, point, (eigenvalues, stable), J = additive
    assert np.all(point.converged) and np.all(point.residual[:10] < 1e-12)
    assert np.all(point.method[:10] == 0) and np.all(stable)
    for i in range(10):
        drive, spectra = z[i], []
        for k, start in enumerate((0, 6, 10)):
            W, b, c = as_numpy(jax.tree.map(lambda leaf, i=i: leaf[i], h), k)
            a = c + W @ (b * drive) ** 2
            np.testing.assert_allclose(point.state[k].a[i], a, rtol=1e-12)
            np.testing.assert_allclose(point.state[k].y[i], b * drive / np.sqrt(a), rtol=1e-12)
            own = slice(start, start + 2 * SIZES[k])
            spectra.append(np.linalg.eigvals(J[i][own, own]))
            if k < 2:
                drive = np.asarray(h.feedforward[k])[i] @ point.state[k].y[i] ** 2
        areas_own = np.concatenate(spectra)
        far = np.abs(eigenvalues[i][:, None] - areas_own[None])
        assert far.min(axis=1).max() < 1e-10 and far.min(axis=0).max() < 1e-10


def test_additive_feedback_normalizes_the_total_drive(additive):
    h, z, point, *_ = additive
    for i in range(10, 20):
        h_i = jax.tree.map(lambda leaf, i=i: leaf[i], h)
        states = jax.tree.map(lambda leaf, i=i: leaf[i], point.state)
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
        states, drive = jax.device_get(h.split(jnp.asarray(x[i]))), drives[i]
        for k in range(2):
            (y, a), W_r, (_, b, _) = states[k], h.areas[k].W_r, as_numpy(h, k)
            f, s = h.g[k] * h.feedback[k] @ states[k + 1].y, np.sqrt(a)
            p = (f / y + s) / (1 - s)
            dy = -y + b * drive + (W_r @ y + h.gamma[k] * f) / (1 + p)
            worst = max(worst, np.abs(dy).max(), np.abs(-p + f / y + s + p * s).max())
            drive = h.feedforward[k] @ y**2
    assert worst < 1e-9


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
PREFERRED = np.array([N // 2, 2 * N + N // 2])  # of the first and of the second area
HERTZ = np.array([17.0, 50e3, 100e3])


linearize = jax.jit(lambda h, states: (jacobian(h, states), imbalance_blocks(h, states)))


@pytest.fixture(scope="module")
def of_the_ring():
    """At rest, for the rows of the table, for nearly no contrast, and for `gamma = 1` with other
    `g`: the stability, the Jacobian and what feedback changes."""
    rows = [row[:2] for row in TABLE] + [(1e-9, 1.0)]
    cases = [(contrast, ring(gamma)) for contrast, gamma in rows]
    cases += [(0.5, ring(1.0, g)) for g in (0.3, 5.0)]
    found = []
    for contrast, h in cases:
        linear = stability(steady_state(h, grating(contrast)))
        J, blocks = linearize(linear.point.system, linear.point.state)
        found.append((linear, np.asarray(J), blocks.from_above[0]))
    return found


def spectra_at(J, hertz):
    """The cross-spectrum of the preferred neurons under noise of level 1, by NumPy."""
    omega = 2j * np.pi * np.asarray(hertz)[:, None, None] / 1000
    read = np.broadcast_to(np.eye(len(J))[:, PREFERRED], (len(hertz), len(J), 2))
    X = np.linalg.solve((omega * np.eye(len(J)) - J).swapaxes(1, 2), read).swapaxes(1, 2)
    return X @ X.conj().swapaxes(1, 2) / 2  # divided by tau


def test_the_reference_ring(of_the_ring):
    coarse, (_, at_rest, _) = np.arange(0.25, 100, 8), of_the_ring[8]
    for (linear, J, _), (_, _, y1, a1, y2, a2, rate, peak, together) in zip(
        of_the_ring, TABLE, strict=False
    ):
        (below, above), abscissa = linear.point.state, linear.spectral_abscissa
        assert linear.stable and linear.point.converged
        have = [np.max(below.y), below.a[0], np.max(above.y), above.a[0], abscissa]
        np.testing.assert_allclose(have, [y1, a1, y2, a2, rate], rtol=0, atol=1e-6)
        near = [middle + np.arange(-2, 3) / 4 for middle in (peak, together)]
        hertz = np.unique(np.concatenate([coarse, *near]))
        hertz = hertz[hertz > 0]
        S, S_0 = spectra_at(J, hertz), spectra_at(at_rest, hertz)
        gain = (S[:, 0, 0] / S_0[:, 0, 0]).real
        coherence = np.abs(S[:, 0, 1]) ** 2 / (S[:, 0, 0] * S[:, 1, 1]).real
        assert abs(hertz[np.argmax(gain)] - peak) <= 0.25
        assert abs(hertz[np.argmax(coherence)] - together) <= 0.25


def test_feedback_is_inert_at_gamma_1_whatever_its_gain(of_the_ring):
    (usual, _, _), *others = (of_the_ring[i] for i in (5, 9, 10))
    for linear, _, above in others:
        have, want = joined(linear.point.state), joined(usual.point.state)
        np.testing.assert_allclose(have, want, rtol=1e-12)
        np.testing.assert_allclose(linear.eigenvalues, usual.eigenvalues, rtol=1e-9)
        assert np.all(np.asarray(above) == 0)


def test_spectra_and_their_tails(of_the_ring):
    """With the noise of `y` alone they fall as the square of the frequency, with that of `a` alone
    as its fourth power."""
    linear, J, _ = of_the_ring[4]
    with_all = cross_spectrum(linear.point, HERTZ / 1000, Noise(1.0, 1.0))
    pair = np.asarray(with_all)[:1, PREFERRED][:, :, PREFERRED]
    np.testing.assert_allclose(pair, spectra_at(J, HERTZ[:1]), rtol=1e-9)
    for noise, slope in ((Noise(1.0, 0.0), -2), ([Noise(0.0, 1.0)] * 2, -4)):
        S = np.asarray(cross_spectrum(linear.point, HERTZ / 1000, noise))
        power = np.abs(S[:, PREFERRED[0], PREFERRED[0]])
        assert abs(np.log2(power[2] / power[1]) - slope) < 1e-3


@pytest.mark.parametrize(
    ("contrast", "gammas", "known"), [(0.03, (1.04, 1.055), 1.0572), (0.5, (1.46, 1.48), 1.4899)]
)
def test_a_silent_neuron_is_activated_where_the_recurrent_gain_is_1(contrast, gammas, known):
    """At `gamma = 1/(1 - s_1)` its eigenvalue crosses 0; its row of the Jacobian is its own."""
    z = grating(contrast)
    z[0] = 0
    below = [steady_state(ring(gamma), z).state for gamma in gammas]
    gain = [gamma * (1 - np.sqrt(s[0].a[0])) for gamma, s in zip(gammas, below, strict=True)]
    critical = gammas[1] + (gammas[1] - gammas[0]) * (1 - gain[1]) / (gain[1] - gain[0])
    assert abs(critical - known) < 1e-3
    (y, a), above = below[1]
    critical = 1 / (1 - np.sqrt(a[0]))  # in this state
    for gamma, sign in ((critical - 1e-6, -1), (critical + 1e-6, 1)):
        row = np.asarray(jacobian(ring(gamma), (State(y.at[0].set(0.0), a), above)))[0]
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
    return gamma, (y1, s**2, d2 / np.sqrt(a2), a2)


def at_rest(s, d, g, sigma, tau_a):
    gamma, x = curve(s, d, g, sigma)
    states = pair(0.0, g, sigma, tau_a).split(jnp.asarray(x))
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
        s = brentq(lambda s, w=wanted: float(curve(s, d, g, sigma)[0]) - w, 0.05, 0.13)
        certificate = certify(at_rest(s, d, g, sigma, tau_a)[1])
        assert certificate.holds
        kinds.append(certificate.kind)
    assert kinds == ["small gain", "spectral"]


def test_two_neurons_with_feedback_are_bistable_between_two_folds():
    d, g, sigma = 5e-4, 1.0, 0.1
    s = np.sqrt(0.05**2 + d**2) + np.geomspace(1e-9, 0.4, 100_000)
    gamma = curve(s, d, g, sigma)[0]
    turns = np.flatnonzero(np.diff(np.sign(np.diff(gamma)))) + 1
    np.testing.assert_allclose(gamma[turns], [1.159286, 1.076991], rtol=0, atol=1e-5)
    np.testing.assert_allclose(s[turns], [0.05001, 0.05178], rtol=0, atol=1e-5)
    middle = gamma[turns].mean()
    crossings = np.flatnonzero(np.diff(np.sign(gamma - middle)))
    stable = [bool(stability(at_rest(s[i], d, g, sigma, 2.0)[1]).stable) for i in crossings]
    assert stable == [True, False, True]


def test_simulations_end_where_the_search_does_and_fluctuate_as_the_linear_theory_says():
    h, z = pair(1.2, 0.3, 0.1, 2.0), np.array([0.1])
    point = steady_state(h, z)
    path = simulate(h, z, 2000.0, until_steady=True, dense=True, steady_tolerance=1e-7, rtol=1e-9)
    assert path.ok and path.rested
    end = jax.tree.map(lambda x: x[-1], path.state)
    np.testing.assert_allclose(joined(end), joined(point.state), rtol=0, atol=1e-5)
    half = path(path.t[50])
    np.testing.assert_allclose(
        joined(half), joined(jax.tree.map(lambda x: x[50], path.state)), rtol=0, atol=1e-6
    )
    noise = [Noise(0.01, 0.0001), Noise(0.003)]
    noisy = simulate_noisy(h, z, noise, 0.1, 400_000, point.state, key=jr.key(0), save_every=10)
    x = np.concatenate([part for area in noisy.state for part in area], axis=1)
    P = np.asarray(stationary_covariance(point, noise))
    # 40 s: the slowest rate is 0.03 per ms, so hundreds of independent values
    np.testing.assert_allclose(np.var(x, axis=0), np.diag(P), rtol=0.2)
    assert abs(np.corrcoef(x.T)[0, 2] - P[0, 2] / np.sqrt(P[0, 0] * P[2, 2])) < 0.1


def test_the_determinant_splits_into_the_areas_and_the_loop():
    h, z = ring(1.2), grating(0.5)
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
    h, z = ring(1.0), grating(0.5)
    point = steady_state(h, z)
    certificate = certify(point)
    assert certificate.kind == "area by area" and certificate.holds
    assert isinstance(certificate.T, tuple) and len(certificate.T) == 2
    assert certificate.margin is not None and 0 < certificate.margin <= 1
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


def test_branches_over_feedback_meet_the_folds_and_the_hopf_point():
    d, g, sigma = 5e-4, 1.0, 0.1
    h = pair(1.1, g, sigma, 2.0)
    found = continuation(h, np.array([d]), "gamma", (0.9, 1.2))
    (branch,) = found.branches
    folds = [event.parameter for event in branch.events if event.kind == "fold"]
    np.testing.assert_allclose(np.sort(folds), [1.076991, 1.159286], rtol=0, atol=1e-6)
    assert {"reached the lower bound", "reached the upper bound"} == set(branch.ends)
    z = np.array([0.02])
    found = continuation(pair(1.3, 0.3, 0.05, 10.0), z, "gamma", (1.2, 1.5))
    (hopf,) = [event for event in found.branches[0].events if event.kind == "hopf"]
    assert abs(hopf.parameter - 1.437846) < 1e-6
    assert hopf.frequency_hz is not None
    assert abs(hopf.frequency_hz - 1000 * 0.094170 / (2 * np.pi)) < 0.01


@pytest.mark.parametrize("form", [{"gamma": 0.5}, {"form": "additive", "gamma": 0.3}])
def test_a_silent_neuron_that_would_sustain_itself_makes_a_hierarchy_unstable(form):
    """It has no drive, and nothing reaches it: to the left of `y = 0` it decays, but to the right
    it grows if its own weight is 2, and not if it is 1/2."""
    for own, stays in ((2.0, False), (0.5, True)):
        area = Circuit(0.3 * np.eye(2), np.diag([1.0, own]), sigma=0.1, rectified=True)
        top = Circuit(np.ones((1, 1)), sigma=0.1, rectified=True)
        both = Hierarchy([area, top], [np.array([[1.0, 0.0]])], [np.array([[0.5], [0.0]])], **form)
        begin = (
            State(np.array([1.8, 0.0]), np.array([0.08, 0.0025])),
            State(np.array([0.5]), np.array([0.3])),
        )
        point = steady_state(both, np.array([1.0, 0.0]), start=begin)
        assert point.converged and stability(point).stable == stays
        assert certify(point).holds == stays
        moved = eqx.tree_at(lambda s: s[0].y, point.state, point.state[0].y.at[1].add(1e-6))
        end = simulate(both, point.z, np.array([0.0, 100.0]), moved).state[0].y[-1, 1]
        assert (end < 1e-6) == stays


def test_every_area_must_be_one_circuit():
    area = Circuit(np.ones((1, 1)))
    h = Hierarchy([area, area], [np.ones((1, 1))])
    h.require_one()
    stacked = eqx.tree_at(lambda h: h.areas[1].b, h, jnp.ones((3, 1)))
    with pytest.raises(ValueError, match="`circuit` must be one circuit, not a stack"):
        stacked.require_one()
