"""Waves on a uniform circuit: their eigenvalues are those of the whole Jacobian."""

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import organics
from organics import Circuit, Convolution, State, dispersion, plots

TURING, HOPF = 1.552819, 1.827420  # theory, for the circuits of `at_onset`


@jax.jit
def velocity_and_jacobian(circuit, state, z):
    return circuit.velocity(state, z), organics.jacobian(circuit, state)


def everywhere(circuit, point):
    """The state of one site at all positions."""
    sites = circuit.n // point.state.y.shape[0]
    return State(*(np.repeat(np.asarray(part), sites) for part in point.state))


def distance(some, others):
    """Largest distance between two spectra, matched."""
    apart = np.abs(some[:, None] - others[None, :])
    return apart[linear_sum_assignment(apart)].max()


def ring(rng, symmetric):
    kernels = 0.1 * rng.normal(size=15), 0.1 * rng.uniform(size=15)
    if symmetric:
        kernels = [(kernel + kernel[::-1]) / 2 for kernel in kernels]
    W_r, W = (Convolution(k[None, None, None], 1, 15, "periodic") for k in kernels)
    W_r = Convolution(W_r.kernel.at[0, 0, 0, 7].add(1), 1, 15, "periodic")
    taus = rng.uniform(0.5, 1.5, 2)
    return Circuit(W, W_r, b=1.0, b0=1.0, tau_y=taus[0], tau_a=taus[1]), np.full(15, 0.3)


def torus(rng, rectified=False):
    own = np.eye(2)[:, :, None, None] * np.eye(3)[1][:, None] * np.eye(3)[1]
    W = Convolution(0.03 * rng.uniform(size=(2, 2, 3, 3)), 4, 4, "periodic")
    W_r = Convolution(own + 0.05 * rng.normal(size=(2, 2, 3, 3)), 4, 4, "periodic")
    z = np.repeat([0.6, -0.4], 16)
    circuit = Circuit(W, W_r, b=np.repeat([0.5, 0.9], 16), tau_a=3.0, rectified=rectified)
    return circuit, z


CIRCUITS = {
    "ring": lambda rng: ring(rng, symmetric=True),
    "ring without symmetry": lambda rng: ring(rng, symmetric=False),
    "torus of two channels": torus,
    "rectified": lambda rng: torus(rng, rectified=True),
}


@pytest.mark.parametrize("name", CIRCUITS)
def test_the_union_over_all_waves_is_the_spectrum(name):
    for seed in range(3):
        circuit, z = CIRCUITS[name](np.random.default_rng(seed))
        found = dispersion(circuit, z)
        assert found.point.converged
        state = everywhere(circuit, found.point)
        moves, J = velocity_and_jacobian(circuit, state, z)
        assert np.abs(np.concatenate(moves)).max() < 1e-9
        values = np.linalg.eigvals(np.asarray(J))
        assert distance(found.eigenvalues.ravel(), values) < 1e-9
        assert found.spectral_abscissa == pytest.approx(values.real.max(), abs=1e-9)
        symmetric = name == "ring"
        assert (found.turing is not None) == (found.hopf is not None) == symmetric


def at_onset(kind, size):
    """A ring of 32 neurons whose wave of four periods has the factor `1 + size` in `W_r`."""
    waves = 4 * 2 * np.pi * np.arange(32) / 32
    pool, taus = (
        (np.ones(32), (2.0, 2.0)) if kind == "turing" else (1 + 0.95 * np.cos(waves), (2.0, 10.0))
    )
    factors = np.ones(32)
    factors[[4, -4]] += size
    W = Convolution(np.roll(pool, 16)[None, None, None] / 32, 1, 32, "periodic")
    W_r = Convolution.from_transfer(factors[None])
    return Circuit(W, W_r, 1.0, 1.0, 0.1, *taus), np.full(32, 0.6)


@pytest.mark.parametrize(("kind", "size"), [("turing", TURING), ("hopf", HOPF)])
def test_patterns_begin_where_the_formulas_say(kind, size):
    found = dispersion(*at_onset(kind, size))
    onsets = {"turing": found.turing, "hopf": found.hopf}
    assert onsets[kind][0, 4] - 1 == pytest.approx(size, abs=1e-6)
    assert min(onset[0, 4] for onset in onsets.values()) == onsets[kind][0, 4]
    below, above = (dispersion(*at_onset(kind, f * size)) for f in (0.999, 1.001))
    assert below.stable and not above.stable
    wave = above.leading
    assert wave.periods in ((0, 4), (0, -4)) and wave.wavelength == pytest.approx(8)
    assert wave.rate == pytest.approx(above.spectral_abscissa)
    assert (wave.frequency > 0.01) == (wave.speed != 0) == (kind == "hopf")
    if kind == "hopf":
        assert 2 * np.pi * wave.frequency == pytest.approx(0.1056, abs=1e-4)
        assert abs(wave.speed) == pytest.approx(8 * wave.frequency)
    with_matrix = velocity_and_jacobian(*_uniform(above, kind, size))[1]
    assert np.linalg.eigvals(np.asarray(with_matrix)).real.max() > 0


def _uniform(found, kind, size):
    circuit, z = at_onset(kind, 1.001 * size)
    return circuit, everywhere(circuit, found.point), z


def test_the_figure_shows_each_wave():
    found = dispersion(*at_onset("hopf", 1.01 * HOPF))
    upper, lower = plots.dispersion_curves(found.wavenumbers, found.eigenvalues).axes
    grows = [line for line in upper.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(grows[0].get_xdata(), [1 / 8, 1 / 8])
    assert np.all(grows[0].get_ydata() > 0)
    shown = np.concatenate([line.get_ydata() for line in lower.lines])
    assert shown.size == 32 and shown.max() > 10


def test_identity_recurrence_has_one_determinant_for_all_waves():
    """`tau_y tau_a det = sqrt(a)`: waves differ in damping only."""
    circuit, z = torus(np.random.default_rng(0))
    one = Convolution(circuit.W.kernel[:1, :1], 4, 4, "periodic")
    found = dispersion(Circuit(one, tau_a=3.0), z[:16])
    product = np.prod(found.eigenvalues, axis=2) * 2.0 * 3.0
    np.testing.assert_allclose(product, np.sqrt(found.point.state.a[0]), rtol=1e-10)
    assert found.stable and "uniform state is stable" in str(found)


def test_crests_move_the_way_the_speed_says():
    """A wave of the linearized circuit, a little later."""
    circuit, z = ring(np.random.default_rng(1), symmetric=False)
    found = dispersion(circuit, z)
    wave = found.leading
    assert wave.speed != 0
    J = np.asarray(velocity_and_jacobian(circuit, everywhere(circuit, found.point), z)[1])
    values, vectors = np.linalg.eig(J)
    i = np.argmax(values.real)
    y = vectors[:15, i]
    y = y if values[i].imag >= 0 else y.conj()
    value = values[i] if values[i].imag >= 0 else values[i].conj()
    factor = y[1] / y[0]  # exp(i kappa): the phase from one neuron to the next
    speed = -value.imag / np.angle(factor)
    assert speed * np.sign(wave.periods[1]) == pytest.approx(wave.speed, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda W: (Circuit(np.ones((3, *W.shape[3:]))), np.ones(3)),
            "`W` must be a `Convolution`",
        ),
        (lambda W: (Circuit(Convolution(W, 2, 3)), np.ones(6)), 'with `border="zeros"`'),
        (lambda W: (Circuit(Convolution(W, 2, 3, "periodic")), np.arange(6.0)), "`z` must be the"),
        (
            lambda W: (
                Circuit(
                    Convolution(W, 2, 3, "periodic"), Convolution(W, 3, 2, "periodic"), sigma=1.0
                ),
                np.ones(6),
            ),
            "`W_r` must be on the image of `W`",
        ),
        (
            lambda W: (Circuit(Convolution(W, 2, 3, "periodic"), b=np.arange(1.0, 7)), np.ones(6)),
            "`b` must be the same",
        ),
    ],
)
def test_what_is_not_the_same_everywhere_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        dispersion(*make(np.full((1, 1, 1, 3), 0.1)))


def test_a_channel_at_the_kink_is_not_called_stable():
    """Without a drive the rectified model is at rest at 0, where waves of positive y may grow."""
    W, W_r = (Convolution(np.full((1, 1, 1, 3), w), 1, 15, "periodic") for w in (0.1, 1.0))
    for rectified in (True, False):
        circuit = Circuit(W, W_r.capped(0.5), sigma=0.1, tau_a=3.0, rectified=rectified)
        start = State(np.zeros(1), np.asarray(circuit.c[:1]))
        found = dispersion(circuit, np.zeros(15), start=start)
        assert found.point.converged and found.spectral_abscissa < 0
        assert found.stable != rectified
