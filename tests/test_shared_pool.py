"""Circuits in which all neurons share one pool: the exact reduction, its theorem, and the limits of
small and of large random perturbations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import organics
from organics import Circuit, State
from organics.errors import NoSteadyState
from organics.linear_stability.spectrum import largest_euler_step
from organics.shared_pool.modes import Modes, reduction
from organics.shared_pool.perturbation import (
    euler_spread,
    first_order,
    mean_field,
    slowing_spread,
)
from organics.shared_pool.principal import principal
from organics.shared_pool.spectrum import reduced_eigenvalues

N, BATCH, CIRCUITS, C = 5, 600, 16, 0.01

principals = jax.jit(jax.vmap(principal))
spectra = jax.jit(jax.vmap(lambda modes: reduced_eigenvalues(modes, principal(modes))))
velocities = jax.jit(jax.vmap(Circuit.velocity))


def symmetric(rng, n=N):
    """A random symmetric matrix whose eigenvalues fill a semicircle of radius sqrt(2)."""
    G = rng.normal(size=(n, n)) / np.sqrt(n)
    return (G + G.T) / 2


def stack(trees):
    return jax.tree.map(lambda *x: np.stack(x), *trees)


@pytest.fixture(scope="module")
def modes():
    """Random modes, half of them with a positive semidefinite `W_r` of norm up to 20; some have no
    drive, some eigenvalues are 0."""
    rng = np.random.default_rng(0)
    drawn = []
    for i in range(BATCH):
        omega = rng.random(N) * 10 ** rng.uniform(-1, 1.3)
        if i % 2:
            omega = rng.normal(size=N) * 10 ** rng.uniform(-1, 0.9)
        omega[0] *= i % 7 != 0
        d = rng.normal(size=N) * 10 ** rng.uniform(-3, 0.3)
        d[1] *= i % 11 != 0
        drawn.append(Modes(np.sort(omega), d, *(10.0 ** rng.uniform((-4, -1, -1), (0.4, 1, 1)))))
    return stack(drawn)


@pytest.fixture(scope="module")
def found(modes):
    return principals(modes)


@pytest.fixture(scope="module")
def circuits(modes):
    """Circuits that have the first of these modes, with their drives and bases."""
    rng = np.random.default_rng(1)
    made = []
    for i in range(CIRCUITS):
        one = jax.tree.map(lambda x, i=i: x[i], modes)
        Q = np.linalg.qr(rng.normal(size=(N, N)))[0]
        w, b, W_r = 10 ** rng.uniform(-2, 1), rng.uniform(0.1, 2), Q * one.omega @ Q.T
        circuit = Circuit(
            np.full((N, N), w), (W_r + W_r.T) / 2, b, 1.0, np.sqrt(one.c), one.tau_y, one.tau_a
        )
        made.append((circuit, Q @ one.d / (b * np.sqrt(w)), Q / np.sqrt(w)))
    return made


def test_the_modes_are_the_circuit(circuits, modes):
    """The velocity of the modes, as a circuit, is that of the circuit; `reduction` finds them."""
    rng = np.random.default_rng(2)
    v, a = rng.normal(size=(CIRCUITS, N)), rng.uniform(0.1, 3, (CIRCUITS, 1)) * np.ones(N)
    few = jax.tree.map(lambda x: x[:CIRCUITS], modes)
    y = np.stack([basis @ x for (*_, basis), x in zip(circuits, v, strict=True)])
    drives = np.stack([z for _, z, _ in circuits])
    of_y, of_a = velocities(
        stack([c for c, *_ in circuits]), State(jnp.asarray(y), jnp.asarray(a)), drives
    )
    of_v, of_a_too = jax.jit(jax.vmap(lambda m, x: Circuit.velocity(m.as_circuit()[0], x, m.d)))(
        few, State(jnp.asarray(v), jnp.asarray(a))
    )
    back = np.stack([basis @ x for (*_, basis), x in zip(circuits, of_v, strict=True)])
    np.testing.assert_allclose(back, of_y, atol=1e-12 * np.max(np.abs(of_y)))
    np.testing.assert_allclose(of_a_too, of_a, rtol=1e-9, atol=1e-9)
    circuit, z, _ = circuits[1]
    again = reduction(circuit, z).modes
    np.testing.assert_allclose(again.omega, modes.omega[1], atol=1e-12 * np.abs(again.omega).max())
    np.testing.assert_allclose(np.abs(again.d), np.abs(modes.d[1]), atol=1e-9)


def test_where_there_is_no_principal_state_the_equation_has_no_root(modes, found):
    """Where there is one, phi is 1; elsewhere phi - 1 keeps its sign on a grid of the interval."""
    exists, d = np.asarray(found.exists), np.asarray(modes.d)
    assert 0.6 < exists.mean() < 1 and np.all(np.isnan(np.asarray(found.s)[~exists]))
    s, alpha, v = (np.asarray(x)[exists] for x in found[:3])
    assert np.all(alpha > 0)
    np.testing.assert_allclose(alpha * v, d[exists], rtol=1e-12)
    phi = modes.c[exists] / np.square(s) + np.sum(np.square(v), axis=1)
    np.testing.assert_allclose(phi, 1, rtol=1e-12)
    np.testing.assert_allclose(alpha, 1 - (1 - s[:, None]) * modes.omega[exists], atol=1e-12)
    for i in np.flatnonzero(~exists):
        omega = modes.omega[i]
        low = max(0.0, 1 - 1 / omega[-1]) if omega[-1] > 0 else 0.0
        width = (1 - 1 / omega[0] if omega[0] < 0 else 1e6) - low
        x = width * np.geomspace(1e-9, 1 - 1e-9, 2001)[:, None]
        terms = np.square(d[i] / (1 - (1 - low - x) * omega))
        phi = modes.c[i] / np.square(low + x[:, 0]) + terms.sum(axis=1)
        assert np.all(phi > 1) or np.all(phi < 1)


def test_the_spectrum_is_that_of_a_matrix(modes, found):
    """1e-8; also at most one pair is complex, and the theorem: all are stable if `W_r >= 0`."""
    exists = np.asarray(found.exists)
    reduced = np.asarray(spectra(modes))
    for i in np.flatnonzero(exists):
        s, alpha, v = (np.asarray(x[i]) for x in found[:3])
        J = np.zeros((N + 1, N + 1))
        J[:N, :N] = np.diag(-alpha / modes.tau_y[i])
        J[:N, N] = -modes.omega[i] * v / (2 * s * modes.tau_y[i])
        J[N] = np.r_[2 * s * s * v, -modes.c[i] / s**2] / modes.tau_a[i]
        assert farthest(np.linalg.eigvals(J), reduced[i]) < 1e-8 * (1 + np.abs(J).max())
    assert np.all(np.sum(np.imag(reduced[exists]) != 0, axis=1) <= 2)
    semidefinite = exists & (modes.omega[:, 0] >= 0)
    assert semidefinite.sum() > 100 and np.all(np.real(reduced[semidefinite]) < 0)
    assert np.all(np.diff(np.real(reduced[exists]), axis=1) <= 0)


def farthest(one, other):
    """The largest distance between two sets of numbers, paired in the best way."""
    apart = np.abs(one[:, None] - other[None, :])
    return apart[linear_sum_assignment(apart)].max()


def test_the_library_agrees_and_certifies(circuits, modes, found):
    """State and eigenvalues of the circuit itself. The certificate speaks of semidefinite `W_r`
    always, of others only if their negative eigenvalues are weak."""
    reduced = np.asarray(spectra(modes))
    kinds = set()
    for i, (circuit, z, _) in enumerate(circuits):
        if not found.exists[i]:
            continue
        point = organics.principal_state(circuit, z)
        assert point.converged
        np.testing.assert_allclose(np.sqrt(point.state.a), float(found.s[i]), rtol=1e-9)
        linear = organics.stability(point)
        every = np.concatenate([reduced[i], np.full(N - 1, -1 / modes.tau_a[i])])
        size = 1 + np.abs(linear.eigenvalues).max() ** 2
        assert farthest(np.asarray(linear.eigenvalues), every) < 1e-6 * size
        certificate = organics.certify(point, linear)
        semidefinite, proved = bool(modes.omega[i, 0] >= 0), certificate.kind == "one pool"
        kinds.add((semidefinite, proved))
        if proved:
            margin = float(np.asarray(certificate.margin))
            assert certificate.holds and 0 < margin <= 1 and linear.stable
            assert not semidefinite or margin > 1 - 1e-6
    assert {(True, True), (False, True)} <= kinds and (True, False) not in kinds


def test_an_indefinite_matrix_may_destabilise_the_principal_state():
    circuit = Circuit(np.ones((2, 2)), np.diag([4.0, -2.0]), 1.0, 1.0, 0.1)
    point = organics.principal_state(circuit, np.array([0.01, 0.98]))
    abscissa = float(organics.stability(point).spectral_abscissa)
    assert abscissa * 2.0 == pytest.approx(0.105, abs=1e-3)
    certificate = organics.certify(point)
    assert certificate.kind == "spectral" and not certificate.holds


def test_among_all_states_the_principal_one_is_named():
    """One neuron with a weight of 3: two stable states and a saddle."""
    circuit = Circuit([[1.0]], [[3.0]], 0.5, 0.5, 0.1, 20.0, 2.0)
    found = organics.steady_states(circuit, np.array([0.1]))
    principal = organics.principal_state(circuit, np.array([0.1]))
    (i,) = [i for i in range(3) if np.isclose(found.states[i].state.a[0], principal.state.a[0])]
    assert f"; state {i} is the principal one, and stable" in found.why
    assert found.states[i].stable and organics.certify(principal).kind == "one pool"
    # among the others it has no number
    for at in found.states:
        words = "this state" if at is found.states[i] else "the state with y = "
        why = organics.other_states(at.point).why
        assert f"; {words}" in why and "is the principal one, and stable" in why


def test_what_has_no_reduction_is_refused():
    ones = np.ones((2, 2))
    for circuit, why in (
        (Circuit(np.array([[1.0, 1.0], [1.0, 0.5]]), np.eye(2)), "not all the same"),
        (Circuit(ones, np.array([[1.0, 0.2], [0.1, 1.0]])), "not symmetric"),
        (Circuit(ones, ones, sigma=[0.1, 0.2]), "b0 sigma"),
        (Circuit(ones, ones, tau_a=[1.0, 2.0]), "`tau_a` differs"),
        (Circuit(ones, ones, rectified=True), "rectified"),
    ):
        with pytest.raises(ValueError, match=why):
            organics.principal_state(circuit, np.ones(2))
    # nothing drives the mode that would be needed
    with pytest.raises(NoSteadyState, match="no principal steady state"):
        organics.principal_state(Circuit(ones, np.diag([3.0, 0.5])), np.array([0.0, 0.1]))


def test_the_first_order_state_is_wrong_by_the_second():
    rng = np.random.default_rng(2)
    mu, Q = np.linalg.eigh(symmetric(rng))
    d = Q.T @ (0.4 * rng.normal(size=N) / np.sqrt(N))
    errors = []
    for size in (2e-3, 1e-3):
        modes = Modes(1 + size * mu, d, C, 1.0, 1.0)
        guess, exact = first_order(modes), jax.jit(principal)(modes)
        errors.append(np.r_[guess.v - exact.v, guess.a - np.square(exact.s)])
    ratio = np.max(np.abs(errors[0])) / np.max(np.abs(errors[1]))
    assert ratio == pytest.approx(4, abs=0.5)


def test_mean_field():
    """The table of the theory, 1e-4; and within 3 % of 400 neurons."""
    table = {0.01: (0.10052, 0.12397, 0.29788, 0.45903), 0.05: (0.11224, 0.13512, 0.29826, 0.45910),
             0.3: (0.31663, 0.32591, 0.38692, 0.49597)}  # fmt: skip
    spreads, n, rng = (0.02, 0.1, 0.3, 0.6), 400, np.random.default_rng(3)
    draws = [np.linalg.eigh(symmetric(rng, n)) for _ in range(2)]
    at = jax.jit(jax.vmap(lambda omega, d: principal(Modes(omega, d, C, 1.0, 1.0)).s))
    for strength, row in table.items():
        theory = [mean_field(spread, strength, C).s for spread in spreads]
        np.testing.assert_allclose(theory, row, rtol=1e-4)
        for spread, s in zip(spreads, theory, strict=True):
            omega = np.stack([1 + spread * mu for mu, _ in draws])
            d = np.stack([strength / np.sqrt(n) * Q.sum(axis=0) for _, Q in draws])
            assert np.mean(at(omega, d)) == pytest.approx(s, rel=0.03)
    assert slowing_spread(0.01, C) == pytest.approx(0.0790, abs=1e-4)
    assert slowing_spread(0.3, C) == pytest.approx(0.3270, abs=1e-4)
    with pytest.raises(ValueError, match="`strength` must be below"):
        mean_field(0.1, 1.0, C)


def test_small_steps_and_the_condensed_state():
    """Above the spread of `euler_spread` steps of 0.05 tau lose a state that is stable, and its
    pair rings at the frequency of the top mode."""
    rng = np.random.default_rng(4)
    modes = []
    for spread in (0.45, 0.8, 2.0):
        for _ in range(5):
            mu, Q = np.linalg.eigh(symmetric(rng, 100))
            modes.append(Modes(1 + spread * mu, 0.001 * Q.sum(axis=0), C, 1.0, 1.0))
    stacked = jax.tree.map(lambda *x: np.stack(x), *modes)
    found, eigenvalues = principals(stacked), np.asarray(spectra(stacked))
    assert np.all(np.real(eigenvalues) < 0)
    share = C / np.square(np.asarray(found.s))
    expected = np.sqrt((stacked.omega[:, -1] - 1) * (1 - share))
    np.testing.assert_allclose(np.imag(eigenvalues).max(axis=1), expected, rtol=0.1)
    steps = np.asarray(jax.vmap(largest_euler_step)(jnp.asarray(eigenvalues)))
    assert np.all(steps[:5] > 0.05) and np.all(steps[5:] < 0.05)
    assert euler_spread(0.05, C) == pytest.approx(0.633, abs=1e-3)
