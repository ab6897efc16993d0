"""Tables of recordings: what is read, and what is refused."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from organics.data.recordings.nwb import _samples, _signals
from organics.data.recordings.recording import Channel, CrossSpectra, Recording, TimeCourses
from organics.data.recordings.stimuli import Stimuli
from organics.data.recordings.summary import Settings, read_recording, summarized
from organics.spectra import mean_periodogram

HEADER = "session,trial,stimulus,neuron,quantity,time_ms,value,unit"
STIMULI = "stimulus,contrast,mask_contrast\nlow,0.1,0\nhigh,0.8,0\nmasked,0.8,0.5\n"


@pytest.fixture
def files(tmp_path):
    def write(rows, header=HEADER, stimuli=STIMULI):
        data, other = tmp_path / "data.csv", tmp_path / "stimuli.csv"
        data.write_text("\n".join([header, *rows]) + "\n")
        other.write_text(stimuli)
        return data, other

    return write


def responses(rng, unit="spikes/s"):
    return [
        f"s1,{trial},{stimulus},V1a,rate,,{10 * i + rng.uniform():.17g},{unit}"
        for i, stimulus in enumerate(("low", "high", "masked"), 1)
        for trial in range(12)
    ]


def test_steady_responses_become_means_and_errors(files):
    rows = responses(np.random.default_rng(0))
    found = read_recording(*files(rows))
    values = np.array([float(row.split(",")[6]) for row in rows]).reshape(3, 12)
    np.testing.assert_allclose(found.mean[:, 0], values.mean(axis=1), rtol=1e-12)
    errors = values.std(axis=1, ddof=1) / np.sqrt(12)
    np.testing.assert_allclose(found.error[:, 0], errors, rtol=1e-12)
    # a rate per second has an unknown gain; a mask drives a neuron of its own
    assert found.channels == (("rate", 0, False),) and found.neurons == ("V1a", "mask")
    np.testing.assert_array_equal(found.drives, [(0.1, 0), (0.8, 0), (0.8, 0.5)])
    assert found.size == 3 and found.channel_name(0) == "rate of V1a"
    with_unit = read_recording(*files(responses(np.random.default_rng(0), "1/ms")))
    np.testing.assert_allclose(with_unit.mean, 1000 * found.mean, rtol=1e-12)


def test_many_trials_without_a_spike_have_the_error_of_their_channel(files):
    rng = np.random.default_rng(2)
    rows = [f"s1,{trial},low,a,rate,,0,1" for trial in range(12)]
    values = rng.uniform(size=12)
    rows += [f"s1,{trial},high,a,rate,,{x:.17g},1" for trial, x in enumerate(values)]
    found = read_recording(*files(rows))
    pooled = np.sqrt(values.var(ddof=1) / 2 / 12)
    np.testing.assert_allclose(found.error[0, 0], pooled, rtol=1e-12)


def test_a_value_with_a_standard_error_is_alone(files):
    rows, header = ["s1,1,low,a,rate,,5,1,0.1", "s1,2,low,a,rate,,6,1,"], f"{HEADER},se"
    for order in (rows, rows[::-1]):
        with pytest.raises(ValueError, match="line 3: a value with `se` must be alone"):
            read_recording(*files(order, header))


def samples(rng, scale, steps=64, dt=2.0):
    t = dt * np.arange(steps)
    x = rng.normal(size=(2, 3, 2, steps))
    return [
        f"s1,{trial},{stimulus},{'ab'[i]},y,{scale * t[k]:.17g},{x[s, trial, i, k]:.17g},1"
        for s, stimulus in enumerate(("low", "high"))
        for trial in range(3)
        for i in range(2)
        for k in range(steps)
    ], x


def test_samples_in_seconds_give_what_samples_in_milliseconds_give(files):
    """And the spectra are periodograms: with unit variance, 1 per sampling rate."""
    rows, x = samples(np.random.default_rng(1), 1.0)
    found = read_recording(*files(rows))
    in_seconds, _ = samples(np.random.default_rng(1), 1e-3)
    other = read_recording(*files(in_seconds, HEADER.replace("time_ms", "time_s")))
    (spectra,), (same,) = found.spectra, other.spectra
    np.testing.assert_allclose(same.cross, spectra.cross, rtol=1e-9)
    np.testing.assert_allclose(same.frequencies, spectra.frequencies, rtol=1e-9)
    np.testing.assert_allclose(other.mean, found.mean, rtol=1e-9)
    np.testing.assert_allclose(found.mean[:2], x.mean(axis=(1, 3)), rtol=1e-9)
    assert np.isnan(found.mean[2]).all()
    # every second frequency, up to a quarter of 500 Hz
    np.testing.assert_allclose(spectra.frequencies, np.arange(2, 17, 2) / 128)
    assert spectra.interval == pytest.approx(2.0)
    assert spectra.trials.tolist() == [3, 3] and spectra.channels == (0, 1)
    wide = read_recording(*files(rows), settings=Settings(high=240.0, segment=32.0))
    (pieces,) = wide.spectra
    assert pieces.trials.tolist() == [12, 12]
    power = np.einsum("kfss->s", pieces.cross.real) / pieces.cross.shape[1] / 2
    np.testing.assert_allclose(power, 2.0, rtol=0.25)


def test_a_sample_at_the_settling_time_counts_in_either_unit(files):
    """1000 times 1.001 s is a little less than 1001 ms."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 64))
    rows = {
        unit: [
            f"s1,{trial},low,a,y,{text.format(960 + k)},{x[trial, k]:.17g},1"
            for trial in range(2)
            for k in range(64)
        ]
        for unit, text in (("time_ms", "{}"), ("time_s", "{}e-3"))
    }
    settings = Settings(settled=1001.0)
    of_ms, of_s = (
        read_recording(*files(some, HEADER.replace("time_ms", unit)), settings=settings)
        for unit, some in rows.items()
    )
    np.testing.assert_allclose(of_s.mean, of_ms.mean, rtol=1e-9)
    np.testing.assert_allclose(of_ms.mean[0], x[:, 41:].mean(), rtol=1e-9)
    np.testing.assert_allclose(of_s.spectra[0].frequencies, of_ms.spectra[0].frequencies)


def test_courses_are_means_after_the_onset(files):
    rows, x = samples(np.random.default_rng(1), 1.0)
    found = read_recording(*files(rows), settings=Settings(samples="courses"))
    (course,) = found.courses
    assert not found.spectra and np.isnan(found.mean).all() and course.times[1] == 2.0
    np.testing.assert_allclose(course.mean, x.mean(axis=1).swapaxes(1, 2), rtol=1e-12)
    spread = np.sqrt(x.var(axis=1, ddof=1).mean(axis=-1) / 3)
    np.testing.assert_allclose(course.error[:, 0], spread, rtol=1e-12)
    assert course.correlated.shape == (2, 2) and np.all(course.correlated >= 1)
    assert found.size == round(course.size) <= course.mean.size


@pytest.mark.parametrize(
    "given", [{"settled": 5.0}, {"segment": 9.0}, {"low": 1.0}, {"high": 9.0}, {"filtered": True}]
)
def test_courses_have_no_settings_of_spectra(given):
    with pytest.raises(ValueError, match=f"`{next(iter(given))}` must only be given for spectra"):
        Settings(samples="courses", **given)


GOOD = "s1,1,low,a,rate,,5,1/s"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("s1,2,low,a,rate,,-5,1/s", "line 3: `value` of a rate must be >= 0"),
        ("s1,2,low,a,rate,,x,1/s", "line 3: `value` must be a finite number"),
        ("s1,2,low,a,rate,,,1/s", "line 3: `value` is missing"),
        ("s1,2,low,a,rates,,5,1/s", "line 3: `quantity` must be .* did you mean 'rate'"),
        ("s1,2,low,a,rate,,5,mV", "line 3: `unit` of rate must be 1 .* not 'mV'"),
        ("s1,2,low,a,rate,,5,1", "line 3: `unit` is another kind|line 3: `unit` of rate of a must"),
        ("s1,1,low,a,rate,,6,1/s", "line 3 repeats line 2"),
        ("s1,1,low,a,rate,3,6,1/s", "line 3: `time_ms` must be empty"),
        ("s1,2,Low,a,rate,,5,1/s", "line 3: `stimulus` 'Low' is none of low, high, masked"),
        ("s1,2,low,,rate,,5,1/s", "line 3: `neuron` is missing"),
        ("s1,2,low,a,rate,,5", "line 3 has 7 values"),
        ("s1,1,high,a,rate,,5,1/s", "rate of 'a' for stimulus 'low' has no standard error"),
    ],
)
def test_rows_that_cannot_be_right_are_refused_with_their_line(files, row, said):
    with pytest.raises(ValueError, match=said):
        read_recording(*files([GOOD, row]))


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ((0, 1, 1), "line 4: `time_ms` must increase"),
        ((0, 1, 3), "line 4: `time_ms` must have equal intervals, of 1 ms"),
        ((0, 1, 2.05), "line 4: `time_ms` must have equal intervals, of 1 ms"),
        ((0, 0.667, 1.333, 2.0, 2.667, 3.333, 4.0, 4.667, 7.0), "equal intervals, of 0.6667"),
        ((0, 0.667, 1.333, 2.0, 2.667, 3.333, 4.0), "a trial must have 8 samples or more"),
        ((0, 1, 2), "a trial must have 8 samples or more"),
    ],
)
def test_times_that_cannot_be_right_are_refused(files, times, said):
    with pytest.raises(ValueError, match=said):
        read_recording(*files([f"s1,1,low,a,y,{t},0.5,1" for t in times]))


@pytest.mark.parametrize(
    ("stimuli", "said"),
    [
        ("stimulus,contrast\nlow,50\n", r"line 2: `contrast` must be from 0 to 1 \(50 % is 0.5\)"),
        ("stimulus,contrast\nlow,0.5\nlow,0.6\n", "line 3: a stimulus must have one name"),
        ("stimulus,neuron,z\nlow,a,1\nlow,a,2\n", "line 3: a stimulus must give each neuron one"),
        ("stimulus,neuron,z\nlow,a,1\nhigh,a,2\nhigh,b,2\n", "'low' lacks neuron 'b'"),
        ("stimulus,neuron,z\nlow,b,1\n", "line 2: `neuron` 'a' is none of b"),
        ("stimulus,orientation\nlow,45\n", "unknown column 'orientation'"),
        ("stimulus\nlow\n", "must have the columns"),
        ("stimulus,contrast\n", "has no rows"),
    ],
)
def test_stimuli_that_cannot_be_right_are_refused(files, stimuli, said):
    with pytest.raises(ValueError, match=said):
        read_recording(*files([GOOD], stimuli=stimuli))


def test_a_published_response_has_its_error_beside_it(files):
    rows = ["s1,1,low,a,rate,5,0.4", "s1,1,high,a,rate,9,0.6"]
    header = "session,trial,stimulus,neuron,quantity,value,se"
    found = read_recording(*files(rows, header))
    assert found.error[:2, 0].tolist() == [0.4, 0.6] and found.channels[0].gain_known
    with pytest.raises(ValueError, match="line 2: `se` must be > 0"):
        read_recording(*files([rows[0].replace("0.4", "-1")], header))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": "spikes"}, "`samples` must be one of"),
        ({"segment": 0.0}, "`segment` must be > 0"),
        ({"high": 2.0, "low": 5.0}, "`high` must be above `low`"),
    ],
)
def test_settings_are_refused_by_name(without_type_checks, options, said):
    del without_type_checks
    with pytest.raises(ValueError, match=said):
        Settings(**options)


@pytest.mark.parametrize(
    ("column", "entries", "names"),
    [("stimulus", ("low", "high"), ("low", "high")), ("contrast", (0.1, 1.0), ("0.1", "1"))],
)
def test_nwb_files_give_rates_and_field_potentials(tmp_path, column, entries, names):
    """Spikes per second of a trial, and volts as `data * conversion + offset`, against the table
    that says the same."""
    pynwb = pytest.importorskip("pynwb")
    from datetime import UTC, datetime

    rng = np.random.default_rng(0)
    file = pynwb.NWBFile(
        session_description="test", identifier="one",
        session_start_time=datetime(2024, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    file.add_trial_column(name=column, description="its name")
    starts = 0.5 + np.arange(6.0)
    for i, start in enumerate(starts):
        file.add_trial(start_time=start, stop_time=start + 0.5, **{column: entries[i % 2]})
    spikes = np.sort(rng.uniform(0, 7, 400))
    file.add_unit(spike_times=spikes, obs_intervals=[[0.0, 7.0]])
    file.add_unit(spike_times=spikes, obs_intervals=[[0.0, 3.2]])  # for the first three trials
    device = file.create_device(name="probe")
    group = file.create_electrode_group(name="g", description="", location="V1", device=device)
    for _ in range(2):
        file.add_electrode(location="V1", group=group)
    data = rng.normal(size=(1400, 2))
    series = pynwb.ecephys.ElectricalSeries(
        name="LFP", data=data, rate=200.0, conversion=1e-6, offset=3e-6,
        channel_conversion=[1.0, 4.0],
        electrodes=file.create_electrode_table_region(region=[0, 1], description="all"),
    )  # fmt: skip
    file.add_acquisition(series)
    path, stimuli = tmp_path / "one.nwb", tmp_path / "s.csv"
    stimuli.write_text(f"stimulus,contrast\n{names[0]},0.1\n{names[1]},0.8\n")
    with pynwb.NWBHDF5IO(str(path), "w") as stream:
        stream.write(file)
    found = read_recording(path, stimuli, Settings(high=90.0))
    rates = [np.sum((spikes >= t) & (spikes < t + 0.5)) / 0.5 for t in starts]
    channel = found.channels.index(("rate", 0, False))
    np.testing.assert_allclose(found.mean[0, channel], np.mean(rates[::2]))
    channel = found.channels.index(("rate", 1, False))
    np.testing.assert_allclose(found.mean[:, channel], [np.mean(rates[:3:2]), rates[1]])
    (spectra,) = found.spectra
    x = np.stack([(data * [1, 4])[int(200 * t) :][:100].mean(axis=1) for t in starts[::2]])
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(100) / 100)
    X = np.fft.rfft((x - x.mean(axis=1, keepdims=True)) * taper)
    power = 5.0 / np.sum(taper**2) * np.mean(np.abs(X) ** 2, axis=0)
    np.testing.assert_allclose(spectra.cross[0, :, 0, 0].real, power[2:45:2], rtol=1e-9)
    (tmp_path / "bad.nwb").write_bytes(b"no")
    with pytest.raises(ValueError, match="is no NWB file"):
        read_recording(tmp_path / "bad.nwb", stimuli)


@pytest.mark.parametrize(("longest", "counts"), [(0.5, {100}), (0.51, {100, 102})])
def test_trials_of_nwb_files_may_differ_by_one_sample(longest, counts):
    starts = np.array([0.5, 1.5, 2.501])  # the last 0.5 s from there hold 100 samples, not 101
    stops = starts + [0.5, 0.502 if longest == 0.5 else longest, 0.5]
    trials = {"start_time": starts, "stop_time": stops, "stimulus": ["low", "high", "low"]}
    series = SimpleNamespace(
        neurodata_type="ElectricalSeries", name="LFP", parent=None, rate=200.0, starting_time=0.0,
        data=np.arange(1400.0), conversion=1e-6, offset=0.0, channel_conversion=None,
    )  # fmt: skip

    class Trials(dict):
        colnames = ("start_time", "stop_time", "stimulus")

        def __len__(self):
            return len(starts)

    file = SimpleNamespace(
        trials=Trials(trials), units=None, objects={"a": series}, identifier="one"
    )
    found = list(_signals(Path("a.nwb"), file).values())
    assert {len(signal.times) for signal in found} == counts
    for signal, start in zip(found, starts, strict=True):
        assert len(signal.values) == len(signal.times)
        np.testing.assert_allclose(signal.values[0], np.ceil(200 * start - 1e-6))


def test_timestamps_of_nwb_files_have_equal_intervals():
    """A gap would make other frequencies of all."""
    stamps = 0.0003 + np.arange(400) / 200
    series = SimpleNamespace(
        rate=None, timestamps=stamps, data=np.ones((400, 2)), conversion=2.0, offset=0.5,
        channel_conversion=None,
    )  # fmt: skip
    found = _samples(Path("a.nwb"), series, 3, 0.25, 0.75)
    np.testing.assert_allclose(found.times, 5 * np.arange(100), atol=1e-9)
    np.testing.assert_allclose(found.values, 2.5e6)
    series.timestamps = np.where(np.arange(400) < 90, stamps, stamps + 0.1)
    with pytest.raises(ValueError, match="a.nwb, trial 3: .*equal intervals, not from 5 to 105 ms"):
        _samples(Path("a.nwb"), series, 3, 0.25, 0.75)
    series.timestamps = stamps + 0.4
    for start, stop in ((0.25, 0.75), (2.0, 2.5), (5.0, 6.0)):
        with pytest.raises(ValueError, match="a.nwb, trial 3: .* does not cover the trial"):
            _samples(Path("a.nwb"), series, 3, start, stop)


def test_spikes_of_nwb_files_in_any_order_and_stimuli_with_many_digits():
    class Table(dict):
        colnames = ("start_time", "stop_time", "stimulus", "spike_times")

        def __len__(self):
            return 2

    trials = {"start_time": [0.0, 1.0], "stop_time": [1.0, 2.0]}
    for stimuli, names in (
        ([1000001.0, 1000002.0], ["1000001", "1000002"]),
        ([0.1234567, 0.1], ["0.1234567", "0.1"]),
        (np.array([0.1, 1.0], np.float32), ["0.1", "1"]),
    ):
        units = Table(spike_times=[[1.7, 0.1, 1.2, 0.3, 0.5, 0.9]])
        units.id = np.array([7])
        file = SimpleNamespace(
            trials=Table(trials | {"stimulus": stimuli}), units=units, objects={}, identifier="one"
        )
        found = _signals(Path("a.nwb"), file)
        assert [(key.stimulus, *signal.values) for key, signal in found.items()] == [
            (names[0], 4.0), (names[1], 2.0)
        ]  # fmt: skip


def test_a_recording_refuses_what_is_not_finite_or_goes_back():
    y, ok = np.array([[0.5]]), np.array([[0.1]])
    rest = {"neurons": ("1",), "stimuli": ("on",), "drives": y, "channels": (Channel("y", 0),)}
    Recording(**rest, mean=y, error=ok)

    def course(times, **more):
        shape = (1, len(times), 1)
        return TimeCourses(
            np.array([0]), (0,), np.array(times), np.zeros(shape), np.ones(shape), **more
        )

    def spectra(power, frequencies=(0.01,), segment=None):
        cross = np.full((1, len(frequencies), 1, 1), power, complex)
        given = np.array([0]), (0,), np.array(frequencies), cross, np.array([5])
        return CrossSpectra(*given, segment=segment)

    blank = np.full((1, 1), np.nan)
    for wrong, said in (
        ({"mean": np.array([[np.inf]]), "error": ok}, "`mean` must be finite"),
        ({"mean": y, "error": np.array([[np.inf]])}, "`error` must be > 0 and finite"),
        ({"courses": (course([-1.0, 1.0]),)}, "`times` must be at least 0"),
        ({"courses": (course([1.0, 1.0]),)}, "steps of times"),
        ({"courses": (course([0.0, 1.0], correlated=np.zeros((1, 1))),)}, "`correlated` must be"),
        ({"spectra": (spectra(-1.0),)}, "`power` must be at least 0"),
        ({"spectra": (spectra(1 + 1j),)}, "`cross` must be Hermitian"),
        ({"spectra": (spectra(1.0, [0.01, 0.01]),)}, "`steps of frequencies` must be > 0"),
        ({"spectra": (spectra(1.0, [0.01], 150.0),)}, "2 / `segment`, 0.0133333 kHz, or more"),
        ({"spectra": (spectra(1.0, [0.02, 0.03], 150.0),)}, "2 / `segment`, .*; entry .1. is 0.0"),
        ({"spectra": (spectra(1.0, [0.02], -1.0),)}, "`segment` must be > 0"),
    ):
        with pytest.raises(ValueError, match=said):
            Recording(**rest, **({"mean": blank, "error": blank} | wrong))


def test_a_recording_refuses_indices_and_shapes_that_do_not_fit(without_type_checks):
    del without_type_checks
    good = {
        "neurons": ("1", "2"), "stimuli": ("a", "b", "c"), "drives": np.ones((3, 2)),
        "channels": (Channel("y", 0),), "mean": np.ones((3, 1)), "error": np.ones((3, 1)),
    }  # fmt: skip
    times = np.arange(4.0)

    def course(stimulus=0, channel=0, shape=(1, 4, 1)):
        return TimeCourses(np.array([stimulus]), (channel,), times, np.ones(shape), np.ones(shape))

    def spectra(interval=2.0, frequencies=(0.05, 0.1)):
        cross = np.ones((1, 2, 1, 1), complex)
        return CrossSpectra(
            np.array([0]), (0,), np.array(frequencies), cross, np.array([9]), interval
        )

    Recording(**good, courses=(course(),), spectra=(spectra(), spectra(None, (5.0, 9.0))))
    lists = Recording(**(good | {"mean": [[1], [2], [3]]}))
    assert lists.mean.dtype == float
    with pytest.raises(ValueError, match=r"`channels` must be different, not \('y', 0\) twice"):
        both = (Channel("y", 0), Channel("y", 0, False))
        Recording(**(good | {"channels": both, "mean": np.ones((3, 2)), "error": np.ones((3, 2))}))
    for wrong, said in (
        ({"stimuli": ("a", "b", "a")}, "`stimuli` must be different, not 'a' twice"),
        ({"neurons": ("1", "1")}, "`neurons` must be different, not '1' twice"),
        ({"drives": [["x"]]}, "`drives` must be numbers, not"),
        ({"channels": (Channel("rate", 0),), "mean": -np.ones((3, 1))}, "at least 0 for a rate"),
        ({"drives": np.ones((2, 2))}, r"`drives` must have shape \(3, 2\), not \(2, 2\)"),
        ({"drives": np.ones((3, 1))}, r"`drives` must have shape \(3, 2\)"),
        ({"error": np.ones((3, 2))}, r"`error` must have shape \(3, 1\)"),
        ({"channels": (Channel("foo", 0),)}, "`channels` must be one of 'y'"),
        ({"channels": (Channel("y", 2),)}, "`channels` must be indices of the 2 neurons, from 0, "),
        ({"channels": (Channel("y", -1),)}, "`channels` must be indices of the 2 neurons"),
        ({"courses": (course(stimulus=3),)}, "`stimuli` must be indices of the 3 stimuli, from 0"),
        ({"courses": (course(channel=1),)}, "`channels` must be indices of the 1 channels"),
        ({"courses": (course(shape=(1, 4, 2)),)}, r"`mean` must have shape \(1, 4, 1\)"),
        ({"spectra": (spectra(0.0),)}, "`interval` must be > 0"),
        ({"spectra": (spectra(-2.0),)}, "`interval` must be > 0"),
        ({"spectra": (spectra(2.0, (0.1, 0.25)),)}, "`frequencies` must be below 0.25 kHz, half"),
    ):
        with pytest.raises(ValueError, match=said):
            Recording(**(good | wrong))


def test_a_silent_neuron_is_named(files):
    rows = responses(np.random.default_rng(0))
    rows += [row.replace("V1a", "dead").replace("s1", "s2") for row in rows]
    rows = [re.sub(r"(dead,rate,,)[^,]*", r"\1 0", row) for row in rows]
    with pytest.raises(ValueError, match="rate of 'dead' is the same in all trials .* leave it"):
        read_recording(*files(rows))


@pytest.mark.parametrize("level", [0.25, 0.3, -65.3])
def test_a_channel_that_does_not_fluctuate_has_no_power(level):
    """The mean of equal numbers may be rounded."""
    _, power, _ = mean_periodogram(np.full((6, 1, 100), level), 1.0, 50, 50)
    assert not power.any()


def test_names_in_another_encoding_are_not_mixed_up(files):
    rows = [f"s1,{trial},low,\xe4,rate,,{trial},1" for trial in range(4)]
    rows += [f"s1,{trial},low,\xf6,rate,,{trial},1" for trial in range(4, 8)]
    data, stimuli = files(rows)
    assert read_recording(data, stimuli).neurons == ("\xe4", "\xf6", "mask")
    data.write_text(data.read_text(), "latin-1")
    with pytest.raises(ValueError, match="line 2: `neuron` is not in UTF-8"):
        read_recording(data, stimuli)


@pytest.mark.parametrize("unit", ["uV", "\u00b5V", "\u03bcV"])
def test_micro_is_written_in_three_ways(files, unit):
    rows = [f"s1,{i},low,a,y,,{i},{unit}" for i in range(4)]
    assert read_recording(*files(rows)).mean[0, 0] == pytest.approx(1.5)


def test_trials_of_nwb_files_that_cannot_be_right():
    class Trials(dict):
        colnames = ("start_time", "stop_time", "stimulus")

        def __len__(self):
            return 1

    series = SimpleNamespace(
        neurodata_type="ElectricalSeries", name="LFP", parent=None, rate=200.0, starting_time=0.0,
        data=np.full(400, np.nan), conversion=1e-6, offset=0.0, channel_conversion=None,
    )  # fmt: skip

    def signals(start, stop):
        trials = Trials(start_time=[start], stop_time=[stop], stimulus=["low"])
        objects = {"a": series}
        file = SimpleNamespace(trials=trials, units=None, objects=objects, identifier="one")
        return _signals(Path("a.nwb"), file)

    with pytest.raises(ValueError, match="a.nwb, trial 0: `stop_time` 1 must be after -inf"):
        signals(-np.inf, 1.0)
    with pytest.raises(ValueError, match="a.nwb, trial 0: the field potential must be finite"):
        signals(0.5, 1.0)
    series.data = np.arange(400.0)
    stimuli = Stimuli(("high",), None, np.ones((1, 1)))
    with pytest.raises(ValueError, match="a.nwb, trial 0: `stimulus` 'low' is none of high"):
        summarized("a.nwb", signals(0.5, 1.0), stimuli, Settings())


def test_equal_trials_have_no_variance_of_their_own(tmp_path):
    """The mean of twelve times 1/0.3 is rounded; the error is that of all trials."""
    rng = np.random.default_rng(0)
    of_low, of_high = np.full(12, 1 / 0.3), rng.poisson(3, 12) / 0.3
    rows = [f"a,1,low,rate,1/s,{v!r}" for v in of_low.tolist()]
    rows += [f"a,1,high,rate,1/s,{v!r}" for v in of_high.tolist()]
    names = "session,neuron,stimulus,quantity,unit,value"
    stimuli = tmp_path / "s.csv"
    stimuli.write_text("stimulus,contrast\nlow,0.1\nhigh,0.8\n")

    def recorded(rows):
        lines = [f"{row},{i}" for i, row in enumerate(rows)]
        (tmp_path / "r.csv").write_text("\n".join([f"{names},trial", *lines]))
        return read_recording(tmp_path / "r.csv", stimuli)

    found = recorded(rows)
    pooled = np.sqrt(np.sum((of_high - of_high.mean()) ** 2) / 22 / 12)
    own = np.std(of_high, ddof=1) / np.sqrt(12)
    np.testing.assert_allclose(found.error[:, 0], [pooled, own])
    with pytest.raises(ValueError, match="is the same in all trials of a stimulus, and so has no"):
        recorded(
            [f"a,1,{s},rate,1/s,{v!r}" for s, v in (("low", 0.1), ("high", 0.7)) for _ in "123456"]
        )
