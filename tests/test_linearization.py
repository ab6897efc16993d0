import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuits import seeds, sizes, wide_circuit
from hypothesis import given
from hypothesis import strategies as st

from organics.circuit import Circuit, State
from organics.linearization import jacobian


def autodiff(circuit, state, z, mode):
    (yy, ya), (ay, aa) = mode(lambda s: circuit.velocity(s, z))(state)
    return jnp.block([[yy, ya], [ay, aa]])


@given(seed=seeds, n=sizes, rectified=st.booleans(), identity=st.booleans())
def test_jacobian_equals_automatic_differentiation(seed, n, rectified, identity):
    circuit, z = wide_circuit(seed, n, recurrence=None if identity else 2.0, rectified=rectified)
    rng = np.random.default_rng(seed)
    state = State(jnp.asarray(rng.normal(size=n)), jnp.asarray(rng.normal(size=n)))  # a < 0 too
    want = autodiff(circuit, state, z, jax.jacrev)
    scale = 1 + np.abs(want).max()
    np.testing.assert_allclose(jacobian(circuit, state), want, rtol=1e-10, atol=1e-13 * scale)


@pytest.mark.parametrize("rectified", [False, True])
def test_jacobian_at_the_corners_of_the_field(rectified):
    circuit = Circuit(np.ones((2, 2)), [[0.5, 0.2], [0.1, 0.9]], rectified=rectified)
    state = State(jnp.array([0.0, -1.0]), jnp.array([0.0, 2.0]))
    for mode in (jax.jacfwd, jax.jacrev):
        want = autodiff(circuit, state, jnp.ones(2), mode)
        assert np.all(np.isfinite(want))
        np.testing.assert_allclose(jacobian(circuit, state), want, rtol=1e-12, atol=1e-12)
