"""Branches of steady states: closed forms, derivatives by other routes, and refusals."""

import json
from concurrent.futures import Future, ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jaxtyping import Array
from scipy.optimize import brentq

import organics
from organics import cli
from organics.branches import arclength, cycle_search
from organics.branches.continuation import as_system
from organics.branches.search import _PER_MS
from organics.circuit.circuit import Circuit, State, random_drive
from organics.nn import SSN
from organics.plots import bifurcation_diagram, event_plane, rhythm_frequencies
from organics.proofs.bifurcations import prove_event, prove_events
from organics.rest.system import DrivenCircuit, System


def single(w_r, k, tau_y=2.0, tau_a=2.0, w=1.0):
    """One neuron with `b0 sigma = k` and `b = 1`."""
    return Circuit(W=[[w]], W_r=[[w_r]], b=1.0, b0=1.0, sigma=k, tau_y=tau_y, tau_a=tau_a)


@pytest.fixture(scope="module", autouse=True)
def _few_programs():
    """One size of a program for each number of neurons."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arclength, "_WIDTHS", (4,))
        yield


def stack(circuits):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *circuits)


def of_kind(diagram, kind):
    assert all(event.confirmed for event in diagram.events)
    return sorted(event.parameter for event in diagram.events if event.kind == kind)


@pytest.mark.parametrize("rectified", [False, True])
def test_the_derivatives_are_those_of_the_equations(rectified):
    n, rng = 3, np.random.default_rng(0)

    @jax.jit
    @jax.vmap
    def both(circuit, z, x, u, v, w):
        system = DrivenCircuit(circuit, z)
        ours = system.second(x, u, v), system.third(x, u, v, w)
        return ours, (System.second(system, x, u, v), System.third(system, x, u, v, w))

    circuits = jax.vmap(lambda key: Circuit.random(key, n, 2.0, rectified=rectified))(
        jr.split(jr.key(0), 8)
    )
    x = np.concatenate([rng.normal(size=(8, n)), rng.uniform(0.1, 2, (8, n))], axis=1)
    ours, automatic = both(circuits, rng.normal(size=(8, n)), x, *rng.normal(size=(3, 8, 2 * n)))
    for a, b in zip(ours, automatic, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.fixture(scope="module")
def one_neuron():
    """Circuits of one neuron with `w_r > 1`, `k < 1 - 1/w_r`, and their branches over contrast."""
    cases = [(w_r, part * (1 - 1 / w_r), ratio)
             for w_r in (1.3, 2, 5) for part in (0.1, 0.4, 0.8) for ratio in (0.2, 1)]  # fmt: skip
    circuits = stack([single(w_r, k, 2 * ratio) for w_r, k, ratio in cases])
    drives = np.ones((len(cases), 1))
    ends = 1.5 * max(w_r - 1 for w_r, *_ in cases)
    return cases, organics.continuations(circuits, drives, "z", (-ends, ends))


def test_folds_and_hopf_points_of_one_neuron_are_where_the_closed_form_says(one_neuron):
    cases, diagrams = one_neuron
    hopfs = 0
    for (w_r, k, ratio), diagram in zip(cases, diagrams, strict=True):
        s = 1 - 1 / w_r
        fold = (w_r - 1) * (1 - (k / s) ** (2 / 3)) ** 1.5
        np.testing.assert_allclose(of_kind(diagram, "fold"), [-fold, fold], rtol=1e-10)
        low, high = (k * k * s) ** (1 / 3), s
        grid = np.linspace(low, high, 2001)
        g = lambda x, w_r=w_r, s=s, k=k, r=ratio: w_r * (s - x) * x * x / (k * k) - r  # noqa: E731
        flips = np.flatnonzero(np.diff(np.sign(g(grid))))
        roots = np.array([brentq(g, grid[i], grid[i + 1], xtol=1e-15) for i in flips])
        drive = np.sqrt(1 - k * k / roots**2) * w_r * (s - roots)
        want = np.sort(np.concatenate([drive, -drive]))
        np.testing.assert_allclose(of_kind(diagram, "hopf"), want, rtol=1e-9)
        hopfs += len(want)
    assert hopfs > 10


def test_every_point_balances_and_stability_changes_at_events_only(one_neuron):
    for (w_r, k, ratio), diagram in zip(*one_neuron, strict=True):
        (branch,) = diagram.branches
        assert branch.ends == ("reached the lower bound", "reached the upper bound")
        y, a = branch.x.T
        left = [-y + branch.parameter + (1 - np.sqrt(a)) * w_r * y, -a + k * k + y * y * a]
        assert np.max(np.abs(left)) < 1e-10 * max(1, w_r)
        changes = np.sum(branch.stable[1:] != branch.stable[:-1])
        assert changes <= len(branch.events)
        del ratio


@pytest.mark.parametrize(
    "k, tau_y, drive, w, l1",
    [(0.05, 2.0, 0.0101550868, 0.4948700258, -0.00635536),
     (0.4, 0.3, 0.0506925898, 0.2499934300, 22.86337315)],
)  # fmt: skip
def test_the_first_lyapunov_coefficient_of_one_neuron(k, tau_y, drive, w, l1):
    found = organics.continuation(single(2.0, k, tau_y), [1.0], "z", (-2.0, 2.0))
    (hopf,) = [event for event in found.events if event.kind == "hopf" and event.parameter > 0]
    np.testing.assert_allclose(hopf.parameter, drive, rtol=1e-8)
    np.testing.assert_allclose(hopf.frequency_hz, w * _PER_MS, rtol=1e-9)
    np.testing.assert_allclose(hopf.first_lyapunov, l1, rtol=1e-6)
    assert ("stable cycle" in hopf.words) and (("an unstable" in hopf.words) == (l1 > 0))


@pytest.mark.parametrize("kind, fast", [("saddle", 2.0), ("stable", 2.0), ("stable", 2e-8)])
def test_a_hopf_point_beside_another_neuron(kind, fast):
    """Of two neurons that share nothing, one is at rest in another state: at a saddle the cycle of
    the first one is unstable. The second one may be much faster."""
    alone = Circuit([[1.0]], [[2.0]], b=0.5, b0=0.5, sigma=0.1, tau_y=2.0, tau_a=2.0)
    first = min(organics.fixed_points_2d(alone, [0.05]), key=lambda p: abs(p.eigenvalues[0].real))
    other = next(p for p in organics.fixed_points_2d(alone, [1.0]) if p.kind.startswith(kind))
    tau = np.array([2.0, fast])
    both = Circuit(np.eye(2), 2 * np.eye(2), b=0.5, b0=0.5, sigma=0.1, tau_y=tau, tau_a=tau)
    start = State(np.array([first.y, other.y]), np.array([first.a, other.a]))
    found = organics.continuation(
        both, [0.05, 1.0], "z[0]", (0.005, 0.1), switching=False, start=start
    )
    (hopf,) = found.events
    assert hopf.kind == "hopf" and hopf.confirmed
    np.testing.assert_allclose(hopf.parameter, 2 * 0.0101550868, rtol=1e-7)
    np.testing.assert_allclose(hopf.first_lyapunov, -0.00635536, rtol=1e-4)
    assert hopf.also_unstable == (kind == "saddle")
    assert ("a stable cycle" in hopf.words) == (kind == "stable")


def test_a_pitchfork_and_the_branch_that_is_born_there():
    k = np.array([1.2])
    circuit = single(2.0, k, w=0.7)
    found = organics.continuation(circuit, [0.0], "sigma", (0.05, 2.0), start=State([0.0], k**2))
    trivial, born = found.branches
    (pitchfork,) = found.events
    assert pitchfork.kind == "pitchfork"
    np.testing.assert_allclose(pitchfork.parameter, 0.5, rtol=1e-10)
    assert np.all(trivial.x[:, 0] == 0)
    y, a = born.x.T
    np.testing.assert_allclose(a, 0.25, rtol=1e-10)  # sqrt(a) = 1 - 1 / w_r
    np.testing.assert_allclose(y**2, (1 - born.parameter**2 / 0.25) / 0.7, atol=1e-9)
    assert np.sum(y > 0) > 5 and np.sum(y < 0) > 5


def test_the_modulator_goes_to_infinity_as_recurrence_vanishes():
    found = organics.continuation(single(0.5, 0.1), [2.0], "W_r[0,0]", (-1.0, 1.0))
    (branch,) = found.branches
    assert branch.ends == ("goes to infinity", "reached the upper bound")
    assert branch.x[0, 1] > 1e12 and abs(branch.parameter[0]) < 1e-5


def ring_oscillator(p, q, alpha):
    """Two neurons, no drive, with `sigma = 0.8 - value` (both neurons)."""
    circuit = Circuit(np.full((2, 2), alpha), [[p, -q], [q, p]], 0.5, 1.0, 0.8, 4.0, 7.0)
    start = State(np.zeros(2), np.full(2, 0.64))
    way = {"sigma": [-1.0, -1.0]}
    return organics.continuation(circuit, [0.0, 0.0], way, (0.0, 0.7), start=start, cycles=True)


@pytest.fixture(scope="module")
def ring():
    parameters = 2.0, 3.0, 0.7
    return *parameters, ring_oscillator(*parameters)


def test_the_ring_oscillator_begins_where_the_closed_form_says(ring):
    p, q, alpha, found = ring
    (hopf,) = found.events
    np.testing.assert_allclose(0.8 - hopf.parameter, 1 - 1 / p, rtol=1e-10)
    np.testing.assert_allclose(hopf.frequency_hz, q / (p * 4) * _PER_MS, rtol=1e-10)
    np.testing.assert_allclose(hopf.first_lyapunov, -alpha * p * (p - 1) / q, rtol=1e-9)


def test_its_cycles_are_those_of_the_closed_form(ring):
    p, q, alpha, found = ring
    (cycles,) = found.cycles
    assert found.without_cycles == [] and "NOT found" not in str(found)
    assert cycles.stable.all() and cycles.end == "reached the upper bound"
    k, a = 0.8 - cycles.parameter, (1 - 1 / p) ** 2
    rho = np.sqrt((1 - k**2 / a) / alpha)
    np.testing.assert_allclose(cycles.period, 2 * np.pi * p * 4 / q, rtol=1e-8)
    np.testing.assert_allclose(cycles.high[:, :2], np.stack([rho, rho], 1), rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(cycles.x[:, :2], axis=1), rho, rtol=1e-8)
    assert cycles.error.max() < 1e-6
    for i, T in enumerate(cycles.period):
        slow = np.array([[0, -p * rho[i] / (8 * np.sqrt(a))],
                         [2 * alpha * a * rho[i] / 7, -k[i] ** 2 / (7 * a)]])  # fmt: skip
        want = np.concatenate([[1, np.exp(-T / 7)], np.exp(T * np.linalg.eigvals(slow))])
        far = np.abs(cycles.multipliers[i][:, None] - want[None, :])
        assert far.min(axis=0).max() < 1e-6


def test_a_hopf_point_whose_cycles_are_not_found_is_named(monkeypatch):
    monkeypatch.setattr(cycle_search, "_STEPS", (1,))  # of the flow, too few for any cycle
    found = ring_oscillator(2.0, 3.0, 0.7)
    (hopf,) = found.events
    assert found.cycles == [] and found.without_cycles == [hopf]
    assert "NOT found from the Hopf points at" in str(found)


@pytest.fixture(scope="module")
def plane():
    """One neuron over contrast and `tau_y`, for 1.2 ms of which two folds and two Hopf points."""
    circuit = single(2.0, 0.2, 1.2)
    bounds = (-2.0, 2.0)
    found = organics.continuation(circuit, [1.0], "z", bounds, second=("tau_y", (0.1, 12.0)))
    return circuit, found


@pytest.mark.parametrize("most", [10.0, 1000.0])
def test_both_curves_of_folds_are_found_however_wide_the_range(most):
    """The circuit is odd in `z`: each fold at `z` has one at `-z`, here close by."""
    circuit = single(2.0, 0.495, 2.0)
    found = organics.continuation(circuit, [1.0], "z", (-2.0, 2.0), second=("tau_a", (1.0, most)))
    events = sorted(event.parameter for event in found.events if event.kind == "fold")
    folds = sorted(curve.values[0, 0] for curve in found.curves if curve.kind == "fold")
    np.testing.assert_allclose(folds, events, rtol=1e-7)
    assert len(folds) == 2 and abs(folds[0]) < 0.01


@pytest.mark.parametrize(("n", "tau_a"), [(3, 2.0), (3, 1e6), (4, 2.0)])
def test_where_symmetry_makes_several_eigenvalues_cross_at_once(n, tau_a):
    """Equal neurons rest at `a = c + n (b z)^2`. For patterns `W_r` has the eigenvalue 3, n - 1
    times: as many eigenvalues cross 0 where `(1 - sqrt(a)) 3 = 1`."""
    W_r = 3 * np.eye(n) - 2 / n * np.ones((n, n))
    circuit = Circuit(np.ones((n, n)), W_r, b=0.5, b0=0.5, sigma=0.1, tau_y=2.0, tau_a=tau_a)
    found = organics.continuation(circuit, np.ones(n), "z", (0.2, 2.0))
    (event,) = found.events
    assert event.kind == "multiple bifurcation" and not event.confirmed
    assert event.unstable == (n - 1, 0)
    assert f"unstable eigenvalues {n - 1} -> 0" in event.words
    drive = np.sqrt((4 / 9 - 0.0025) / n) / 0.5
    np.testing.assert_allclose(event.parameter, drive, rtol=1e-6)
    (axes,) = bifurcation_diagram(found).axes
    assert event.kind in axes.get_legend_handles_labels()[1]


@pytest.mark.parametrize("ratio", [1.0001, 1.0003, 1.003])
def test_of_two_neurons_that_are_nearly_equal_each_has_its_own_events(ratio):
    """They do not act on each other, so that their folds and Hopf points are those of one neuron,
    the second one's at drives that are smaller by the ratio. Between two folds the branch is near
    another, onto which it must not jump; and both of a pair's Hopf points may lie in one step."""
    one = Circuit([[1.0]], [[2.0]], b=0.5, b0=1.0, sigma=0.05)
    two = Circuit(np.eye(2), 2 * np.eye(2), b=0.5, b0=1.0, sigma=0.05)
    alone = organics.continuation(one, [1.0], "z", (-1.9, 1.9)).events
    found = organics.continuation(two, [1.0, ratio], "z", (-1.9, 1.9))
    assert len(found.branches) == 1
    assert all(event.confirmed for event in found.events) and len(found.events) == 20
    for kind in ("fold", "hopf"):
        values = [event.parameter for event in alone if event.kind == kind]
        expected = np.array(values + [value / ratio for value in values])
        where = [event.parameter for event in found.events if event.kind == kind]
        for value in where:
            assert np.min(np.abs(expected - value)) < 1e-9


def test_a_hopf_point_beside_real_eigenvalues_that_cancel_is_found():
    """In a step in which two of these cancel each other as well."""
    k_circuit, k_drive = jr.split(jr.split(jr.key(0), 1000)[94])
    circuit, z = Circuit.random(k_circuit, 10, 2.0), random_drive(k_drive, 10)
    found = organics.continuation(circuit, z, "z", (0.0, 2.0), start="rest", switching=False)
    assert [event.kind for event in found.events] == ["fold"] * 3 + ["hopf", "fold", "hopf"]
    assert all(event.confirmed for event in found.events)
    assert found.events[3].parameter == pytest.approx(0.07941798, rel=1e-6)


def test_folds_of_two_equal_neurons_at_once_are_no_pitchfork():
    two = Circuit(np.eye(2), 2 * np.eye(2), b=0.5, b0=1.0, sigma=0.05)
    events = organics.continuation(two, [1.0, 1.0], "z", (-1.9, 1.9)).events
    assert {event.kind for event in events} == {"multiple bifurcation"}
    assert [event.unstable for event in events] == [(0, 4), (4, 2), (2, 4), (4, 0)]


def test_the_bogdanov_takens_points_of_one_neuron(plane):
    _, found = plane
    k, s = 0.2, 0.5
    drive, tau = (1 - (k / s) ** (2 / 3)) ** 1.5, 2 * ((s / k) ** (2 / 3) - 1)
    folds = [curve for curve in found.curves if curve.kind == "fold"]
    assert len(folds) == 2 and len(found.curves) == 4
    for curve, sign in zip(folds, (1, -1), strict=True):
        (point,) = curve.points
        assert point.kind == "bogdanov-takens"
        np.testing.assert_allclose(np.abs(point.values), [drive, tau], rtol=1e-9)
        del sign
    for curve in found.curves[2:]:
        assert "ends in a bogdanov-takens point" in curve.ends
        (bautin,) = curve.points
        assert bautin.kind == "generalized hopf"  # where the first Lyapunov coefficient is 0
        np.testing.assert_allclose(bautin.values[1], 1.0, rtol=1e-7)
        z, ratio = np.abs(curve.values[:, 0]), curve.values[:, 1] / 2
        root = np.sqrt(curve.x[:, 1])
        np.testing.assert_allclose(ratio, 2 * (s - root) * root**2 / k**2, rtol=1e-8)
        np.testing.assert_allclose(
            z, np.sqrt(1 - k**2 / root**2) * 2 * (s - root), rtol=1e-7, atol=1e-9
        )


def test_events_are_proved_and_wrong_ones_are_not(plane):
    circuit, found = plane
    proved = prove_events(circuit, np.ones(1), "z", found).events
    assert [event.proved for event in proved] == [True] * 4
    for event in found.events:
        proof = prove_event(circuit, np.ones(1), "z", event)
        assert float(abs(proof.parameter - event.parameter).abs_upper()) < 1e-12
        assert len(proof.evidence) >= 3
        # from beside it Newton's method comes back
        beside = event._replace(parameter=event.parameter * (1 + 1e-4))
        assert not prove_event(circuit, np.ones(1), "z", beside).proved
    fold, hopf = (next(e for e in found.events if e.kind == kind) for kind in ("fold", "hopf"))
    # another kind of Hopf point, or another frequency, is not what is there
    for wrong in (
        hopf._replace(first_lyapunov=-hopf.first_lyapunov),
        hopf._replace(frequency_hz=1.001 * hopf.frequency_hz),
    ):
        proof = prove_event(circuit, np.ones(1), "z", wrong)
        assert not proof.proved and [bool(e.holds) for e in proof.evidence].count(False) == 1
    other = single(2.0, 0.55, 1.2)  # has neither, as k > s
    for event in (fold, hopf):
        assert not prove_event(other, np.ones(1), "z", event).proved


def test_special_points_are_in_the_range_that_was_asked_for():
    """The last step of this curve of folds goes beyond it, over a Bogdanov-Takens point."""
    circuit = Circuit(W=[[1.0]], W_r=[[2.0]], b=0.5, b0=0.5, sigma=0.1, tau_y=2.0, tau_a=2.0)
    start = [found.point for found in organics.steady_states(circuit, np.ones(1)).states]
    for low, count in ((0.7, 1), (0.72, 0)):
        found = organics.continuation(
            circuit, [1.0], "z", (low, 2.0), second=("sigma", (0.02, 1.2)), start=start
        )
        (curve,) = found.curves
        assert curve.kind == "fold" and len(curve.points) == count
        for point in curve.points:
            np.testing.assert_allclose(point.values[0], np.sqrt(0.5), rtol=1e-9)


def test_where_a_third_eigenvalue_is_zero_there_is_no_generalized_hopf_point():
    """The first Lyapunov coefficient has a pole there, at which it changes its sign."""
    circuit = Circuit(W=[[1.0, 0.1], [0.05, 1.0]], W_r=[[2.0, 0.0], [0.0, 2.0]], b=1.0, b0=1.0,
                      sigma=0.05, tau_y=2.0, tau_a=2.0)  # fmt: skip
    drive = np.array([0.05, 0.4])
    (start,) = [
        found.point
        for found in organics.steady_states(circuit, drive).states
        if found.state.y[0] > 0 and found.state.y[1] < -0.8
    ]
    found = organics.continuation(
        circuit, drive, "z[0]", (-0.3, 0.3), second=("z[1]", (0.2, 0.9)), start=start,
        switching=False,
    )  # fmt: skip
    (curve,) = found.curves
    l1 = curve.first_lyapunov
    (turn,) = np.flatnonzero(l1[1:] * l1[:-1] < 0)
    assert np.max(np.abs(l1[turn : turn + 2])) > 1 and curve.points == []


def test_the_figures_show_what_was_found(plane, ring):
    for found in (plane[1], ring[3]):
        for figure in (bifurcation_diagram(found), event_plane(found), rhythm_frequencies(found)):
            (axes,) = figure.axes
            assert axes.get_xlabel() == found.parameter
    assert len(event_plane(plane[1]).axes[0].lines) >= 6


def test_with_identity_recurrence_nothing_happens():
    keys = jr.split(jr.key(3), 64)
    circuits = jax.vmap(lambda key: Circuit.random(key, 2, None))(keys)
    identity = jnp.broadcast_to(jnp.eye(2), (64, 2, 2))
    circuits = eqx.tree_at(lambda c: c.W_r, circuits, identity, is_leaf=lambda leaf: leaf is None)
    drives = np.random.default_rng(0).normal(size=(64, 2))
    for diagram in organics.continuations(circuits, drives, "z", (0.0, 5.0), start="rest"):
        assert diagram.events == []
        assert diagram.branches[0].stable.all()


def test_a_supralinear_network_has_its_fold_where_the_closed_form_says():
    layer = SSN(1, 1, 1, key=jr.key(0), k=0.3)
    system = layer.driven(jnp.ones(1))
    W, h = jnp.array([[2.0, 0.0], [0.0, -1.0]]), jnp.array([0.1, 0.0])
    system = eqx.tree_at(lambda system: (system.W, system.h), system, (W, h))
    u = (1 - np.sqrt(1 - 4 * 0.6 * 0.1)) / 1.2  # of u = h + w k u^2
    found = organics.continuation(system, None, "h", (-1.0, 10.0), start=np.array([u, 0.0]))
    np.testing.assert_allclose(of_kind(found, "fold"), [1 / (4 * 0.6) / 0.1], rtol=1e-10)


class Circle(System):
    """One number with `x^2 + p^2 = 1` at rest."""

    p: Array

    def time_constants(self):
        return jnp.ones(1)

    def imbalance(self, x):
        return 1 - x**2 - self.p**2

    def terms(self, x):
        return 1 + x**2 + self.p**2

    def jacobian(self, x):
        return -2 * x[:, None]


@pytest.mark.parametrize("z", [1e-2, 1e-3, 1e-5])
def test_a_branch_does_not_jump_where_a_pitchfork_is_imperfect(z):
    """With `z = 0` two branches leave `y = 0` where `b0 sigma = 1/2`; with some drive the upper one
    belongs to the branch from above, and the lower one turns."""
    found = organics.continuation(single(2.0, 1.5), [z], "sigma", (0.1, 1.5))
    (branch,) = found.branches
    low = np.argmin(branch.parameter)
    assert branch.events == [] and branch.stable.all() and branch.x[low, 0] > 0.9


def test_a_closed_branch_ends_where_it_began():
    system = Circle(jnp.array([0.6]))
    found = organics.continuation(system, None, "p", (-2.0, 2.0), start=np.array([0.8]))
    (branch,) = found.branches
    assert set(branch.ends) == {"returned to its beginning"}
    np.testing.assert_allclose(branch.x[:, 0] ** 2 + branch.parameter**2, 1, rtol=1e-12)
    np.testing.assert_allclose(of_kind(found, "fold"), [-1, 1], rtol=1e-12)
    assert branch.stable.mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("apart", [2e-5, 2e-7])
def test_of_two_hopf_points_side_by_side_neither_is_lost(apart):
    """Two neurons that share nothing, one with a little more drive: its Hopf point is at so much
    less of the factor, for each value of the second parameter."""
    alone = Circuit([[1.0]], [[2.0]], b=0.5, b0=0.5, sigma=0.1, tau_y=2.0, tau_a=2.0)
    z = 0.0195 * np.array([1.0, 1 + apart])
    each = [
        min(organics.fixed_points_2d(alone, [x]), key=lambda p: abs(p.eigenvalues[0].real))
        for x in z
    ]
    start = State(np.array([p.y for p in each]), np.array([p.a for p in each]))
    both = Circuit(np.eye(2), 2 * np.eye(2), b=0.5, b0=0.5, sigma=0.1, tau_y=2.0, tau_a=2.0)
    found = organics.continuation(
        both, z, "z", (0.95, 1.15), switching=False, start=start, second=("tau_y", (1.9, 2.1))
    )
    hopf = 2 * 0.0101550868 / z
    np.testing.assert_allclose(of_kind(found, "hopf"), np.sort(hopf), rtol=1e-8)
    assert len(found.curves) == 2
    factors = []
    for curve in found.curves:
        # no curve passes from one neuron to the other
        neuron = np.argmin(np.abs(hopf - np.interp(2.0, curve.values[:, 1], curve.values[:, 0])))
        factors.append(neuron)
        x = np.sqrt(curve.x[:, 2 + neuron])
        ratio = 2 * (0.5 - x) * x**2 / 0.05**2
        np.testing.assert_allclose(2 * ratio, curve.values[:, 1], rtol=1e-6)
    assert sorted(factors) == [0, 1]


def test_a_branch_that_meets_another_twice_is_listed_once():
    """With `W_r = 5 s` and `sigma = s`, `(1 - s) 5 s = 1` at two pitchforks, which a closed branch
    joins."""
    way = {"W_r": [[5.0]], "sigma": [1.0]}
    circuit = single(2.5, 0.5, w=0.7)
    found = organics.continuation(
        circuit, [0.0], way, (-0.4, 0.4), start=State([0.0], np.array([0.25]))
    )
    trivial, loop = found.branches
    forks = 0.5 + np.array([-1, 1]) * np.sqrt(0.05) - 0.5
    np.testing.assert_allclose(of_kind(found, "pitchfork"), np.repeat(forks, 2), rtol=1e-9)
    assert set(loop.ends) == {"returned to its beginning"} and np.all(trivial.x[:, 0] == 0)
    assert loop.x[:, 0].min() < -0.1 and loop.x[:, 0].max() > 0.1


class Hollow(System):
    """One number with `p = x^2 / (1 + x^2)` at rest: from p = 1 both ways to infinity."""

    p: Array

    def time_constants(self):
        return jnp.ones(1)

    def imbalance(self, x):
        return self.p * (1 + x**2) - x**2

    def terms(self, x):
        return self.p * (1 + x**2) + x**2

    def jacobian(self, x):
        return (2 * (self.p - 1) * x)[:, None]


def test_a_branch_that_goes_to_infinity_is_listed_once():
    starts = [np.array([x]) for x in (1.0, -1.0)]
    for start in (starts, starts[::-1]):
        found = organics.continuation(Hollow(jnp.array([0.5])), None, "p", (-1.0, 2.0), start=start)
        (branch,) = found.branches
        assert branch.ends == ("goes to infinity",) * 2
        (fold,) = [event for event in branch.events if event.confirmed]  # far out all is rounding
        assert fold.kind == "fold" and abs(fold.parameter) < 1e-12


class Interrupted(ThreadPoolExecutor):
    """Threads before whose work Ctrl-C comes."""

    def submit(self, *work, **options):
        del work, options
        future = Future()
        future.set_exception(KeyboardInterrupt())
        return future


def test_ctrl_c_leaves_what_was_found(monkeypatch, capsys):
    monkeypatch.setattr(arclength, "ThreadPoolExecutor", Interrupted)
    found = organics.continuation(single(2.0, 0.05), [1.0], "z", (-2.0, 2.0))
    assert found.interrupted and len(found.branches) == 1
    assert found.branches[0].ends == ("was not followed further",) * 2
    assert "this is what was found until then" in str(found)
    assert (
        cli.run(["continue", "examples/figure1b.json", "--from", "-2", "--to", "2", "--json"])
        == 130
    )
    assert json.loads(capsys.readouterr().out)["interrupted"]


@pytest.mark.parametrize("many", [0, 1])
def test_ctrl_c_between_proofs_leaves_what_was_found(monkeypatch, capsys, tmp_path, many):
    done = []

    def prove(*arguments):
        if len(done) == many:
            raise KeyboardInterrupt
        done.append(arguments)
        return prove_event(*arguments)

    monkeypatch.setattr("organics.proofs.bifurcations.prove_event", prove)
    words = ["continue", "examples/figure1b.json", "--from", "-2", "--to", "2", "--prove", "--json"]
    assert cli.run([*words, "--out", str(tmp_path / "found.json")]) == 130
    document = json.loads(capsys.readouterr().out)
    assert document["interrupted"]
    (branch,) = document["branches"]
    proved = [event["proved"] for event in branch["events"]]
    assert len(proved) >= 2 and proved == [True] * many + [None] * (len(proved) - many)
    assert json.loads((tmp_path / "found.json").read_text())["branches"] == [branch]


def test_after_ctrl_c_nothing_is_proved(plane):
    circuit, found = plane
    proved = prove_events(circuit, np.ones(1), "z", found._replace(interrupted=True)).events
    assert [event.proved for event in proved] == [None] * 4


@pytest.mark.parametrize("where", ["search.find_crossings", "continuation.switch"])
def test_ctrl_c_between_walks_leaves_the_branches(monkeypatch, where):
    def interrupted(*arguments):
        del arguments
        raise KeyboardInterrupt

    monkeypatch.setattr(f"organics.branches.{where}", interrupted)
    found = organics.continuation(single(2.0, 0.05), [1.0], "z", (-2.0, 2.0))
    (branch,) = found.branches
    assert found.interrupted and branch.ends == (
        "reached the lower bound",
        "reached the upper bound",
    )


def test_a_branch_begins_at_a_state_that_is_not_found_from_rest():
    """Inhibition of itself: the circuit oscillates, and the search from rest ends nowhere."""
    circuit = Circuit([[1.0]], [[-1.75758]], b=0.7, b0=0.8, sigma=1.3, tau_y=2.0, tau_a=7.0)
    z = np.array([0.5])
    assert not organics.steady_state(circuit, z).converged
    (branch,) = organics.continuation(circuit, z, "z", (0.8, 1.2)).branches
    assert branch.ends == ("reached the lower bound", "reached the upper bound")
    (y, a) = (
        np.interp(1.0, branch.parameter[::s], x[::s])
        for s, x in zip([-1 if branch.parameter[0] > 1 else 1] * 2, branch.x.T, strict=True)
    )
    assert abs(0.35 - 1.75758 * (1 - np.sqrt(a)) * y - y) < 1e-3
    assert abs((0.8 * 1.3) ** 2 + a * y**2 - a) < 1e-3


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    "options, words",
    [
        ({"parameter": "sigmaa"}, r"`parameter` must name an array .* did you mean 'sigma'"),
        ({"parameter": "W_r[0,1]"}, r"entry of an array of shape \(1, 1\)"),
        ({"parameter": "z[0][0]"}, "`parameter` must name an array"),
        ({"parameter": "sigma", "bounds": (-0.5, 1.0)}, "sigma = -0.5.*must be finite and > 0"),
        ({"parameter": "W[0,0]", "bounds": (-0.5, 2.0)}, r"W\[0,0\] = -0.5.*be >= 0"),
        ({"second": ("sigmaa", (0, 1))}, "`second` must name an array"),
        ({"bounds": (1.0, 0.0)}, "`bounds` must be finite, the first below the second"),
        ({"bounds": (0.0, np.nan)}, "`bounds` must be finite"),
        ({"start": State(np.ones(1), np.ones(1))}, "`start` must be a steady state"),
        ({"start": np.ones(3)}, r"`start` must be finite and of shape \(2,\)"),
        ({"start": "there"}, '`start` must be states, or "rest"'),
        ({"bounds": (2.0, 3.0), "start": State(np.ones(1), np.ones(1))}, "must include 1"),
        ({"z": [0.0]}, "is a factor on the drive, which is 0 here"),
        ({"parameter": {"nu": 1.0}}, "`parameter` must be a direction by names of"),
        ({"parameter": {"W_r": "a"}}, r"`parameter\['W_r'\]` must be numbers, not 'a'"),
        ({"parameter": {"W_r": 0.0}}, "`parameter` must be a direction that is not 0"),
        ({"parameter": 3}, "`parameter` must be a name, or arrays by name, not 3"),
        ({"second": (3, (0, 1))}, "`second` must be a name, or arrays by name, not 3"),
        ({"z": [[1.0], [2.0]]}, "Several drives are for several calls"),
        ({"most": 0}, "`most` must be at least 1"),
    ],
)
def test_what_cannot_be_followed_is_refused(options, words):
    given = {"system": single(2.0, 0.1), "z": [1.0], "parameter": "z", "bounds": (0.0, 2.0)}
    with pytest.raises(ValueError, match=words):
        organics.continuation(**(given | options))


def test_arrays_of_unequal_entries_need_an_index():
    circuit = Circuit(np.ones((2, 2)), np.ones((2, 2)), tau_a=[1.0, 2.0])
    system = as_system(circuit, [1.0, 1.0])
    assert isinstance(system, DrivenCircuit)
    with pytest.raises(ValueError, match=r"such as tau_a\[0\]"):
        organics.continuation(circuit, [1.0, 1.0], "tau_a", (1.0, 2.0))


def test_the_command_line_draws_and_writes(tmp_path, capsys):
    files = [tmp_path / name for name in ("z.png", "z.csv", "z.json")]
    words = ["continue", "examples/figure1b.json", "--from", "-2", "--to", "2", "--out", *files]
    assert cli.run([*map(str, words), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameter"] == "z"
    (branch,) = found["branches"]
    folds = [event for event in branch["events"] if event["kind"] == "fold"]
    np.testing.assert_allclose(
        sorted(e["parameter"] for e in folds), [-1.389844967, 1.389844967], rtol=1e-9
    )
    assert set(branch["points"][0]) == {"parameter", "y", "a", "stable"}
    assert files[0].stat().st_size > 1000
    assert len(files[1].read_text().splitlines()) == len(branch["points"]) + 1
    assert json.loads(files[2].read_text())["branches"] == found["branches"]
    for options, word in ((["--from", "2", "--to", "1"], "`from`"),
                          (["--from", "0", "--to", "1", "--neuron", "1"], "`neuron`"),
                          (["--from", "2", "--to", "3", "--all"], "`from` and `to` must include 1"),
                          (["--parameter", "sigma", "--from", "-1", "--to", "1"],
                           "`from` and `to` must leave the system valid"),
                          (["--from", "0", "--to", "1", "--out", "z.doc"], "`out`")):  # fmt: skip
        assert cli.run(["continue", "examples/figure1b.json", *options]) == 2
        assert word in capsys.readouterr().err
