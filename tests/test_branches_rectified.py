"""Branches of the rectified model: on through every kink, and right on either side of it."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import organics
from organics.branches import arclength
from organics.branches.kinks import onward
from organics.circuit.circuit import Circuit, State, random_drive
from organics.enumeration.enclosed import ALL
from organics.enumeration.enclosure import enclose_all
from organics.enumeration.reduced import Reduced
from organics.enumeration.search import search
from organics.plots import bifurcation_diagram

N = 3
BOUNDS = (-2.0, 2.0)
PAIRED = [[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]
BETWEEN = (-1.37, -0.61, 0.43, 1.71)


@pytest.fixture(scope="module", autouse=True)
def _few_programs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arclength, "_WIDTHS", (8,))
        yield


@pytest.fixture(scope="module")
def random_circuits():
    """Circuits of norm 3, their drives, and a branch of each over contrast, through 0."""
    keys = jr.split(jr.key(5), 32)
    circuits = jax.vmap(lambda key: Circuit.random(key, N, 3.0, rectified=True))(keys)
    drives = np.asarray(jax.vmap(lambda key: random_drive(key, N, 1.5))(keys))
    found = organics.continuations(circuits, drives, "z", BOUNDS, start="rest")
    return jax.tree.map(np.asarray, circuits), drives, [diagram.branches[0] for diagram in found]


def imbalance(circuits, i, z, x):
    """By NumPy, of states `x` (k, 2n) under drives `z` (k, n)."""
    y, a = np.split(x, 2, axis=1)
    q = np.maximum(y, 0)
    c = (circuits.b0[i] * circuits.sigma[i]) ** 2
    return np.concatenate(
        [-y + circuits.b[i] * z + (1 - np.sqrt(a)) * (q @ circuits.W_r[i].T),
         -a + c + (a * q * q) @ circuits.W[i].T], axis=1,
    )  # fmt: skip


def rates(circuits, i, x, on):
    """The Jacobian by NumPy, with the neurons `on` active."""
    (y, a), s = np.split(x, 2), np.sqrt(np.split(x, 2)[1])
    q, W, W_r = y * on, circuits.W[i], circuits.W_r[i]
    J = np.block([
        [(1 - s)[:, None] * W_r * on - np.eye(N), np.diag(-(W_r @ q) / (2 * s))],
        [W * 2 * q * a, W * q * q - np.eye(N)],
    ])  # fmt: skip
    return J / np.concatenate([circuits.tau_y[i], circuits.tau_a[i]])[:, None]


def goes_on_from_rest(circuits, i, z):
    """Whether `v = d l + (1 - k) W_r max(v, 0)` has a solution, for any set of active neurons."""
    k, d = circuits.b0[i] * circuits.sigma[i], circuits.b[i] * z
    for on in map(np.array, itertools.product((False, True), repeat=N)):
        v = np.linalg.solve(np.eye(N) - (1 - k)[:, None] * circuits.W_r[i] * on, d)
        if any(np.array_equal(sign * v > 0, on) for sign in (1, -1)):
            return True
    return False


def either_side(branch, event):
    """How many eigenvalues are unstable before and after a kink, which stands twice in a branch."""
    at = [j for j, x in enumerate(branch.x) if np.max(np.abs(x - event.x)) < 1e-6]
    unstable = np.sum(branch.eigenvalues.real > 0, axis=1)
    return [(unstable[j], unstable[j + 1]) for j in at if j + 1 in at]


def test_every_branch_balances_and_reaches_a_bound(random_circuits):
    circuits, drives, branches = random_circuits
    kinds = {"switch": 0, "nonsmooth fold": 0, "fold": 0}
    alone = 0
    for i, branch in enumerate(branches):
        if not goes_on_from_rest(circuits, i, drives[i]):
            alone += 1
            assert np.all(branch.x[:, :N] == 0) and all("kink" in end for end in branch.ends)
            continue
        assert all("bound" in end for end in branch.ends), branch.ends
        left = imbalance(circuits, i, branch.parameter[:, None] * drives[i], branch.x)
        assert np.max(np.abs(left) / (1 + np.abs(branch.x).max(axis=1, keepdims=True))) < 1e-9
        for event in branch.events:
            kinds[event.kind] = kinds.get(event.kind, 0) + 1
            assert event.confirmed
            if event.unstable is not None:
                assert np.all(np.abs(event.x[list(event.switched)]) < 1e-8)
                assert event.unstable in either_side(branch, event)
    assert 0 < alone < 10
    assert kinds["switch"] > 20 and kinds["nonsmooth fold"] > 5 and kinds["fold"] > 5


def test_stability_is_that_of_either_side(random_circuits):
    circuits, _, branches = random_circuits
    jumps = 0
    for i, branch in enumerate(branches):
        for j, (x, values) in enumerate(zip(branch.x, branch.eigenvalues, strict=True)):
            if np.min(np.abs(x[:N])) > 1e-6:
                want = np.linalg.eigvals(rates(circuits, i, x, x[:N] > 0)).real.max()
                np.testing.assert_allclose(values.real.max(), want, rtol=1e-6, atol=1e-9)
            elif j and np.array_equal(x, branch.x[j - 1]):  # a kink, once for each side
                sides = [
                    [np.linalg.eigvals(rates(circuits, i, x, np.array(on))).real.max()
                     for on in itertools.product(*((v > 1e-6,) if abs(v) > 1e-6 else (0, 1)
                                                   for v in x[:N]))]
                ]  # fmt: skip
                for k in (j - 1, j):
                    near = np.abs(np.array(sides) - branch.eigenvalues[k].real.max())
                    assert near.min() < 1e-6
                jumps += np.ptp(np.sum(branch.eigenvalues[j - 1 : j + 1].real > 0, axis=1)) > 0
    assert jumps > 5


def test_states_along_branches_are_among_all_steady_states(random_circuits):
    circuits, drives, branches = random_circuits
    seen = 0
    for i in range(8):
        circuit = jax.tree.map(lambda leaf, i=i: leaf[i], circuits)
        for value in BETWEEN:
            z = value * drives[i]
            system = Reduced.of(circuit, z)
            known = enclose_all(circuit, z, system, 10**6)
            assert known.outcome == ALL
            assert len(search(system).v) == len(known.v)
            known = [np.concatenate([*system.state(v)]) for v in known.v]
            side = np.sign(branches[i].parameter - value)
            for j in np.flatnonzero(side[1:] * side[:-1] < 0):
                low, high = branches[i].x[j : j + 2]
                step = np.linalg.norm(high - low)
                assert min(np.linalg.norm(x - (low + high) / 2) for x in known) < step + 1e-9
                seen += 1
    assert seen > 16


def with_silent_third(W_r, k, d):
    """Two neurons, and a third that no one hears and that stays silent."""
    W = np.diag([1.0, 1.0, 1.0])
    W_r = np.pad(np.asarray(W_r, float), (0, 3 - len(W_r)))
    return Circuit(W, W_r, 1.0, 1.0, k, 2.0, 4.0, rectified=True), np.array([*d, -1.0])


def test_a_nonsmooth_fold_is_where_the_closed_form_says():
    # one neuron with w_r > 1 and k < 1 - 1 / w_r: silent for z < 0; from z = 0 the active branch
    # goes back, to the fold of the main model
    w_r, k = 2.0, 0.2
    circuit, z = with_silent_third([[w_r]], k, [-1.0, -1.0])
    start = State(jnp.asarray(z), jnp.full(N, k**2))
    found = organics.continuation(circuit, z, {"z": [1.0, 0.0, 0.0]}, (-0.5, 3.0), start=start)
    (branch,) = found.branches
    kink, *rest = sorted(branch.events, key=lambda event: -event.parameter)
    assert (kink.kind, kink.switched) == ("nonsmooth fold", (0,))
    np.testing.assert_allclose(kink.parameter, 1.0, rtol=1e-12)
    s = 1 - 1 / w_r
    depth = (w_r - 1) * (1 - (k / s) ** (2 / 3)) ** 1.5
    (fold,) = [event for event in rest if event.kind == "fold"]
    np.testing.assert_allclose(fold.parameter, 1 - depth, rtol=1e-10)
    assert kink.unstable in ((0, 1), (1, 0)) and "neuron 0" in kink.words
    (axes,) = bifurcation_diagram(found).axes
    assert "nonsmooth fold" in axes.get_legend_handles_labels()[1]


def test_all_ways_out_of_a_corner_are_followed():
    # where the drive of two neurons vanishes both are at their kinks; the ways out solve
    # v = d l + (1 - k) W_r max(v, 0), here with one way for each pattern of silent neurons
    circuit, z = with_silent_third([[0.0, -4.0], [-4.0, 0.0]], 0.1, [-0.5, -0.5])
    start = State(jnp.asarray(z), jnp.full(N, 0.01))
    found = organics.continuation(circuit, z, {"z": [1.0, 1.0, 0.0]}, (0.0, 1.0), start=start)
    assert len(found.branches) == 2
    patterns = set()
    for branch in found.branches:
        for end in (0, -1):
            value, y = branch.parameter[end], branch.x[end, :2]
            patterns.add((bool(value > 0.5), *map(bool, y > 0)))
    assert patterns == {(True, True, True), (True, True, False), (True, False, True),
                        (False, False, False)}  # fmt: skip


def test_the_way_through_a_corner_leads_back():
    """Who comes on the way out leaves on the way in, also where there are many ways."""
    k, count = 4, 16
    rng = np.random.default_rng(k)
    A, d = rng.normal(size=(count, k, k)) * 2, rng.normal(size=(count, k))
    patterns = np.array(list(itertools.product((False, True), repeat=k)))
    A, d = (np.repeat(part, len(patterns), axis=0) for part in (A, d))
    positive = np.tile(patterns, (count, 1))
    v = np.concatenate([np.linalg.solve(A * positive[:, None] - np.eye(k), -d[:, :, None])[..., 0],
                        np.ones((len(d), 1))], axis=1)  # fmt: skip
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    v *= np.where(np.all((v[:, :k] > 0) == positive, axis=1), 1, -1)[:, None]
    comes = np.all((v[:, :k] > 0) == positive, axis=1)

    @jax.jit
    @jax.vmap
    def go(A, d, v, positive):
        def jacobian(positive):
            return jnp.concatenate([jnp.where(positive, A, 0) - jnp.eye(k), d[:, None]], axis=1)

        return onward(jacobian, np.arange(k), jnp.ones(k, bool), v, positive, False)

    out, new, known = map(np.asarray, go(A, d, -v, positive))
    back, old, _ = map(np.asarray, go(A, d, -out, new))
    assert comes.sum() > count and known[comes].all()
    np.testing.assert_allclose(back[comes], v[comes], atol=1e-9)
    assert np.array_equal(old[comes], positive[comes])
    assert not np.any(np.all(new[comes] == positive[comes], axis=1))
    assert np.array_equal((out[:, :k] > 0)[comes], new[comes])


def test_closed_branches_through_kinks_close_and_are_named_once():
    circuit, z = with_silent_third([[1.6, -1.2], [-1.2, 1.7]], 0.2, [0.4, 0.28])
    circuit = eqx.tree_at(lambda c: c.W, circuit, jnp.array(PAIRED))
    system = Reduced.of(circuit, z)
    start = [system.state(v) for v in search(system).v]
    found = organics.continuation(
        circuit, z, {"z": [1.0, 0.7, 0.0]}, (-1.4, 0.6), start=start, switching=False
    )
    closed = [b for b in found.branches if "returned to its beginning" in b.ends]
    (branch,) = closed
    assert len(start) > len(found.branches)
    assert len(branch.parameter) < 200
    assert {e.kind for e in branch.events} >= {"fold", "switch"}
    np.testing.assert_allclose(branch.parameter[0], branch.parameter[-1], rtol=1e-9)
