import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from circuits import seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from organics.circuit.constraints import (
    at_most_one,
    cap_spectral_norm,
    orthogonal,
    positive,
    semidefinite,
    spectral_norm,
    spectral_normalize,
    unit_interval,
    unit_norm,
)

scales = st.sampled_from([1e-3, 0.3, 1.0, 30.0])


def normal(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.rounding
@given(seed=seeds, scale=scales)
def test_ranges(seed, scale):
    raw = jnp.asarray(scale * normal(seed, 4, 4))
    assert np.all(positive(raw) > 0)
    assert np.all((at_most_one(raw) > 0) & (at_most_one(raw) <= 1))
    # libraries' exponentials differ by a few units in the last place
    np.testing.assert_allclose(at_most_one(raw), np.minimum(np.exp(np.asarray(raw)), 1), rtol=1e-13)
    for values in (unit_interval(raw), unit_interval(100 * raw.astype(jnp.float32))):
        assert np.all((values > 0) & (values <= 1)), "a gain of 0 is refused by the circuit"


def test_an_entry_clamped_at_one_gets_no_gradient():
    gradient = jax.grad(lambda raw: jnp.sum(at_most_one(raw)))(jnp.array([-1.0, 2.0]))
    np.testing.assert_allclose(gradient, [np.exp(-1), 0])


@given(seed=seeds, scale=st.sampled_from([1e-200, 1.0, 1e200]))
def test_unit_norm(seed, scale):
    x = jnp.asarray(scale * normal(seed, 5))
    np.testing.assert_allclose(unit_norm(x), x / scale / np.linalg.norm(x / scale), rtol=1e-13)
    np.testing.assert_allclose(jnp.linalg.norm(unit_norm(x)), 1, rtol=1e-13)


@pytest.mark.rounding
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 1.0])
def test_unit_norm_of_numbers_at_both_ends_of_the_range(dtype, part):
    limits = np.finfo(dtype)
    for largest in (part * limits.max, 4 * limits.tiny / part):
        x = np.array([0.5, -1.0, 0.25]) * dtype(largest)
        found = jax.jit(unit_norm)(jnp.asarray(x, dtype))
        np.testing.assert_allclose(found, np.array([2, -4, 1]) / np.sqrt(21), rtol=1e-6)


def test_unit_norm_gradient():
    check_grads(jax.jit(unit_norm), (jnp.asarray(normal(0, 5)),), order=2)
    np.testing.assert_array_equal(unit_norm(jnp.array([1.0, jnp.nan])), [jnp.nan, jnp.nan])
    zero = jnp.zeros(3)
    np.testing.assert_array_equal(unit_norm(zero), zero)
    np.testing.assert_array_equal(jax.jacrev(unit_norm)(zero), np.zeros((3, 3)))
    np.testing.assert_array_equal(jax.jacfwd(unit_norm)(zero), np.zeros((3, 3)))


@pytest.mark.rounding
@given(seed=seeds, scale=scales, bound=st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=40)
def test_spectral_bounds_hold(seed, scale, bound):
    W = jnp.asarray(scale * normal(seed, 4, 4))
    norm = np.linalg.norm(W, 2)
    np.testing.assert_allclose(spectral_norm(W), norm, rtol=1e-12)
    capped = cap_spectral_norm(W, bound)
    np.testing.assert_allclose(capped, W * min(1, bound / norm), rtol=1e-12)
    assert np.linalg.norm(capped, 2) <= bound * (1 + 1e-12)
    np.testing.assert_allclose(spectral_normalize(W, bound), W * (bound / norm), rtol=1e-12)


@pytest.mark.parametrize("constrain", [cap_spectral_norm, spectral_normalize])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_at_ties_are_finite_subgradients(constrain, dtype):
    # all singular values of an orthogonal matrix tie, and this is where training starts
    orthogonal = np.linalg.qr(normal(3, 4, 4))[0]
    for W in (np.eye(4), orthogonal, 1.5 * orthogonal, np.zeros((4, 4))):
        W = jnp.asarray(W.astype(dtype))
        value, back = jax.vjp(constrain, W)
        assert value.dtype == dtype and np.all(np.isfinite(value))
        assert np.all(np.isfinite(back(jnp.ones_like(W))[0]))
    identity = jnp.eye(4)
    gradient = jax.grad(spectral_norm)(identity)
    # a subgradient g of the norm: ||V|| >= ||W|| + <g, V - W> for every V
    for seed in range(50):
        V = jnp.asarray(normal(seed, 4, 4))
        assert spectral_norm(V) >= 1 + jnp.sum(gradient * (V - identity)) - 1e-12


@pytest.mark.parametrize("constrain", [cap_spectral_norm, spectral_normalize])
def test_gradients_agree_with_finite_differences(constrain):
    for scale in (0.1, 3.0):
        check_grads(jax.jit(constrain), (jnp.asarray(scale * normal(5, 3, 3)),), order=1)


def test_no_step_leaves_the_set():
    """The constrained parameter stays within its bound, however the free one is pushed."""
    W = jnp.eye(5)
    push = jnp.asarray(normal(1, 5, 5))
    loss = eqx.filter_jit(jax.grad(lambda W: -jnp.sum(push * cap_spectral_norm(W))))
    for _ in range(100):
        W = W - 0.1 * loss(W)
        assert np.linalg.norm(cap_spectral_norm(W), 2) <= 1 + 1e-12
    # the optimum pairs the singular directions of `push`: its nuclear norm
    reached = np.sum(push * cap_spectral_norm(W))
    assert reached > 0.8 * np.linalg.norm(push, "nuc")


@given(seed=seeds, scale=scales, bound=st.sampled_from([0.5, 1.0]))
def test_semidefinite(seed, scale, bound):
    M = scale * normal(seed, 4, 4)
    W = np.asarray(semidefinite(jnp.asarray(M), bound))
    norm = np.linalg.norm(M.T @ M, 2)
    np.testing.assert_allclose(W, M.T @ M * min(1, bound / norm), rtol=1e-9, atol=1e-14)


@given(seed=seeds, scale=scales)
def test_orthogonal(seed, scale):
    """By the eigenvectors of the skew-symmetric part: an eigenvalue `s`, here `-i value`, becomes
    `(1 - s) / (1 + s)`."""
    M = scale * normal(seed, 4, 4)
    values, vectors = np.linalg.eigh(1j * (M - M.T))
    want = (vectors * ((1 + 1j * values) / (1 - 1j * values))) @ vectors.conj().T
    np.testing.assert_allclose(np.asarray(orthogonal(jnp.asarray(M))), want.real, atol=1e-9)
