"""Responses as physiologists measure them, against formulas."""

from typing import Any

import numpy as np
import pytest

from organics import responses
from organics.circuit.circuit import Circuit
from organics.circuit.hierarchy import Hierarchy
from organics.responses.rhythm import largest_peak
from organics.simulation.noise import Noise

N = 4
CONTRASTS = np.array([0.01, 0.05, 0.2, 0.5, 1.0])


def circuit(**changed: Any):
    rng = np.random.default_rng(1)
    given: dict[str, Any] = {
        "W": rng.uniform(0.2, 1, (N, N)),
        "b": rng.uniform(0.3, 1, N),
        "sigma": rng.uniform(0.1, 0.3, N),
    }
    return Circuit(**given | changed)


STIMULUS, MASK = np.array([0.7, 0.4, 0, 0]), np.array([0, 0, 0.5, 0.9])


def test_the_naka_rushton_function_where_powers_vanish():
    c50, exponent = np.array([0.1, 1e-3, 0.0]), np.array([2.0, 500.0, 2.0])
    one = responses.NakaRushton(np.full(3, 2.0), c50, exponent, error=np.zeros(3))
    rates = one(np.array([0.0, 1e-3, 0.1, 1.0]))
    np.testing.assert_allclose(rates[:, 0], [0, 2 / 10001, 1, 200 / 101], rtol=1e-12)
    np.testing.assert_allclose(rates[:, 1], [0, 1, 2, 2], rtol=1e-12)
    np.testing.assert_allclose(rates[:, 2], [0, 2, 2, 2], rtol=1e-12)


def test_identity_recurrence_has_the_naka_rushton_function_with_exponent_2():
    known = responses.naka_rushton(circuit(), STIMULUS)
    found = responses.contrast_response(circuit(), STIMULUS, CONTRASTS)
    np.testing.assert_allclose(found.rates, known(CONTRASTS), rtol=1e-12, atol=1e-15)
    fitted = responses.fit_naka_rushton(CONTRASTS, found.rates)
    np.testing.assert_allclose(fitted.exponent[:2], 2, atol=1e-3)
    np.testing.assert_allclose(fitted.r_max[:2], known.r_max[:2], rtol=1e-6)
    np.testing.assert_allclose(fitted.c50[:2], known.c50[:2], rtol=1e-6)
    assert np.all(fitted.error[:2] < 1e-6)
    assert np.isnan(fitted.exponent[2:]).all() and (known.r_max[2:] == 0).all()


@pytest.mark.parametrize("scale", [1e20, 1e-25])
def test_drives_whose_square_float32_does_not_hold_have_a_contrast_response(scale):
    circuit = Circuit(W=np.ones((2, 2), np.float32), b=1.0, b0=1.0, sigma=0.5, tau_y=1.0, tau_a=1.0)
    found = responses.naka_rushton(circuit, np.full(2, scale, np.float32))
    np.testing.assert_allclose(found.r_max, 0.5, rtol=1e-6)
    np.testing.assert_allclose(found.c50 * scale, 0.5 / np.sqrt(2), rtol=1e-6)


def test_a_mask_shifts_c50_alone():
    """Theory 21.1: `c50^2 + m^2 (W b^2 h^2) / (W b^2 g^2)`."""
    c = circuit()
    found = responses.contrast_response(c, STIMULUS, CONTRASTS, other=MASK, other_contrasts=0.3)
    known = responses.naka_rushton(c, STIMULUS)
    pools = [np.asarray(c.W) @ np.square(c.b * d) for d in (MASK, STIMULUS)]
    shifted = known._replace(c50=np.sqrt(known.c50**2 + 0.09 * pools[0] / pools[1]))
    np.testing.assert_allclose(found.rates[:, :2], shifted(CONTRASTS)[:, :2], rtol=1e-12)


def test_a_surround_divides_r_max_and_c50_squared():
    c = circuit()
    found = responses.contrast_response(
        c, STIMULUS, CONTRASTS, other=MASK, other_contrasts=CONTRASTS
    )
    known = responses.naka_rushton(c, STIMULUS)
    pools = [np.asarray(c.W) @ np.square(c.b * d) for d in (MASK, STIMULUS)]
    factor = 1 + pools[0] / pools[1]
    with_surround = known._replace(r_max=known.r_max / factor, c50=known.c50 / np.sqrt(factor))
    np.testing.assert_allclose(found.rates[:, :2], with_surround(CONTRASTS)[:, :2], rtol=1e-12)


def test_attention_is_contrast_gain_or_response_gain():
    z = np.array([0.7, 0.4, 0.3, 0.2])
    W = np.random.default_rng(2).uniform(0.2, 1, (N, N))
    np.fill_diagonal(W, 0)
    c = circuit(W=W)
    before = responses.naka_rushton(c, z)
    everywhere = responses.gain_change(
        before, responses.naka_rushton(responses.with_gain(c, 1.5), z)
    )
    np.testing.assert_allclose(everywhere.contrast_gain, 1.5)
    np.testing.assert_allclose(everywhere.response_gain, 1)
    one = responses.gain_change(before, responses.naka_rushton(responses.with_gain(c, 1.5, [0]), z))
    np.testing.assert_allclose((one.response_gain[0], one.contrast_gain[0]), (2.25, 1))
    hierarchy = Hierarchy([c, c], [np.eye(N)])
    changed = responses.with_gain(hierarchy, 2.0, [1], area=1)
    np.testing.assert_allclose(changed.areas[1].b[1], 2 * c.b[1])
    np.testing.assert_array_equal(changed.areas[0].b, c.b)


def test_a_hierarchy_responds_area_after_area():
    """Without feedback each area normalizes what the one below sends."""
    c = circuit()
    up = np.random.default_rng(3).uniform(size=(N, N))
    found = responses.contrast_response(Hierarchy([c, c], [up]), STIMULUS, CONTRASTS)
    below = responses.contrast_response(c, STIMULUS, CONTRASTS)
    np.testing.assert_allclose(found.rates[:, :N], below.rates, rtol=1e-9, atol=1e-12)
    d = np.asarray(c.b) * (up @ np.asarray(below.rates)[-1])
    a = np.asarray(c.c) + np.asarray(c.W) @ d**2
    np.testing.assert_allclose(found.rates[-1, N:], d**2 / a, rtol=1e-9)


def test_an_onset_overshoots_by_the_normalization_of_slow_modulators():
    """Theory 21.2: the peak tends to `b z / sqrt(c)`, the overshoot of the rate to `a / c`."""
    slow = Circuit(np.array([[1.0]]), b=1.0, b0=1.0, sigma=0.1, tau_y=2.0, tau_a=1e7)
    found = responses.onset_response(slow, np.array([1.0]), 400.0)
    assert found.peak[0] == pytest.approx(1 / 0.01, rel=0.01)
    fast = Circuit(np.array([[1.0]]), b=1.0, b0=1.0, sigma=0.1, tau_y=2.0, tau_a=20.0)
    found = responses.onset_response(fast, np.array([1.0]), 400.0)
    assert found.overshoot[0] > 2 and found.steady[0] == pytest.approx(1 / 1.01, rel=1e-3)
    # a rising exponential reaches half of the largest rate before it peaks
    assert 0 < found.latency[0] < found.peak_time[0]
    later = np.interp(found.latency[0], found.t, found.rates[:, 0])
    assert later == pytest.approx(found.peak[0] / 2)


def test_the_peak_of_a_uniform_pool_has_a_closed_form():
    """Theory 21.3: `w^2 = sqrt((k + G^2)^2 - B^2 G^2) - G^2`, with noise in `y` alone."""
    c, tau_y, tau_a = 1e-4, 5.0, 12.0
    one = Circuit(np.array([[0.8]]), b=1.0, b0=1.0, sigma=c**0.5, tau_y=tau_y, tau_a=tau_a)
    contrasts = np.array([0.1, 0.3, 1.0])
    found = responses.gamma_peak(one, np.array([1.0]), contrasts, Noise(1.0))
    S = c + 0.8 * contrasts**2
    G = c / (S * tau_a)
    B, k = np.sqrt(S) / tau_y + G, np.sqrt(S) / (tau_y * tau_a)
    w = np.sqrt(np.sqrt((k + G**2) ** 2 - B**2 * G**2) - G**2)
    np.testing.assert_allclose(found.hertz, 1000 * w / (2 * np.pi), rtol=1e-4)
    # with `c -> 0` the frequency grows as the root of the contrast
    slope = np.polyfit(np.log(contrasts), np.log(found.hertz), 1)[0]
    assert slope == pytest.approx(0.5, abs=0.02)
    none = responses.gamma_peak(one, np.array([1.0]), contrasts[:1], Noise(1.0), low=100.0)
    assert np.isnan(none.hertz).all()


def test_the_peak_is_the_largest_local_maximum():
    """Also where power is larger at an end; and what is level but for rounding has none."""
    x = np.linspace(0, 1, 200)
    hump = np.exp(-(((x - 0.3) / 0.03) ** 2))
    for falling, want in ((0.0, 0.3), (3.0, 0.3), (200.0, None)):
        at = largest_peak(1 + falling * (1 - x) + hump)
        assert (None if at is None else x[at]) == (want and pytest.approx(want, abs=0.02))
    two = hump + 2 * np.exp(-(((x - 0.7) / 0.03) ** 2))
    assert x[largest_peak(two)] == pytest.approx(0.7, abs=0.01)
    for kind in (np.float32, np.float64):
        level = np.ones(200, kind)
        level[50] += 3 * np.finfo(kind).eps
        assert largest_peak(level) is None


def test_rates_without_contrast_are_not_fitted():
    contrasts = np.array([0.0, 0.1, 0.2, 0.5, 1.0])
    rates = np.stack([[5.0, 0, 0, 0, 0], [9.0, *contrasts[1:] ** 2 / (contrasts[1:] ** 2 + 0.04)]])
    found = responses.fit_naka_rushton(contrasts, rates.T)
    assert np.isnan(found.r_max[0]) and np.isnan(found.error[0])
    np.testing.assert_allclose(
        [found.r_max[1], found.c50[1], found.exponent[1]], [1, 0.2, 2], rtol=1e-6
    )


def test_figures_show_points_and_fits():
    c = circuit()
    found = responses.contrast_response(c, STIMULUS, CONTRASTS)
    figure = responses.draw_contrast(
        [found], [responses.naka_rushton(c, STIMULUS)], labels=["alone"]
    )
    points, line = figure.axes[0].get_lines()
    np.testing.assert_allclose(np.asarray(points.get_xdata()), 100 * CONTRASTS)
    np.testing.assert_allclose(np.asarray(line.get_ydata())[-1], found.rates[-1, 0], rtol=1e-9)
    W = np.array([[1.0, 1.0], [0.0, 0.0]])  # the second neuron has no pool
    alone = Circuit(W=W, b=1.0, b0=1.0, sigma=0.5, tau_y=1.0, tau_a=1.0)
    found, fits = (f(alone, np.ones(2), *more) for f, more in (
        (responses.contrast_response, (CONTRASTS,)), (responses.naka_rushton, ())
    ))  # fmt: skip
    assert np.isinf(fits.r_max[1])
    assert len(responses.draw_contrast([found], [fits]).axes[0].get_lines()) == 2
    rhythm = responses.Rhythm(CONTRASTS, 10 * CONTRASTS, CONTRASTS)
    assert len(responses.draw_rhythm(rhythm).axes[0].get_lines()) == 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: responses.contrast_response(circuit(), STIMULUS, -CONTRASTS),
            "`contrasts` must be",
        ),
        (
            lambda: responses.contrast_response(circuit(), STIMULUS, CONTRASTS[0]),
            "`contrasts` must have",
        ),
        (
            lambda: responses.contrast_response(circuit(), STIMULUS, CONTRASTS, other=MASK[:2]),
            "`other` must have shape",
        ),
        (lambda: responses.naka_rushton(circuit(W_r=np.ones((N, N))), STIMULUS), "`circuit` must"),
        (
            lambda: responses.fit_naka_rushton(CONTRASTS[:1], np.ones((1, 1))),
            "`contrasts` must be 4 or more",
        ),
        (
            lambda: responses.fit_naka_rushton([0.5] * 4, np.ones((4, 1))),
            "`contrasts` must be 4 or more different",
        ),
        (
            lambda: responses.naka_rushton(circuit(), STIMULUS)(np.array([-0.1])),
            "`contrast` must be >= 0",
        ),
        (
            lambda: responses.naka_rushton(circuit(), STIMULUS)(0.5),
            r"`contrast` must have shape \(c,\), not \(\)",
        ),
        (
            lambda: responses.draw_contrast(
                [responses.contrast_response(circuit(), STIMULUS, CONTRASTS)], neuron=9
            ),
            "`neuron` must be from 0 to 3, not 9",
        ),
        (
            lambda: responses.contrast_response(circuit(), STIMULUS, CONTRASTS, other=MASK),
            "`other_contrasts` must be given with `other`",
        ),
        (lambda: responses.fit_naka_rushton(CONTRASTS[:1], np.ones(1)), "`rates` must have shape"),
        (lambda: responses.with_gain(circuit(), 0.0), "`factor` must be > 0"),
        (lambda: responses.with_gain(circuit(), 2.0, [9]), "`neurons` must be from 0 to 3"),
        (lambda: responses.with_gain(circuit(), 2.0, [1, 1]), "`neurons` must be different"),
        (lambda: responses.with_gain(circuit(), 2.0, [1.7]), "`neurons` must be a whole number"),
        (
            lambda: responses.with_gain(circuit(), 2.0, np.array([True, False])),
            "`neurons` must be a whole number",
        ),
        (
            lambda: responses.contrast_response(
                circuit(), STIMULUS, CONTRASTS, other_contrasts=0.5
            ),
            "`other_contrasts` must only be given with `other`",
        ),
        (
            lambda: responses.gamma_peak(circuit(), STIMULUS, -CONTRASTS, Noise(1.0)),
            "`contrasts` must be",
        ),
        (
            lambda: responses.naka_rushton(
                Circuit(np.diag([0.0, 1.0]), b=1.0, b0=1.0, sigma=0.5), np.ones(2)
            )(CONTRASTS),
            "`r_max` must be finite",
        ),
        (lambda: responses.onset_response(circuit(), STIMULUS, -1.0), "`duration` must be > 0"),
        (lambda: responses.with_gain(circuit(), 1e308 * 1e3**0.5), "`factor` must"),
        (
            lambda: responses.gamma_peak(circuit(), STIMULUS, CONTRASTS, Noise(1.0), low=300.0),
            "`high` must be above",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(without_type_checks, call, said):
    del without_type_checks
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.usefixtures("without_type_checks")
def test_one_area_takes_a_sequence_of_noise_and_a_circuit_does_not():
    circuit = Circuit(np.eye(1))
    h = Hierarchy([circuit])
    levels = np.array([0.5])
    one, several = (
        responses.gamma_peak(system, [1.0], levels, noise)
        for system, noise in ((circuit, Noise(0.1)), (h, [Noise(0.1)]))
    )
    np.testing.assert_allclose(one.power, several.power)
    with pytest.raises(ValueError, match="`noise` must be an `organics.Noise`, not"):
        responses.gamma_peak(circuit, [1.0], levels, [Noise(0.1)])
    with pytest.raises(ValueError, match="`neuron` must be below 2, not 2"):
        responses.gamma_peak(circuit, [1.0], levels, Noise(0.1), neuron=2)
    with pytest.raises(ValueError, match="`area` must be"):
        responses.with_gain(h, 2.0, area=0.5)
    with pytest.raises(ValueError, match="`areas` must be a sequence of circuits"):
        Hierarchy(circuit)
