"""Events on branches of limit cycles: period doublings and tori in closed form, and the period
doubling of Rössler's equations, where simulations double their period."""

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy.integrate import solve_ivp

import organics
from organics.branches import arclength, cycle_search
from organics.branches.branch import Event
from organics.branches.continuation import as_system
from organics.branches.cycle_search import cycles_from
from organics.branches.cycles import torus_test
from organics.branches.family import as_family
from organics.branches.steady import SteadyCurve
from organics.rest.system import System

OMEGA = 2.0


@pytest.fixture(scope="module", autouse=True)
def _few_programs():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arclength, "_WIDTHS", (4,))
        patch.setattr(cycle_search, "_STEPS", (24,))
        yield


class Ribbon(System):
    """A cycle of radius `sqrt(p)` and frequency `OMEGA` in the plane of `(x, y)`, and beside it two
    numbers `w` with `w' = (m + k p) w + turn J w + twist [[x, y], [y, -x]] w - |w|^2 w`.

    Without twist its multipliers across the plane are `exp(T (m + k p +- i turn))`: there is a
    torus where `m + k p = 0`. With the turn `OMEGA / 2` they are `-exp(T (m + k p +- twist r))`,
    `r = sqrt(p)`: the period doubles where the larger one is -1.
    """

    p: Array
    m: Array
    k: Array
    turn: Array
    twist: Array

    def time_constants(self):
        return jnp.ones(4)

    def imbalance(self, x):
        x, y, u, v = x
        p, m, k, turn, twist = (
            value[0] for value in (self.p, self.m, self.k, self.turn, self.twist)
        )
        grow, leak = p - x**2 - y**2, m + k * p - u**2 - v**2
        return jnp.stack([
            grow * x - OMEGA * y, grow * y + OMEGA * x,
            leak * u - turn * v + twist * (x * u + y * v),
            leak * v + turn * u + twist * (y * u - x * v),
        ])  # fmt: skip

    def terms(self, x):
        return 1 + jnp.abs(x)

    def jacobian(self, x):
        x, y, u, v = x
        p, m, k, turn, twist = (
            value[0] for value in (self.p, self.m, self.k, self.turn, self.twist)
        )
        grow, leak, nil = p - x**2 - y**2, m + k * p - u**2 - v**2, jnp.zeros(())
        rows = [
            [grow - 2 * x**2, -2 * x * y - OMEGA, nil, nil],
            [-2 * x * y + OMEGA, grow - 2 * y**2, nil, nil],
            [twist * u, twist * v, leak - 2 * u**2 + twist * x, -2 * u * v - turn + twist * y],
            [-twist * v, twist * u, -2 * u * v + turn + twist * y, leak - 2 * v**2 - twist * x],
        ]
        return jnp.stack([jnp.stack(row) for row in rows])


def cycles_of(m, k, turn, twist):
    """Those born at the Hopf point at `p = 0`."""
    values = [jnp.array([float(v)]) for v in (0, m, k, turn, twist)]
    family, _ = as_family(as_system(Ribbon(*values), None), ("p",))
    vector = np.array([1, -1j, 0, 0]) / np.sqrt(2)
    hertz = 1000 * OMEGA / (2 * np.pi)
    hopf = Event("hopf", 0.0, np.zeros(4), True, 0.0, frequency_hz=hertz, vector=vector)
    ((cycles,), _) = cycles_from(SteadyCurve(family, np.array(1.0)), [hopf], (-1.0, 1.0), 100)
    assert cycles.error.max() < 1e-6
    np.testing.assert_allclose(cycles.period, 2 * np.pi / OMEGA, rtol=1e-7)
    return cycles


def test_a_period_doubling_is_where_the_closed_form_says():
    cycles = cycles_of(-0.3, 0.0, OMEGA / 2, 0.5)
    (event,) = cycles.events
    assert event.kind == "period doubling"
    np.testing.assert_allclose(event.parameter, 0.36, rtol=1e-6)
    np.testing.assert_array_equal(cycles.stable, cycles.parameter < 0.36)
    T, r = np.pi, np.sqrt(cycles.parameter)
    across = np.sort(np.real(cycles.multipliers), axis=1)[:, :2]
    want = [-np.exp(T * (-0.3 + 0.5 * r)), -np.exp(T * (-0.3 - 0.5 * r))]
    np.testing.assert_allclose(across, np.stack(want, axis=1), rtol=1e-4)


def test_a_torus_is_where_the_closed_form_says():
    cycles = cycles_of(-0.3, 1.0, 0.7, 0.0)
    (event,) = cycles.events
    assert event.kind == "torus"
    np.testing.assert_allclose(event.parameter, 0.3, rtol=1e-6)
    np.testing.assert_array_equal(cycles.stable, cycles.parameter < 0.3)
    assert cycles_of(-0.3, -1.0, 0.7, 0.0).events == []


@pytest.mark.parametrize(("m", "turn", "doubling"), [(-0.3, 1.1, 0.4), (-0.1, 1.2, 0.2)])
def test_real_multipliers_that_become_a_complex_pair_are_no_torus(m, turn, doubling):
    """Across the plane the multipliers are `-exp(T (m +- sqrt(twist^2 p - (turn - 1)^2)))`: a pair
    where the root is imaginary, inside the unit circle."""
    cycles = cycles_of(m, 0.0, turn, 0.5)
    (event,) = cycles.events
    assert event.kind == "period doubling"
    np.testing.assert_allclose(event.parameter, doubling, rtol=1e-6)


def test_the_test_of_a_torus_has_its_sign_however_large_the_multipliers_are():
    def sign(*multipliers):
        return float(jnp.sign(torus_test(jnp.array(multipliers, complex))))

    assert sign(0.9 + 0.1j, 0.9 - 0.1j, 0.0) == 1 and sign(0.9 + 0.9j, 0.9 - 0.9j, 0.0) == -1
    assert sign(-0.5, -0.6) == 1 == sign(-0.5 + 0.1j, -0.5 - 0.1j)
    assert sign(1e200 + 1e200j, 1e200 - 1e200j) == -1 and sign(2.0) == 1


def test_what_decays_fast_is_seen_to_do_so(monkeypatch):
    """In 24 steps a period, a rate of 50 times the step is beyond what the method damps."""
    monkeypatch.setattr(cycle_search, "_STEPS", (24, 96))
    cycles = cycles_of(-50.0, 0.0, 0.7, 0.0)
    assert cycles.stable.all() and cycles.events == []
    assert np.sort(np.abs(cycles.multipliers), axis=1)[:, 1].max() < 1e-9


class Roessler(System):
    """`x' = -y - z, y' = x + a y, z' = 0.2 + z (x - 5.7)`."""

    a: Array

    def time_constants(self):
        return jnp.ones(3)

    def imbalance(self, x):
        x, y, z = x
        return jnp.stack([-y - z, x + self.a[0] * y, 0.2 + z * (x - 5.7)])

    def terms(self, x):
        x, y, z = jnp.abs(x)
        return jnp.stack([y + z, x + self.a[0] * y, 0.2 + z * (x + 5.7)])

    def jacobian(self, x):
        x, _, z = x
        one, nil = jnp.ones(()), jnp.zeros(())
        return jnp.stack([jnp.stack([nil, -one, -one]), jnp.stack([one, self.a[0], nil]),
                          jnp.stack([z, nil, x - 5.7])])  # fmt: skip


def highest(a, x):
    """The maxima of `x` late in a simulation, and the times between them."""

    def velocity(t, s):
        del t
        return [-s[1] - s[2], s[0] + a * s[1], 0.2 + s[2] * (s[0] - 5.7)]

    def turns(t, s):
        del t
        return -s[1] - s[2]

    found = solve_ivp(velocity, (0, 900), x, events=turns, rtol=1e-9, atol=1e-9)
    top = found.y_events[0][:, 0] > 0
    return found.y_events[0][top][-8:, 0], np.diff(found.t_events[0][top][-9:])


@pytest.mark.slow
def test_the_period_doubling_of_roessler_is_where_simulations_double_their_period(monkeypatch):
    monkeypatch.setattr(cycle_search, "_STEPS", (96,))
    z = 0.4 / (5.7 + np.sqrt(5.7**2 - 0.8 * 0.05))
    start = np.array([0.05 * z, -z, z])
    found = organics.continuation(
        Roessler(jnp.array([0.05])), None, "a", (0.0, 0.13), start=start, cycles=True
    )
    (cycles,) = found.cycles
    (doubling,) = cycles.events
    assert doubling.kind == "period doubling"
    np.testing.assert_array_equal(cycles.stable, cycles.parameter < doubling.parameter)
    tops, times = highest(doubling.parameter - 0.01, doubling.x)
    assert np.ptp(tops) < 1e-3 and abs(times.mean() / doubling.period - 1) < 0.05
    tops, _ = highest(doubling.parameter + 0.01, doubling.x)
    assert np.max(np.abs(tops[2:] - tops[:-2])) < 1e-3 < 0.1 < np.min(np.abs(np.diff(tops)))
