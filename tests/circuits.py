"""Random circuits for the tests, with parameters over several decades."""

import jax
import numpy as np
from hypothesis import strategies as st

from organics.circuit.circuit import Circuit

sizes = st.sampled_from([1, 2, 12])  # each new size compiles again
seeds = st.integers(0, 2**32 - 1)


def wide_circuit(seed, n, *, recurrence=None, rectified=False, dtype=np.float64):
    """A circuit and a drive: `z`, `W` scaled over 10^+-2, `sigma` over 10^-2..10, tau 0.5-20 ms.

    `recurrence` is the largest singular value of `W_r`, `None` for the identity. If it is given,
    `W`, `b`, `b0` and `sigma` are at most 1: beyond, there may be no stable steady state.
    """
    rng = np.random.default_rng(seed)
    W = rng.uniform(size=(n, n)) * 10 ** rng.uniform(-2, 2)
    W_r = None
    if recurrence is not None:
        W_r = rng.normal(size=(n, n))
        W_r = (recurrence / np.linalg.norm(W_r, 2) * W_r).astype(dtype)
        W = np.minimum(W, 1)
    circuit = Circuit(
        W=W.astype(dtype),
        W_r=W_r,
        b=rng.uniform(0.05, 1, n),
        b0=rng.uniform(0.05, 1, n),
        sigma=10 ** rng.uniform(-2, 1 if recurrence is None else 0, n),
        tau_y=rng.uniform(0.5, 20, n),
        tau_a=rng.uniform(0.5, 20, n),
        rectified=rectified,
    )
    z = rng.normal(size=n) * 10 ** rng.uniform(-2, 2)
    if recurrence is not None:
        z = rng.uniform(0, 1) * z / np.linalg.norm(z)
    return circuit, jax.device_put(z.astype(dtype))
