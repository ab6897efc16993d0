"""All steady states: the search, the exact routes, and the proof that there are no others."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import arb, arb_mat, ctx
from scipy.optimize import brentq

import organics
from organics import Circuit, State, cli, steady_state, steady_states
from organics.circuit.file import load_circuit
from organics.circuit.weights import Convolution
from organics.enumeration import contraction, native
from organics.enumeration.bounds import Blocks, bound
from organics.enumeration.contraction import EMPTY, ONE, Equations
from organics.enumeration.degree import expected_degree
from organics.enumeration.enclosure import enclose_all
from organics.enumeration.intervals import Interval
from organics.enumeration.one_pool import states_of_one_pool
from organics.enumeration.reduced import Reduced
from organics.enumeration.search import is_among, newton, random_starts, search
from organics.kernels import native as kernel_library
from organics.planar import fixed_points_2d
from organics.proofs.balls import BallCircuit
from organics.proofs.pairs import steady_states_of_two

ROOT = Path(__file__).parents[1]
TRAINED = ROOT / "results/paper/fig5/layer2-input9422.json"
TWO_STABLE = ROOT / "examples/two_stable_states.json"
MOST = 200_000


by_either = pytest.mark.parametrize(
    "contract", [native.contract, contraction.contract], ids=["native", "numpy"]
)


def random_circuit(seed, n, norm=1.0, rectified=False):
    """A circuit and a drive of the law of the paper's trials, without compiling anything."""
    rng = np.random.default_rng(seed)
    b, b0, sigma = rng.uniform(0.01, 1, (3, n))
    W_r, z = rng.normal(size=(n, n)), rng.normal(size=n)
    circuit = Circuit(
        rng.uniform(size=(n, n)), norm * W_r / np.linalg.norm(W_r, 2), b, b0, sigma,
        rectified=rectified,
    )  # fmt: skip
    return circuit, z / np.linalg.norm(z)


def enclosed(circuit, z, most=MOST):
    """What is proved of all states, without describing each."""
    return enclose_all(circuit, z, Reduced.of(circuit, z), most)


def same(some, others):
    """Whether two lists of `v` hold the same states."""
    return len(some) == len(others) and all(is_among(v, others) for v in some)


@pytest.mark.parametrize("rectified", [False, True])
def test_the_reduced_equations_have_the_determinant_of_the_circuit(rectified):
    """`det(-J) = det(dG/dv) prod(s)`, and `dG/dv` is that of differences."""
    for seed in range(20):
        n = 1 + seed % 5
        system = Reduced.of(*random_circuit(seed, n, 2.0, rectified))
        v = np.random.default_rng(seed).normal(size=(1, n))
        (dG,) = system.derivative(v, system.values(v))
        step = 1e-6 * np.random.default_rng(1).normal(size=(1, n))
        ahead, behind = v + step, v - step
        change = system.residual(ahead, system.values(ahead))
        change -= system.residual(behind, system.values(behind))
        np.testing.assert_allclose(change[0] / 2e-6, dG @ step[0] / 1e-6, atol=1e-7)
        y, a = (np.asarray(x) for x in system.state(v[0]))
        s, on = np.sqrt(a), (y > 0) | (not rectified)
        q, W, W_r = y * on, system.W, system.W_r
        J = np.block([
            [-np.eye(n) + (1 - s)[:, None] * W_r * on, -np.diag(W_r @ q / (2 * s))],
            [2 * W * (a * q), W * q**2 - np.eye(n)],
        ])  # fmt: skip
        active = np.where(on, s, 1.0)  # a silent neuron is its own unknown
        np.testing.assert_allclose(np.linalg.det(-J), np.linalg.det(dG) * active.prod(), rtol=1e-8)


def equations_with_a_zero(seed, n):
    """Equations, and a `v` of float64 numbers that is a zero for a `d` in their interval."""
    rng = np.random.default_rng(seed)
    W, W_r = rng.uniform(size=(n, n)), 2 * rng.normal(size=(n, n))
    c = 10 ** rng.uniform(-4, 0, n)
    v = rng.normal(size=n) * 10 ** rng.uniform(-2, 3)
    with ctx.workprec(300):
        balls = [arb(x) for x in v.tolist()]
        a = [
            arb(c[i].item()) + sum((arb(W[i, j].item()) * balls[j] ** 2 for j in range(n)), arb(0))
            for i in range(n)
        ]
        y = [x / a.sqrt() for x, a in zip(balls, a, strict=True)]
        u = (arb_mat(W_r.tolist()) * arb_mat([[x] for x in y])).entries()
        d = [y - (1 - a.sqrt()) * u for y, a, u in zip(y, a, u, strict=True)]
        middle = np.array([float(x.mid()) for x in d])
        ends = Interval(np.nextafter(middle, -np.inf), np.nextafter(middle, np.inf))
        for low, high, x in zip(*map(np.ndarray.tolist, ends), d, strict=True):
            assert arb(low) <= x <= arb(high)
    return Equations(W, W_r, Interval.exact(c), ends), v


@by_either
def test_no_zero_is_lost(contract):
    """Boxes of all sizes around an exact zero, which may lie on their border."""
    lost = 0
    for seed in range(24):
        n = 1 + seed % 8
        equations, v = equations_with_a_zero(seed, n)
        rng = np.random.default_rng(seed)
        k = 300
        size = 10 ** rng.uniform(-17, 3, (k, 1)) * (np.abs(v) + 1e-3)
        below, above = size * rng.uniform(size=(2, k, n))
        on_border = rng.uniform(size=(k, n)) < 0.2
        low, high = np.where(on_border, v, v - below), v + above
        found = contract(equations, low, high)
        inside = np.all((found.low <= v) & (v <= found.high), axis=1)
        lost += int(np.sum(~inside | (found.known == EMPTY)))
        assert np.all(found.low >= low) and np.all(found.high <= high)
        assert np.any(found.known == ONE)
    assert lost == 0


@by_either
def test_one_zero_is_claimed_only_where_there_is_one(contract):
    """The zeros of two neurons are known from resultants."""
    claims = 0
    for seed in (1, 2, 4, 7):
        circuit, z = random_circuit(seed, 2, 1.5)
        pairs = steady_states_of_two(circuit, z)
        assert pairs is not None
        zeros = np.array([
            [float((a.sqrt() * y).mid()) for y, a in zip(*box, strict=True)]
            for box in pairs.enclosures
        ])  # fmt: skip
        system = Reduced.of(circuit, z)
        rng = np.random.default_rng(seed)
        middle = zeros[rng.integers(len(zeros), size=2000)] * (
            1 + 10 ** rng.uniform(-6, 1, (2000, 1)) * rng.normal(size=(2000, 2))
        )
        size = np.abs(middle) * 10 ** rng.uniform(-5, 1, (2000, 1))
        equations = Equations(
            system.W, system.W_r,
            Interval(system.c * (1 - 1e-15), system.c * (1 + 1e-15)),
            Interval(system.d - 1e-15, system.d + 1e-15),
        )  # fmt: skip
        found = contract(equations, middle - size, middle + size)
        inside = np.abs(zeros[None] - middle[:, None]) <= size[:, None]
        count = np.all(inside, axis=2).sum(axis=1)
        claims += int(np.sum(found.known == ONE))
        assert np.all(count[found.known == ONE] == 1)
        assert np.all(count[found.known == EMPTY] == 0)
    assert claims > 100


def test_the_native_library_has_the_kernel():
    """If there is a library; one that is older must be built again."""
    assert native.available() == (kernel_library.unavailable() is None)


def test_both_kernels_prove_the_same(monkeypatch):
    circuit, z = random_circuit(2, 3, 2.0)
    first = enclosed(circuit, z)
    monkeypatch.setattr("organics.enumeration.enclosure.contract", contraction.contract)
    second = enclosed(circuit, z)
    assert first.outcome == second.outcome == "all, proved"
    assert same(first.v, second.v)


def test_two_neurons_have_the_states_of_resultants():
    for seed in range(6):
        circuit, z = random_circuit(seed, 2, 1 + seed % 3)
        found, pairs = enclosed(circuit, z), steady_states_of_two(circuit, z)
        system = Reduced.of(circuit, z)
        assert found.outcome == "all, proved" and pairs is not None
        v = np.array([
            [float((a.sqrt() * y).mid()) for y, a in zip(*box, strict=True)]
            for box in pairs.enclosures
        ])  # fmt: skip
        assert same(found.v, v)
        assert sum(system.signs(found.v)) == np.sign(np.linalg.det(system.W_r))
        assert np.all(
            np.abs(v) <= bound(Blocks.of(BallCircuit.of(circuit, jnp.asarray(z)), [0, 1]))
        )
        assert same(search(system).v, v)


def test_the_search_finds_what_is_proved():
    for seed in range(6):
        n = 3 + seed % 2
        circuit, z = random_circuit(seed, n, 1 + seed % 3)
        found, proved = search(Reduced.of(circuit, z)), enclosed(circuit, z)
        assert proved.outcome == "all, proved" and same(found.v, proved.v)
        assert sum(found.signs) == found.expected


def test_the_search_finds_what_random_starts_find():
    for seed in range(3):
        system = Reduced.of(*random_circuit(seed, 20, 1 + seed % 3))
        found = search(system)
        assert sum(found.signs) == found.expected
        with np.errstate(all="ignore"):
            ends = newton(system, random_starts(system, np.random.default_rng(1), 500))
        assert len(ends) and all(is_among(v, found.v) for v in ends)


def polynomial(s, W_r, d):
    """That of `test_one_pool_is_the_zeros_of_a_polynomial`, from a determinant and a solution."""
    M = np.eye(len(d)) - (1 - s) * W_r
    determinant = np.linalg.det(M)
    N = determinant * np.linalg.solve(M, d)
    return (s**2 - 0.0225) * determinant**2 - 0.6 * s**2 * (N @ N)


def test_one_pool_is_the_zeros_of_a_polynomial():
    for seed in range(8):
        n = 1 + seed % 4
        rng = np.random.default_rng(seed)
        W_r = rng.normal(size=(n, n))
        circuit = Circuit(np.full((n, n), 0.6), W_r, b0=0.5, sigma=0.3)
        z = rng.normal(size=n)
        exact = states_of_one_pool(circuit, z, list(range(n)))
        assert exact is not None
        s = np.array([float(box.a[0].sqrt().mid()) for box in exact])

        d = np.asarray(circuit.b) * z
        nodes = 2 + 2 * np.cos(np.pi * (np.arange(2 * n + 3) + 0.5) / (2 * n + 3))
        fit = np.polynomial.Polynomial.fit(nodes, [polynomial(x, W_r, d) for x in nodes], 2 * n + 2)
        roots = fit.roots()
        real = np.sort(roots[(np.abs(roots.imag) < 1e-6) & (roots.real > 0.15)].real)
        np.testing.assert_allclose(s, real, rtol=1e-5)
        system = Reduced.of(circuit, z)
        v = [[float((a.sqrt() * y).mid()) for y, a in zip(*box, strict=True)] for box in exact]
        assert same(search(system).v, np.array(v))


def scalar_states(weight, w_r, squared, c):
    """The roots `s` of `(s^2 - c) (1 - (1 - s) w_r)^2 = weight s^2 squared`, for states along the
    drive."""
    s = np.polynomial.Polynomial([0, 1])
    roots = ((s**2 - c) * (1 - (1 - s) * w_r) ** 2 - weight * squared * s**2).roots()
    return np.sort(roots[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)].real)


@pytest.mark.parametrize("n", [2, 9])
def test_one_pool_of_equal_modes_is_proved(n):
    """All of `W_r = 2 I` are. The states are along the drive."""
    z = np.linspace(0.1, 0.5, n)
    found = organics.steady_states(
        Circuit(np.ones((n, n)), 2 * np.eye(n), b=0.5, b0=0.5, sigma=0.1), z
    )
    expected = scalar_states(1.0, 2.0, np.sum((z / 2) ** 2), 0.0025)
    s = np.sqrt([float(one.state.a[0]) for one in found.states])
    np.testing.assert_allclose(np.sort(s), expected, rtol=1e-9)
    assert found.proved and len(expected) in (1, 3)


@pytest.mark.parametrize(("drive", "proved"), [(1.0, True), (0.2, False)])
def test_one_pool_with_modes_that_nothing_drives(drive, proved):
    """Of four neurons on a ring two equal modes have the eigenvalue 3/2; under a weak drive they
    have a circle of states, and under a strong one none."""
    W_r = np.array([[1.0, 0, -0.5, 0], [0, 1, 0, -0.5], [-0.5, 0, 1, 0], [0, -0.5, 0, 1]])
    assert np.isclose(np.linalg.eigvalsh(W_r), [0.5, 0.5, 1.5, 1.5]).all()
    circuit = Circuit(np.ones((4, 4)), W_r, b=0.5, b0=0.5, sigma=0.1)
    exact = states_of_one_pool(circuit, np.full(4, drive), list(range(4)))
    assert (exact is not None) == proved
    if exact is not None:
        s = [float(box.a[0].sqrt().mid()) for box in exact]
        np.testing.assert_allclose(s, scalar_states(1.0, 0.5, drive**2, 0.0025), rtol=1e-9)


def test_one_neuron_has_the_fixed_points_of_the_plane():
    for seed in range(6):
        circuit, z = random_circuit(seed, 1, 2.5)
        if np.asarray(circuit.W_r)[0, 0] > 0:
            a = [point.a for point in fixed_points_2d(circuit, z)]
            found = steady_states(circuit, z)
            assert found.proved
            got = [float(state.state.a[0]) for state in found.states]
            np.testing.assert_allclose(got, np.sort(a), rtol=1e-9)


def test_the_degree_of_the_rectified_model_depends_on_the_recurrence_only():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        A, K, W_r = rng.normal(size=(3, 2, 2))
        for recurrence, known in ((W_r, None), (A @ A.T + 0.1 * np.eye(2) + K - K.T, 1)):
            for _ in range(3):
                circuit = Circuit(
                    rng.uniform(0.05, 1, (2, 2)), recurrence, b=1.0, b0=1.0,
                    sigma=rng.uniform(0.1, 1, 2), rectified=True,
                )  # fmt: skip
                z = rng.normal(size=2)
                system, found = Reduced.of(circuit, z), enclosed(circuit, z)
                assert found.outcome == "all, proved"
                expected = expected_degree(system)
                assert sum(system.signs(found.v)) == expected
                assert known in (None, expected)
                assert same(search(system).v, found.v)


@pytest.fixture(scope="module")
def two_stable():
    circuit, (z,) = load_circuit(TWO_STABLE)
    return circuit, np.asarray(z), steady_states(circuit, z, prove=True)


def test_two_stable_states_and_a_saddle_are_all(two_stable):
    circuit, _, found = two_stable
    assert found.complete and found.proved and found.outcome == "all, proved"
    assert [state.stable for state in found.states] == [True, False, True]
    assert [state.unstable_dimensions for state in found.states] == [0, 1, 0]
    assert all(state.proved for state in found.states)
    a = np.array([np.asarray(state.state.a) for state in found.states])
    np.testing.assert_allclose(a, [[0.2227, 0.0272], [44.36, 0.0333], [832.0, 0.1512]], rtol=2e-3)
    assert found.degree == (1, 1) and len(found.remaining) == 0
    assert "3 steady states, 2 stable; all, proved" in str(found)
    assert np.linalg.norm(circuit.W_r, 2) < 1


def test_a_start_chooses_the_state(two_stable):
    circuit, z, found = two_stable
    for state in found.states:
        near = State(1.01 * state.state.y, 1.02 * state.state.a)
        point = steady_state(circuit, z, start=near)
        assert point.converged and point.method_name == "newton"
        np.testing.assert_allclose(point.state.a, state.state.a, rtol=1e-9)
    with pytest.raises(ValueError, match=r"`start.a` must be > 0"):
        steady_state(circuit, z, start=State(jnp.ones(2), jnp.zeros(2)))
    by_products = steady_state(circuit, z, start=near, matrix_free=True)  # that of the last state
    assert by_products.converged
    np.testing.assert_allclose(by_products.state.a, state.state.a, rtol=1e-9)


def test_near_a_fold_the_count_is_never_wrong(two_stable):
    """The saddle meets a stable state at some strength of the drive, found by bisection."""
    circuit, z, _ = two_stable
    few, many = 0.863736445690, 0.863736445700
    numbers = {}
    while many - few > 1e-15:
        middle = (few + many) / 2
        found = enclosed(circuit, middle * z)
        numbers[middle] = len(found.v)
        if found.outcome == "undecided":
            assert len(found.remaining) > 0 and len(found.v) in (1, 3)
            return
        assert found.outcome == "all, proved" and len(found.v) in (1, 3)
        few, many = (few, middle) if len(found.v) == 3 else (middle, many)
    pytest.fail(f"each was decided: {numbers}")


@pytest.mark.parametrize(
    ("W", "W_r", "why"),
    [
        ([[1.0, 0.0], [0.5, 1.0]], [[0.5, 0.2], [0.1, 0.4]], "entries that are 0"),
        ([[1.0, 0.3], [0.5, 1.0]], [[0.5, 0.5], [0.5, 0.5]], "singular"),
    ],
)
def test_what_has_no_bound_is_undecided(W, W_r, why):
    circuit = Circuit(W, W_r, sigma=[0.1, 0.2])
    found = steady_states(circuit, np.array([0.3, 0.4]), prove=True)
    assert found.outcome == "undecided" and why in found.why
    assert not found.proved and not found.complete and len(found.states) >= 1


def test_a_limit_leaves_boxes():
    circuit, z = random_circuit(3, 4)
    found = enclosed(circuit, z, 2000)
    assert found.outcome == "at least these, proved" and len(found.remaining) > 0
    whole = enclosed(circuit, z)
    assert all(is_among(v, whole.v) for v in found.v)


def test_no_steady_state_is_proved():
    circuit, (z,) = load_circuit(ROOT / "examples/no_steady_state.json")
    found = steady_states(circuit, z, prove=True)
    assert found.proved and found.states == ()


def test_identity_recurrence_has_one_state():
    circuit, z = Circuit([[1.0, 0.5], [0.2, 1.0]], np.eye(2)), np.array([0.3, -0.2])
    found = steady_states(circuit, z)
    assert found.proved and len(found.states) == 1 and found.states[0].stable


def test_the_trained_circuit_has_25_states():
    circuit, (z,) = load_circuit(TRAINED)
    found = search(Reduced.of(circuit, np.asarray(z)))
    assert len(found.v) == 25 and sum(found.signs) == found.expected == 1


def test_the_command_writes_the_states(capsys):
    assert cli.run(["states", str(TWO_STABLE), "--prove", "--json", "--check"]) == 0
    (drive,) = json.loads(capsys.readouterr().out)["drives"]
    assert drive["complete"] and drive["proved"] and drive["boxes"] > 0
    assert drive["degree"] == {"expected": 1, "found": 1}
    sizes = [np.linalg.norm(state["a"]) for state in drive["states"]]
    assert sizes == sorted(sizes) and len(sizes) == 3
    for state in drive["states"]:
        assert state["proved"] and len(state["y"]) == 2 and len(state["eigenvalues"]) == 4
        assert state["stable"] == (state["spectral_abscissa"] < 0)
        assert state["unstable_dimensions"] == (0 if state["stable"] else 1)
    assert cli.run(["states", str(TWO_STABLE)]) == 0
    assert "3 steady states, 2 stable" in capsys.readouterr().out


def test_signs_at_a_kink_are_not_added_up():
    circuit = Circuit(np.ones((1, 1)), np.full((1, 1), 2.0), rectified=True)
    found = steady_states(circuit, np.zeros(1))
    assert len(found.states) == 2 and found.degree.expected is None and not found.complete
    assert found.why == "nothing tells whether there are others"


def test_an_interrupt_leaves_what_was_found(capsys, monkeypatch, tmp_path):
    file = tmp_path / "two.json"
    document = json.loads(TWO_STABLE.read_text())
    file.write_text(json.dumps(document | {"z": [document["z"]] * 2}), encoding="utf-8")
    calls = iter([steady_states])

    def interrupted(*arguments, **options):
        for call in calls:
            return call(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr("organics.enumeration.states.steady_states", interrupted)
    assert cli.run(["states", str(file), "--json"]) == 130
    output = capsys.readouterr()
    assert len(json.loads(output.out)["drives"]) == 1
    assert "drive 1 and later ones are missing" in output.err


def test_no_sets_of_many_rectified_neurons_are_gone_through():
    """There are 2^n, each with boxes of its own."""
    circuit, z = random_circuit(0, 30, rectified=True)
    found = enclosed(circuit, z, 1000)
    assert found.boxes <= 1000 and "up to n = 8" in found.why


def test_one_pool_of_many_rectified_neurons_is_not_all():
    """There are 2^9 sets of active neurons; here six are active, by a scalar equation."""
    n = 9
    z = np.array([-1.0] * 3 + [1.0] * 6)
    circuit = Circuit(np.full((n, n), 0.1), 0.5 * np.eye(n), 1.0, 1.0, 0.5, rectified=True)
    assert enclosed(circuit, z).outcome == "at least these, proved"
    found = steady_states(circuit, z, prove=True)
    assert not found.proved and "up to n = 8" in found.why
    (only,) = found.states

    def active(s):
        return 1 / (1 - 0.5 * (1 - s))

    s = brentq(lambda s: s**2 * (1 - 0.6 * active(s) ** 2) - 0.25, 0.3, 3)
    np.testing.assert_allclose(only.state.a, s**2, rtol=1e-9)
    np.testing.assert_allclose(only.state.y, np.where(z > 0, active(s), -1), rtol=1e-9)
    assert only.stable and only.proved
    assert enclosed(circuit, -np.ones(n)).outcome == "at least these, proved"


def test_the_theorem_on_one_pool_is_quoted_only_where_it_holds():
    """`W_r = diag(1, 0)` is singular, and there is no state (theory 7.4)."""
    circuit = Circuit(5 * np.ones((2, 2)), np.diag([1.0, 0.0]), 1.0, 1.0, 0.5)
    found = enclosed(circuit, np.array([0.6, 0.8]))
    assert found.outcome == "all, proved" and len(found.v) == 0
    assert "there is one steady state" not in found.why
    regular = Circuit(5 * np.ones((2, 2)), np.diag([1.0, 0.1]), 1.0, 1.0, 0.5)
    found = enclosed(regular, np.array([0.6, 0.8]))
    assert len(found.v) == 1 and "there is one steady state" in found.why


def test_no_boxes_where_entries_are_rounded_sums():
    """The kernel goes round a torus: the weight of a neuron on itself is `1e17 + 1 - 1e17`."""
    kernel = np.array([[[[1e17, 0.0, 1.0, 0.0, -1e17]]]])
    W_r = Convolution(kernel, 1, 2, "periodic")
    W = np.array([[5.0, 4.0], [4.0, 5.0]])
    found = enclosed(Circuit(W, W_r, sigma=0.5), np.array([0.6, 0.8]))
    assert found.outcome == "undecided" and "sums" in found.why


@pytest.mark.usefixtures("without_type_checks")
def test_bad_arguments_are_refused():
    circuit, z = random_circuit(0, 2)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"prove": 1}, "`prove` must be True or False"),
        ({"max_boxes": 0}, "`max_boxes` must be at least 1"),
        ({"seed": -1}, "`seed` must be at least 0"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            steady_states(circuit, z, **options)
    large, drive = random_circuit(0, 101)
    with pytest.raises(ValueError, match="at most 100 neurons, not 101"):
        steady_states(large, drive)
    others = organics.other_states(organics.given_state(large, drive, State(drive, drive**2 + 1)))
    assert others.unique is None and others.points == []


def test_single_precision_is_searched_in_double():
    circuit, z = random_circuit(1, 2)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), circuit)
    found = steady_states(single, np.asarray(z, np.float32))
    assert all(state.state.y.dtype == jnp.float32 for state in found.states)
    assert len(found.states) == len(steady_states(circuit, z).states)


def test_where_pools_share_nothing_the_states_are_all_combinations():
    rng = np.random.default_rng(7)
    several = 0
    for _ in range(4):
        w, w_r = rng.uniform(0.2, 1, 2), rng.uniform(0.3, 1.5, 2) * rng.choice([-1, 1], 2)
        z, sigma = rng.uniform(-1, 1, 2), rng.uniform(0.1, 0.5, 2)
        both = Circuit(np.diag(w), np.diag(w_r), 1.0, 1.0, sigma)
        found = enclose_all(both, z, Reduced.of(both, z), 100_000)
        apart = []
        for i in range(2):
            one = Circuit(w[i : i + 1, None], w_r[i : i + 1, None], 1.0, 1.0, sigma[i])
            apart.append(enclose_all(one, z[i : i + 1], Reduced.of(one, z[i : i + 1]), 100_000).v)
        assert found.outcome == "all, proved"
        want = np.array([[u[0], v[0]] for u in apart[0] for v in apart[1]])
        assert len(found.v) == len(want)
        far = np.linalg.norm(found.v[:, None] - want[None], axis=2)
        assert np.max(np.min(far, axis=1) / np.linalg.norm(found.v, axis=1)) < 1e-9
        several += len(want) > 3
    assert several
