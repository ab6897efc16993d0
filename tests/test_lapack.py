"""LAPACK on batches: no program waits for threads that it occupies itself."""

import os
import re
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
import pytest

from organics.machine.lapack import PRIMITIVES, most_at_once, never_divide

never_divide()


def symmetric(x):
    return x + jnp.swapaxes(x, -1, -2)


def triangular(x):
    return jnp.tril(x) + 4 * jnp.eye(x.shape[-1], dtype=x.dtype)


ROUTES = {
    "eig": lambda x: jnp.sort(jnp.linalg.eigvals(x)),
    "eigh": lambda x: jnp.linalg.eigvalsh(symmetric(x)),
    "cholesky": lambda x: jnp.linalg.cholesky(
        symmetric(x) + 40 * jnp.eye(x.shape[-1], dtype=x.dtype)
    ),
    "lu": lambda x: jnp.abs(jnp.diagonal(jax.scipy.linalg.lu_factor(x)[0])),
    "svd": lambda x: jnp.linalg.svd(x, compute_uv=False),
    "triangular_solve": lambda x: jax.scipy.linalg.solve_triangular(triangular(x), x[0]),
}


def test_every_primitive_has_a_test():
    assert set(ROUTES) == set(PRIMITIVES)


@pytest.mark.rounding
@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_batch_is_that_of_its_matrices(name):
    """Batches on two axes, larger than a part, of a size that is no multiple of it."""
    assert most_at_once(name, (20, 20)) < 2 * 13
    matrices = np.random.default_rng(0).normal(size=(2, 13, 20, 20))
    one = jax.jit(ROUTES[name])
    alone = np.array([[one(x) for x in row] for row in matrices])
    batched = jax.jit(jax.vmap(jax.vmap(ROUTES[name])))(matrices)
    np.testing.assert_allclose(batched, alone, rtol=1e-8, atol=1e-10)


@pytest.mark.rounding
def test_derivatives_of_a_batch_are_those_of_its_matrices():
    matrices = np.random.default_rng(1).normal(size=(21, 9, 9))

    def loss(x):
        solved = jnp.linalg.solve(x, x[0]) / (1 + jnp.linalg.norm(jnp.linalg.inv(x)))
        return jnp.sum(solved) + jnp.linalg.norm(x, 2) + jnp.max(jnp.linalg.eigvalsh(symmetric(x)))

    one = jax.jit(jax.grad(loss))
    alone = np.array([one(x) for x in matrices])
    batched = jax.jit(jax.grad(lambda xs: jnp.sum(jax.vmap(loss)(xs))))(matrices)
    np.testing.assert_allclose(batched, alone, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 0, 4, 4), (6, 1, 1), (1, 40, 40)])
def test_batches_of_none_and_of_one(shape):
    x = np.random.default_rng(2).normal(size=shape)
    values, inverses = jax.jit(lambda x: (jnp.linalg.eigvals(x), jnp.linalg.inv(x)))(x)
    assert values.shape == shape[:-1] and inverses.shape == shape


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("name", PRIMITIVES)
def test_no_call_is_large_enough_to_be_divided(name, dtype):
    """jaxlib divides from 200,000 operations on."""
    if jaxlib.version.__version_info__ >= (0, 11, 1):
        pytest.skip("this jaxlib divides nothing")
    sizes = (2, 7, 20, 72)
    batches = [jax.ShapeDtypeStruct((500, m, m), dtype) for m in sizes]
    every = jax.jit(lambda *batches: [jax.vmap(ROUTES[name])(x) for x in batches])
    program = every.lower(*batches).compile().as_text()
    found = [
        {m: re.findall(rf"\[((?:\d+,)*){m},{m}\]", line) for m in sizes}
        for line in program.splitlines()
        if 'target="lapack' in line
    ]
    assert all(any(axes.values()) for axes in found), "a call without matrices"
    for m in sizes:
        counts = {int(np.prod([int(size) for size in axes.split(",")[:-1]]))
                  for call in found for axes in call[m]}  # fmt: skip
        assert counts
        assert all(count == 1 or count * PRIMITIVES[name] * m**3 < 200_000 for count in counts)


def test_eigenvalues_and_spectra_of_many_drives_end_on_two_cores():
    """A program with several independent batches."""
    code = (
        "import jax; jax.config.update('jax_enable_x64', True)\n"
        "import numpy as np; from organics.studies.paper import normalization as n\n"
        "drives = np.array([n.grating(c) for c in n._OSCILLATING])\n"
        "for _ in range(5):\n"
        "    jax.block_until_ready(n._linearized(n.ring(), drives, n._FREQUENCIES))\n"
    )
    environment = {**os.environ, "PJRT_NPROC": "2"}
    run = partial(subprocess.run, capture_output=True, text=True, timeout=100, env=environment)
    done = run([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
