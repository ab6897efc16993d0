"""Circuits from recordings, against NumPy, automatic differentiation and the true parameters."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.signal
from programs import simulated

from organics import cli
from organics.circuit.circuit import Circuit, State
from organics.circuit.file import load_circuit
from organics.cli.fit import FitData, _as_document
from organics.data.recordings.recording import Channel, CrossSpectra, Recording, TimeCourses
from organics.errors import Failed
from organics.files.plain import as_plain
from organics.fitting import comparison, profile
from organics.fitting.comparison import compare
from organics.fitting.conventions import conventions
from organics.fitting.fit import _unusable, fit
from organics.fitting.identifiability import _units, identify
from organics.fitting.likelihood import Predicted, residuals
from organics.fitting.model import AtRest, circuit_of, linear_response, noise_of
from organics.fitting.parameters import Entry, half, unhalf
from organics.fitting.prediction import draw, predict
from organics.fitting.problem import labels_of, layout_of, problem_of
from organics.fitting.resolved import left_out, resolved
from organics.fitting.sampling import blurred, folded
from organics.linear.jacobian import jacobian
from organics.names import FittedRecurrence
from organics.rest.search import steady_state
from organics.spectra import cross_spectrum

DRIVES = np.array([(0.1, 0.05), (0.3, 0.2), (1.0, 0.3), (0.3, -1.0)])
FREQUENCIES = np.linspace(0.004, 0.25, 12)  # kHz
TRUTH = {
    "W": np.array([[0.6, 0.3], [0.5, 0.8]]),
    "sigma": np.array([0.1, 0.25]),
    "tau_y": np.array([4.0, 9.0]),
    "tau_a": np.array([7.0, 5.0]),
    "noise_y": np.array([0.1, 0.2]),
    "noise_a": np.array([0.15, 0.06]),
}
K, ERROR = 200, 0.01


def at_rest(z, W, sigma):
    """Mean `(y, a)` for `W_r = I`, `b = b0 = 1`."""
    a = sigma**2 + W @ z**2
    return z / np.sqrt(a), a


def spectra_of(z, W, sigma, tau_y, tau_a, noise_y, noise_a):
    """Cross-spectra of `y`, by NumPy from the equations."""
    y, a = at_rest(z, W, sigma)
    tau = np.concatenate([tau_y, tau_a])
    rows = np.block(
        [
            [np.diag(-np.sqrt(a)), np.diag(-y / (2 * np.sqrt(a)))],
            [W * (2 * y * a), W * y**2 - np.eye(2)],
        ]
    )
    w = 2 * np.pi * FREQUENCIES[:, None, None]
    H = np.linalg.inv(1j * w * np.eye(4) - rows / tau[:, None])
    Q = np.diag(np.concatenate([noise_y, noise_a]) ** 2 / tau)
    return (H @ Q @ H.conj().swapaxes(1, 2))[:, :2, :2]


BOTH = (Channel("y", 0), Channel("y", 1))


def recorded(seed=0, channels=BOTH, **changed):
    """Drawn from the Gaussian and Whittle models."""
    rng, truth = np.random.default_rng(seed), TRUTH | changed
    mean = np.array([at_rest(z, truth["W"], truth["sigma"])[0] for z in DRIVES])
    L = np.linalg.cholesky(np.stack([spectra_of(z, **truth) for z in DRIVES]))
    drawn = rng.normal(size=(2, *L.shape[:-1], K)) / np.sqrt(2)
    X = L @ (drawn[0] + 1j * drawn[1])
    return Recording(
        neurons=("1", "2"),
        stimuli=tuple("abcd"),
        drives=DRIVES,
        channels=channels,
        mean=mean + ERROR * rng.normal(size=mean.shape),
        error=np.full(mean.shape, ERROR),
        spectra=(
            CrossSpectra(
                stimuli=np.arange(4),
                channels=(0, 1),
                frequencies=FREQUENCIES,
                cross=X @ X.conj().swapaxes(-1, -2) / K,
                trials=np.full(4, K),
            ),
        ),
    )


def problem(recording, recurrence: FittedRecurrence = "identity", **options: Any):
    given: dict[str, Any] = {"fixed": {}, "bounds": {}, "ties": (), "guess": {}} | options
    return problem_of(recording, recurrence, False, **given)


likelihood = jax.jit(residuals)


@pytest.fixture(scope="module")
def with_free_gains():
    """A fit that leaves the conventional values free, as a new user might."""
    return fit(recorded(), fixed={"b": None, "b0": None}, starts=3, seed=1)


def test_what_no_data_can_tell_is_named_and_has_no_interval(with_free_gains):
    found = with_free_gains
    assert found.converged and found.rank == 14 and found.agreeing == (3, 3)
    names = [one.name for one in found.undetermined]
    assert names == [
        "scale of the modulator of 1",
        "scale of the modulator of 2",
        "product of b0 and sigma of 1",
        "product of b0 and sigma of 2",
    ]
    assert found.undetermined[0].parameters == (
        "W[1,2]", "W[2,1]", "b[1]", "b0[1]", "tau_y[1]", "noise_y[1]", "noise_a[1]",
    )  # fmt: skip
    for one in found.estimates:
        identified = one.name in ("W[1,1]", "W[2,2]", "tau_a[1]", "tau_a[2]")
        assert (one.how == "Fisher") == identified, one
        assert np.isnan(one.low) != identified
    assert "not identified" in str(found) and "tau_y[1]" in str(found)


def test_what_is_determined_is_near_the_truth(with_free_gains):
    """`c / b^2`, `W_ij b_j^2 / b_i^2`, `tau_y / b`, `tau_a` and the noise, whatever `b` is."""
    c, noise = with_free_gains.circuit, with_free_gains.noise
    b = np.asarray(c.b)
    found = {
        "W": np.asarray(c.W) * b**2 / b[:, None] ** 2,
        "sigma": c.b0 * c.sigma / b,
        "tau_y": c.tau_y / b,
        "tau_a": c.tau_a,
        "noise_y": noise.additive_y / np.sqrt(b),
        "noise_a": noise.additive_a / b**2,
    }
    for name, value in found.items():
        np.testing.assert_allclose(value, TRUTH[name], rtol=0.4, err_msg=name)
    for name in ("tau_a[1]", "W[2,2]"):
        one = with_free_gains[name]
        error = np.log(one.high / one.low) / 2 / 1.645
        truth = {"tau_a[1]": 7.0, "W[2,2]": 0.8}[name]
        assert abs(np.log(one.value / truth)) < 4 * error < 0.4
    # twice the lost likelihood is about a chi-square
    spare = with_free_gains.degrees_of_freedom
    assert abs(with_free_gains.chi2 - spare) < 5 * np.sqrt(2 * spare)


def test_predictions_are_those_of_numpy(with_free_gains):
    fitted = with_free_gains
    c, noise, b = fitted.circuit, fitted.noise, np.asarray(fitted.circuit.b)
    gauge = {
        "W": np.asarray(c.W) * b**2 / b[:, None] ** 2,
        "sigma": np.asarray(c.b0 * c.sigma) / b,
        "tau_y": np.asarray(c.tau_y) / b,
        "tau_a": np.asarray(c.tau_a),
        "noise_y": np.asarray(noise.additive_y) / np.sqrt(b),
        "noise_a": np.asarray(noise.additive_a) / b**2,
    }
    y, a = fitted.states  # along the symmetries that were undone, too
    tonic = np.asarray(c.b0 * c.sigma) ** 2
    np.testing.assert_allclose(a, tonic + (b * DRIVES) ** 2 @ np.asarray(c.W).T, rtol=1e-9)
    np.testing.assert_allclose(y, b * DRIVES / np.sqrt(a), rtol=1e-9)
    predicted = predict(fitted)
    means = np.array([at_rest(z, gauge["W"], gauge["sigma"])[0] for z in DRIVES])
    np.testing.assert_allclose(predicted.mean, means, rtol=1e-9)
    power = np.stack([spectra_of(z, **gauge) for z in DRIVES])
    np.testing.assert_allclose(
        predicted.power[0], np.diagonal(power, axis1=2, axis2=3).real, rtol=1e-8
    )
    steady, spectra = draw(fitted).axes
    assert len(steady.containers) == means.shape[1]
    title = spectra.get_legend().get_title().get_text()
    count = len(power)
    assert title == ("stimulus" if count <= 6 else f"stimulus (6 of {count})")
    command = FitData(Path("data.csv"), Path("stimuli.csv"))
    document = json.loads(json.dumps(as_plain(_as_document(command, fitted, predicted))))
    assert [(one["stimulus"], one["channel"]) for one in document["spectra"][:3]] == [
        ("a", "y of 1"), ("a", "y of 2"), ("b", "y of 1"),
    ]  # fmt: skip
    one = document["spectra"][3]  # per Hz, of the second neuron for the second stimulus
    np.testing.assert_allclose(one["frequencies_hz"], 1000 * FREQUENCIES)
    np.testing.assert_allclose(one["power_per_hz"], power[1, :, 1, 1].real / 1000, rtol=1e-8)
    measured = fitted.recording.spectra[0].cross[1, :, 1, 1].real
    np.testing.assert_allclose(one["measured_per_hz"], measured / 1000, rtol=1e-12)
    assert document["responses"][3]["predicted"] == pytest.approx(means[1, 1])


def general():
    """General recurrence, signals in unknown units, everything free; somewhere."""
    gains = (Channel("y", 0, False), Channel("y", 1, False))
    recording = recorded(channels=gains)
    given = problem(recording, "free", fixed={"b": None, "b0": None})
    u = 0.1 * jnp.asarray(np.random.default_rng(0).normal(size=given.model.parameters.free))
    arrays = {name: np.asarray(x) for name, x in given.model.parameters.arrays(u).items()}
    a = (arrays["b0"] * arrays["sigma"]) ** 2 + (arrays["b"] * DRIVES) ** 2 @ arrays["W"].T
    near = State(jnp.asarray(arrays["b"] * DRIVES / np.sqrt(a)), jnp.asarray(a))
    return recording, given, u, near


@pytest.fixture(scope="module", name="general")
def general_fixture():
    recording, given, u, states = general()
    return recording, given, u, states, likelihood(given, u, states)


def test_the_score_is_the_derivative_of_the_likelihood(general):
    """Against automatic differentiation through `steady_state` and `cross_spectrum`."""
    recording, given, u, _, found = general
    layout, measured = given.model.parameters, recording.spectra[0].cross

    def value(u):
        arrays = layout.arrays(u)
        circuit, noise = circuit_of(arrays, False), noise_of(arrays)
        gains = arrays["gain"]

        def one(z, mean, cross):
            point = steady_state(circuit, z)
            x = (mean - gains * point.state.y) / ERROR
            S = cross_spectrum(point, FREQUENCIES, noise)[:, :2, :2]
            S = S * (gains[:, None] * gains[None, :])[None].astype(S.dtype)
            ratio = jnp.trace(jnp.linalg.solve(S, cross), axis1=1, axis2=2).real
            return jnp.sum(x**2) / 2 + K * jnp.sum(jnp.linalg.slogdet(S)[1] + ratio)

        return jnp.sum(jax.vmap(one)(DRIVES, recording.mean, measured))

    by_hand, gradient = jax.jit(jax.value_and_grad(value))(u)
    offset = K * float(jnp.sum(given.spectra[0].saturated))
    np.testing.assert_allclose(found.value + offset, by_hand, rtol=1e-9)
    score = found.R.T @ found.r
    np.testing.assert_allclose(-score, gradient, atol=1e-7 * np.abs(gradient).max())


def test_derivatives_of_spectra_are_those_of_the_adjoint():
    """Theory 21.5: for `dl = Re tr(G dS)`, `dl/dJ = 2 Re(S G H)^T`, `dl/dQ = Re(H* G H)^T`."""
    rng = np.random.default_rng(0)
    J, dJ = rng.normal(size=(2, 4, 4)) - 3 * np.eye(4)
    Q, dQ = rng.uniform(size=(2, 4))
    G = rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4))
    G = G + G.conj().T
    rest = AtRest(*map(jnp.asarray, (np.zeros((1, 4)), np.eye(4)[None], J[None], Q[None])))
    parts = (np.zeros((1, 4)), np.zeros((1, 4, 4)), dJ[None], dQ[None])
    change = AtRest(*(jnp.asarray(part)[..., None] for part in parts))
    S, dS = jax.jit(linear_response)(rest, change, jnp.array([0.1]), jnp.zeros(1))
    H = np.linalg.inv(0.2j * np.pi * np.eye(4) - J)
    S, dS = np.asarray(S)[0, 0], np.asarray(dS)[0, 0, :, :, 0]
    np.testing.assert_allclose(S, H @ np.diag(Q) @ H.conj().T, rtol=1e-10, atol=1e-13)
    by_J, by_Q = 2 * (S @ G @ H).T.real, (H.conj().T @ G @ H).T.real
    expected = np.sum(by_J * dJ) + np.sum(np.diagonal(by_Q) * dQ)
    assert np.trace(G @ dS).real == pytest.approx(expected, rel=1e-9)


def test_general_recurrence_with_unknown_gains_leaves_the_units_undetermined(general):
    """Theory 21.4: 4 directions; the products of b0 and sigma, and the units of y."""
    recording, given, u, _, found = general
    layout = given.model.parameters
    arrays = {name: np.asarray(x) for name, x in layout.arrays(u).items()}
    D = np.asarray(jax.jacfwd(layout.reported)(u))
    R, entries = np.asarray(found.R), layout.entries

    def names(R):
        known = identify(R, D, entries, arrays, recording.neurons, recording.channels)
        assert known.null.shape[1] == len(known.directions)
        return [one.name for one in known.directions]

    assert names(R) == [
        "unit of y of 1",
        "unit of y of 2",
        "product of b0 and sigma of 1",
        "product of b0 and sigma of 2",
    ]
    # a direction that no symmetry explains is named by its numbers
    pair = [i for i, entry in enumerate(entries) if entry.name in ("tau_a[1]", "tau_a[2]")]
    alike = R.copy()
    alike[:, pair] = R[:, pair].sum(axis=1, keepdims=True)
    known = identify(alike, D, entries, arrays, recording.neurons, recording.channels)
    assert known.directions[-1].parameters == ("tau_a[1]", "tau_a[2]")
    # and numbers that nothing depends on
    alike[:, pair] = 0
    known = identify(alike, D, entries, arrays, recording.neurons, recording.channels)
    silent = known.directions[0]
    assert silent.name == "no response depends on these"
    assert silent.parameters == ("tau_a[1]", "tau_a[2]") and known.null.shape[1] == 6


def test_numbers_that_are_not_separated_are_listed_pair_by_pair():
    """Where all stimuli drive both neurons alike, only the sum of each row of `W` matters."""
    places = [(0, 0), (0, 1), (1, 0), (1, 1)]
    entries = [Entry("W", (i, j), f"W[{i},{j}]") for i, j in places]
    entries += [
        Entry(name, (i,), f"{name}[{i}]") for name in ("sigma", "b") for i in range(2)
    ]  # b is fixed
    z = np.array([0.1, 0.4, 0.9])
    by_row = np.array([[0.6, 0.3, 0, 0], [0, 0, 0.5, 0.8]])
    R = np.concatenate([np.c_[np.outer(z**2, w), np.eye(2)[i] + 0 * z[:, None]]
                        for i, w in enumerate(by_row)])  # fmt: skip
    arrays = {"b": np.ones(2), "sigma": np.ones(2), "W": np.ones((2, 2))}
    known = identify(R, np.eye(8, 6), entries, arrays, ("1", "2"), BOTH)
    assert known.rank == 4
    pairs = [one.parameters for one in known.directions]
    assert pairs == [("W[0,0]", "W[0,1]"), ("W[1,0]", "W[1,1]")]


def test_symmetries_hold_beside_weights_that_are_0():
    """B hears A, not the other way round: only A has the modulator of `W_r = I`."""
    z = np.array([[x, y] for x in (0.1, 0.4, 1.0) for y in (0.05, 0.3, 0.9)])

    def shown(u):
        """What is recorded, (18,), with gains, for each row of logarithms of the free numbers."""
        W, b, c, gain, w = np.split(np.exp(u)[..., None, :], [4, 6, 8, 10], axis=-1)
        y, a = np.zeros((len(u), *z.shape)), np.ones((len(u), *z.shape))
        for _ in range(3000):
            q = y**2 * a
            pool = np.stack([W[..., 0] * q[..., 0] + W[..., 1] * q[..., 1],
                             W[..., 2] * q[..., 0] + W[..., 3] * q[..., 1]], axis=-1)  # fmt: skip
            heard = np.stack([y[..., 0], w[..., 0] * y[..., 0] + y[..., 1]], axis=-1)
            y = y + 0.1 * (-y + b * z + (1 - np.sqrt(a)) * heard)
            a = a + 0.1 * (-a + c**2 + pool)
        return (gain * y).reshape(len(u), -1)

    pairs = [("A", "A"), ("A", "B"), ("B", "A"), ("B", "B")]
    square = [(i, j) for i in range(2) for j in range(2)]
    entries = [Entry("W", at, f"W[{i},{j}]") for at, (i, j) in zip(square, pairs, strict=True)]
    for name in ("b", "sigma", "gain"):
        entries += [Entry(name, (i,), f"{name}[{s}]") for i, s in enumerate("AB")]
    entries.append(Entry("W_r", (1, 0), "W_r[B,A]"))
    held = [Entry("W_r", at, f"W_r[{i},{j}]") for at, (i, j) in zip(square, pairs, strict=True)]
    held.pop(2)
    u = np.log([1, 0.5, 0.4, 1.2, 1, 1, 0.2, 0.25, 3, 5, 0.3])
    step = 1e-5 * np.eye(11)
    R = ((shown(u + step) - shown(u - step)) / 2e-5).T
    arrays = {"W": np.ones((2, 2)), "W_r": np.array([[1.0, 0], [1, 1]])}
    arrays |= {name: np.ones(2) for name in ("b", "sigma", "gain")}
    D = np.eye(14, 11)
    channels = (("y", 0, False), ("y", 1, False))
    known = identify(R, D, entries + held, arrays, ("A", "B"), channels)
    names = ["scale of the modulator of A", "unit of y of A", "unit of y of B"]
    assert known.rank == 8 and [one.name for one in known.directions] == names
    assert known.exact.shape == (11, 3)


@pytest.mark.parametrize("value", [0.0, None, np.array([[1, 0.2], [0.3, 1]])])
def test_fixed_feedback_adds_to_the_identity(value):
    def layout(fixed):
        return layout_of(recorded(), "feedback", fixed=fixed, bounds={}, ties=(), guess={})

    found, free = layout({"W_r": value}), layout({})
    W_r = np.asarray(found.arrays(jnp.zeros(found.free))["W_r"])
    np.testing.assert_allclose(np.diagonal(W_r), 1, rtol=1e-12)
    assert found.free == free.free - (0 if value is None else 2)
    if value is not None:
        np.testing.assert_allclose(W_r, value if np.ndim(value) else np.eye(2), rtol=1e-12)
    with pytest.raises(ValueError, match="`fixed` must give 'W_r' a diagonal of 1"):
        layout({"W_r": np.full((2, 2), 0.5)})


def test_folded_power_is_that_of_all_frequencies_that_samples_confuse():
    """At half of the Nyquist frequency, against a long sum of spectra."""
    rng = np.random.default_rng(1)
    J, Q = rng.normal(size=(2, 2)) - 3 * np.eye(2), np.array([0.5, 1.0])
    interval, f = 0.05, np.array([5.0])
    rest = AtRest(*map(jnp.asarray, (np.zeros((1, 2)), np.eye(2)[None], J[None], Q[None])))
    none = AtRest(*(jnp.zeros((*x.shape, 0)) for x in rest))
    added = jnp.asarray(folded(f, interval))
    S, _ = jax.jit(linear_response)(rest, none, jnp.asarray(f), added)
    w = 2 * np.pi * (f + np.arange(-20_000, 20_001) / interval)[:, None, None]
    H = np.linalg.inv(1j * w * np.eye(2) - J)
    every = (H * Q) @ H.conj().swapaxes(1, 2)
    alone = every[20_000]
    # what is added is 23 % of the power; the rest of it is of a higher order
    np.testing.assert_allclose(S[0, 0], every.sum(axis=0), atol=2e-3 * np.abs(alone).max())


def mean_periodograms(J, Q, size, j):
    """The expected cross-periodograms, at frequencies j / size, of pieces of `size` samples of
    fluctuations, one in each ms, from the covariances of all pairs of samples."""
    P = scipy.linalg.solve_continuous_lyapunov(J, -np.diag(Q))
    lagged = np.stack([scipy.linalg.expm(J * lag) @ P for lag in range(size)])
    lag = np.subtract.outer(np.arange(size), np.arange(size))
    both = np.where(lag[..., None, None] >= 0, lagged[np.abs(lag)], lagged[np.abs(lag)].mT)
    taper = scipy.signal.get_window("hann", size)
    waves = taper * np.exp(-2j * np.pi * np.outer(j, np.arange(size)) / size)
    waves = waves - waves.mean(axis=1, keepdims=True)  # as the mean of a piece is subtracted
    return np.einsum("ft,tsab,fs->fab", waves, both, waves.conj()) / np.sum(taper**2)


@pytest.mark.parametrize(("size", "rtol"), [(32, 4e-3), (64, 2e-3), (256, 2e-3)])
def test_a_window_blurs_spectra_as_it_does_periodograms(size, rtol):
    J, Q = np.array([[-0.14, -0.03], [0.1, -0.04]]), np.array([1e-4, 6e-6])
    j = np.arange(2, size // 8 + 1, 2)
    expected = mean_periodograms(J, Q, size, j)
    nodes, blur = blurred(j / size, float(size), 1.0)
    assert blur is not None and (np.diff(nodes) > 0).all() and len(nodes) <= 4 * len(j) + 11
    rest = AtRest(*map(jnp.asarray, (np.zeros((1, 2)), np.eye(2)[None], J[None], Q[None])))
    none = AtRest(*(jnp.zeros((*x.shape, 0)) for x in rest))
    S, _ = jax.jit(linear_response)(rest, none, *map(jnp.asarray, (nodes, folded(nodes, 1.0))))
    found = np.asarray(blur.of(S))[0]
    scale = np.sqrt(np.einsum("fii->fi", expected).real)
    assert np.abs((found - expected) / (scale[:, :, None] * scale[:, None])).max() < rtol
    if size < 256:  # without the window it would be quite another
        at_the_point = np.asarray(S)[0][np.abs(nodes - j[0] / size).argmin()]
        assert np.abs(at_the_point / expected[0] - 1).max() > 0.1


def test_short_pieces_tell_the_time_constants():
    """Without noise in the data; unless the window is accounted for, tau_a would be a hundred times
    too long."""
    with jax.enable_x64(True):
        circuit = Circuit([[1.2]], b=1.0, b0=1.0, sigma=0.3, tau_y=8.0, tau_a=16.0)
        size, drives, level = 64, np.array([[0.15], [0.4], [1.0]]), np.array([0.03, 0.01])
        j, Q = np.arange(2, size // 4 + 1, 2), level**2 / [8, 16]
        states = [steady_state(circuit, z).state for z in drives]
        J = [np.asarray(jacobian(circuit, state)) for state in states]
    cross = np.stack([mean_periodograms(one, Q, size, j)[:, :1, :1] for one in J])
    mean = np.array([state.y for state in states])
    found = fit(
        Recording(
            neurons=("1",),
            stimuli=tuple("abc"),
            drives=drives,
            channels=(Channel("y", 0),),
            mean=mean,
            error=np.full(mean.shape, 1e-4),
            spectra=(
                CrossSpectra(
                    np.arange(3), (0,), j / size, cross, np.full(3, 10**4), 1.0, float(size)
                ),
            ),
        ),
        starts=2,
    )
    truth = {"tau_y[1]": 8, "tau_a[1]": 16, "noise_y[1]": 0.03, "noise_a[1]": 0.01}
    for name, value in truth.items():
        assert found[name].value == pytest.approx(value, rel=0.1), name


def test_a_window_at_the_ends_of_the_frequencies_keeps_spectra_real_there():
    """At 0 and at half of the sampling rate cross-spectra of real samples are real, and a flat
    spectrum stays flat."""
    f = np.array([0.0, 0.1, 0.5])
    nodes, blur = blurred(f, 20.0, 1.0)
    assert blur is not None and nodes.min() == 0 and nodes.max() <= 0.5
    S = jnp.asarray((1 + 1j * np.sin(2 * np.pi * nodes))[None, :, None, None])
    found = np.asarray(blur.of(S))[0, :, 0, 0]
    np.testing.assert_allclose(found.real, 1, rtol=1e-12)
    np.testing.assert_allclose(found.imag[[0, 2]], 0, atol=1e-12)
    assert found.imag[1] > 0.4


def test_half_is_a_bijection_to_norms_below_one():
    A = np.random.default_rng(0).normal(size=(8, 3, 3)) * np.logspace(-3, 2, 8)[:, None, None]
    W_r = np.asarray(jax.vmap(half)(jnp.asarray(A)))
    assert np.all(np.linalg.norm(2 * W_r - np.eye(3), 2, axis=(1, 2)) < 1)
    for one, other in zip(A[:6], W_r[:6], strict=True):
        np.testing.assert_allclose(unhalf(other), one, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match=r"\|K\| < 1"):
        unhalf(1.1 * np.eye(2))


def steady(z, y, error):
    return Recording(
        neurons=("1",),
        stimuli=tuple(f"{x:g}" for x in z),
        drives=np.asarray(z)[:, None],
        channels=(Channel("y", 0),),
        mean=np.asarray(y)[:, None],
        error=np.full((len(z), 1), error),
    )


def test_a_profile_is_that_of_a_grid():
    """One neuron, too noisy to be quadratic: `y = z / sqrt(c + W z^2)`."""
    z = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
    rng = np.random.default_rng(2)
    y = z / np.sqrt(0.04 + 0.5 * z**2) + 0.12 * rng.normal(size=5)
    found = fit(steady(z, y, 0.12), starts=2)
    assert found.rank == 2 and found["tau_y[1]"].how == "not identified"
    one = found["sigma[1]"]
    assert one.how == "profile"

    def chi2(W, sigma):
        return np.sum(((y - z / np.sqrt(sigma**2 + W * z**2)) / 0.12) ** 2)

    def profiled(sigma):
        best: Any = scipy.optimize.minimize_scalar(
            lambda log_W: chi2(np.exp(log_W), sigma), bounds=(-8, 3), method="bounded"
        )
        return best.fun

    lowest = found.chi2
    for end in (one.low, one.high):
        if 0 < end < np.inf:
            assert profiled(end) - lowest == pytest.approx(1.645**2, rel=0.08)
        else:
            assert profiled(one.value * np.exp(-4.9 if end == 0 else 4.9)) - lowest < 1.645**2


def test_ends_of_a_profile_are_not_taken_from_searches_that_gave_up(monkeypatch):
    z = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
    y = z / np.sqrt(0.04 + 0.5 * z**2) + 0.12 * np.random.default_rng(2).normal(size=5)
    data = steady(z, y, 0.12)
    whole = fit(data, starts=2)["sigma[1]"]
    monkeypatch.setattr(profile, "_EVALUATIONS", 2)  # a search then needs several rounds
    short = fit(data, starts=2)["sigma[1]"]
    assert short.how == "profile"
    assert (short.low, short.high) == pytest.approx((whole.low, whole.high), rel=0.05)
    monkeypatch.setattr(profile, "_EVALUATIONS", 1)
    lost = fit(data, starts=2)["sigma[1]"]
    assert lost.how == "interval not converged" and np.isnan([lost.low, lost.high]).all()


@pytest.mark.parametrize("bend", [0.3, -0.3])
def test_a_number_that_goes_to_0_is_counted_and_has_an_upper_limit(bend):
    """A linear neuron, `W = 0`: errors of one sign favour `W < 0`, which there is not."""
    z = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
    y = z / 0.2 + bend * (z - 0.2) * z
    found = fit(steady(z, y, 0.1), starts=2)
    one = found["W[1,1]"]
    assert found.converged and found.rank == 2
    assert (one.value < 1e-8) == (bend > 0) and one.low == 0 and one.how == "profile"
    assert found["tau_y[1]"].how == "not identified"

    def profiled(W):
        curve = lambda c: np.sum(((y - z / np.sqrt(c + W * z**2)) / 0.1) ** 2)  # noqa: E731
        return scipy.optimize.minimize_scalar(curve, bounds=(0.01, 0.1), method="bounded").fun  # pyright: ignore

    assert profiled(one.high) - found.chi2 == pytest.approx(1.645**2, rel=0.08)


def test_fixed_bounded_and_tied_numbers_stay_so():
    z = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
    y = z / np.sqrt(0.04 + 0.5 * z**2)
    found = fit(steady(z, y, 0.01), starts=2, bounds={"W": (0.6, 2.0)})
    assert 0.6 <= found["W[1,1]"].value < 0.61  # the optimum, 0.5, is beyond
    found = fit(steady(z, y, 0.5), starts=2, bounds={"sigma": (0.19, 0.21)})
    one = found["sigma[1]"]  # which these data hardly tell
    assert 0.19 <= one.low < one.value < one.high <= 0.21
    found = fit(steady(z, y, 0.5), starts=2, bounds={"sigma": (0.1999, 0.2001)})
    one = found["sigma[1]"]
    assert 0.1999 * (1 - 1e-12) <= one.low < one.value < one.high <= 0.2001 * (1 + 1e-12)
    given = {"fixed": {}, "bounds": {"tau_y": (20.0, 30.0)}, "ties": (), "guess": {}}
    layout = layout_of(steady(z, y, 0.5), "identity", **given)  # from 10 ms, which is outside
    tau_y = float(layout.arrays(jnp.zeros(layout.free))["tau_y"][0])
    assert np.log(tau_y / 20) == pytest.approx(0.02 * np.log(1.5), rel=1e-4)
    recording = recorded()
    tied = problem(recording, ties=("tau_y+tau_a", "noise_a"), fixed={"W[1,2]": 0.0, "sigma": 0.3})
    arrays = tied.model.parameters.arrays(jnp.ones(tied.model.parameters.free))
    assert len({float(x) for name in ("tau_y", "tau_a") for x in arrays[name]}) == 1
    assert arrays["W"][0, 1] == 0 and np.allclose(arrays["sigma"], 0.3)
    assert arrays["noise_a"][0] == arrays["noise_a"][1] != arrays["noise_y"][0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fixed": {"tau": 1.0}}, "`fixed` must name parameters"),
        ({"fixed": {"tau_y": -1.0}}, "`fixed` must give 'tau_y' a value in its domain"),
        ({"fixed": {"sigma": 0.0}}, "`fixed` must give 'sigma'"),
        ({"bounds": {"W": (2.0, 1.0)}}, "`bounds` of 'W' must be two finite rising numbers"),
        ({"bounds": {"W": (-1.0, 1.0)}}, "`bounds` of 'W'"),
        ({"bounds": {"b0": (5.0, 6.0)}}, "`bounds` must not name fixed numbers, as 'b0' does: b0="),
        ({"bounds": {"tau_y[1]": (2.0, 3.0)}, "fixed": {"tau_y": 1.0}}, "as 'tau_y\\[1\\]' does"),
        ({"ties": ("b",)}, "`ties` must not name fixed numbers"),
        ({"ties": ("tau_y+tau_x",)}, "`ties` must name parameters"),
        ({"guess": {"W": -1.0}}, "`guess` must give 'W' values > 0"),
        ({"guess": {"V": 1.0}}, "`guess` must name parameters"),
        (
            {"guess": {"b0": 2.0}},
            r"not 'b0', which is 1.0 by convention; `fixed={'b0': None}` frees",
        ),
        ({"fixed": {"W": 0.5}, "guess": {"W": 0.4}}, "not 'W', which is 0.5 by `fixed`"),
        ({"guess": {"W_r": 1.0}}, "`guess` must not name 'W_r', which is I"),
        ({"recurrence": "free", "guess": {"W_r": np.nan}}, "`guess` must give 'W_r' finite"),
        ({"fixed": {"W": [1.0, 2.0]}}, r"`fixed` must give 'W' one number or shape \(1, 1\)"),
        ({"fixed": {"W_r": 0.5}}, "`fixed` must not name 'W_r', which is I"),
        ({"recurrence": "half", "ties": ("W_r",)}, "`ties` must not name 'W_r', as"),
        ({"bounds": {"sigma": (1.0, 2.0, 3.0)}}, "`bounds` of 'sigma' must be two numbers"),
        ({"bounds": {"sigma": 1.0}}, "`bounds` of 'sigma' must be two numbers, not 1.0"),
        ({"bounds": {"sigma": "12"}}, "`bounds` of 'sigma' must be two numbers, not '12'"),
        (
            {"ties": "tau_y"},
            r"`ties` must be a sequence of names, such as \('tau_y',\), not 'tau_y'",
        ),
        ({"fixed": {"sigma": "a"}}, "`fixed` must give 'sigma' numbers, not 'a'"),
        ({"seed": -1}, "`seed` must be at least 0"),
        ({"seed": 1.5}, "`seed` must be a whole number"),
        ({"level": 1.0}, "`level` must be a number in"),
        ({"level": "0.9"}, "`level` must be a number in"),
        ({"starts": 0}, "`starts` must be at least 1"),
        ({"recurrence": "half", "guess": {"W_r": 3.0}}, r"`W_r` must be \(I \+ K\) / 2"),
    ],
)
def test_bad_arguments_are_refused_by_name(without_type_checks, options, said):
    del without_type_checks
    z = np.array([0.1, 0.4])
    with pytest.raises(ValueError, match=said):
        fit(steady(z, z, 0.01), **options)


def test_what_is_no_recording_and_no_list_of_models_is_refused(without_type_checks):
    del without_type_checks
    wrong: Any = {"mean": [1.0]}
    with pytest.raises(ValueError, match="`recording` must be a `Recording`, .* not dict"):
        fit(wrong)
    z = np.array([0.1, 0.4])
    for recurrences in ("free", ()):
        with pytest.raises(ValueError, match="`recurrences` must be several words, not"):
            compare(steady(z, z, 0.01), recurrences)


def test_a_fitted_circuit_is_in_the_type_that_jax_is_set_to():
    z = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
    y = z / np.sqrt(0.04 + 0.5 * z**2)
    for wide in (True, False):
        with jax.enable_x64(wide):
            found = fit(steady(z, y, 0.01), starts=1)
            kind = np.float64 if wide else np.float32
            assert {leaf.dtype for leaf in jax.tree.leaves((found.circuit, found.noise))} == {
                np.dtype(kind)
            }
            assert steady_state(found.circuit, jnp.array([0.4], kind)).converged


def test_a_tie_of_a_bounded_number_and_one_that_is_not_is_refused():
    """Also where the bounds are the limits that numbers without bounds are stored with."""
    bounds = {"W_r[1,2]": (0.0, 1.0)}
    given = {"fixed": {}, "ties": ("W_r[1,2]+W_r[2,1]",), "guess": {}, "bounds": bounds}
    with pytest.raises(ValueError, match="`ties` must be of numbers with the same bounds"):
        layout_of(recorded(), "free", **given)


@pytest.mark.parametrize("quantity", ["y", "rate", "lfp"])
def test_what_the_unit_of_y_leaves_is_what_is_said(quantity):
    """The words of the direction, evaluated along it."""
    arrays = {name: np.array([1.3, 0.7]) for name in ("b", "noise_y")}
    arrays |= {"W": np.array([[1.0, 2.0], [3.0, 4.0]]), "W_r": np.array([[0.5, 0.2], [0.1, 0.4]])}
    channel = Channel(quantity, -1 if quantity == "lfp" else 0, False)
    _, words, change = _units(0, arrays, (channel,))
    assert "W_ij b_j^2" in words and "noise_y / b" in words and "W_r_ij b_j / b_i" in words
    of = lambda group, *index: change(group, index)  # noqa: E731  # of logarithms
    for i in range(2):
        assert of("noise_y", i) == of("b", i)
        for j in range(2):
            assert of("W", i, j) + 2 * of("b", j) == 0
            relative = of("W_r", i, j) / arrays["W_r"][i, j]
            assert relative + of("b", j) - of("b", i) == pytest.approx(0)
    if quantity != "lfp":
        assert of("gain", 0) + (2 if quantity == "rate" else 1) * of("b", 0) == 0


def test_responses_in_time_are_those_of_scipy():
    """Values and derivatives of an onset, against SciPy's integration and central differences."""
    times = np.array([0.0, 2.0, 5.0, 12.0, 40.0])
    blank = np.full((1, 1), np.nan)
    course = TimeCourses(np.array([0]), (0,), times, np.zeros((1, 5, 1)), np.ones((1, 5, 1)))
    recording = Recording(
        ("1",), ("a",), np.array([[0.7]]), (Channel("y", 0),), blank, blank, courses=(course,)
    )
    given = problem(recording, guess={"tau_y": 3.0, "tau_a": 8.0})
    layout, u = given.model.parameters, jnp.zeros(6)
    states = State(jnp.ones((1, 1)), jnp.ones((1, 1)))
    found = likelihood(given, u, states)

    def shown(u):
        arrays = {name: np.asarray(x) for name, x in layout.arrays(jnp.asarray(u)).items()}
        return simulated(circuit_of(arrays, False), lambda _: np.array([0.7]), times)[0][:, 0]

    np.testing.assert_allclose(found.r[1:], -shown(np.zeros(6)), atol=1e-6)
    for i in range(6):
        step = 1e-3 * np.eye(6)[i]
        slope = (shown(step) - shown(-step)) / 2e-3
        np.testing.assert_allclose(found.R[1:, i], slope, atol=1e-5)


def test_feedback_is_found_and_preferred_where_there_is_some():
    """Of two neurons, one of which feeds back to the other, from responses without errors."""
    W_r = np.array([[1.0, 0.4], [0.0, 1.0]])
    circuit = Circuit(np.array([[0.9, 0.3], [0.4, 0.8]]), W_r, b=0.8, b0=1.0, sigma=[0.3, 0.4])
    drives = np.array([[x, y] for x in (0.05, 0.2, 0.8) for y in (0.0, 0.1, 0.3, 0.9)])
    with jax.enable_x64(True):
        found = [steady_state(circuit, z) for z in drives]
        mean = np.concatenate([np.concatenate([np.asarray(p.state.y), np.asarray(p.state.a)])[None]
                               for p in found])  # fmt: skip
    recording = Recording(
        neurons=("A", "B"), stimuli=tuple(map(str, range(len(drives)))), drives=drives,
        channels=(Channel("y", 0), Channel("y", 1), Channel("a", 0), Channel("a", 1)), mean=mean,
        error=np.full(mean.shape, 1e-3),
    )  # fmt: skip
    options = {"starts": 2, "fixed": {"W_r[B,A]": 0.0}}
    fed = fit(recording, recurrence="feedback", **options)
    assert fed.converged and fed.chi2 < 1e-6
    assert fed["W_r[A,B]"].value == pytest.approx(0.4, rel=1e-5)
    assert fed["W_r[A,A]"].how == fed["W_r[B,A]"].how == "fixed"
    assert fed["b[A]"].value == pytest.approx(0.8, rel=1e-5)
    assert fed["W_r[A,B]"].low < 0.4 < fed["W_r[A,B]"].high
    without = fit(recording, recurrence="feedback", starts=1, fixed={
        "W_r[B,A]": 0.0, "W_r[A,B]": 0.0})  # fmt: skip
    assert fed.aic < without.aic - 100
    with pytest.raises(ValueError, match="`guess` must give 'W_r' values > 0"):
        fit(recording, recurrence="feedback", guess={"W_r": np.eye(2)})


def of_two(channels, drives, cross, trials=50):
    """Spectra alone, of two neurons; 10 and 20 Hz."""
    blank = np.full((len(drives), len(channels)), np.nan)
    names = tuple(range(len(channels)))
    at = np.arange(len(drives))
    spectra = CrossSpectra(at, names, np.array([0.01, 0.02]), cross, np.full(len(drives), trials))
    stimuli = tuple("uvw"[: len(drives)])
    return Recording(("A", "B"), stimuli, drives, channels, blank, blank, spectra=(spectra,))


def spectra_of_noise(k, s):
    X = np.random.default_rng(0).normal(size=(2, k, 2, s, 50))
    X = X[0] + 1j * X[1]
    return X @ X.conj().swapaxes(-1, -2) / 50


def test_spectra_of_channels_that_do_not_fluctuate_are_left_out():
    rates = (Channel("rate", 0), Channel("rate", 1))
    drives = np.array([[0.0, 0.0], [0.5, -0.5], [0.3, 0.6]])
    recording = of_two(rates, drives, spectra_of_noise(3, 2))
    cross = recording.spectra[0].cross
    kept = {
        tuple(one.stimuli): (one.channels, one.cross)
        for one in resolved(recording, ("free", "identity")).spectra
    }
    assert {at: channels for at, (channels, _) in kept.items()} == {(2,): (0, 1), (1,): (0,)}
    np.testing.assert_array_equal(kept[2,][1][0], cross[2])
    np.testing.assert_array_equal(kept[1,][1][0, :, 0, 0], cross[1, :, 0, 0])
    words = ["rate of A for 'u'", "rate of B for 'u'", "rate of B for 'v'"]
    assert left_out(recording, ("identity",)) == words
    # with general recurrence others may excite B, but no circuit responds to nothing
    assert left_out(recording, ("free",)) == words[:2]
    cross[2, :, 0] = cross[2, :, :, 0] = 0  # no spikes
    assert left_out(recording, ("free",)) == [*words[:2], "rate of A for 'w'"]
    blank = of_two(rates, 0 * drives, spectra_of_noise(3, 2))
    with pytest.raises(ValueError, match="nothing else to fit.*rate of A for 'u', rate of B"):
        resolved(replace(blank, mean=np.full((3, 2), np.nan)), ("free",))
    potentials = of_two(BOTH, drives, spectra_of_noise(3, 2))
    (same,) = resolved(potentials, ("identity",)).spectra
    np.testing.assert_array_equal(same.cross, potentials.spectra[0].cross)


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        ((*BOTH, Channel("lfp", -1)), "`spectra` of y of A, y of B, lfp for stimulus 'u' must"),
        ((Channel("y", 1), Channel("rate", 1)), "`spectra` of y of B, rate of B for stimulus 'u'"),
    ],
)
def test_spectra_of_channels_that_depend_on_each_other_are_refused(channels, said):
    recording = of_two(channels, np.full((1, 2), 0.5), spectra_of_noise(1, len(channels)))
    with pytest.raises(ValueError, match=said):
        fit(recording)


def test_courses_that_repeat_another_are_refused():
    """The lfp of one neuron is its y."""
    z, times = np.array([[0.2], [0.5]]), np.arange(1.0, 9)
    y = np.outer(z, 1 - np.exp(-times / 3)) + np.random.default_rng(0).normal(size=(2, 8)) / 100
    blank = np.full((2, 2), np.nan)

    def recording(lfp):
        mean = np.stack([y, lfp], axis=-1)
        course = TimeCourses(np.arange(2), (0, 1), times, mean, np.full(mean.shape, 0.01))
        both = Channel("y", 0), Channel("lfp", -1)
        return Recording(("1",), ("a", "b"), z, both, blank, blank, courses=(course,))

    resolved(recording(y + 1e-3 * np.random.default_rng(1).normal(size=y.shape)), ("identity",))
    for same in (y, -2 * y):
        with pytest.raises(ValueError, match="`courses` of y of 1, lfp must not be multiples"):
            resolved(recording(same), ("identity",))


def test_measured_spectra_that_are_singular_are_refused():
    cross = spectra_of_noise(2, 2)
    recording = of_two(BOTH, np.full((2, 2), 0.5), cross, trials=1)
    cross[1, 1] = np.array([[1.0, 2j], [-2j, 4.0]])
    resolved(recording, ("identity",))  # of one trial they are
    recording = of_two(BOTH, np.full((2, 2), 0.5), cross)
    said = "`spectra` of y of A, y of B for stimulus 'v' must not be singular, as measured at 20 Hz"
    with pytest.raises(ValueError, match=said):
        fit(recording)


@pytest.mark.parametrize(
    ("drives", "recurrence", "said"),
    [
        ([[0.5, 0.0], [0.5, 0.5]], "identity", "spectra at 'u' .*: y of B has neurons without"),
        ([[0.5, 0.5], [0.0, 0.0]], "free", "spectra at 'v' .*: y of A has neurons without"),
    ],
)
def test_spectra_of_rectified_neurons_without_drive_are_refused(drives, recurrence, said):
    recording = of_two(BOTH, np.array(drives), spectra_of_noise(2, 2))
    with pytest.raises(ValueError, match=f"`rectified` must be False, or the {said}"):
        fit(recording, recurrence=recurrence, rectified=True)


def test_why_no_start_can_be_used_is_said():
    recording = of_two(BOTH, np.full((2, 2), 0.5), spectra_of_noise(2, 2))
    given = problem(recording)
    S = spectra_of_noise(2, 2)
    S[1, :, 1] = S[1, :, :, 1] = 0
    with jax.enable_x64(True):
        shown = Predicted(jnp.zeros((2, 2)), (jnp.asarray(S),), ())
        said = _unusable(given, recording, shown)
    assert "the predicted spectra of y of B for stimulus 'v' are singular" in said
    blank = np.full((1, 1), np.nan)
    course = TimeCourses(
        np.array([0]), (0,), np.array([0.0, 40.0]), np.zeros((1, 2, 1)), np.ones((1, 2, 1))
    )
    recording = Recording(
        ("1",), ("a",), np.array([[0.7]]), (Channel("y", 0),), blank, blank, courses=(course,)
    )
    with pytest.raises(Failed, match="the time courses for stimulus 'a' cannot be followed"):
        fit(recording, fixed={"tau_y": 0.001}, starts=1)


def test_models_are_compared_by_what_they_predict():
    z = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
    y = z / np.sqrt(0.04 + 0.5 * z**2) + 0.01 * np.random.default_rng(0).normal(size=5)
    (one,) = compare(steady(z, y, 0.01), ("identity",), starts=2)
    assert one.fit.aic == pytest.approx(one.fit.chi2 + 2 * one.fit.rank)
    # the deviance of a response that is left out, by least squares without it
    kept = np.arange(5) != 2
    curve = lambda x, c, W: x / np.sqrt(c + W * x**2)  # noqa: E731
    best, _ = scipy.optimize.curve_fit(curve, z[kept], y[kept], (0.04, 0.5))
    expected = ((y[2] - curve(z[2], *best)) / 0.01) ** 2
    assert one.held_out[2] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    # what to expect of it from the two parameters, by least squares without it
    h = 1e-6 * np.eye(2)
    slopes = np.stack([(curve(z, *(best + d)) - curve(z, *(best - d))) / 2e-6 for d in h], axis=1)
    covariance = np.linalg.inv(slopes[kept].T @ slopes[kept])
    assert one.uncertainty[2] == pytest.approx(slopes[2] @ covariance @ slopes[2], rel=1e-3)
    assert not one.is_erratic and one.not_converged == ()
    (few,) = compare(steady(z[:2], y[:2], 0.01), ("identity",), starts=2)
    assert np.isinf(few.uncertainty).all() and few.is_erratic  # one response, two parameters
    with pytest.raises(ValueError, match="`hold_out` needs two stimuli"):
        compare(steady(z[:1], y[:1], 0.01))
    with pytest.raises(ValueError, match="`bounds` must not name 'W_r', which is I"):
        compare(steady(z, y, 0.01), ("free", "identity"), bounds={"W_r": (0.0, 1.0)})


def test_it_is_told_without_which_stimuli_a_fit_does_not_converge(monkeypatch, tmp_path, capsys):
    searched = comparison.scoring

    def interrupted(*arguments, **options):  # at the second of five stimuli
        found = searched(*arguments, **options)
        return found._replace(converged=found.converged & (jnp.arange(5) != 1))

    monkeypatch.setattr(comparison, "scoring", interrupted)
    data, stimuli = tmp_path / "d.csv", tmp_path / "s.csv"
    z = (0.05, 0.1, 0.2, 0.4, 0.8)
    rows = [f"1,1,{x:g},1,y,{x / np.sqrt(0.04 + 0.5 * x**2):.17g},0.01" for x in z]
    data.write_text("\n".join(["session,trial,stimulus,neuron,quantity,value,se", *rows]))
    stimuli.write_text("\n".join(["stimulus,neuron,z", *(f"{x:g},1,{x:.17g}" for x in z)]))
    words = ["fit", str(data), "--stimuli", str(stimuli), "--starts", "2", "--compare", "identity"]
    assert cli.run(words) == 0
    assert "did not converge without one of the stimuli 0.1;" in " ".join(
        capsys.readouterr().out.split()
    )


def test_the_command_writes_a_circuit_that_others_read(tmp_path, capsys):
    """It gives what `fit` gives, and bad input leaves nothing behind."""
    z = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
    y = z / np.sqrt(0.04 + 0.5 * z**2)
    data, stimuli, out = (tmp_path / name for name in ("d.csv", "s.csv", "fitted.json"))
    rows = [f"1,1,{x:g},1,y,{v:.17g},0.01" for x, v in zip(z, y, strict=True)]
    header = "session,trial,stimulus,neuron,quantity,value,se"
    data.write_text("\n".join([header, *rows]))
    stimuli.write_text("\n".join(["stimulus,neuron,z", *(f"{x:g},1,{x:.17g}" for x in z)]))
    words = ["fit", str(data), "--stimuli", str(stimuli), "--starts", "2"]
    figure = tmp_path / "fitted.png"
    assert cli.run([*words, "--out", str(out), str(figure), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    same = fit(steady(z, y, 0.01), starts=2)
    values = {one["name"]: one["value"] for one in found["estimates"]}
    for one in same.estimates:
        assert values[one.name] == pytest.approx(one.value, rel=1e-6)
    assert values["W[1,1]"] == pytest.approx(0.5, rel=1e-3)
    assert found["undetermined"][0]["name"] == "no response depends on these"
    for option, value, said in (
        ("--fix", "q=1", "`fix` must name parameters"),
        ("--tie", "q", "`tie` must name parameters"),
        ("--bound", "b=1:2", "`bound` must not name fixed numbers"),
    ):
        assert cli.run([*words, option, value]) == 2
        refusal = capsys.readouterr()
        assert not refusal.out and len(refusal.err.splitlines()) == 1 and said in refusal.err
    assert found["converged"] and figure.stat().st_size > 1000
    circuit, drives = load_circuit(out)
    np.testing.assert_allclose(drives[:, 0], z)
    np.testing.assert_allclose(steady_state(circuit, drives[2]).state.y, y[2], rtol=1e-3)
    out.unlink()
    one_row = data.with_name("one.csv")
    one_row.write_text("\n".join([header, rows[2]]))
    words_of_one = ["fit", str(one_row), "--stimuli", str(stimuli), "--starts", "2"]
    stimuli_of_all = stimuli.read_text()
    stimuli.write_text("stimulus,neuron,z\n0.2,1,0.2\n")
    assert cli.run([*words_of_one, "--compare", "identity"]) == 0
    assert "No stimulus was held out" in capsys.readouterr().out
    stimuli.write_text(stimuli_of_all)
    for wrong, said in (
        (["--fix", "sigma=1", "sigma=2"], "`fix` must give each name once, not 'sigma' again"),
        (["--bound", "W=1:2", "W=1:3"], "`bound` must give each name once, not 'W' again"),
        (["--fix", "tau_y"], "`fix` must be NAME=VALUE"),
        (["--level", "90"], "`level` must be a number in (0, 1), not 90.0"),
        (["--fix", "tau_y=fast"], "`fix` of tau_y must be a finite number"),
        (["--bound", "W=1"], "`bound` of W must be LOWEST:HIGHEST"),
        (["--tie", "tau_z"], "`tie` must name parameters"),
        (["--high", "-1"], "`high` must be above `low`"),
    ):
        assert cli.run([*words, "--out", str(out), *wrong]) == 2
        assert said in capsys.readouterr().err and not out.exists()


Y, A, LFP = Channel("y", 0), Channel("a", 0), Channel("lfp", -1)
UNKNOWN = (Channel("y", 0, False), Channel("y", 1, False), Channel("lfp", -1, False))
RATE = Channel("rate", 1, False)


@pytest.mark.parametrize(
    ("recurrence", "channels", "by_convention"),
    [
        ("identity", BOTH, {"b"}),
        ("identity", (*BOTH, A), {"b[2]"}),
        ("identity", (*BOTH, A, Channel("a", 1)), set()),
        ("identity", (*BOTH, Channel("a", 0, False)), {"b"}),
        ("identity", UNKNOWN[:2], {"b", "gain[y of 1]", "gain[y of 2]"}),
        ("identity", UNKNOWN, {"b", "gain[y of 1]"}),
        ("identity", (*UNKNOWN[:2], LFP), {"b"}),
        ("free", (*BOTH, UNKNOWN[2]), set()),
        ("free", (Y, RATE), {"b[2]"}),
        ("free", UNKNOWN[:2], {"b"}),
        ("free", UNKNOWN, {"b[1]"}),
    ],
)
def test_a_convention_fixes_only_what_no_data_tell(recurrence, channels, by_convention):
    """Counted by the rank of the derivative of all responses at some generic parameters: fixing
    what is 1 by convention loses none, and fixing any further number of `b` or a gain does."""
    rng = np.random.default_rng(3)
    drives = 0.5 + rng.random((14, 2))
    shown = 1 + rng.random((len(drives), len(channels)))
    recording = Recording(
        neurons=("1", "2"),
        stimuli=tuple(map(str, range(len(drives)))),
        drives=drives,
        channels=channels,
        mean=shown,
        error=np.ones_like(shown),
    )
    found = conventions(recording, recurrence, labels_of(recording), fixed={}, ties=())
    assert set(found) - {"b0"} == by_convention and set(found.values()) == {1.0}
    freed = {"b", "b0"} | ({"gain"} if any(not one.gain_known for one in channels) else set())
    every = problem(recording, recurrence, fixed=dict.fromkeys(freed))
    model = every.model
    u = jnp.asarray(0.1 * rng.normal(size=model.parameters.free))
    states, settled = model.from_rest(u)
    assert settled
    R = np.asarray(jax.jacfwd(lambda u: model.at_rest(u, states)[0].mean.ravel())(u))
    names = [model.parameters.entries[at[0]].name for at in model.parameters.groups()]
    groups = [model.parameters.entries[at[0]].group for at in model.parameters.groups()]
    free = np.array(
        [not {name, group} & set(found) for name, group in zip(names, groups, strict=True)]
    )

    def rank(columns):
        sizes = np.linalg.svd(R[:, columns], compute_uv=False)
        return int(np.sum(sizes > 1e-9 * sizes[0]))

    assert rank(free) == rank(np.ones_like(free))
    for i in np.flatnonzero(free & np.isin(groups, ("b", "gain"))):
        assert rank(free & (np.arange(len(free)) != i)) < rank(free), names[i]


@pytest.mark.parametrize(
    ("fixed", "ties", "by_convention"),
    [
        ({}, (), {"b0", "b"}),
        ({"b": None}, (), {"b0", "b"}),  # freed afterwards
        ({"tau_y": 10.0}, (), {"b0"}),
        ({"tau_y[1]": 10.0}, (), {"b0", "b[2]"}),
        ({}, ("tau_y",), {"b0", "b[1]"}),
        ({}, ("tau_a",), {"b0", "b"}),
        ({"noise_a[2]": 0.1}, (), {"b0", "b[1]"}),
        ({"W[1,2]": 0.0}, (), {"b0", "b"}),
        ({"W[1,2]": 0.3}, (), {"b0", "b[1]"}),
        ({"b": [0.5, 0.6]}, (), {"b0"}),
    ],
)
def test_what_is_fixed_or_tied_is_no_longer_a_matter_of_convention(fixed, ties, by_convention):
    """The scale of the modulators moves the time constants that spectra of `y` tell."""
    recording = recorded()
    labels = labels_of(recording)
    assert (
        conventions(recording, "identity", labels, fixed=fixed, ties=ties).keys() == by_convention
    )
    steady = replace(recording, spectra=())
    at_rest = conventions(steady, "identity", labels, fixed={"tau_y": 10.0}, ties=())
    assert at_rest.keys() == {"b0", "b"}


def test_an_input_gain_that_the_modulator_tells_is_fitted():
    """`y` and `a` of one neuron: `a y^2 = (b z)^2`."""
    W, b, c, error = 0.8, 0.5, 0.01, 1e-3
    z = np.array([0.1, 0.3, 0.6, 1.0, 2.0])
    a = c + W * (b * z) ** 2
    shown = np.stack([b * z / np.sqrt(a), a], axis=1)
    drawn = np.random.default_rng(0).normal(size=shown.shape)
    recording = Recording(
        neurons=("1",),
        stimuli=tuple("abcde"),
        drives=z[:, None],
        channels=(Y, A),
        mean=shown + error * drawn,
        error=np.full(shown.shape, error),
    )
    found = fit(recording, starts=2)
    assert found.converged and found.chi2 < 30
    for name, truth in (("W[1,1]", W), ("b[1]", b), ("sigma[1]", c**0.5)):
        one = found[name]
        width = np.log(one.high / one.low) / 2 / 1.645
        assert one.how in ("Fisher", "profile") and abs(np.log(one.value / truth)) < 5 * width


def test_a_perfect_fit_has_converged(tmp_path, capsys):
    """One mean for one number: its chi2 is 0, and every further step changes it by rounding."""
    rates = (25.672082, 25.813364, 25.588056, 26.854748, 26.238284, 25.711939)
    rows = [f"1,{i},s3,A,rate,{rate},Hz" for i, rate in enumerate(rates)]
    recording, stimuli = tmp_path / "one.csv", tmp_path / "stimuli.csv"
    recording.write_text("\n".join(["session,trial,stimulus,neuron,quantity,value,unit", *rows]))
    stimuli.write_text("stimulus,contrast\ns3,0.4\n")
    words = ["fit", recording, "--stimuli", stimuli, "--starts", 2, "--json"]
    assert cli.run([*map(str, words)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["converged"] and found["chi2"] < 1e-12
