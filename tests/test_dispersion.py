"""Waves on a uniform circuit: their eigenvalues are those of the whole Jacobian."""

import json
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import organics
from organics import Circuit, Convolution, State, cli, dispersion, plots, wave_onsets
from organics.errors import NoSteadyState

RING = Path(__file__).parents[1] / "examples/ring_of_waves.json"

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


def ring(rng, symmetric, mirrored=False):
    kernels = 0.1 * rng.normal(size=15), 0.1 * rng.uniform(size=15)
    if symmetric:
        kernels = [(kernel + kernel[::-1]) / 2 for kernel in kernels]
    if mirrored:
        kernels = [kernel[::-1] for kernel in kernels]
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
        assert wave.speed == pytest.approx(8 * wave.frequency)  # of two that mirror each other
        assert below.leading.speed > 0 and not above.travels
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
    assert -value.imag / np.angle(factor) == pytest.approx(wave.speed, rel=1e-6)
    assert wave.periods[1] > 0
    mirrored = ring(np.random.default_rng(1), symmetric=False, mirrored=True)
    other = dispersion(*mirrored).leading
    assert other.periods == wave.periods and other.speed == pytest.approx(-wave.speed, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda W: (Circuit(np.ones((3, *W.shape[3:]))), np.ones(3)),
            "`W` must be a `Convolution`",
        ),
        (lambda W: (Circuit(Convolution(W, 2, 3)), np.ones(6)), 'not `border="zeros"`'),
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


@pytest.mark.parametrize(("kind", "size"), [("turing", TURING), ("hopf", HOPF)])
def test_a_scan_finds_where_the_formulas_put_the_onset(kind, size):
    """Over the time constant of the modulators: the trace vanishes at `-N tau_y / A`; a still
    pattern does not hear of time constants."""
    circuit, z = at_onset(kind, 1.05 * size)
    scan = wave_onsets(circuit, z, "tau_a", (1.0, 30.0), points=5)
    known = scan.found[0]
    s, y = np.sqrt(float(known.point.state.a[0])), float(known.point.state.y[0])
    A = 1 - (1 - s) * (1 + 1.05 * size)
    N = 1 - (0.475 if kind == "hopf" else 0) * y**2
    if kind == "turing":
        assert not scan.onsets and all(one.leading.kind == kind for one in scan.found)
        return
    (onset,) = scan.onsets
    assert onset.value == pytest.approx(-N * 2.0 / A, rel=1e-8) and onset.rising
    assert onset.wave.kind == "wave" and onset.wave.wavelength == pytest.approx(8)
    assert abs(onset.wave.rate) < 1e-9


def test_a_factor_on_the_weights_is_scanned():
    """The whole Jacobian changes its sign at the onset."""
    circuit, z = at_onset("hopf", 1.05 * HOPF)
    (onset,) = wave_onsets(circuit, z, "W_r", (0.0, 1.5), points=4).onsets
    for factor in (0.999, 1.001):
        moved = eqx.tree_at(lambda c: c.W_r, circuit, circuit.W_r.scaled(factor * onset.value))
        state = everywhere(moved, dispersion(moved, z).point)
        J = np.asarray(velocity_and_jacobian(moved, state, z)[1])
        assert (np.linalg.eigvals(J).real.max() > 0) == (factor > 1)


@pytest.mark.parametrize("high", [2.0, 1e4, 1e7])
def test_an_onset_is_found_however_wide_the_range(high):
    circuit, z = at_onset("hopf", 1.05 * HOPF)
    (want,) = wave_onsets(circuit, z, "W_r", (0.0, 1.5), points=4).onsets
    scan = wave_onsets(circuit, z, "W_r", (0.0, high), points=2)
    (onset,) = scan.onsets
    assert scan.ends == () and onset.value == pytest.approx(want.value, rel=1e-8)
    assert onset.rising and onset.wave.kind == "wave"


def test_uniform_waves_are_named():
    wave = dispersion(*at_onset("hopf", 1.01 * HOPF)).leading
    endless = wave._replace(wavelength=float("inf"), speed=0.0)
    assert wave.kind == "wave" and endless.kind == "rhythm"
    assert endless._replace(frequency=0.0).kind == "uniform"
    travelling, z = ring(np.random.default_rng(1), symmetric=False)
    assert dispersion(travelling, z).travels
    assert not dispersion(*at_onset("hopf", 1.01 * HOPF)).travels


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parameter": "W_r", "circuit": lambda c: eqx.tree_at(lambda c: c.W_r, c, None)}, "W_r"),
        ({"parameter": "W", "bounds": (-1.0, 1.0)}, "factor on `W` must be >= 0"),
        ({"parameter": "tau_b"}, "tau_a"),
        ({"parameter": "Wr"}, "must be one of z, W, W_r, .*, not 'Wr'; did you mean"),
        ({"parameter": "z[0]"}, "`parameter` must be one of z, W"),
        ({"parameter": 3}, "`parameter` must be one of z, W, .*, not 3"),
        ({"bounds": (1.0, 0.0)}, "`bounds`"),
        ({"points": 1}, "`points` must be"),
        ({"points": "11"}, "`points` must be"),
        ({"points": 200_000}, "`points` must be from 2 to 100,000"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_a_scan_refuses_by_name(options, words):
    circuit, z = at_onset("hopf", 1.0)
    circuit = options.pop("circuit", lambda c: c)(circuit)
    options = {"parameter": "z", "bounds": (0.0, 1.0)} | options
    with pytest.raises(ValueError, match=words):
        wave_onsets(circuit, z, options.pop("parameter"), options.pop("bounds"), **options)


def channels(seed, tau_a=0.2):
    """Three channels on a ring that hear each other, the same in both directions."""
    rng = np.random.default_rng(seed)
    rng.integers(1, 4)
    pool, own = 0.05 * rng.uniform(size=(3, 3, 1, 5)), 0.3 * rng.normal(size=(3, 3, 1, 5))
    own[:, :, 0, 2] += np.eye(3)
    pool, own = ((kernel + kernel[..., ::-1]) / 2 for kernel in (pool, own))
    W, W_r = (Convolution(k, 1, 9, "periodic") for k in (pool, (own + own.swapaxes(0, 1)) / 2))
    return Circuit(W, W_r, b=1.0, tau_y=1.0, tau_a=tau_a), np.repeat(rng.uniform(0.2, 0.8, 3), 9)


def test_rounding_is_no_oscillation():
    """At the onset of a still pattern a rounded imaginary part is not small beside the rate."""
    onsets = [
        onset
        for seed in (15, 17)
        for onset in wave_onsets(*channels(seed), "W_r", (0.3, 1.7), points=3).onsets
    ]
    assert onsets and all(abs(onset.wave.rate) < 1e-8 for onset in onsets)
    assert all(onset.wave.kind == "turing" for onset in onsets)
    circuit, z = at_onset("turing", TURING)
    single = Circuit(
        *(
            Convolution(np.asarray(w.kernel, np.float32), 1, 32, "periodic")
            for w in (circuit.W, circuit.W_r)
        ),
        **{name: np.float32(value) for name, value in {"sigma": 0.1, "tau_a": 2.0}.items()},
    )
    found = dispersion(single, z.astype(np.float32))
    assert single.dtype == np.float32 and found.turing is not None
    assert not found.oscillates[:, 1:4].all() and found.leading.kind == "turing"


def test_a_state_that_is_lost_is_no_onset():
    """In long steps the search comes to another state, of another stability."""
    coarse = wave_onsets(*channels(12), "W_r", (0.3, 1.7), points=3)
    fine = wave_onsets(*channels(12), "W_r", (0.3, 1.7), points=15)
    rates = [[one.spectral_abscissa for one in scan.found] for scan in (coarse, fine)]
    assert rates[0][0] < 0 < rates[0][1] and max(rates[1]) < 0
    assert not coarse.onsets and not fine.onsets
    assert [0.3 < value <= 1.0 for value in coarse.ends] == [True] and not fine.ends


def test_a_scan_stops_where_there_is_no_uniform_state():
    """`y` has no rest where `a` must exceed what the pool of a strong drive allows: `W y^2 < 1`."""
    W, W_r = (Convolution(np.full((1, 1, 1, 1), w), 1, 15, "periodic") for w in (1.0, 0.0))
    circuit = Circuit(W, W_r, b=1.0, b0=1.0, sigma=0.1)
    with pytest.raises(NoSteadyState, match="no uniform steady state was found at z = "):
        wave_onsets(circuit, np.full(15, 0.5), "z", (1.0, 3.0), points=3)


def answer(capsys, *words, code=0):
    assert cli.run(["dispersion", *map(str, words)]) == code
    return capsys.readouterr()


@pytest.mark.usefixtures("standard_promotion")
def test_the_command(capsys, tmp_path):
    """What it prints is what the function finds."""
    circuit, drives = organics.load_circuit(RING)
    found = dispersion(circuit, drives[0])
    figure, values = tmp_path / "waves.svg", tmp_path / "waves.npz"
    said = json.loads(answer(capsys, RING, "--json", "--out", figure, values).out)
    assert said["leading"]["kind"] == "wave" and not said["stable"]
    assert said["leading"]["wavelength"] == pytest.approx(8)
    assert said["leading"]["frequency_hz"] == pytest.approx(1000 * found.leading.frequency)
    rates = {tuple(k): rate for k, rate in zip(said["waves"]["periods"], said["waves"]["rate"],
                                              strict=True)}  # fmt: skip
    for place in np.ndindex(1, 32):
        rate = found.eigenvalues[place][0].real
        assert rates[tuple(found.periods[place].astype(int))] == pytest.approx(rate, abs=1e-12)
    where = [tuple(k) for k in found.periods.reshape(-1, 2).astype(int)]
    for name, factors in (("turing_factor", found.turing), ("hopf_factor", found.hopf)):
        assert factors is not None
        each = dict(zip(map(tuple, said["waves"]["periods"]), said["waves"][name], strict=True))
        np.testing.assert_allclose([each[k] for k in where], factors.ravel(), rtol=1e-9)
    assert "periods per neuron" in figure.read_text()
    with np.load(values) as archive:
        assert archive["rate"].max() == pytest.approx(found.spectral_abscissa)
    text = answer(capsys, RING, "--check", code=1).out
    assert "NOT stable: a pattern that oscillates" in text and "wavelength 8 neurons" in text

    words = [RING, "--parameter", "W_r", "--from", 0, "--to", 1, "--points", 4]
    said = json.loads(answer(capsys, *words, "--json", "--out", tmp_path / "scan.csv", figure).out)
    (onset,) = said["onsets"]
    scan = wave_onsets(circuit, drives[0], "W_r", (0.0, 1.0), points=4)
    assert onset["value"] == pytest.approx(scan.onsets[0].value, abs=1e-8) and onset["rising"]
    rows = np.genfromtxt(tmp_path / "scan.csv", delimiter=",", names=True)
    np.testing.assert_allclose(rows["rate"], [one.spectral_abscissa for one in scan.found])
    assert "above W_r = 0.668" in answer(capsys, *words).out


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["orientation_ring.json"], "`W` must be a `Convolution`"),
        (["three_areas.json"], "must be of one circuit, not a hierarchy"),
        (["ring_of_waves.json", "--from", "1"], "need a `parameter`"),
        (["ring_of_waves.json", "--points", "9"], "need a `parameter`"),
        (["ring_of_waves.json", "--parameter", "z", "--from", "1"], "needs `from` and `to`"),
        (["ring_of_waves.json", "--parameter", "z", "--from", "1", "--to", "0"], "must be below"),
        (
            ["ring_of_waves.json", "--parameter", "b[1]", "--from", "1", "--to", "2"],
            "must be one of z, W",
        ),
        (["ring_of_waves.json", "--parameter", "tau_a", "--from", "-1", "--to", "2"], "`from` and"),
        (["ring_of_waves.json", "--parameter", "W", "--from", "-1", "--to", "2"], "`from` must be"),
    ],
)
def test_the_command_refuses_by_name(words, said, capsys):
    file, *options = words
    assert said in answer(capsys, RING.with_name(file), *options, code=2).err


def test_a_kink_at_the_end_of_a_scan_is_no_lost_state():
    """Without drive nothing happens; with little, a wave grows at once, up to the onset."""
    transfer = np.ones((1, 32))
    transfer[0, [4, -4]] = 2.9
    pool = Convolution(np.full((1, 1, 1, 32), 1 / 32), 1, 32, "periodic")
    W_r = Convolution.from_transfer(transfer)
    ring = Circuit(pool, W_r, 1.0, 1.0, 0.1, tau_y=2.0, tau_a=2.0, rectified=True)
    for bounds in ((0.0, 2.0), (-2.0, 2.0)):
        scan = wave_onsets(ring, np.full(32, 0.6), "z", bounds, points=5)
        (onset,) = scan.onsets
        assert not scan.ends
        assert onset.wave.periods == (0, 4) and 1 < onset.value < 1.5


def test_symmetric_rings_are_symmetric_in_float32_too():
    """While JAX computes in float64; transfers of 45 places are rounded to float32."""
    near, far = np.array([0.1, 0.7, 0.3, 0.9, 0.3, 0.7, 0.1]), np.exp(-(np.arange(-4, 5) ** 2) / 8)
    found = []
    for dtype in (np.float64, np.float32):
        pool, W_r = (
            Convolution(row[None, None, None].astype(dtype), 1, 45, "periodic")
            for row in (far / far.sum(), 2.5 * near / near.sum())
        )
        ring = Circuit(pool, W_r, 1.0, 1.0, 0.1, 2.0, 10.0)
        found.append(dispersion(ring, np.full(45, 0.6, dtype)))
    for one in found:
        assert one.turing is not None and one.hopf is not None
    assert np.array_equal(found[0].oscillates, found[1].oscillates)
    np.testing.assert_allclose(found[0].hopf, found[1].hopf, rtol=1e-4)
