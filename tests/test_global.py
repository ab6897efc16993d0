"""The theorems of docs/theory/global.md: bounds for any n, and global stability of one neuron."""

import jax
import jax.numpy as jnp
import numpy as np

from organics import fixed_points_2d
from organics.circuit.circuit import Circuit, State

COUNT = 200


def test_the_velocity_over_a_contracts_areas():
    """Its divergence, by automatic differentiation, is that of the proof, and negative."""
    rng = np.random.default_rng(0)
    w, k, tau_y, tau_a, s = 10 ** rng.uniform(-2, 2, (5, COUNT))
    w_r = rng.uniform(0, 1, COUNT) / np.maximum(1 - k, 0.01)  # w_r (1 - k) < 1
    s = k + s  # in the end a >= c
    y, z = 10 ** rng.uniform(-3, 3, (2, COUNT)) * rng.choice([-1, 1], (2, COUNT))

    def divergence(w, w_r, k, tau_y, tau_a, y, a, z):
        circuit = Circuit(w[None, None], w_r[None, None], 1.0, 1.0, k, tau_y, tau_a)

        def field(x):
            velocity = circuit.velocity(State(x[:1], x[1:]), z[None])
            return jnp.concatenate(velocity) / x[1]

        J = jax.jacfwd(field)(jnp.stack([y, a]))
        return J[0, 0], J[1, 1]

    parts = jax.jit(jax.vmap(divergence))(w, w_r, k, tau_y, tau_a, y, s * s, z)
    D = 1 - w_r + w_r * s
    assert np.all(D > 0)
    np.testing.assert_allclose(parts[0], -D / (s * s * tau_y), rtol=1e-9)
    # the two terms of this one cancel where w y^2 is large
    size = (k / s) ** 2 + 1 + w * y**2
    assert np.all(np.abs(parts[1] * tau_a * s**2 + (k / s) ** 2) <= 1e-12 * size)


def test_one_neuron_has_one_stable_state_exactly_if_its_recurrence_sustains_nothing():
    """`w_r (1 - k) < 1`: one for every drive. Else three without drive."""
    rng = np.random.default_rng(1)
    for i in range(60):
        k = 10 ** rng.uniform(-2, 0.3)
        sustained = i % 3 == 0 and k < 1
        factor = rng.uniform(1.05, 3) if sustained else rng.uniform(0, 0.95)
        w_r = factor / (1 - k) if k < 1 else 10 ** rng.uniform(-1, 1)
        tau_y, tau_a = 10 ** rng.uniform(-1, 1, 2)
        circuit = Circuit([[10 ** rng.uniform(-1, 1)]], [[w_r]], 1.0, 1.0, k, tau_y, tau_a)
        for z in (0.0, rng.normal(), 1e-3):
            points = fixed_points_2d(circuit, np.array(z))
            if sustained:
                assert z != 0 or len(points) == 3
            else:
                assert [point.stable for point in points] == [True]
