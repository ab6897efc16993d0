import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuits import seeds, wide_circuit
from hypothesis import given, settings

from organics.circuit import Circuit, State
from organics.krylov import linearized, minimize_residual, neuron_blocks, solve_linearized
from organics.linearization import imbalance_jacobian


def circuit_at_a_state(seed, n, *, rectified=False, dtype=np.float64):
    """A circuit, a drive, a state with `a > 0` that is no steady state, and a right-hand side."""
    circuit, z = wide_circuit(seed, n, recurrence=1.0, rectified=rectified, dtype=dtype)
    rng = np.random.default_rng(seed)
    y, a, rhs = rng.normal(size=n), rng.uniform(0.1, 3, n), rng.normal(size=2 * n)
    y /= np.sqrt(n)
    state = State(jnp.asarray(y, dtype), jnp.asarray(a, dtype))
    return circuit, z, state, jnp.asarray(rhs, dtype)


@pytest.mark.rounding
@pytest.mark.parametrize("rectified", [False, True])
def test_products_and_blocks_are_those_of_the_jacobian(rectified):
    n = 5
    circuit, z, state, x = circuit_at_a_state(3, n, rectified=rectified)
    J = np.asarray(imbalance_jacobian(circuit, state))
    np.testing.assert_allclose(linearized(circuit, z, state)(x), J @ x, rtol=1e-12)
    within = J * np.tile(np.eye(n), (2, 2))
    for transposed, block in ((False, within), (True, within.T)):
        got = neuron_blocks(circuit, state, transposed=transposed)(x)
        np.testing.assert_allclose(got, np.linalg.solve(block, x), rtol=1e-10)


def test_a_singular_block_is_not_inverted():
    # y_from_y = 0 and y_from_a = 0: (1 - sqrt(a)) W_r = 1 with a = 1/4, and y = 0
    circuit = Circuit([[0.5]], [[2.0]])
    inverse = neuron_blocks(circuit, State(jnp.zeros(1), jnp.full(1, 0.25)))
    np.testing.assert_array_equal(inverse(jnp.array([3.0, 4.0])), [-3.0, -4.0])


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-3), (np.float64, 1e-11)])
@pytest.mark.parametrize("rectified", [False, True])
def test_solutions_are_those_of_a_factorization_in_both_modes(dtype, rtol, rectified):
    n = 8
    cases = [circuit_at_a_state(seed, n, rectified=rectified, dtype=dtype) for seed in range(20)]
    circuit, z, state, rhs = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)

    def both(circuit, z, state, rhs):
        x, pull = jax.vjp(lambda rhs: solve_linearized(circuit, z, state, rhs), rhs)
        return x, pull(rhs)[0]

    x, transposed = jax.jit(jax.vmap(both))(circuit, z, state, rhs)
    J = np.asarray(jax.vmap(imbalance_jacobian)(circuit, state), np.float64)
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
    A = jnp.asarray(np.eye(15) + rng.uniform(0, 2) * rng.normal(size=(15, 15)) / 15**0.5)
    b = jnp.asarray(rng.normal(size=15))
    x, solved = minimize(A, b)
    left = np.linalg.norm(b - A @ x)
    assert left <= np.linalg.norm(b) * (1 + 1e-12)
    assert solved == (left <= 1e-10 * (np.linalg.norm(b) + np.linalg.norm(x)))


def test_zero_is_solved_and_a_system_without_a_solution_is_not():
    A = jnp.diag(jnp.array([1.0, 2.0, 0.0]))
    for b, want in ((jnp.zeros(3), True), (jnp.ones(3), False), (jnp.full(3, jnp.nan), False)):
        _, solved = minimize(A, b)
        assert bool(solved) is want


def test_where_cycles_are_too_short_a_factorization_solves():
    # W_r moves each neuron's y on to the next, nearly without loss: a residual that 6 products, and
    # 6 more and so on, hardly make smaller
    n = 30
    W_r = np.roll(np.eye(n), 1, axis=0)
    circuit = Circuit(0.01 * np.ones((n, n)), W_r)
    state = State(jnp.full(n, 1e-3), jnp.full(n, 1e-6))
    rhs = jnp.zeros(2 * n).at[0].set(1.0)
    z = jnp.zeros(n)

    @jax.jit
    def solutions(rhs):
        blocks = neuron_blocks(circuit, state)
        _, solved = minimize_residual(linearized(circuit, z, state), blocks, rhs, 1e-13)
        x, pull = jax.vjp(lambda rhs: solve_linearized(circuit, z, state, rhs), rhs)
        return solved, x, pull(rhs)[0]

    solved, x, transposed = solutions(rhs)
    assert not solved
    J = np.asarray(imbalance_jacobian(circuit, state))
    np.testing.assert_allclose(x, np.linalg.solve(J, rhs), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(transposed, np.linalg.solve(J.T, rhs), rtol=1e-10, atol=1e-14)
