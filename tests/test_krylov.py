import jax
import numpy as np
import pytest
from circuits import seeds, wide_circuit
from hypothesis import given, settings

from organics.circuit.circuit import Circuit, State
from organics.linear.jacobian import imbalance_jacobian
from organics.linear.krylov import linearized, minimize_residual, neuron_blocks, solve_linearized


def circuit_at_a_state(seed, n, *, rectified=False, dtype=np.float64):
    """A circuit, a drive, a state that is not steady (with `a > 0`), and a right-hand side."""
    circuit, z = wide_circuit(seed, n, recurrence=1.0, rectified=rectified, dtype=dtype)
    rng = np.random.default_rng(seed)
    y, a, rhs = rng.normal(size=n), rng.uniform(0.1, 3, n), rng.normal(size=2 * n)
    y /= np.sqrt(n)
    return circuit, z, State(y.astype(dtype), a.astype(dtype)), rhs.astype(dtype)


@pytest.mark.rounding
@pytest.mark.parametrize("rectified", [False, True])
def test_products_and_blocks_are_those_of_the_jacobian(rectified):
    n = 5
    circuit, z, state, x = circuit_at_a_state(3, n, rectified=rectified)

    @jax.jit
    def products(circuit, z, state, x):
        inverses = [neuron_blocks(circuit, state, transposed=t)(x) for t in (False, True)]
        return imbalance_jacobian(circuit, state), linearized(circuit, z, state)(x), inverses

    J, product, inverses = products(circuit, z, state, x)
    J = np.asarray(J)
    np.testing.assert_allclose(product, J @ x, rtol=1e-12)
    within = J * np.tile(np.eye(n), (2, 2))
    for got, block in zip(inverses, (within, within.T), strict=True):
        np.testing.assert_allclose(got, np.linalg.solve(block, x), rtol=1e-10)


def test_a_singular_block_is_not_inverted():
    # y_from_y = 0 and y_from_a = 0: (1 - sqrt(a)) W_r = 1 with a = 1/4, and y = 0
    circuit = Circuit([[0.5]], [[2.0]])
    inverse = jax.jit(lambda y, a, x: neuron_blocks(circuit, State(y, a))(x))
    found = inverse(np.zeros(1), np.full(1, 0.25), np.array([3.0, 4.0]))
    np.testing.assert_array_equal(found, [-3.0, -4.0])


@pytest.mark.parametrize(
    ("dtype", "rtol", "rectified"), [(np.float32, 1e-3, True), (np.float64, 1e-11, False)]
)
def test_solutions_are_those_of_a_factorization_in_both_modes(dtype, rtol, rectified):
    n = 8
    cases = [circuit_at_a_state(seed, n, rectified=rectified, dtype=dtype) for seed in range(20)]
    circuit, z, state, rhs = jax.tree.map(lambda *leaves: np.stack(leaves), *cases)

    def both(circuit, z, state, rhs):
        x, pull = jax.vjp(lambda rhs: solve_linearized(circuit, z, state, rhs), rhs)
        return x, pull(rhs)[0], imbalance_jacobian(circuit, state)

    x, transposed, J = jax.jit(jax.vmap(both))(circuit, z, state, rhs)
    J = np.asarray(J, np.float64)
    for got, matrix in ((x, J), (transposed, np.swapaxes(J, 1, 2))):
        want = np.linalg.solve(matrix, np.asarray(rhs, np.float64)[:, :, None])[:, :, 0]
        scale = np.linalg.norm(want, axis=1, keepdims=True)
        condition = np.linalg.cond(matrix)[:, None]
        assert np.all(
            np.abs(np.asarray(got) - want) <= rtol * scale * np.maximum(1, condition / 100)
        )


minimize = jax.jit(lambda A, b: minimize_residual(lambda x: A @ x, lambda x: x, b, 1e-10))


@pytest.mark.rounding
@given(seed=seeds)
@settings(max_examples=10)
def test_what_counts_as_solved_is_solved(seed):
    rng = np.random.default_rng(seed)
    A = np.eye(15) + rng.uniform(0, 2) * rng.normal(size=(15, 15)) / 15**0.5
    b = rng.normal(size=15)
    x, solved = minimize(A, b)
    left = np.linalg.norm(b - A @ np.asarray(x))
    assert left <= np.linalg.norm(b) * (1 + 1e-12)
    assert solved == (left <= 1e-10 * (np.linalg.norm(b) + np.linalg.norm(x)))


def test_zero_is_solved_and_a_system_without_a_solution_is_not():
    A = np.diag([1.0, 2.0, 0.0] + 12 * [1.0])
    for b, want in ((0.0, True), (1.0, False), (np.nan, False)):
        _, solved = minimize(A, np.full(15, b))
        assert bool(solved) is want


def test_where_cycles_are_too_short_a_factorization_solves():
    # W_r moves each neuron's y on to the next, nearly without loss: a residual that 6 products, and
    # 6 more and so on, hardly make smaller
    n = 30
    W_r = np.roll(np.eye(n), 1, axis=0)
    circuit = Circuit(0.01 * np.ones((n, n)), W_r)
    at, rhs = State(np.full(n, 1e-3), np.full(n, 1e-6)), np.eye(2 * n)[0]

    @jax.jit
    def solutions(state, z, rhs):
        blocks = neuron_blocks(circuit, state)
        _, solved = minimize_residual(linearized(circuit, z, state), blocks, rhs, 1e-13)
        x, pull = jax.vjp(lambda rhs: solve_linearized(circuit, z, state, rhs), rhs)
        return solved, x, pull(rhs)[0], imbalance_jacobian(circuit, state)

    solved, x, transposed, J = solutions(at, np.zeros(n), rhs)
    assert not solved
    J = np.asarray(J)
    np.testing.assert_allclose(x, np.linalg.solve(J, rhs), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(transposed, np.linalg.solve(J.T, rhs), rtol=1e-10, atol=1e-14)


def test_no_infinity_is_met_on_the_way():
    """`jax_debug_infs` would stop at any infinity from a program or an operation."""

    def solve(b):
        return minimize_residual(lambda x: 2 * x, lambda x: x, b, 1e-12)[0]

    with jax.debug_infs(True):
        x = jax.vmap(solve)(np.array([[1.0, 2.0], [0.0, 0.0]]))
    np.testing.assert_allclose(x, [[0.5, 1.0], [0.0, 0.0]], rtol=1e-12)
