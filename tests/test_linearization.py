import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuits import seeds, sizes, wide_circuit
from hypothesis import given
from hypothesis import strategies as st

from organics.circuit.circuit import Circuit, State
from organics.linear.jacobian import eigenvalues, jacobian, rest_jacobian, spectrum


@partial(jax.jit, static_argnums=3)
def autodiff(circuit, state, z, mode):
    (yy, ya), (ay, aa) = mode(lambda s: circuit.velocity(s, z))(state)
    return jnp.block([[yy, ya], [ay, aa]])


jacobian_at = jax.jit(jacobian)


@given(seed=seeds, n=sizes, rectified=st.booleans(), identity=st.booleans())
def test_jacobian_equals_automatic_differentiation(seed, n, rectified, identity):
    circuit, z = wide_circuit(seed, n, recurrence=None if identity else 2.0, rectified=rectified)
    rng = np.random.default_rng(seed)
    state = State(rng.normal(size=n), rng.normal(size=n))  # a < 0 too
    want = np.asarray(autodiff(circuit, state, z, jax.jacrev))
    scale = 1 + np.abs(want).max()
    np.testing.assert_allclose(jacobian_at(circuit, state), want, rtol=1e-10, atol=1e-13 * scale)


@pytest.mark.parametrize("rectified", [False, True])
def test_jacobian_at_the_corners_of_the_field(rectified):
    circuit = Circuit(np.ones((2, 2)), [[0.5, 0.2], [0.1, 0.9]], rectified=rectified)
    state = State(jnp.array([0.0, -1.0]), jnp.array([0.0, 2.0]))
    for mode in (jax.jacfwd, jax.jacrev):
        want = autodiff(circuit, state, jnp.ones(2), mode)
        assert np.all(np.isfinite(want))
        np.testing.assert_allclose(jacobian(circuit, state), want, rtol=1e-12, atol=1e-12)


@pytest.mark.rounding
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_eigenvalues_are_those_of_each_matrix(dtype):
    matrices = np.random.default_rng(0).normal(size=(33, 6, 6)).astype(dtype)
    found = eigenvalues(matrices)
    assert found.dtype == np.result_type(dtype, np.complex64)
    # each is that of a matrix as close to `J` as rounding has it, and they are all that there are
    J = matrices.astype(np.float64)
    rounding = 100 * np.finfo(dtype).eps * np.linalg.norm(J, 2, axis=(1, 2))
    shifted = J[:, None] - found[:, :, None, None] * np.eye(6)
    assert np.all(np.linalg.svd(shifted, compute_uv=False)[..., -1] <= rounding[:, None])
    assert np.all(np.abs(found.sum(axis=1) - np.trace(J, axis1=1, axis2=2)) <= 6 * rounding)


@pytest.mark.rounding
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spectra_inside_of_compiled_functions(dtype):
    """Same order, double precision, and derivatives equal to finite differences."""
    matrices = np.random.default_rng(0).normal(size=(8, 6, 6)).astype(dtype)
    change = np.random.default_rng(1).normal(size=(8, 6, 6)).astype(dtype)

    @jax.jit
    def values_and_slopes(matrices, change):
        return jax.jvp(jax.vmap(spectrum), (matrices,), (change,))

    values, slopes = values_and_slopes(matrices, change)
    assert values.dtype == np.result_type(dtype, np.complex64)
    double, step = matrices.astype(float), 1e-5
    np.testing.assert_allclose(values, eigenvalues(double), rtol=1e-5)
    moved = [eigenvalues(double + sign * step * change) for sign in (1, -1)]
    np.testing.assert_allclose(slopes, (moved[0] - moved[1]) / (2 * step), rtol=1e-3, atol=1e-3)


def test_the_jacobian_at_rest_keeps_its_digits():
    """`1 - W y^2 = c / a` for one neuron with `W_r = I`; the plain formula loses all digits."""
    circuit = Circuit([[1.0]], b=1.0, b0=1.0, sigma=1e-4)
    state = State(jnp.array([1e4 / np.sqrt(1e-8 + 1e8)]), jnp.array([1e-8 + 1e8]))
    J = rest_jacobian(circuit, jnp.array([1e4]), state)
    np.testing.assert_allclose(-J[1, 1] * circuit.tau_a[0], 1e-8 / (1e-8 + 1e8), rtol=1e-14)
    np.testing.assert_allclose(J, jacobian(circuit, state), atol=1e-15)


def test_a_neuron_that_nearly_sustains_itself_keeps_its_digits():
    """`(1 - sqrt(a)) w - 1 = -d / y`; `w` holds only its first digits."""
    y, d, sigma = 0.5, 1e-14, 0.1
    a = sigma**2 / (1 - y**2)
    circuit = Circuit([[1.0]], [[(1 - d / y) / (1 - np.sqrt(a))]], b=1.0, b0=1.0, sigma=sigma)
    state = State(jnp.array([y]), jnp.array([a]))
    J = rest_jacobian(circuit, jnp.array([d]), state)
    np.testing.assert_allclose(J[0, 0] * circuit.tau_y[0], -d / y, rtol=1e-12)
    np.testing.assert_allclose(J, jacobian(circuit, state), atol=1e-15)


@pytest.mark.parametrize("bad", [[3], [0, 4, 5], range(6)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_eigenvalues_of_a_matrix_that_is_not_finite_are_nan(bad, value):
    matrices = np.random.default_rng(0).normal(size=(3, 2, 4, 4))
    wanted = eigenvalues(matrices).reshape(6, 4)
    matrices.reshape(6, 4, 4)[list(bad), 1, 2] = value
    found = eigenvalues(matrices)
    assert found.shape == (3, 2, 4)
    wanted[list(bad)] = complex(np.nan, np.nan)
    np.testing.assert_allclose(found.reshape(6, 4), wanted, rtol=1e-10)


def test_lapack_is_single_threaded_also_where_it_is_loaded_later():
    code = (
        "from organics.machine.lapack import single_threaded_lapack\n"
        "from threadpoolctl import threadpool_info\n"
        "def threads():\n"
        "    pools = threadpool_info()\n"
        "    return {pool['num_threads'] for pool in pools if pool['user_api'] == 'blas'}\n"
        "with single_threaded_lapack():\n"
        "    import jax, jax.numpy as jnp\n"
        "    jax.block_until_ready(jnp.linalg.svd(jnp.eye(4)))\n"
        "    assert threads() == {1}, threads()\n"
    )
    # as if on two cores, whatever the machine
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
