"""Sequences from images, and classifiers trained on them."""

import dataclasses
import inspect
import json
from pathlib import Path
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs import whole_batches

from organics import data
from organics.baselines import LEM, LSTM, AntisymmetricRNN, CoRNN, LipschitzRNN, Tanh
from organics.data import sequences
from organics.models import (
    SequenceClassifier,
    build_sequence,
    count_parameters,
)
from organics.names import Schedule
from organics.nn import recurrent, trainable
from organics.nn.moments import spectra
from organics.studies.harness.target import Job
from organics.studies.networks import runs
from organics.studies.ours import schedules, step_sizes
from organics.studies.ours import sequences as comparison
from organics.training import Diverged, SequenceConfig, TrainConfig, config, evaluate, loop, train
from organics.training.evaluation import build_model, input_shape, load_model
from organics.training.run_folder import RunFolder
from organics.training.step import learning_rate

SMALL = SequenceConfig(
    task="sdigits", rows=True, units=8, epochs=3, batch_size=450, schedule="warmup-cosine"
)

# each compiled once for a kind of model and a shape
make = eqx.filter_jit(lambda m, n, **options: build_sequence("organics", m, n, **options))
run = eqx.filter_jit(lambda layer, x: layer(x))
advance = eqx.filter_jit(lambda layer, x, state: layer.step(x, state))


@pytest.fixture(scope="module", autouse=True)
def _promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):
        yield


# --- images as sequences --------------------------------------------------------------------------


@given(block=st.integers(1, 4), size=st.integers(2, 7), seed=st.integers(0, 99))
def test_pooling_is_the_mean_over_blocks(block, size, seed):
    side = block * size
    images = np.random.default_rng(seed).integers(0, 256, (3, side, side), np.uint8)
    pooled = sequences.pool(images, size) / (255 * block**2)
    for i, row, column in np.ndindex(3, size, size):
        rows = slice(row * block, (row + 1) * block)
        columns = slice(column * block, (column + 1) * block)
        mean = np.mean(images[i, rows, columns].astype(float)) / 255
        np.testing.assert_allclose(pooled[i, row, column], mean, rtol=1e-12)


@given(h=st.integers(2, 6), w=st.integers(1, 6), seed=st.integers(0, 99))
def test_pixels_come_in_raster_order_or_in_that_of_the_permutation(h, w, seed):
    images = np.random.default_rng(seed).integers(0, 256, (2, h, w), np.uint8)
    raster, permuted = (sequences.to_sequences(images, permuted=p) for p in (False, True))
    order = data.torch_randperm(h * w)
    for t in range(h * w):
        np.testing.assert_array_equal(raster[:, t], images[:, t // w, t % w])
        row, column = divmod(int(order[t]), w)
        np.testing.assert_array_equal(permuted[:, t], images[:, row, column])


def test_the_task_on_the_embedded_digits():
    images = data.load("digits")
    pixels, rows, small = (
        data.load_sequences("sdigits", *options) for options in ((), (None, True), (4, False))
    )
    assert pixels.train_images.shape == (1500, 64, 1) and pixels.train_images.dtype == np.uint8
    assert rows.test_images.shape == (297, 8, 8) and rows.max_value == 16
    np.testing.assert_array_equal(pixels.test_images[:, 19, 0], images.test_images[:, 2, 3])
    np.testing.assert_array_equal(rows.test_images[:, 2], images.test_images[:, 2])
    np.testing.assert_array_equal(pixels.train_labels, images.train_labels)
    assert small.train_images.shape == (1500, 16, 1) and small.max_value == 64
    corner = images.train_images[:, :2, 6:].astype(int).sum(axis=(1, 2))
    np.testing.assert_array_equal(small.train_images[:, 3, 0], corner)
    assert (pixels.name, pixels.n_validation) == ("sdigits", 150)


def test_tasks_on_mnist(monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 28, 28), np.uint8)
    labels = np.zeros(5, np.int32)
    mnist = data.Dataset("mnist", images, labels, images[:2], labels[:2], 255, 1)
    monkeypatch.setattr(sequences, "load", lambda name, _: {"mnist": mnist}[name])
    seen = data.load_sequences("psmnist").train_images
    # the pixels that the paper's permutation begins and ends with
    flat = images.reshape(5, 784)
    assert seen.shape == (5, 784, 1) and seen.dtype == np.uint8
    np.testing.assert_array_equal(seen[:, :3, 0], flat[:, [678, 599, 742]])
    np.testing.assert_array_equal(seen[:, -2:, 0], flat[:, [430, 278]])
    small = data.load_sequences("psmnist", resize=14)
    mean = images.astype(float).reshape(5, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(5, 196)
    expected = mean[:, data.torch_randperm(196)] / 255
    np.testing.assert_allclose(small.pixels(small.train_images)[..., 0], expected, rtol=1e-6)
    assert data.load_sequences("smnist", rows=True).test_images.shape == (2, 28, 28)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        (("smnist",), (784, 1)),
        (("psmnist", 14), (196, 1)),
        (("smnist", None, True), (28, 28)),
        (("smnist", 14, True), (14, 14)),
        (("sdigits",), (64, 1)),
        (("sdigits", None, True), (8, 8)),
    ],
)
def test_shapes_are_known_without_the_data(arguments, shape):
    assert data.sequence_shape(*arguments) == shape


@pytest.mark.parametrize(("task", "resize"), [("smnist", 1), ("smnist", 13), ("sdigits", 16)])
def test_a_size_that_does_not_divide_is_refused(task, resize):
    with pytest.raises(ValueError, match=f"`resize` must be one of 2, 4, .*, not {resize}"):
        data.load_sequences(task, resize)
    with pytest.raises(ValueError, match="`task` must be one of 'smnist', .*, not 'mnist'"):
        data.sequence_shape("mnist")


# --- classifiers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "options", "total"),
    [
        (64, {}, 25_674),
        (128, {}, 100_490),
        (64, {"time_constants": "fixed"}, 25_674 - 4 * 64),
        (64, {"recurrent": "bounded"}, 25_674),
        (64, {"recurrent": "identity"}, 25_674 - 64**2),
    ],
)
def test_parameter_counts_of_the_paper(units, options, total):
    def trained():
        model = build_sequence("organics", 1, units, key=jr.key(0), **options)
        return eqx.filter(model, trainable(model))

    leaves = jax.tree.leaves(eqx.filter_eval_shape(trained))
    assert sum(leaf.size for leaf in leaves) == total
    model = make(3, 4, key=jr.key(0))
    assert count_parameters(model) == 6 * 16 + 3 * 4 * 3 + 4 * 4 + 10 * 4 + 10


@pytest.mark.rounding
def test_the_loss_is_the_cross_entropy_of_the_last_output():
    model = make(2, 5, key=jr.key(0), backend="scan", dt_tau_max_y=0.5)
    x = np.random.default_rng(1).uniform(size=(6, 7, 2))
    labels = np.array([0, 3, 9, 1, 1, 2], np.int32)
    loss, metrics = eqx.filter_jit(lambda model, *given: model.loss(*given))(model, x, labels)
    state = model.layer.initial_state()
    probabilities = []
    for sequence in x:
        now = state
        for value in sequence:
            now = advance(model.layer, value, now)
        scores = np.asarray(model.readout.weight) @ np.asarray(now[0].y)
        scores = np.exp(scores + np.asarray(model.readout.bias))
        probabilities.append(scores / scores.sum())
    p = np.array(probabilities)
    np.testing.assert_allclose(loss, -np.mean(np.log(p[np.arange(6), labels])), rtol=1e-10)
    right = np.mean(p.argmax(axis=1) == np.asarray(labels))
    assert metrics["accuracy"] == pytest.approx(right, abs=1e-6)


def test_the_diagnosis_is_that_of_the_layer():
    model = make(2, 5, key=jr.key(0), backend="scan", layers=2)
    x = jax.device_put(np.random.default_rng(1).normal(size=(501, 8, 2)))
    found = model.diagnose(x)
    outputs, _ = run(model.layer, x)
    np.testing.assert_allclose(found["output_min"], np.min(outputs), rtol=1e-9)
    np.testing.assert_allclose(found["output_max"], np.max(outputs), rtol=1e-9)
    taus = 1 / np.stack([cell.rates for cell in model.layer.cells])
    np.testing.assert_allclose(found["tau_a_max"], taus[:, 1].max())
    np.testing.assert_allclose(found["tau_b0_median"], np.median(taus[:, 2]))
    assert found["spectral_moments"] == 4
    abscissae, radii = spectra(model.layer, x[:4])
    np.testing.assert_allclose(found["largest_spectral_abscissa"], np.max(abscissae), rtol=1e-8)
    np.testing.assert_allclose(found["largest_step_radius"], np.max(radii), rtol=1e-8)


@pytest.mark.parametrize(("sequences", "time", "moments"), [(3, 9, 1), (70, 900, 63)])
def test_the_diagnosis_looks_at_as_many_moments_as_are_worth_it(
    sequences, time, moments, monkeypatch
):
    model = make(2, 5, key=jr.key(0), backend="scan", layers=2)
    seen = []
    monkeypatch.setattr("organics.models.sequence._output_range", lambda *_: (0.0, 1.0))
    monkeypatch.setattr(
        recurrent,
        "spectra",
        lambda _, x, lengths: seen.append((x.shape, lengths)) or (np.zeros(2), np.ones(2)),
    )
    found = model.diagnose(jax.device_put(np.zeros((sequences, time, 2))))
    assert found["spectral_moments"] == moments and seen == [((moments, time, 2), None)]
    assert (found["largest_spectral_abscissa"], found["largest_step_radius"]) == (0, 1)


def test_what_overflows_is_diagnosed_as_not_finite():
    model = make(2, 5, key=jr.key(0), backend="scan", layers=2)
    raw = np.full((4, 5), -1e5)
    frozen = eqx.tree_at(lambda m: m.layer.cells[1].raw_rates, model, jax.device_put(raw))
    inputs = np.zeros((3, 9, 2)), np.full((3, 9, 2), np.inf)
    nothing, overflowing = jax.device_put(inputs)
    assert frozen.diagnose(nothing)["tau_y_max"] == np.inf
    found = model.diagnose(overflowing)
    assert np.isnan([found["largest_spectral_abscissa"], found["largest_step_radius"]]).all()


def test_another_layer_is_diagnosed_by_its_outputs_and_by_itself():
    class Doubled(eqx.Module):
        hidden_size: int = 2

        def __call__(self, x, sequence=True):
            return (2 * x if sequence else 2 * x[:, -1]), None

        def monitor(self):
            return {}

        def diagnose(self, x):
            return {"sequences": len(x)}

    model = SequenceClassifier(Doubled(), key=jr.key(0))
    assert model.diagnose(jnp.arange(-3.0, 5).reshape(1, 4, 2)) == {
        "output_min": -6.0,
        "output_max": 8.0,
        "sequences": 1,
    }
    assert model.monitor() == {}


def test_a_layer_without_units_is_refused():
    with pytest.raises(ValueError, match="`units` must be at least 1, not 0"):
        build_sequence("organics", 1, 0, key=jr.key(0))


# --- settings -------------------------------------------------------------------------------------


SINGLE = st.floats(-5, 5, width=32, allow_subnormal=False)


@given(
    task=st.sampled_from(["smnist", "psmnist", "sdigits"]),
    rate=st.none() | st.floats(1e-9, 1),
    pairs=st.lists(st.tuples(st.just("forget_bias"), SINGLE), max_size=1).map(tuple),
    clip=st.none() | st.floats(0.1, 5),
)
def test_settings_survive_json(task, rate, pairs, clip):
    for settings in (
        SequenceConfig(task=task, dt_tau_max_a=rate, layers=2),
        SequenceConfig(task=task, model="lstm", hyperparameters=pairs, clip_norm=clip),
    ):
        assert config.read_config(settings.to_json()) == settings
        assert settings.differing(settings) == {}
    assert config.read_config(TrainConfig(epochs=7).to_json()) == TrainConfig(epochs=7)
    between = TrainConfig().differing(settings)
    assert between["dataset"] == ("mnist", None) and between["task"] == (None, task)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"task": "mnist"}, "`task` must be one of smnist"),
        ({"units": 0}, "`units` must be a whole number >= 1, not 0"),
        ({"resize": 14.0}, "`resize` must be a whole number"),
        ({"rows": 1}, "`rows` must be true or false, not 1"),
        ({"dt_tau_max_y": 1.5}, r"`dt_tau_max_y` must be a number in \(0, 1\], not 1.5"),
        ({"hyperparameters": (("a", "b"),)}, "`hyperparameters` must be pairs"),
        ({"clip_norm": 1.0}, "`clip_norm` must not be given for the model organics"),
        ({"hyperparameters": (("a", 1.0),)}, "`hyperparameters` must not be given"),
        (
            {"model": "lstm", "hyperparameters": (("foo", 1.0),)},
            "`hyperparameters` of the model lstm must .* among forget_bias, .* not 'foo'",
        ),
        ({"model": "lstm", "hyperparameters": (("dtype", 1.0),)}, "not 'dtype'"),
        (
            {"model": "antisymmetric", "hyperparameters": (("gamma", 0.0), ("gated", 1.0))},
            "among epsilon, gamma, spread, .* not 'gated'",
        ),
        ({"model": "cornn", "hyperparameters": (("dt", 0.1), ("dt", 0.2))}, "once, not 'dt'"),
        (
            {"model": "rnn", "hyperparameters": (("a", 1.0),)},
            "`hyperparameters` must not be given for the model rnn, which has none: 'a'",
        ),
        ({"model": "lstm", "recurrent": "bounded"}, "`recurrent` must not be given .* lstm"),
        ({"model": "lstm", "clip_norm": 0.0}, "`clip_norm` must be a number > 0, not 0.0"),
    ],
)
def test_wrong_settings_are_refused_by_name(values, words):
    stored = json.loads(SequenceConfig().to_json()) | values
    with pytest.raises(ValueError, match=words):
        config.read_config(json.dumps(stored))


def test_the_settings_know_the_numbers_of_each_layer():
    # `config` repeats these, so as to import nothing heavy
    layers = {
        "lstm": LSTM,
        "antisymmetric": AntisymmetricRNN,
        "antisymmetric-gated": AntisymmetricRNN,
        "cornn": CoRNN,
        "lipschitz": LipschitzRNN,
        "lem": LEM,
        "rnn": Tanh,
    }
    assert {
        name: tuple(
            option
            for option, parameter in inspect.signature(layer).parameters.items()
            if isinstance(parameter.default, float)
        )
        for name, layer in layers.items()
    } == config.HYPERPARAMETERS


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (0.02, 0.005, 0.1)),
        ({"resize": 14}, (0.08, 0.02, 0.4)),
        ({"resize": 14, "recurrent": "identity"}, (0.32, 0.08, 1.0)),
        ({"recurrent": "identity"}, (0.02, 0.005, 0.1)),
        ({"rows": True, "dt_tau_max_a": 0.3}, (0.56, 0.3, 1.0)),
    ],
)
def test_the_reach_of_memory_keeps_its_part_of_the_sequence(options, expected):
    settings = SequenceConfig(units=4, **options)
    found = eqx.filter_eval_shape(build_model, settings).layer.cells[0].largest_rates
    np.testing.assert_allclose(found[:3], expected)
    assert found[3] == found[2]
    assert input_shape(settings)[0] == 784 // {"resize": 4, "rows": 28}.get(
        next(iter(options), ""), 1
    )


def test_options_reach_the_layer():
    settings = SequenceConfig(
        units=4, recurrent="bounded", drive="rectified", rectification="outside", layers=2,
        time_constants="fixed", memory="less", backend="scan",
    )  # fmt: skip
    layer = eqx.filter_eval_shape(build_model, settings).layer
    assert len(layer.cells) == 2 and layer.cells[1].constraint == "bounded"
    assert layer.cells[0].raw_rates is None
    assert layer.options.rectified_drive and layer.options.rectified_after
    assert (layer.memory, layer.backend, layer.cells[0].log_W.dtype) == ("less", "scan", np.float32)


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_schedules_by_their_formula(schedule):
    epochs, steps_per_epoch = 100, 7
    drops = {"drops": (30, 60), "drop_factor": 0.2} if schedule == "drops" else {}
    settings = SequenceConfig(epochs=epochs, schedule=schedule, learning_rate=0.3, **drops)
    steps = epochs * steps_per_epoch
    found = jax.vmap(learning_rate(settings, steps))(jnp.arange(steps))
    t, warm = np.arange(steps), steps // 10
    fall = (1 + np.cos(np.pi * np.maximum(t - warm, 0) / (steps - warm))) / 2
    expected = {
        "constant": np.ones(steps),
        "cosine": (1 + np.cos(np.pi * t / steps)) / 2,
        "step": 0.8 ** (t // (30 * steps_per_epoch)),
        "drops": 0.2 ** np.minimum(t // (30 * steps_per_epoch), 2),
        "warmup-cosine": np.where(t < warm, 0.1 + 0.9 * t / warm, fall),
        "trapezoid": np.minimum(
            np.minimum(0.1 + 0.9 * t / (steps // 20), 1), (steps - t) / (0.3 * steps)
        ),
    }[schedule]
    np.testing.assert_allclose(found, 0.3 * expected, atol=1e-6)


# --- a run ----------------------------------------------------------------------------------------


def lines(folder, file="metrics.jsonl"):
    """The lines of a file, without the epochs' times."""
    found = [json.loads(line) for line in (folder / file).read_text().splitlines()]
    for line in found:
        line.pop("seconds", None)
    return found


def check_logs(folder, best_epoch):
    """The gradient's and the weights' norms by step, and the dynamics by epoch."""
    steps = lines(folder, "steps.jsonl")
    for line in steps:
        assert all(len(values) == 3 for name, values in line.items() if name != "epoch")
    first = {name: values[0] for name, values in steps[0].items() if name != "epoch"}
    cell = build_model(SMALL).layer.cells[0]
    radius = np.abs(np.linalg.eigvals(cell.W_r)).max()
    assert first["recurrent_spectral_radius"] == pytest.approx(radius, rel=5e-3)
    assert first["recurrent_spectral_norm"] == pytest.approx(np.linalg.norm(cell.W_r, 2), rel=1e-3)
    assert first["input_spectral_norm"] == pytest.approx(np.linalg.norm(cell.W_zx, 2), rel=1e-3)
    assert first["gradient_norm"] > 0 and 0 <= first["accuracy"] <= 1
    line = lines(folder)[best_epoch - 1]
    layer = load_model(RunFolder.open(folder)).layer
    digits = data.load_sequences("sdigits", rows=True)
    _, held_out = data.split(1500, 150)
    sample = digits.train_images[held_out[:27]]  # 2 % of the training examples
    outputs, _ = run(layer, sample.astype(np.float32) / 16)
    np.testing.assert_allclose(line["output_max"], np.max(outputs), rtol=1e-5)
    np.testing.assert_allclose(line["tau_y_min"], np.min(1 / layer.cells[0].rates[0]), rtol=1e-5)
    assert line["largest_step_radius"] < 2 and line["spectral_moments"] == 1


def test_a_run_resumes_to_the_same_bits_and_is_evaluated(tmp_path, monkeypatch):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    report = train(SMALL, unbroken, progress=False)
    check_logs(unbroken, report.best_epoch)
    assert (report.dataset, report.model, report.layers) == ("sdigits", "organics", (8,))
    save = RunFolder.save_checkpoint

    def stopping(self, epoch, state, notes):
        save(self, epoch, state, notes)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_checkpoint", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(SMALL, broken, progress=False)
    other = dataclasses.replace(SMALL, units=9)
    with pytest.raises(ValueError, match="`units` is 9 and was 8"):
        train(other, broken, resume=True, progress=False)
    train(SMALL, broken, resume=True, progress=False)
    assert lines(broken) == lines(unbroken)
    assert lines(broken, "steps.jsonl") == lines(unbroken, "steps.jsonl")
    for file in ("model.safetensors", "checkpoint-000003.safetensors"):
        assert (broken / file).read_bytes() == (unbroken / file).read_bytes()
    found = evaluate(broken).summary
    assert found["accuracy"] == report.test_accuracy and found["dataset"] == "sdigits"
    assert found["dynamics"]["output_min"] < found["dynamics"]["output_max"]
    assert "dynamics" not in evaluate(broken, with_stability=False).summary


def test_a_model_that_overflows_on_the_validation_examples_has_diverged(tmp_path):
    wild = SequenceConfig(task="sdigits", units=8, epochs=2, batch_size=1500, learning_rate=30.0)
    for resume in (False, False, True):  # nothing is left behind that the next run stumbles over
        words = r"validation loss .* after step 0 \(the last of epoch 1\); no checkpoint"
        with pytest.raises(Diverged, match=words) as caught:
            train(wild, tmp_path, resume=resume, progress=False)
        assert (caught.value.step, caught.value.checkpoint) == (0, None)
        assert not list(tmp_path.iterdir())


def overflowing(monkeypatch, at):
    """Make the measured loss NaN the `at`-th time."""
    measured = loop.mean_metrics
    times = iter(range(1, 100))

    def found(*args):
        return measured(*args) | ({"loss": np.nan} if next(times) == at else {})

    monkeypatch.setattr(loop, "mean_metrics", found)


def test_nothing_is_kept_of_an_epoch_whose_validation_loss_is_not_finite(tmp_path, monkeypatch):
    told = []
    with monkeypatch.context() as patch:
        overflowing(patch, at=2)
        with pytest.raises(Diverged, match="after step 5 .*last good .*000001") as caught:
            train(SMALL, tmp_path, progress=False, on_epoch=lambda epoch, _: told.append(epoch))
    kept = tmp_path / "checkpoint-000001.safetensors"
    assert caught.value.checkpoint == kept and told == [0, 1]
    assert RunFolder.open(tmp_path).checkpoints() == [kept]
    assert [len(lines(tmp_path, f"{file}.jsonl")) for file in ("metrics", "steps")] == [1, 1]
    assert train(SMALL, tmp_path, resume=True, progress=False).epochs == 3


def test_what_is_not_finite_is_null_on_disk(tmp_path, monkeypatch):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    overflowing(monkeypatch, at=4)  # after three epochs: on the test set
    monkeypatch.setattr(loop, "diagnose", lambda *_: {"largest_step_radius": np.nan})
    for _ in range(2):  # the report that was stored is the same
        report = train(SMALL, tmp_path, resume=True, progress=False)
        assert np.isnan(report.test_loss) and 0 <= report.test_accuracy <= 1
    texts = [(tmp_path / "report.json").read_text()]
    texts += (tmp_path / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(text, parse_constant=refuse) for text in texts]
    assert found[0]["test_loss"] is None and found[1]["largest_step_radius"] is None


def test_the_digits_are_learned_row_by_row(tmp_path):
    settings = SequenceConfig(
        task="sdigits", rows=True, units=32, recurrent="identity", epochs=10, batch_size=30,
        learning_rate=0.02, schedule="warmup-cosine",
    )  # fmt: skip
    report = train(settings, tmp_path / "run", progress=False)
    assert report.test_accuracy > 0.85
    norms = [line["gradient_norm"] for line in lines(tmp_path / "run", "steps.jsonl")]
    assert np.min(norms) > 1e-3 and np.max(norms) < 20  # not clipped


def job(folder):
    """A target's input, whose runs are in this folder."""
    return Job(folder, runs=(folder,))


@pytest.fixture
def _fewer_shapes(monkeypatch):
    monkeypatch.setattr(loop, "load_task", lambda task: whole_batches(task.config))


@pytest.mark.usefixtures("_fewer_shapes")
def test_the_comparison_of_schedules_at_toy_size(tmp_path):
    grid = schedules.Grid(rows=True, units=4, epochs=(1,), learning_rates=(0.01,), seeds=(0, 1))
    found = schedules.measure(grid, job(tmp_path))
    assert [row["schedule"] for row in found["rows"]] == list(schedules.SCHEDULES)
    for row in found["rows"]:
        assert row["mean_test_accuracy"] == pytest.approx(np.mean(row["test_accuracy"]), abs=2e-6)
        assert 0 < row["least_gradient_norm"] < row["largest_gradient_norm"]
    assert found["settings"]["units"] == 4 and "seed" not in found["settings"]
    assert schedules.measure(grid, job(tmp_path)) == found
    outcome = schedules.conclude(found)
    (check,) = outcome.checks
    others = [row["mean_test_accuracy"] for row in found["rows"][1:]]
    assert f"{max(others):.1%}" in check.here
    assert [line[0] for line in outcome.table.rows] == list(schedules.SCHEDULES)


@pytest.mark.usefixtures("_fewer_shapes")
def test_the_comparison_of_schedules_goes_on_after_a_run_that_diverged(tmp_path, monkeypatch):
    overflowing(monkeypatch, at=1)
    grid = schedules.Grid(rows=True, units=4, epochs=(1,), learning_rates=(0.01,), seeds=(0,))
    found = schedules.measure(grid, job(tmp_path))
    assert [row["diverged"] for row in found["rows"]] == [1, 0, 0]
    outcome = schedules.conclude(found)  # nothing to compare with
    assert outcome.verdict == "not run" and outcome.table.rows[0] == ["step", ""]


@pytest.mark.usefixtures("_fewer_shapes")
def test_the_comparison_of_step_sizes(tmp_path, monkeypatch):
    grid = step_sizes.Grid(
        task="sdigits", units=4, epochs=1, recurrent=("identity", "free"), dt_tau_max_y=(0.5,),
        dt_tau_max_a=(0.5,), batch_size=450,
    )  # fmt: skip
    found = step_sizes.measure(grid, job(tmp_path))
    for row, kind in zip(found["rows"], grid.recurrent, strict=True):
        assert row["diverged_at_step"] is None and row["epochs"] == 1
        assert row["largest_gradient_norm"] > 0 and row["largest_step_radius"] > 0
        told = {"recurrent": kind, "dt_tau_max_y": 0.5, "dt_tau_max_a": 0.5}
        assert {name: row[name] for name in told} == told
        run = RunFolder.open(tmp_path / f"step_sizes/sdigits-{kind}-0.5-0.5-seed0").config
        assert told | found["settings"] == json.loads(run.to_json())
    overflowing(monkeypatch, at=1)
    again = step_sizes.measure(grid, job(tmp_path / "again"))
    [row, other] = again["rows"]
    assert row["diverged_at_step"] > 0 and row["validation_accuracy"] == []
    assert row["test_accuracy"] is None and other["diverged_at_step"] is None
    for numbers, verdict in ((found, "holds"), (again, "does not hold")):
        outcome = step_sizes.conclude(numbers)
        assert outcome.verdict == verdict
        assert ("diverged at step" in outcome.table.rows[0][2]) == (verdict == "does not hold")


def test_the_comparison_of_step_sizes_is_of_every_pair(tmp_path, monkeypatch):
    trained = {}

    def diverges(setting, out, **_):
        trained[out.name] = setting
        raise Diverged("not finite at step 5", 5, None)

    monkeypatch.setattr(runs, "train", diverges)
    kinds = ("identity", "free")
    grid = step_sizes.Grid(
        task="sdigits", recurrent=kinds, dt_tau_max_y=(0.5,), dt_tau_max_a=(0.5, 1.0)
    )
    found = step_sizes.measure(grid, job(tmp_path))
    pairs = [("identity", 0.5), ("identity", 1.0), ("free", 0.5), ("free", 1.0)]
    assert [(row["recurrent"], row["dt_tau_max_a"]) for row in found["rows"]] == pairs
    assert [row["diverged_at_step"] for row in found["rows"]] == [5] * 4
    assert {name: (one.recurrent, one.dt_tau_max_a) for name, one in trained.items()} == {
        f"sdigits-{kind}-0.5-{a:g}-seed0": (kind, a) for kind, a in pairs
    }


def test_the_comparison_of_models_goes_on_after_a_run_that_diverged(tmp_path, monkeypatch):
    def overflows(*_, **__):
        raise Diverged("not finite at step 5", 5, None)

    monkeypatch.setattr(runs, "train", overflows)
    found = comparison.measure(
        comparison.Rows(tasks=comparison.TASKS[:1], models=("organics", "lstm")), job(tmp_path)
    )
    assert [row["diverged_at_step"] for row in found["rows"]] == [[5, 5, 5]] * 2
    outcome = comparison.conclude(found)
    assert [check.holds for check in outcome.checks] == [None, False]
    assert "3 of 3 runs diverge" in outcome.here
    assert comparison.draw(outcome).axes


def test_the_verdict_on_models_is_that_of_their_means():
    """Of a complete result, with one number changed."""
    stored = Path(__file__).parents[1] / "results/ours/sequences.json"
    numbers = json.loads(stored.read_text())["numbers"]
    rows = [row for row in numbers["rows"] if row["task"] == "psmnist"]
    assert [c.holds for c in comparison.conclude({"rows": rows}).checks] == [True, True]
    best = max(row["mean_test_accuracy"] for row in rows)
    rows[-1] = rows[-1] | {"mean_test_accuracy": best + 0.011}
    assert rows[-1]["model"] == "lipschitz-clipped"
    assert [c.holds for c in comparison.conclude({"rows": rows}).checks] == [False, True]
