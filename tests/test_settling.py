"""How trajectories end, against spectra and closed forms."""

from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import organics
from organics.circuit.circuit import Circuit, State
from organics.simulation.ode import Trajectory
from organics.simulation.settling import Settling, settling

EXAMPLES = Path(__file__).parents[1] / "examples"
ONE = Circuit([[1.0]], b=1.0, b0=1.0, sigma=0.1)
# under which `y = 0.5`
REST = np.full(1, 0.5 * 0.1 / np.sqrt(1 - 0.5**2))


def made_up(y, t):
    """A trajectory with these `y` and the balancing `a`; at rest if `y` is that of `REST`."""
    y = jnp.asarray(y)[:, None]
    states = State(y, ONE.c[None] / (1 - jnp.square(y)))
    return Trajectory(jnp.asarray(t), states, jnp.int32(0), jnp.asarray(t[-1]), jnp.bool_(False))


def test_a_circuit_rings_at_its_leading_frequency_while_it_decays():
    circuit = Circuit([[1.0]], b=1.0, b0=1.0, sigma=0.1, tau_y=20.0, tau_a=0.2)
    z = np.ones(1)
    linear = organics.stability(organics.steady_state(circuit, z))
    near = State(linear.point.state.y * 1.01, linear.point.state.a)
    t = np.linspace(0, 200, 2001)
    found = settling(circuit, z, organics.simulate(circuit, z, t, near), tolerance=1e-9)
    assert found.kind == "decays"
    np.testing.assert_allclose(found.frequency_hz, linear.leading_frequency, rtol=0.05)
    rested = settling(circuit, z, organics.simulate(circuit, z, np.linspace(0, 900, 2001)))
    assert rested == Settling("rests", 0.0) and str(rested) == "at rest"


@pytest.mark.parametrize("drive, sigma, early", [(1e-4, 1e-3, 2.0), (1e-3, 1.0, 70.0)])
def test_a_faint_drive_does_not_count_as_rest(drive, sigma, early):
    """`y` is still far from `b z / sqrt(c + (b z)^2)` where the imbalance is only 1e-4."""
    circuit, z = (
        Circuit([[1.0]], b=0.1, b0=1.0, sigma=sigma, tau_y=20.0, tau_a=20.0),
        np.array([drive]),
    )
    end = 0.1 * drive / np.hypot(sigma, 0.1 * drive)
    for duration, kind in ((early, "moves"), (400_000.0, "rests")):
        trajectory = organics.simulate(circuit, z, np.linspace(0, duration, 41))
        found = settling(circuit, z, trajectory)
        near = abs(float(trajectory.state.y[-1, 0]) / end - 1) < 1e-3
        assert near == (kind == "rests") == (found.kind == "rests")


def test_a_circuit_without_drive_comes_to_rest():
    circuit = Circuit([[1.0]], tau_y=2.0, tau_a=2.0)
    start = State(jnp.array([0.5]), circuit.c)
    trajectory = organics.simulate(circuit, np.zeros(1), np.linspace(0, 2000, 41), start)
    assert settling(circuit, np.zeros(1), trajectory).kind == "rests"


def test_a_circuit_without_a_stable_state_oscillates():
    circuit, (z,) = organics.load_circuit(EXAMPLES / "no_stable_state_semidefinite.json")
    trajectory = organics.simulate(circuit, z, np.linspace(0, 2000, 4001))
    found = settling(circuit, z, trajectory)
    y = np.asarray(trajectory.state.y[2000:, 0])
    spectrum = np.abs(np.fft.rfft(y - y.mean(), 1 << 16))
    peak = 1000 * np.argmax(spectrum) / ((1 << 16) * 0.5)
    assert found.kind == "oscillates" and str(found).startswith("oscillating, ")
    np.testing.assert_allclose(found.frequency_hz, peak, rtol=0.05)


def test_a_circuit_that_diverges():
    circuit, (z,) = organics.load_circuit(EXAMPLES / "no_stable_state.json")
    trajectory = organics.simulate(circuit, z, 100.0, throw=False)
    assert settling(circuit, z, trajectory).kind == "diverges"


@pytest.mark.parametrize(
    ("shape", "kind", "hertz"),
    [
        (lambda t: 1 + 0.1 * np.exp(-t / 100) * np.cos(2 * np.pi * t / 20), "decays", 50),
        (lambda t: 1 + 0.001 * np.exp(t / 100) * np.cos(2 * np.pi * t / 20), "grows", 50),
        (lambda t: 1 + 0.1 * np.cos(2 * np.pi * t / 20), "oscillates", 50),
        (lambda t: 1 + 0.1 * np.cos(2 * np.pi * t / 300), "moves", 0),
    ],
)
def test_kinds(shape, kind, hertz):
    t = np.linspace(0, 400, 2001)
    found = settling(ONE, REST, made_up(shape(t) / 2, t), tolerance=1e-9)
    if kind != "moves":
        assert found.kind == kind
    np.testing.assert_allclose(found.frequency_hz, hertz, rtol=0.02)


def test_refusals():
    t = np.linspace(0, 1, 5)
    with pytest.raises(ValueError, match="at least 8"):
        settling(ONE, np.zeros(1), made_up(np.zeros(5), t))
    failed = made_up(np.zeros(9), np.linspace(0, 1, 9))
    failed = eqx.tree_at(lambda path: path.failure, failed, jnp.int32(1))
    with pytest.raises(ValueError, match="'steps'"):
        settling(ONE, np.zeros(1), failed)
