import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from circuits import seeds, sizes, wide_circuit
from hypothesis import given
from hypothesis import strategies as st

from organics.circuit.circuit import Circuit, State, as_drive, random_drive, root


def velocity_by_hand(circuit, y, a, z):
    """The equations with explicit loops and both firing rates, independent of the library's."""
    n, circuit = circuit.n, jax.tree.map(np.asarray, circuit)
    W_r = np.eye(n) if circuit.W_r is None else circuit.W_r
    dy, da = np.zeros(n), np.zeros(n)
    for i in range(n):
        recurrent = pool = 0.0
        for j in range(n):
            plus, minus = max(y[j], 0) ** 2, max(-y[j], 0) ** 2
            if circuit.rectified:
                minus = 0.0
            recurrent += W_r[i, j] * (np.sqrt(plus) - np.sqrt(minus))
            pool += circuit.W[i, j] * (plus + minus) * np.sqrt(max(a[j], 0)) ** 2
        gate = 1 - np.sqrt(max(a[i], 0))
        dy[i] = (-y[i] + circuit.b[i] * z[i] + gate * recurrent) / circuit.tau_y[i]
        da[i] = (-a[i] + (circuit.b0[i] * circuit.sigma[i]) ** 2 + pool) / circuit.tau_a[i]
    return dy, da


velocity = jax.jit(lambda circuit, state, z: circuit.velocity(state, z))


@pytest.mark.rounding
@given(seed=seeds, n=sizes, rectified=st.booleans(), identity=st.booleans())
def test_velocity_is_the_equations(seed, n, rectified, identity):
    circuit, z = wide_circuit(seed, n, recurrence=None if identity else 1.5, rectified=rectified)
    rng = np.random.default_rng(seed)
    y, a = rng.normal(size=n), rng.normal(size=n)
    dy, da = velocity(circuit, State(y, a), z)
    want_dy, want_da = velocity_by_hand(circuit, y, a, z)
    np.testing.assert_allclose(dy, want_dy, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(da, want_da, rtol=1e-12, atol=1e-12)


@pytest.mark.rounding
@given(seed=seeds, n=sizes, rectified=st.booleans())
def test_permuting_the_neurons_permutes_the_velocity(seed, n, rectified):
    circuit, z = wide_circuit(seed, n, recurrence=1.0, rectified=rectified)
    rng = np.random.default_rng(seed)
    p = rng.permutation(n)
    state, z = State(rng.normal(size=n), rng.uniform(size=n)), np.asarray(z)
    permuted = jax.tree.map(
        lambda x: np.asarray(x)[p][:, p] if x.ndim == 2 else np.asarray(x)[p], circuit
    )
    want = velocity(circuit, state, z)
    got = velocity(permuted, State(state.y[p], state.a[p]), z[p])
    np.testing.assert_allclose(got.y, np.asarray(want.y)[p], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(got.a, np.asarray(want.a)[p], rtol=1e-12, atol=1e-12)


def test_firing_rates_reconstruct_the_potentials():
    circuit = Circuit(np.ones((3, 3)))
    y, a = jnp.array([-1.5, 0.0, 2.0]), jnp.array([-1.0, 0.0, 4.0])
    rates = circuit.firing_rates(State(y, a))
    np.testing.assert_allclose(jnp.sqrt(rates.y_plus) - jnp.sqrt(rates.y_minus), y)
    np.testing.assert_allclose(rates.y_plus + rates.y_minus, y**2)
    np.testing.assert_allclose(rates.a_plus, [0, 0, 2])
    silent = Circuit(np.ones((3, 3)), rectified=True).firing_rates(State(y, a))
    np.testing.assert_array_equal(silent.y_minus, 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [-1.0, -0.0, 0.0, 1e-30, 4.0])
def test_root_has_finite_derivatives_both_ways(value, dtype):
    a = jnp.asarray(value, dtype)
    for derivative in (jax.grad(root)(a), jax.jacfwd(root)(a)):
        assert derivative.dtype == dtype
        np.testing.assert_allclose(derivative, 0.5 / np.sqrt(value) if value > 0 else 0, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_type_of_W_is_the_type_of_everything(dtype):
    circuit = Circuit.random(jr.key(0), 4, dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(circuit)} == {np.dtype(dtype)}
    velocity = circuit.velocity(
        State(*(jnp.ones(4, dtype),) * 2), random_drive(jr.key(1), 4, dtype=dtype)
    )
    assert velocity.y.dtype == velocity.a.dtype == dtype
    assert Circuit(np.ones((2, 2), dtype), b=np.float64(0.3)).b.dtype == dtype
    assert Circuit([[1, 2], [3, 4]]).W.dtype == np.float64


@pytest.mark.rounding
def test_scalars_broadcast_and_recurrence_defaults_to_the_identity():
    circuit = Circuit(np.ones((3, 3)), tau_y=5)
    np.testing.assert_array_equal(circuit.tau_y, [5.0, 5.0, 5.0])
    assert circuit.W_r is None and circuit.n == 3
    explicit = Circuit(np.ones((3, 3)), np.eye(3), tau_y=5)
    state, z = State(jnp.arange(3.0), jnp.arange(3.0) + 1), jnp.ones(3)
    want, got = circuit.velocity(state, z).y, explicit.velocity(state, z).y
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"W": [[1.0, -2.0], [0.0, 1.0]]}, ["`W`", ">= 0", "[0, 1]", "-2.0"]),
        ({"W": np.ones((2, 3))}, ["`W`", "square", "(2, 3)"]),
        ({"W": np.ones(4)}, ["`W`", "square", "(4,)"]),
        ({"W": np.ones((0, 0))}, ["`W`", "square"]),
        ({"W": [[np.nan]]}, ["`W`", "finite", "nan"]),
        ({"W": [[1j]]}, ["`W`", "real", "complex"]),
        ({"W_r": np.eye(3)}, ["`W_r`", "(2, 2)", "(3, 3)"]),
        ({"W_r": [[np.inf, 0], [0, 1]]}, ["`W_r`", "finite", "inf"]),
        ({"b": 0.0}, ["`b`", "> 0", "0.0"]),
        ({"b0": [1.0, -1.0]}, ["`b0`", "[1]", "-1.0"]),
        ({"sigma": [1.0, 1.0, 1.0]}, ["`sigma`", "(2,)", "(3,)"]),
        ({"tau_y": -2}, ["`tau_y`", "-2.0"]),
        ({"tau_y": np.timedelta64(2, "s")}, ["`tau_y`", "timedelta64[s]"]),
        ({"b": np.ma.masked_array([1.0, 1.0], [False, True])}, ["`b`", "masked"]),
        ({"W": np.eye(2, dtype=np.float16)}, ["`W`", "float32 or float64", "float16"]),
        ({"tau_a": np.nan}, ["`tau_a`", "nan"]),
    ],
)
def test_refusals_name_the_argument_and_the_value(arguments, words):
    with pytest.raises(ValueError) as error:
        Circuit(**{"W": np.ones((2, 2)), **arguments})
    for word in words:
        assert word in str(error.value)


def test_drives_are_checked():
    circuit = Circuit(np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"`z` must have shape \(2,\).*\(3,\)"):
        as_drive(circuit, np.ones(3))
    with pytest.raises(ValueError, match="`z` must be finite.*nan"):
        as_drive(circuit, np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="`n` must be at least 1"):
        Circuit.random(jr.key(0), 0)
    with jax.enable_x64(False), pytest.raises(ValueError, match="`dtype` must be float32, not"):
        Circuit.random(jr.key(0), 2, dtype=np.float64)


@pytest.mark.parametrize("norm", [0.5, 1.0, 3.0])
def test_random_circuits_have_the_asked_spectral_norm(norm):
    circuits = jax.vmap(lambda k: Circuit.random(k, 6, norm))(jr.split(jr.key(0), 20))
    norms = np.linalg.norm(np.asarray(circuits.W_r), 2, axis=(1, 2))
    np.testing.assert_allclose(norms, norm, rtol=1e-12)
    assert circuits.W.shape == (20, 6, 6)
    assert np.all((np.asarray(circuits.b) > 0) & (np.asarray(circuits.b) < 1))
    assert Circuit.random(jr.key(0), 6, None).W_r is None
    np.testing.assert_allclose(jnp.linalg.norm(random_drive(jr.key(2), 6, 0.7)), 0.7)


def test_circuits_are_values():
    circuit = Circuit.random(jr.key(0), 3)
    changed = eqx.tree_at(lambda c: c.b, circuit, circuit.b * 2)
    np.testing.assert_allclose(changed.b, 2 * circuit.b)
    assert bool(eqx.tree_equal(circuit, Circuit.random(jr.key(0), 3)))
    assert not bool(eqx.tree_equal(circuit, changed))


@pytest.mark.usefixtures("without_type_checks")
def test_parameters_that_were_replaced_must_fit():
    circuit = Circuit(np.eye(2))
    with pytest.raises(ValueError, match="`circuit` must be a `Circuit`, not None"):
        as_drive(None, np.ones(2))
    for name, value, words in (
        ("b", jnp.ones(3), r"`b` of a circuit must have shape \(2,\), not \(3,\)"),
        ("tau_a", jnp.ones(2, jnp.bfloat16), "`tau_a` must be float32 or float64"),
    ):
        wrong = eqx.tree_at(lambda c, name=name: getattr(c, name), circuit, value)
        with pytest.raises(ValueError, match=words):
            as_drive(wrong, np.ones(2))


def test_parameters_out_of_their_domains_are_told_when_traced():
    circuit = Circuit(np.eye(2))
    valid = jax.jit(lambda circuit: circuit.valid)
    assert valid(circuit)
    for name in ("W", "b", "b0", "sigma", "tau_y", "tau_a"):
        for value in (-1.0, np.nan, np.inf):
            changed = getattr(circuit, name).at[0].set(value)
            wrong = eqx.tree_at(lambda c, name=name: getattr(c, name), circuit, changed)
            assert not valid(wrong), name
    recurrent = Circuit(np.eye(2), np.eye(2))
    assert not valid(eqx.tree_at(lambda c: c.W_r, recurrent, jnp.full((2, 2), np.nan)))
