"""Errors of samples that fluctuate together."""

import numpy as np
import pytest
from scipy.signal import lfilter

from organics.data.recordings.correlated import samples_together
from organics.data.recordings.recording import Channel, Recording, TimeCourses
from organics.fitting import fit


def fluctuations(rng, trials, size, step, tau):
    """Noise of variance 1 with the correlation time `tau`."""
    keep = np.exp(-step / tau)
    new = np.sqrt(1 - keep**2) * rng.normal(size=(trials, size))
    new[:, 0] = rng.normal(size=trials)
    return lfilter([1.0], [1.0, -keep], new, axis=1)


@pytest.mark.parametrize("step", [0.2, 1.0, 4.0])
def test_samples_count_by_their_correlation_time(step):
    tau, rng = 8.0, np.random.default_rng(0)
    found = samples_together(fluctuations(rng, 40, int(400 / step), step, tau) + 3.0)
    keep = np.exp(-step / tau)
    assert found == pytest.approx((1 + keep) / (1 - keep), rel=0.2)


def test_independent_samples_count_each_and_ringing_ones_by_their_peak():
    rng = np.random.default_rng(1)
    assert samples_together(rng.normal(size=(40, 500))) == pytest.approx(1, abs=0.15)
    assert 1 <= samples_together(rng.normal(size=(2, 4))) <= 4
    assert samples_together(rng.normal(size=(5, 1)) + 1e-3 * rng.normal(size=(5, 20))) <= 20
    turn = np.exp(-1 / 20 + 2j * np.pi / 12)
    new = np.sqrt(1 - abs(turn) ** 2) * (rng.normal(size=(2, 40, 600)) * [[[1]], [[1j]]]).sum(0)
    ringing = lfilter([1.0], [1.0, -turn], new, axis=1).real
    # at its peak a complex rotation has the spectrum of the same one that does not turn, and half
    # of the power of the real one is there
    assert samples_together(ringing) == pytest.approx(20, rel=0.3)


@pytest.mark.parametrize("noise", [0.0005, 0.005, 0.05])
@pytest.mark.parametrize("decay", [np.inf, 20.0])
def test_where_each_trial_has_a_gain_of_its_own_all_its_samples_count_as_one(decay, noise):
    rng, t = np.random.default_rng(3), np.arange(200)
    shape = np.ones(200) if decay == np.inf else 1 - np.exp(-t / decay)
    trials = (1 + 0.3 * rng.normal(size=(20, 1))) * shape + noise * rng.normal(size=(20, 200))
    assert 150 < samples_together(trials) <= 200


def test_intervals_do_not_depend_on_the_sampling_rate():
    """One neuron, `y = 1 - exp(-t / tau_y)` for W = 0, whose fluctuations last 10 ms."""
    duration, tau, trials, scale = 60.0, 10.0, 20, 0.1
    held = {"W": 0.0, "sigma": 1.0, "tau_a": 10.0, "noise_y": 0.1, "noise_a": 0.1}
    widths, inside = [], []
    for step in (5.0, 0.5):
        times = np.arange(0, duration, step)
        for seed in range(6):
            rng = np.random.default_rng(seed)
            x = scale * fluctuations(rng, trials, len(times), step, tau)
            x += 1 - np.exp(-times / tau)
            spread = np.sqrt(np.mean(x.var(axis=0, ddof=1)) / trials)
            course = TimeCourses(
                np.array([0]), (0,), times, x.mean(axis=0)[None, :, None],
                np.full((1, len(times), 1), spread), np.array([[samples_together(x)]]),
            )  # fmt: skip
            blank = np.full((1, 1), np.nan)
            recording = Recording(
                ("1",), ("on",), np.ones((1, 1)), (Channel("y", 0),), blank, blank, (), (course,)
            )
            found = fit(recording, fixed=held, guess={"tau_y": 12.0})["tau_y[1]"]
            low, high = found.low, found.high
            widths.append((step, np.log(high / low)))
            inside.append(low < tau < high)
    wide, narrow = (np.mean([w for step, w in widths if step == one]) for one in (5.0, 0.5))
    assert 0.6 < wide / narrow < 1.6  # as independent samples it is 3
    assert sum(inside) >= 8  # of 12; 10.8 are expected
