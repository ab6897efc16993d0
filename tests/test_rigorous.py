"""Proofs in ball arithmetic, against float64 with a margin, closed forms and high precision."""

import json
import threading
from decimal import Decimal, getcontext
from fractions import Fraction
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuits import seeds, wide_circuit
from flint import arb, ctx, fmpq
from hypothesis import given
from hypothesis import strategies as st

from organics import cli
from organics.circuit.circuit import Circuit, State
from organics.circuit.file import load_circuit, save_circuit
from organics.circuit.hierarchy import Hierarchy
from organics.circuit.weights import Convolution, Diagonal, LowRank
from organics.linear.jacobian import imbalance_jacobian, jacobian
from organics.linear_stability.oscillator import oscillator
from organics.planar import fixed_points_2d
from organics.proofs.balls import BallCircuit, Box, exact, rational_row, weights_in_balls
from organics.proofs.balls import imbalance as ball_imbalance
from organics.proofs.balls import imbalance_jacobian as ball_jacobian
from organics.proofs.existence import NONE_EXISTS, NONE_STABLE
from organics.proofs.line import BallLine
from organics.proofs.precision import precision
from organics.proofs.proof import STABLE, UNIQUE, UNSTABLE, prove
from organics.rest.closed_form import closed_form
from organics.rest.search import given_state, steady_state

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = 1e-9  # real parts, in 1/ms, whose sign float64 tells for the circuits here
models = st.booleans()


def holds(ball, value, slack=0.0):
    """Whether a ball, widened by `slack`, holds a number."""
    return bool((ball + arb(0, slack)).contains(arb(float(value))))


@eqx.filter_jit
def euler(circuit, z, state, dt, steps):
    """The state after that many Euler steps."""

    def step(_, state):
        return jax.tree.map(lambda x, v: x + dt * v, state, circuit.velocity(state, z))

    return jax.lax.fori_loop(0, steps, step, state)


imbalance = eqx.filter_jit(Circuit.imbalance)
derivative = eqx.filter_jit(imbalance_jacobian)
rates = eqx.filter_jit(jacobian)
oscillators = eqx.filter_jit(oscillator)


def spectral_abscissa(circuit, state):
    return np.max(np.linalg.eigvals(np.asarray(rates(circuit, state))).real)


def diagonal(proof):
    return np.array([float(t) for t in proof.certificate.entries()])


def bound_on_real_parts(proof):
    """`g -+ margin` of a Lyapunov proof, read from its printed form."""
    decrease = proof.decided_by
    g = float(decrease.name.split("g = ")[1].split()[0])
    return g, float(decrease.margin.lower())


def planar(w_r, *, w=1.0, p=1.0, c=0.25, tau_y=2.0, tau_a=2.0, rectified=False):
    return (
        Circuit(
            [[w]], [[w_r]], b=1.0, b0=1.0, sigma=np.sqrt(c),
            tau_y=tau_y, tau_a=tau_a, rectified=rectified,
        ),
        jnp.array([p]),
    )  # fmt: skip


# the equations, written a second time


@given(n=st.sampled_from([1, 4]), seed=seeds, rectified=models, identity=models)
def test_the_balls_hold_the_imbalance_and_its_derivative(n, seed, rectified, identity):
    norm = None if identity else 2.0
    circuit, z = wide_circuit(seed, n, recurrence=norm, rectified=rectified)
    rng = np.random.default_rng(seed)
    state = State(jnp.asarray(rng.normal(size=n)), jnp.asarray(rng.uniform(0.01, 3, n)))
    with ctx.workprec(53):
        balls = BallCircuit.of(circuit, z)
        box = Box(exact(state.y), exact(state.a))
        got, J = ball_imbalance(balls, box), ball_jacobian(balls, box)
    want = np.concatenate(imbalance(circuit, state, z))
    size = 1 + np.max(np.abs(want))
    assert all(holds(b, w, 1e-12 * size) for b, w in zip(got, want, strict=True))
    assert all(float(b.rad()) < 1e-12 * size for b in got)
    want = np.asarray(derivative(circuit, state))
    size = 1 + np.max(np.abs(want))
    for i, row in enumerate(want):
        assert all(holds(J[i, j], value, 1e-12 * size) for j, value in enumerate(row))


def test_what_is_the_identity_is_decided_by_exact_sums():
    """The weight of each neuron on itself is `1e17 + 1 - 1e17`, which floats round to 0."""
    kernel = np.array([[[[1e17, 0.0, 1.0, 0.0, -1e17]]]])
    circuit = Circuit(5 * np.ones((2, 2)), Convolution(kernel, 1, 2, "periodic"), sigma=0.5)
    balls = BallCircuit.of(circuit, jnp.array([0.6, 0.8]))
    assert balls.W_r is None and balls.undriven == []


# identity recurrence


@given(n=st.sampled_from([1, 4, 12]), seed=seeds, rectified=models)
def test_identity_recurrence_is_always_proved(n, seed, rectified):
    circuit, z = wide_circuit(seed, n, rectified=rectified)
    proof = prove(steady_state(circuit, z))
    assert (proof.verdict, proof.statement) == ("proved", UNIQUE)
    assert all(inequality.holds for inequality in proof.inequalities)
    state = closed_form(circuit, z)
    for balls, values in zip(proof.enclosure, state, strict=True):
        for ball, value in zip(balls, values, strict=True):
            assert holds(ball, value, 1e-13 * abs(float(value)))
            assert float(ball.rad()) <= 1e-13 * abs(float(value))
    # the margin is a lower bound on the smallest eigenvalue after scaling the diagonal to 1
    found = given_state(circuit, z, state)
    S = diagonal(proof)[:, None] * np.asarray(oscillators(found).B)
    S = S + S.T
    scale = 1 / np.sqrt(np.diag(S))
    smallest = np.linalg.eigvalsh(scale[:, None] * S * scale[None, :])[0]
    assert 0 < float(proof.decided_by.margin.lower()) <= smallest + 1e-9
    assert spectral_abscissa(circuit, state) < 0


@given(seed=seeds, scale=st.floats(-150, 150), rectified=models)
def test_a_range_where_float64_overflows_is_no_obstacle(seed, scale, rectified):
    circuit, z = wide_circuit(seed, 4, rectified=rectified)
    circuit = eqx.tree_at(lambda c: c.sigma, circuit, circuit.sigma * 10.0**scale)
    assert prove(steady_state(circuit, z * 10.0 ** (-scale))).verdict == "proved"


def test_an_explicit_identity_and_float32():
    circuit, z = wide_circuit(4, 4, dtype=np.float32)
    proof = prove(steady_state(circuit, z))
    assert proof.verdict == "proved"
    explicit = eqx.tree_at(
        lambda c: c.W_r, circuit, jnp.eye(4, dtype="float32"), is_leaf=lambda x: x is None
    )
    again = prove(steady_state(explicit, z))
    assert again.statement == UNIQUE
    assert all(a.overlaps(b) for a, b in zip(proof.enclosure.a, again.enclosure.a, strict=True))


@pytest.mark.parametrize("rectified", [False, True])
def test_neurons_under_zero_drive(rectified):
    """At the kink of the rectified model the steady state attracts from both sides."""
    W = np.random.default_rng(7).uniform(size=(4, 4))
    circuit = Circuit(W, sigma=0.5, tau_y=[1.0, 5.0, 2.0, 3.0], rectified=rectified)
    z = jnp.array([0.5, 0.0, -0.8, 0.0])
    proof = prove(steady_state(circuit, z))
    assert proof.verdict == "proved"
    slopes = [i for i in proof.inequalities if "both slopes" in i.name]
    assert len(slopes) == rectified
    state = closed_form(circuit, z)
    size = 1e-3 * jnp.max(jnp.abs(state.y))
    for side in (1.0, -1.0):
        start = State(state.y.at[jnp.array([1, 3])].set(side * size), state.a)
        end = euler(circuit, z, start, 0.1, 5000)
        assert float(jnp.max(jnp.abs(end.y - state.y))) < 0.01 * float(size)
    silent = prove(steady_state(circuit, jnp.zeros(4)))
    assert silent.verdict == "proved"


@given(seed=seeds)
def test_a_wrong_diagonal_proves_nothing(seed):
    circuit, z = wide_circuit(seed, 4)
    T = diagonal(prove(steady_state(circuit, z)))
    assert prove(steady_state(circuit, z), certificate=T).verdict == "proved"
    rng = np.random.default_rng(seed)
    for wrong in (-T, np.where(np.arange(4) == 2, 0, T), np.where(np.arange(4) == 1, -T, T)):
        proof = prove(steady_state(circuit, z), certificate=wrong, max_bits=106)
        assert proof.verdict == "undecided" and not proof.decided_by.holds
    # a random one may be right: then `T B + B^T T` is positive definite in float64, too
    other = T * 10 ** rng.uniform(-3, 3, 4)
    proof = prove(steady_state(circuit, z), certificate=other, max_bits=106)
    S = other[:, None] * np.asarray(oscillators(steady_state(circuit, z)).B)
    scale = 1 / np.sqrt(np.diag(S))
    smallest = np.linalg.eigvalsh(scale[:, None] * (S + S.T) * scale[None, :])[0]
    assert proof.verdict == "undecided" or smallest > 0


# general recurrence


@pytest.mark.rounding
@given(n=st.sampled_from([1, 4]), seed=seeds, rectified=models, norm=st.sampled_from([1.0, 4.0]))
def test_general_recurrence_agrees_with_the_eigenvalues(n, seed, rectified, norm):
    circuit, z = wide_circuit(seed, n, recurrence=norm, rectified=rectified)
    steady = steady_state(circuit, z)
    proof = prove(steady_state(circuit, z), max_bits=212)
    if not steady.converged:
        assert proof.verdict != "proved"
        return
    abscissa = spectral_abscissa(circuit, steady.state)
    if abs(abscissa) < SMALL or proof.statement in (UNIQUE, NONE_STABLE):
        assert proof.statement != UNIQUE or abscissa < 0
        return
    assert proof.statement == (STABLE if abscissa < 0 else UNSTABLE)
    assert proof.verdict == ("proved" if abscissa < 0 else "disproved")
    for balls, values in zip(proof.enclosure, steady.state, strict=True):
        for ball, value in zip(balls, values, strict=True):
            assert holds(ball, value, 1e-6 * (1 + abs(float(value))))
    # no eigenvalue has its real part within the margin of g
    g, margin = bound_on_real_parts(proof)
    assert margin > 0 and (g < 0) == (abscissa < 0)
    J = np.asarray(rates(circuit, steady.state))
    size = np.max(np.abs(J))
    assert np.all(np.abs(np.linalg.eigvals(J).real - g) >= margin - 1e-7 * size)


def test_some_circuits_of_large_norm_are_disproved():
    verdicts = {
        prove(steady_state(*wide_circuit(seed, 4, recurrence=6.0)), max_bits=53).verdict
        for seed in range(20)
    }
    assert {"proved", "disproved"} <= verdicts


@pytest.mark.parametrize("seed", range(4))
def test_only_the_right_matrix_and_the_right_state_prove_anything(seed):
    n = 4
    circuit, z = wide_circuit(seed, n, recurrence=0.9)
    steady = steady_state(circuit, z)
    proof = prove(steady)
    assert proof.verdict == "proved"
    P = np.array([[float(proof.certificate[i, j]) for j in range(2 * n)] for i in range(2 * n)])
    assert prove(steady_state(circuit, z), certificate=P).verdict == "proved"
    saddle = P - 2 * np.max(np.linalg.eigvalsh(P)) * np.eye(2 * n)[:, :1] * np.eye(2 * n)[:1]
    J = np.asarray(rates(circuit, steady.state))
    growing = np.linalg.inv(J @ J.T)  # positive definite, but nothing says that it decreases
    growing = (growing + growing.T) / 2
    for wrong in (-P, 0 * P, saddle):
        tampered = prove(steady_state(circuit, z), certificate=wrong, max_bits=106)
        assert tampered.verdict == "undecided"
    tampered = prove(steady_state(circuit, z), certificate=growing, max_bits=106)
    decrease = np.linalg.eigvalsh(growing @ J + (growing @ J).T)[-1]
    assert (tampered.verdict == "proved") == (decrease < 0)
    for wrong in (
        State(steady.state.y * 1.01, steady.state.a),
        State(steady.state.y, steady.state.a * 2),
        State(-steady.state.y, steady.state.a),
    ):
        tampered = prove(given_state(circuit, z, wrong), max_bits=106)
        assert tampered.verdict == "undecided" and tampered.decided_by.holds is not True
    # a stable circuit's matrix says nothing of an unstable one
    unstable = next(
        pair
        for pair in (wide_circuit(s, n, recurrence=6.0) for s in range(40))
        if bool((found := steady_state(*pair)).converged)
        and spectral_abscissa(pair[0], found.state) > 1e-3
    )
    assert prove(steady_state(*unstable), max_bits=53).verdict == "disproved"
    assert prove(steady_state(*unstable), certificate=P, max_bits=53).verdict == "undecided"


def test_each_of_several_steady_states():
    """Reference values: one stable point, an unstable focus and a saddle."""
    circuit, drives = load_circuit(EXAMPLES / "figure1b.json")
    points = fixed_points_2d(circuit, drives[0])
    assert [point.stable for point in points] == [False, False, True]
    for point in points:
        state = State(jnp.array([point.y]), jnp.array([point.a]))
        proof = prove(given_state(circuit, drives[0], state))
        assert proof.verdict == ("proved" if point.stable else "disproved")
        assert holds(proof.enclosure.y[0], point.y, 1e-12)
        g, margin = bound_on_real_parts(proof)
        top = max(point.eigenvalues.real)
        assert top < g - margin + 1e-9 if point.stable else top > g + margin - 1e-9


# precision


def test_too_few_bits_are_undecided_and_more_decide():
    circuit, z = wide_circuit(1, 4, recurrence=0.9)
    low = prove(steady_state(circuit, z), max_bits=8)
    assert (low.verdict, low.bits) == ("undecided", 8) and low.decided_by.holds is None
    assert prove(steady_state(circuit, z), max_bits=53).verdict == "proved"
    circuit, z = wide_circuit(1, 12)
    low = prove(steady_state(circuit, z), max_bits=2)
    assert low.verdict == "undecided" and low.decided_by.holds is None
    assert prove(steady_state(circuit, z)).verdict == "proved"


@pytest.mark.rounding
@pytest.mark.parametrize("turn", [-3, -1, 1, 3])
def test_a_hopf_bifurcation_within_rounding_is_decided_with_more_bits(turn):
    """The trace vanishes up to the last digit of `tau_y`: float64 cannot tell its sign."""
    w_r, c, p = 2.0, 0.0025, 0.5
    circuit, z = planar(w_r, c=c, p=p)
    focus = fixed_points_2d(circuit, z)[0]
    getcontext().prec = 60
    s, exact_c = Decimal(float(np.sqrt(focus.a))), Decimal(float(circuit.sigma[0])) ** 2
    dp, dw = Decimal(p), Decimal(w_r)
    for _ in range(8):  # Newton on the quartic, 60 digits
        D = 1 - dw + dw * s
        f = (s * s - exact_c) * D * D - dp * dp * s * s
        df = 2 * s * D * D + 2 * (s * s - exact_c) * D * dw - 2 * dp * dp * s
        s -= f / df
    D = 1 - dw + dw * s
    assert D < 0
    critical = -D * s * s * 2 / exact_c  # `tau_y` at which |D| / tau_y = c / (a tau_a)
    tau_y = float(critical) * (1 + turn * 2.0**-52)
    circuit, z = planar(w_r, c=c, p=p, tau_y=tau_y)
    state = State(jnp.array([focus.y]), jnp.array([focus.a]))
    proof = prove(given_state(circuit, z, state))
    assert proof.bits > 53
    stable = Decimal(tau_y) > critical
    assert proof.verdict == ("proved" if stable else "disproved")


@pytest.mark.parametrize("rectified", [False, True])
def test_what_cannot_be_decided_is_not(rectified):
    """An eigenvalue that is exactly 0 (a pitchfork); in the rectified model, a kink besides."""
    circuit = Circuit([[1.0]], [[2.0]], b0=0.5, sigma=1.0, rectified=rectified)
    proof = prove(steady_state(circuit, jnp.zeros(1)), max_bits=106)
    assert (proof.verdict, proof.bits) == ("undecided", 106)
    assert proof.decided_by.holds is None and proof.certificate is None


def test_zero_drive_and_neurons_that_do_not_interact():
    """An enclosure around `y = 0`, and a Jacobian with a defective eigenvalue."""
    proof = prove(
        steady_state(Circuit([[0.5]], [[0.7]], b0=1.0, sigma=1.3), jnp.zeros(1)), max_bits=106
    )
    assert proof.verdict == "proved" and float(proof.enclosure.y[0].mid()) == 0
    chain = Circuit(np.zeros((2, 2)), [[0.5, 1.0], [0.0, 0.5]], b0=1.0, sigma=0.5)
    assert prove(steady_state(chain, jnp.ones(2))).verdict == "proved"


@pytest.mark.parametrize("seed", range(2))
def test_entries_over_a_hundred_decades_are_decided_or_left_undecided(seed):
    """The work is bounded: isolating roots may use no more bits than allowed."""
    rng = np.random.default_rng(seed)
    spread = lambda *shape: 10 ** rng.uniform(-50, 50, shape)  # noqa: E731
    W_r = spread(2, 2) * rng.choice([-1.0, 1.0], (2, 2))
    circuit = Circuit(spread(2, 2), W_r, b=spread(2), b0=spread(2), sigma=spread(2))
    proof = prove(steady_state(circuit, jnp.asarray(spread(2))))
    assert proof.verdict in ("proved", "disproved", "undecided")
    assert prove(steady_state(circuit, jnp.ones(2)), max_bits=53).bits == 53


# no steady state, or none that is stable


@pytest.mark.parametrize("rectified", [False, True])
def test_the_counterexample_without_steady_state(rectified):
    circuit, drives = load_circuit(EXAMPLES / "no_steady_state.json")
    circuit = Circuit(circuit.W, circuit.W_r, b=1.0, rectified=rectified)
    proof = prove(steady_state(circuit, drives[0]))
    assert (proof.verdict, proof.statement) == ("disproved", NONE_EXISTS)
    assert holds(proof.decided_by.margin, 5 * 0.8**2 - 1, 1e-14)
    assert [float(w) for w in proof.certificate.entries()] == [0, 1]
    if rectified:  # a neuron that is silenced excites no modulator
        assert prove(steady_state(circuit, -drives[0])).verdict == "proved"
        return
    # weak recurrence brings a steady state back, far away
    weak = Circuit(circuit.W, jnp.diag(jnp.array([1.0, 0.1])), b=1.0)
    proof = prove(steady_state(weak, drives[0]))
    assert proof.verdict == "proved" and proof.enclosure.a[1] > 50


@pytest.mark.parametrize("gain, exists", [(1 - 2**-53, True), (1.0, False), (1 + 2**-52, False)])
def test_the_edge_of_existence_is_exact(gain, exists):
    proof = prove(steady_state(Circuit([[gain]], [[0.0]], b=1.0, b0=1.0, sigma=0.5), jnp.ones(1)))
    assert proof.statement == (STABLE if exists else NONE_EXISTS)


@given(seed=seeds, rectified=models)
def test_neurons_without_recurrent_input(seed, rectified):
    """Some rows of `W_r` vanish; compared with the spectral radius of the pools' gain."""
    rng = np.random.default_rng(seed)
    W = rng.uniform(size=(4, 4)) * (rng.uniform(size=(4, 4)) < 0.6)
    W_r = rng.normal(size=(4, 4)) / 4
    rows = rng.permutation(4)[:3]
    W_r[rows] = 0
    z = rng.normal(size=4) * 10 ** rng.uniform(-0.5, 0.5)
    circuit = Circuit(W, W_r, b=1.0, sigma=0.5, rectified=rectified)
    q = np.maximum(z, 0) if rectified else z
    gain = np.max(np.abs(np.linalg.eigvals(W[np.ix_(rows, rows)] * q[rows] ** 2)))
    proof = prove(steady_state(circuit, jnp.asarray(z)), max_bits=53)
    if gain > 1 + 1e-9:
        assert proof.statement == NONE_EXISTS
        w = np.array([float(x) for x in proof.certificate.entries()])
        assert np.all(w >= 0) and np.any(w > 0) and not np.any(np.delete(w, rows))
    elif gain < 1 - 1e-9:
        assert proof.statement != NONE_EXISTS


def stable_points(circuit, z, rectified):
    """Number of steady states, of stable ones, and whether this scan over `s` may err; n = 1."""
    w, w_r = float(circuit.W[0, 0]), float(circuit.W_r[0, 0])
    p, c = float(circuit.b[0] * z[0]), float(circuit.c[0])
    s = np.geomspace(np.sqrt(c), 1e4, 200_001)[1:]
    D = 1 - w_r + w_r * s
    f = (s**2 - c) * D**2 - w * p**2 * s**2
    crossings = np.flatnonzero(np.diff(np.sign(f)))
    found = [
        State(jnp.array([p / (1 - w_r + w_r * s[i])]), jnp.array([s[i] ** 2])) for i in crossings
    ]
    found = [x for x in found if not rectified or x.y[0] > 0]
    real_parts = [spectral_abscissa(circuit, x) for x in found]
    near = any(abs(part) < 1e-3 for part in real_parts) or np.any(np.abs(f[1:-1]) < 1e-7)
    return len(found), sum(part < 0 for part in real_parts), near


@given(seed=seeds, rectified=models)
def test_one_neuron_that_opposes_its_drive(seed, rectified):
    """Inside the bounds of the conjecture: a stable steady state exists or none does."""
    rng = np.random.default_rng(seed)
    W, b, b0, sigma = rng.uniform(0.5, 1, 4)
    circuit = Circuit([[W]], [[-rng.uniform()]], b=b, b0=b0, sigma=sigma, rectified=rectified)
    z = jnp.array([rng.uniform(0.5, 1)])
    count, stable, near = stable_points(circuit, z, rectified)
    if near:
        return
    proof = prove(steady_state(circuit, z), max_bits=106)
    if stable:
        assert proof.statement not in (NONE_EXISTS, NONE_STABLE)
    else:
        assert proof.statement == (NONE_STABLE if count else NONE_EXISTS)


@pytest.mark.parametrize("rectified", [False, True])
def test_the_counterexample_to_the_bounded_conjecture(rectified):
    circuit, drives = load_circuit(EXAMPLES / "no_stable_state.json")
    names = ("b", "b0", "sigma")
    assert all(float(getattr(circuit, name)[0]) < 1 for name in names)
    assert float(circuit.W[0, 0]) <= 1 and abs(float(circuit.W_r[0, 0])) <= 1
    assert abs(float(drives[0][0])) <= 1
    circuit = Circuit(circuit.W, circuit.W_r, circuit.b, circuit.b0, circuit.sigma,
                      rectified=rectified)  # fmt: skip
    proof = prove(steady_state(circuit, drives[0]))
    assert proof.statement == (NONE_EXISTS if rectified else NONE_STABLE)
    state = State(jnp.zeros(1), circuit.c)
    earlier, later = (euler(circuit, drives[0], state, 0.001, steps) for steps in (8000, 12_000))
    assert later.a[0] > 2 * earlier.a[0] > 2
    # as a part of a larger circuit, which it drives but does not hear
    W = np.array([[0.9, 0, 0], [0.3, 0.5, 0.2], [0.1, 0.2, 0.7]])
    W_r = np.array([[-1.0, 0, 0], [0, 0.3, 0.2], [0, -0.1, 0.4]])
    larger = Circuit(W, W_r, b=0.9, b0=0.9, sigma=0.9, rectified=rectified)
    whole = prove(steady_state(larger, jnp.array([1.0, 0.0, 0.0])))
    assert (whole.verdict, whole.statement) == ("disproved", proof.statement)


# arguments and the command


@pytest.mark.usefixtures("without_type_checks")
def test_refused_arguments():
    circuit, z = wide_circuit(0, 2)
    general, _ = wide_circuit(0, 2, recurrence=0.9)
    steady = steady_state(circuit, z).state
    for words, call in {
        "max_bits": lambda: prove(steady_state(circuit, z), max_bits=1),
        r"shape \(2,\)": lambda: prove(steady_state(circuit, z), certificate=np.ones(3)),
        r"shape \(4, 4\)": lambda: prove(steady_state(general, z), certificate=np.ones(2)),
        "symmetric": lambda: prove(steady_state(general, z), certificate=np.triu(np.ones((4, 4)))),
        r"state\.y": lambda: given_state(circuit, z, State(jnp.full(2, np.nan), steady.a)),
        r"state\.a": lambda: given_state(circuit, z, State(steady.y, -steady.a)),
        "`point`": lambda: prove(circuit),
        "`z`": lambda: prove(steady_state(circuit, jnp.ones(3))),
    }.items():
        with pytest.raises(ValueError, match=words):
            call()


def certify_command(capsys, *arguments):
    code = cli.run(["certify", *map(str, arguments), "--json"])
    out, err = capsys.readouterr()
    if not out:
        return code, err
    found = json.loads(out)
    (circuit,) = found["circuits"]
    return code, circuit | {"rigorous": found["rigorous"]}


@pytest.mark.usefixtures("standard_promotion")
def test_the_command(capsys, tmp_path):
    code, found = certify_command(capsys, EXAMPLES / "no_steady_state.json", "--rigorous")
    (drive,) = found["drives"]
    assert code == 0 and found["rigorous"] is True
    assert (drive["verdict"], drive["statement"]) == ("disproved", NONE_EXISTS)
    assert drive["bits"] == 53 and drive["y"] is None
    assert arb(drive["decided_by"]["margin"]).overlaps(arb("2.2"))
    code, _ = certify_command(capsys, EXAMPLES / "no_stable_state.json", "--rigorous", "--check")
    assert code == 1
    code, found = certify_command(
        capsys, EXAMPLES / "orientation_ring.json", "--rigorous", "--check"
    )
    assert code == 0 and len(found["drives"]) == 4
    for drive in found["drives"]:
        assert drive["verdict"] == "proved" and len(drive["a"]) == 10
        assert all(one["holds"] for one in drive["inequalities"])
    code, found = certify_command(capsys, EXAMPLES / "figure3a.json", "--check")
    assert code == 0 and found["rigorous"] is False
    assert all(drive["certificate"]["verified"] for drive in found["drives"])
    code, found = certify_command(capsys, EXAMPLES / "no_stable_state.json", "--check")
    assert code == 1 and found["drives"][0]["certificate"] is None
    circuit, z = wide_circuit(1, 4, recurrence=0.9)
    save_circuit(tmp_path / "c.npz", circuit, z)
    low = ("--rigorous", "--max-bits", 8, "--check")
    code, found = certify_command(capsys, tmp_path / "c.npz", *low)
    assert code == 1 and found["drives"][0]["verdict"] == "undecided"
    code, err = certify_command(capsys, tmp_path / "c.npz", "--max-bits", 0)
    assert code == 2 and "max_bits" in err
    assert cli.run(["certify", str(tmp_path / "c.npz"), "--rigorous"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "proved: the enclosure holds exactly one" in text and "53 bits" in text
    assert cli.run(["certify", str(EXAMPLES / "figure3a.json")]) == 0
    assert "diagonal Lyapunov, holds" in capsys.readouterr().out


def test_a_parameter_out_of_its_domain_proves_nothing():
    circuit = Circuit(np.eye(1), np.full((1, 1), 0.5))
    for name in ("b", "tau_a", "W"):
        wrong = eqx.tree_at(lambda c, name=name: getattr(c, name), circuit, -getattr(circuit, name))
        with pytest.raises(ValueError, match=f"`{name}` must be .*-"):
            prove(steady_state(wrong, np.ones(1)))
        with pytest.raises(ValueError, match=f"`{name}` must be .*-"):
            fixed_points_2d(wrong, np.ones(1))


def test_the_precision_of_one_thread_is_not_that_of_another():
    """python-flint has one for all: the second waits until the first is done."""
    inside, other, found = threading.Event(), threading.Event(), []

    def first():
        with precision(200):
            inside.set()
            found.append(other.wait(0.3))
            found.append(ctx.prec)

    def second():
        inside.wait()
        with precision(400):
            other.set()
            found.append(ctx.prec)

    both = [threading.Thread(target=one) for one in (first, second)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert found == [False, 200, 400] and ctx.prec == 53
    with precision(100), precision(60):  # the same thread may go on
        assert ctx.prec == 60


def fraction(value):
    return Fraction(float(value))


def encloses(ball, exactly):
    return ball.contains(arb(fmpq(exactly.numerator, exactly.denominator)))


def test_an_upper_area_whose_drive_may_be_0_is_not_silent():
    """The drive from below is a difference whose rounding is larger than itself: here
    `1 - 1 / (1 + w)`, which a small `sigma` makes large."""
    w = 2e-16
    first = Circuit(np.diag([0.0, w]), b=1.0, b0=1.0, sigma=1.0)
    second = Circuit(np.zeros((1, 1)), b=1.0, b0=1.0, sigma=1e-6, rectified=True)
    hierarchy = Hierarchy((first, second), (np.array([[1.0, -1.0]]),))
    states = State(np.ones(2), np.ones(2)), State(np.zeros(1), np.full(1, 1e-12))
    proof = prove(given_state(hierarchy, np.ones(2), states))
    drive = 1 - 1 / (1 + fraction(w))
    assert proof.verdict != "proved" or encloses(proof.enclosure[1].y[0], drive / fraction(1e-6))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_kernel_that_goes_round_is_added_exactly(kind):
    kernel = np.random.default_rng(0).uniform(size=(1, 1, 2, 7)).astype(kind)
    around = Convolution(kernel, 1, 3, "periodic")
    rows = [rational_row(around, i) for i in range(3)]
    balls = weights_in_balls(around)
    for i in range(3):
        for j in range(3):
            with precision(200):
                assert balls[i, j].contains(arb(rows[i][j]))
            assert float(arb(rows[i][j])) == pytest.approx(np.asarray(around)[i, j], rel=1e-6)
    total = sum(map(fraction, kernel.ravel()))
    for row in rows:
        found = sum(row, fmpq(0))
        assert Fraction(int(found.p), int(found.q)) == total


def test_factored_weights_on_a_line_are_enclosed():
    left, right = np.array([[0.1], [0.3]]), np.array([[0.7], [0.9]])
    line = BallLine.of(LowRank(left, right), LowRank(0 * left, right))
    for i, row in enumerate(line.at(arb(0.3))):
        for j, ball in enumerate(row):
            assert encloses(ball, fraction(left[i, 0]) * fraction(right[j, 0]))


def test_an_identity_written_out_has_the_certificate_of_the_identity():
    W = np.array([[0.3, 0.2], [0.1, 0.4]])
    circuit = Circuit(W, Diagonal(np.ones(2)), b=1.0, b0=1.0, sigma=0.5)
    point = steady_state(circuit, np.array([1.0, 0.5]))
    assert prove(point, certificate=np.ones(2)).verdict == "proved"
    with pytest.raises(ValueError, match="diagonal of `T`"):
        prove(point, certificate=np.eye(4))
