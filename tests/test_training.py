import dataclasses
import errno
import json
import os
import pickle
import re
import resource
import shutil
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import Silent

from organics import data, load_run
from organics.files.lock import NAME as LOCK
from organics.files.lock import alone_in
from organics.linear_stability.spectrum import stability
from organics.models import Plain, StaticClassifier, Target, build
from organics.nn.protocols import Settled
from organics.rest.search import steady_state
from organics.training import (
    BadCheckpoint,
    Diverged,
    FileConfig,
    SequenceConfig,
    TrainConfig,
    evaluate,
    fit,
    loop,
    train,
)
from organics.training.checkpoint import load_tree, read_arrays, save_tree
from organics.training.evaluation import (
    as_examples,
    build_model,
    load_dataset,
    load_model,
    mean_metrics,
    spectral_abscissae,
)
from organics.training.run_folder import RunFolder
from organics.training.step import (
    Examples,
    advance,
    initial_state,
    learning_rate,
    make_optimizer,
    metric_dtypes,
)

LEFTOVER = f".{'0123' * 8}.tmp"  # as a killed process leaves
SMALL = TrainConfig(
    dataset="digits", layers=(6,), encoder=(16, 8), epochs=3, batch_size=450, learning_rate=0.01
)


def quiet(config, out, **options):
    return train(config, out, progress=False, **options)


def lines(folder, file="metrics.jsonl"):
    """The lines of a file, without the epochs' times."""
    found = [json.loads(line) for line in (folder / file).read_text().splitlines()]
    for line in found:
        line.pop("seconds", None)
    return found


@pytest.fixture(scope="module", autouse=True)
def _promotion_that_optax_needs():
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A complete small run and its report."""
    folder = tmp_path_factory.mktemp("runs") / "complete"
    return folder, quiet(SMALL, folder)


@pytest.fixture
def interrupt_after(monkeypatch):
    """Makes a run stop as if by Ctrl-C, just before or just after a checkpoint is written."""

    def interrupt(epochs, before=False):
        save = RunFolder.save_checkpoint

        def stopping(self, epoch, state, notes):
            if epoch == epochs and before:
                raise KeyboardInterrupt
            save(self, epoch, state, notes)
            if epoch == epochs:
                raise KeyboardInterrupt

        monkeypatch.setattr(RunFolder, "save_checkpoint", stopping)
        return lambda: monkeypatch.setattr(RunFolder, "save_checkpoint", save)

    return interrupt


# --- one step -------------------------------------------------------------------------------------


class Linear(Silent):
    """A model that the trainer has never seen: linear regression on the labels."""

    w: jax.Array

    def loss(self, inputs, labels):
        error = inputs @ self.w - labels.astype(inputs.dtype)
        return 50 * jnp.mean(error**2), {"accuracy": jnp.mean(jnp.abs(error))}


@pytest.mark.rounding
def test_steps_are_those_of_adam_with_l2_in_the_gradient_and_no_clipping():
    config = TrainConfig(learning_rate=0.1, weight_decay=0.3, schedule="cosine")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 17, (12, 3)).astype(np.uint8)
    labels = rng.integers(0, 10, 12).astype(np.int32)
    order = rng.permutation(12).reshape(4, 3)
    examples = Examples(jnp.asarray(pixels), jnp.asarray(labels), jnp.int32(16))
    optimizer = make_optimizer(config, 4)
    state = initial_state(Linear(jnp.array([1.0, -2.0, 0.5])), optimizer)
    record = {
        name: jnp.zeros(4, dtype)
        for name, dtype in metric_dtypes(state, optimizer, examples).items()
    }
    rows = jnp.asarray(order, jnp.int32)
    carry = (state, record)
    for first, last in ((0, 1), (1, 4)):
        carry = advance(carry, optimizer, examples, rows, jnp.int32(first), jnp.int32(last))
    state, record = carry

    w, m, v = np.array([1.0, -2.0, 0.5]), np.zeros(3), np.zeros(3)
    for t, batch in enumerate(order):
        x, target = pixels[batch] / 16, labels[batch]
        error = x @ w - target
        gradient = 100 * x.T @ error / 3
        np.testing.assert_allclose(record["loss"][t], 50 * np.mean(error**2), rtol=1e-10)
        np.testing.assert_allclose(record["gradient_norm"][t], np.linalg.norm(gradient), rtol=1e-10)
        gradient = gradient + 0.3 * w
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        unbiased_m, unbiased_v = m / (1 - 0.9 ** (t + 1)), v / (1 - 0.999 ** (t + 1))
        rate = 0.1 * (1 + np.cos(np.pi * t / 4)) / 2
        w = w - rate * unbiased_m / (np.sqrt(unbiased_v) + 1e-8)
    np.testing.assert_allclose(state.model.w, w, rtol=1e-10)
    assert state.step == 4 and record["gradient_norm"][0] > 10
    assert state.average is None and state.evaluated is state.model


def by_sgd(gradient, w, memory):
    memory = 0.7 * memory + gradient + 0.3 * w
    return memory, memory


def by_adagrad(gradient, w, memory):
    gradient = gradient + 0.3 * w
    memory = memory + gradient**2
    return gradient / (np.sqrt(memory) + 1e-10), memory


def by_adamw(gradient, w, memory):
    t, m, v = memory
    t, m, v = t + 1, 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
    unbiased_m, unbiased_v = m / (1 - 0.9**t), v / (1 - 0.999**t)
    return unbiased_m / (np.sqrt(unbiased_v) + 1e-8) + 0.3 * w, (t, m, v)


@pytest.mark.rounding
@pytest.mark.parametrize(
    ("options", "rule", "memory"),
    [
        ({"optimizer": "sgd", "momentum": 0.7}, by_sgd, 0.0),
        ({"optimizer": "adagrad"}, by_adagrad, 0.0),
        ({"optimizer": "adamw"}, by_adamw, (0, 0.0, 0.0)),
    ],
)
def test_other_optimizers_take_their_steps_at_a_rate_that_drops_after_epochs(options, rule, memory):
    """Three epochs of two steps; the rate drops after the first and after the second."""
    config = TrainConfig(
        epochs=3, learning_rate=0.1, weight_decay=0.3, schedule="drops", drops=(1, 2),
        drop_factor=0.25, **options,
    )  # fmt: skip
    optimizer = make_optimizer(config, 6)
    w = np.array([1.0, -2.0, 0.5])
    state = optimizer.init(jnp.asarray(w))
    step = jax.jit(optimizer.update)
    for t in range(6):
        gradient = np.array([1.0, 2.0, -4.0]) * (t + 1)
        change, state = step(jnp.asarray(gradient), state, jnp.asarray(w))
        direction, memory = rule(gradient, w, memory)
        rate = 0.1 * 0.25 ** (t // 2)
        assert learning_rate(config, 6)(t) == pytest.approx(rate)
        np.testing.assert_allclose(change, -rate * direction, rtol=1e-9)
        w = w + np.asarray(change)


def test_adagrad_takes_whole_steps_for_small_gradients():
    config = TrainConfig(
        optimizer="adagrad", learning_rate=0.1, schedule="constant", weight_decay=0.0
    )
    optimizer = make_optimizer(config, 6)
    w = jnp.zeros(4, jnp.float32)
    small = jnp.array([1e-4, -1e-5, 1e-6, 1e-7], jnp.float32)
    change, _ = optimizer.update(small, optimizer.init(w), w)
    np.testing.assert_allclose(change, -0.1 * np.sign(small), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"momentum": 0.9}, "momentum"),
        ({"drops": (3,)}, "drops"),
        ({"schedule": "drops"}, "drops"),
        ({"schedule": "drops", "drops": (3, 2)}, "drops"),
        ({"schedule": "drops", "drops": (0,)}, "drops"),
        ({"drop_factor": 0.5}, "drop_factor"),
        ({"optimizer": "lion"}, "optimizer"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_what_an_optimizer_has_no_use_for_is_refused(options, name):
    for kind in (TrainConfig, SequenceConfig):
        with pytest.raises(ValueError, match=f"`{name}` must"):
            kind(**({"schedule": "constant"} | options))


def test_raw_pixels_are_those_that_are_stored():
    stored, scaled = (
        load_dataset(SequenceConfig(task="sdigits", raw_pixels=raw)) for raw in (True, False)
    )
    assert (stored.max_value, scaled.max_value) == (1, 16)
    np.testing.assert_array_equal(stored.test_images, scaled.test_images)


@pytest.mark.rounding
def test_averaging_follows_the_same_steps():
    optimizer = make_optimizer(TrainConfig(learning_rate=0.1), 30)
    examples = Examples(jnp.eye(3, dtype=np.uint8), jnp.arange(3, dtype=np.int32), jnp.int32(1))
    rows = jnp.zeros((30, 1), np.int32)
    start = Linear(jnp.array([1.0, -2.0, 0.5]))

    def after(steps, averaging):
        state = initial_state(start, optimizer, averaging)
        dtypes = metric_dtypes(state, optimizer, examples)
        record = {name: jnp.zeros(30, dtype) for name, dtype in dtypes.items()}
        return advance((state, record), optimizer, examples, rows, jnp.int32(0), jnp.int32(steps))[
            0
        ]

    average = np.asarray(start.w)
    for step in range(1, 31):
        w = np.asarray(after(step, 0.0).evaluated.w)
        decay = min(0.7, step / (9 + step))
        average = decay * average + (1 - decay) * w
    found = after(30, 0.7)
    np.testing.assert_allclose(found.model.w, w, rtol=1e-12)
    np.testing.assert_allclose(found.evaluated.w, average, rtol=1e-12)


# --- a run ----------------------------------------------------------------------------------------


def test_what_a_run_leaves_behind(complete):
    folder, report = complete
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "steps.jsonl",
        "model.safetensors",
        "report.json",
        "checkpoint-000002.safetensors",
        "checkpoint-000003.safetensors",
    }
    metrics = lines(folder)
    assert [line["epoch"] for line in metrics] == [1, 2, 3]
    assert [line["step"] for line in metrics] == [3, 6, 9]
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    for line, steps in zip(metrics, lines(folder, "steps.jsonl"), strict=True):
        assert len(steps["loss"]) == len(steps["gradient_norm"]) == 3
        np.testing.assert_allclose(line["loss"], np.mean(steps["loss"]), rtol=1e-6)
        assert line["gradient_norm_max"] == max(steps["gradient_norm"])
        assert line["learning_rate"] == pytest.approx(0.01)
    stored = json.loads((folder / "report.json").read_text())
    assert stored["test_accuracy"] == report.test_accuracy
    assert stored["parameters"] == 64 * 16 * 2 + 16 + 64 + 16 * 8 * 2 + 24 + 2 * 48 + 36 + 6 + 70
    assert stored["versions"]["jax"] == jax.__version__ and stored["seed"] == 0
    assert str(folder.parent) not in (folder / "report.json").read_text()
    assert TrainConfig.from_json((folder / "config.json").read_text()) == SMALL


def test_the_model_is_selected_on_validation_accuracy(complete):
    folder, report = complete
    metrics = lines(folder)
    ranked = [(m["validation_accuracy"], -m["validation_loss"], m["epoch"]) for m in metrics]
    best = max(ranked)
    assert (report.validation_accuracy, report.best_epoch) == (best[0], best[2])
    digits = data.load("digits")
    _, held_out = data.split(len(digits.train_labels), digits.n_validation)
    examples = as_examples(digits.train_images[held_out], digits.train_labels[held_out], 16)
    model = load_model(RunFolder.open(folder))
    found = mean_metrics(model, examples, len(held_out))
    assert (found["accuracy"], found["loss"]) == (best[0], -best[1])


def test_a_run_ends_when_its_patience_does(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "mean_metrics", lambda *_: {"loss": 1.0, "accuracy": 0.5})
    patient = dataclasses.replace(SMALL, epochs=9, patience=2)
    report = quiet(patient, tmp_path)
    assert (report.best_epoch, report.epochs, len(lines(tmp_path))) == (1, 3, 3)
    assert quiet(patient, tmp_path, resume=True) == report


def test_evaluate_repeats_the_test_and_asks_for_stability_everywhere(complete):
    folder, report = complete
    found = evaluate(folder).summary
    assert found["accuracy"] == report.test_accuracy and found["loss"] == report.test_loss
    assert found["images"] == 297 and found["dataset"] == "digits"
    (layer,) = found["stability"]
    assert layer["n"] == 6 and layer["stable"] == 1 and layer["largest_spectral_abscissa"] < 0
    digits = data.load("digits")
    examples = as_examples(digits.test_images, digits.test_labels, 16)
    model = load_model(RunFolder.open(folder))
    (abscissae,), (stable,) = spectral_abscissae(model, examples)
    circuits = eqx.filter_jit(lambda model, x: model.circuits(x))
    inputs = digits.test_images[:5].reshape(5, 64).astype(np.float32) / 16
    for x, abscissa in zip(inputs, abscissae[:5], strict=True):
        ((circuit, z),) = circuits(model, x)
        np.testing.assert_allclose(
            abscissa, stability(steady_state(circuit, z)).spectral_abscissa, rtol=1e-4
        )
    assert np.all(stable)
    assert "stability" not in evaluate(folder, with_stability=False).summary


def test_a_loaded_run_on_images_predicts_their_classes(complete):
    folder, report = complete
    loaded, digits = load_run(folder), data.load("digits")
    x = digits.pixels(digits.test_images).reshape(-1, 64)
    assert np.mean(loaded.predict(x) == digits.test_labels) == pytest.approx(report.test_accuracy)
    assert loaded.report == report and loaded.classes == list(range(10))


def test_identity_recurrence_is_stable_whatever_rounding_does_to_eigenvalues(complete, monkeypatch):
    model = load_model(RunFolder.open(complete[0]))
    digits = data.load("digits")
    examples = as_examples(digits.test_images, digits.test_labels, 16)
    for value, verdict in ((1e-9, True), (np.nan, False)):
        rounded = lambda J, value=value: np.full(J.shape[:-1], value, complex)  # noqa: E731
        monkeypatch.setattr("organics.training.evaluation.eigenvalues", rounded)
        _, (stable,) = spectral_abscissae(model, examples)
        assert np.all(stable == verdict)


def test_same_seed_same_numbers_other_seed_others(complete, tmp_path):
    folder, report = complete
    again = quiet(SMALL, tmp_path / "again")
    assert lines(tmp_path / "again") == lines(folder)
    assert same_bytes(tmp_path / "again", folder)
    assert dataclasses.replace(again, seconds_per_epoch=0.0) == dataclasses.replace(
        report, seconds_per_epoch=0.0
    )
    quiet(dataclasses.replace(SMALL, seed=1, epochs=1), tmp_path / "other")
    assert lines(tmp_path / "other")[0]["loss"] != lines(folder)[0]["loss"]


def same_bytes(one, other):
    files = ("model.safetensors", "checkpoint-000003.safetensors")
    return all((one / file).read_bytes() == (other / file).read_bytes() for file in files)


def test_the_control_with_a_smaller_last_batch_learns_under_a_schedule(tmp_path, capsys):
    config = dataclasses.replace(
        SMALL, model="mlp", batch_size=100, epochs=15, schedule="cosine", layers=(12,)
    )
    report = train(config, tmp_path / "run")
    metrics = lines(tmp_path / "run")
    assert metrics[0]["step"] == 14  # 13 batches of 100 and one of 50
    assert report.test_accuracy > 0.5
    rates = [line["learning_rate"] for line in metrics]
    last = 0.005 * (1 + np.cos(np.pi * 209 / 210))  # little is left of the difference in float32
    np.testing.assert_allclose(rates[-1], last, atol=1e-8)
    assert sorted(rates, reverse=True) == rates
    assert "stability" not in evaluate(tmp_path / "run").summary
    shown = capsys.readouterr()
    assert shown.out == "" and "validation" in shown.err


# --- interruptions --------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False])
def test_an_interrupted_run_resumes_to_the_same_bits(complete, tmp_path, interrupt_after, before):
    folder, report = complete
    restore = interrupt_after(2, before)
    with pytest.raises(KeyboardInterrupt):
        quiet(SMALL, tmp_path / "run")
    restore()
    assert len(lines(tmp_path / "run")) == 2
    with (tmp_path / "run" / "metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 3, "lo')  # a line that was being written
    (tmp_path / "run" / LEFTOVER).write_bytes(b"and a file")
    resumed = quiet(SMALL, tmp_path / "run", resume=True)
    assert lines(tmp_path / "run") == lines(folder)
    assert lines(tmp_path / "run", "steps.jsonl") == lines(folder, "steps.jsonl")
    assert same_bytes(tmp_path / "run", folder)
    assert resumed.test_loss == report.test_loss
    assert not (tmp_path / "run" / LEFTOVER).exists()


def test_every_epoch_is_told_also_across_an_interruption(complete, tmp_path, interrupt_after):
    folder, report = complete
    told = {}
    restore = interrupt_after(2)
    with pytest.raises(KeyboardInterrupt):
        quiet(SMALL, tmp_path / "run", on_epoch=told.__setitem__)
    restore()
    assert list(told) == [0, 1, 2]
    quiet(SMALL, tmp_path / "run", resume=True, on_epoch=told.__setitem__)
    assert list(told) == [0, 1, 2, 3]
    for epoch, model in ((0, build_model(SMALL)), (report.best_epoch, best_model(folder))):
        pairs = zip(jax.tree.leaves(told[epoch]), jax.tree.leaves(model), strict=True)
        assert all(np.array_equal(told_leaf, leaf) for told_leaf, leaf in pairs)


def best_model(folder):
    return load_model(RunFolder.open(folder))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    complete, tmp_path, interrupt_after
):
    folder, _ = complete
    restore = interrupt_after(2)
    with pytest.raises(KeyboardInterrupt):
        quiet(SMALL, tmp_path / "run")
    restore()
    newest = tmp_path / "run" / "checkpoint-000002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="checkpoint-000002.safetensors cannot be read"):
        quiet(SMALL, tmp_path / "run", resume=True)
    assert lines(tmp_path / "run") == lines(folder) and same_bytes(tmp_path / "run", folder)


def test_all_checkpoints_damaged(tmp_path, interrupt_after):
    restore = interrupt_after(2)
    with pytest.raises(KeyboardInterrupt):
        quiet(SMALL, tmp_path / "run")
    restore()
    for path in (tmp_path / "run").glob("checkpoint-*"):
        path.write_bytes(b"\0" * 10)
    with pytest.warns(UserWarning, match="000002"), pytest.raises(BadCheckpoint, match="000001"):
        quiet(SMALL, tmp_path / "run", resume=True)


def test_divergence_stops_the_run(tmp_path):
    wild = dataclasses.replace(SMALL, learning_rate=1e30, recurrent="identity")
    with pytest.raises(Diverged, match="not finite at step [12] .*no checkpoint.*learning_rate"):
        quiet(wild, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    ("settings", "told"),
    [({}, True), ({"optimizer": "adamw"}, True), ({"optimizer": "sgd"}, False),
     ({"clip_norm": 1.0}, False)],
)  # fmt: skip
def test_a_gradient_that_adam_does_not_forget_is_told(settings, told):
    """One input of 40 is a million times the others, so is the gradient at its step."""
    x = np.random.default_rng(0).standard_normal((40, 2))
    x[7] *= 1e6
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(
            eqx.nn.Linear(2, 1, key=jr.key(0), dtype=np.float32), x, x[:, 0] / (1 + abs(x[:, 0])),
            target="numbers", standardize=False, epochs=1, batch_size=1, learning_rate=1e-20,
            progress=False, **settings,
        )  # fmt: skip
    found = [str(w.message) for w in said if "the norm of the gradient at step" in str(w.message)]
    assert len(found) == told
    assert all(re.search(r"\(in epoch 1\) is \d\.\d*e\+.* Lower `learning_rate`", w) for w in found)


def test_divergence_later_names_the_last_good_checkpoint(tmp_path, interrupt_after):
    restore = interrupt_after(2)
    with pytest.raises(KeyboardInterrupt):
        quiet(SMALL, tmp_path / "run")
    restore()
    path = tmp_path / "run" / "checkpoint-000002.safetensors"
    model = build("organics", 64, layers=(6,), encoder=(16, 8), key=jr.key(0), dtype=np.float32)
    state, notes = load_tree(path, initial_state(model, make_optimizer(SMALL, 9)))
    poisoned = eqx.tree_at(lambda s: s.model.layers[0].beta, state, jnp.full(6, jnp.nan, "f4"))
    save_tree(path, poisoned, notes)
    with pytest.raises(Diverged) as caught:
        quiet(SMALL, tmp_path / "run", resume=True)
    assert caught.value.step == 6 and caught.value.checkpoint == path
    assert "checkpoint-000002" in str(caught.value) and "in epoch 3" in str(caught.value)


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture
def copied(complete, tmp_path):
    """A copy of the complete run, or of the run as killed in its last epoch, or with `after`, just
    before the report."""

    def copy(killed=None):
        folder = tmp_path / "copy"
        shutil.copytree(complete[0], folder)
        if killed:
            (folder / "report.json").unlink()
        if killed == "in the last epoch":
            (folder / "checkpoint-000003.safetensors").unlink()
        return folder

    return copy


def flip(path, position):
    """Another value of one bit, in the byte at this position."""
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def without(path, name):
    """A document without a key and a check sum, as from an earlier version."""
    document = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in document.items() if k not in (name, "sha256")}))


DAMAGE = {
    "a bit of the model": ("model.safetensors", lambda path: flip(path, -5)),
    "a bit of a name in the model": ("model.safetensors", lambda path: flip(path, 30)),
    "the model cut short": ("model.safetensors", lambda path: os.truncate(path, 500)),
    "no metrics": ("metrics.jsonl", lambda path: os.truncate(path, 0)),
    "no file of metrics": ("metrics.jsonl", lambda path: path.unlink()),
    "fewer metrics": ("metrics.jsonl", lambda path: os.truncate(path, path.stat().st_size // 2)),
    "another number": ("metrics.jsonl", lambda path: edit(path, '"loss": ', '"loss": 1')),
    "a metric missing": ("metrics.jsonl", lambda path: edit(path, '"loss": ', '"l": ')),
    "a text for a number": ("metrics.jsonl", lambda path: edit(path, '"loss": ', '"a": "", "": ')),
    "other steps": ("steps.jsonl", lambda path: edit(path, '"loss": [', '"loss": [1, ')),
    "steps without end": ("steps.jsonl", lambda path: path.write_text("[" * 100_000 + "\n")),
    "other settings": ("config.json", lambda path: edit(path, '"seed": 0', '"seed": 1')),
    "settings without end": ("config.json", lambda path: path.write_text('{"a":' * 100_000)),
}  # fmt: skip
DAMAGED_REPORT = {
    "another accuracy": lambda path: edit(path, '"test_accuracy": 0.', '"test_accuracy": 0.1'),
    "an accuracy missing": lambda path: without(path, "test_accuracy"),
    "no object": lambda path: path.write_text("[1]"),
    "a report without end": lambda path: path.write_text('{"a":' * 100_000),
    "a number without end": lambda path: path.write_text('{"a": ' + "9" * 10_000 + "}"),
}


@pytest.mark.parametrize("killed", [None, "just before the report", "in the last epoch"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_a_run_is_refused_by_name(copied, damage, killed):
    folder = copied(killed)
    name, harm = DAMAGE[damage]
    harm(folder / name)
    for use in (lambda: quiet(SMALL, folder, resume=True), lambda: evaluate(folder)):
        with pytest.raises(ValueError, match=f"{folder}/{name}"):
            use()


@pytest.mark.parametrize("damage", DAMAGED_REPORT)
def test_a_damaged_report_is_refused_by_name(copied, damage):
    folder = copied()
    DAMAGED_REPORT[damage](folder / "report.json")
    for use in (lambda: quiet(SMALL, folder, resume=True), lambda: evaluate(folder)):
        with pytest.raises(ValueError, match=f"{folder}/report.json is not the report of a run"):
            use()


def test_a_model_that_the_report_is_not_about_is_refused(copied):
    folder = copied()
    save_tree(folder / "model.safetensors", build_model(SMALL))
    with pytest.raises(ValueError, match=f"{folder}/model.safetensors is not the model that"):
        evaluate(folder)


def test_a_model_of_an_epoch_that_was_not_completed_is_not_tested(copied):
    folder = copied("just before the report")
    save_tree(folder / "model.safetensors", build_model(SMALL), {"epoch": 7})
    with pytest.raises(ValueError, match="model.safetensors is of epoch 7, which was not compl"):
        quiet(SMALL, folder, resume=True)


@pytest.mark.parametrize(
    "notes", [{}, {"epoch": 2}, {"epoch": 3, "best": {}, "best_epoch": 1}, {"epoch": "3"}]
)
def test_a_checkpoint_with_other_notes_is_passed_over(complete, copied, notes):
    folder = copied("just before the report")
    newest = folder / "checkpoint-000003.safetensors"
    arrays, _, _ = read_arrays(newest)
    save_tree(newest, arrays, notes)
    with pytest.warns(UserWarning, match=f"{newest} is no checkpoint of a run"):
        evaluate(folder)
    with pytest.warns(UserWarning, match=f"{newest} is no checkpoint of a run"):
        quiet(SMALL, folder, resume=True)
    assert lines(folder) == lines(complete[0]) and same_bytes(folder, complete[0])


def test_a_bit_of_a_checkpoint_is_passed_over_for_the_one_before(complete, copied):
    folder = copied("just before the report")
    newest = folder / "checkpoint-000003.safetensors"
    flip(newest, -9)
    with pytest.warns(UserWarning, match=f"{newest} was changed .*; going back"):
        quiet(SMALL, folder, resume=True)
    assert lines(folder) == lines(complete[0]) and same_bytes(folder, complete[0])


def test_a_copy_of_a_checkpoint_stays(tmp_path):
    copied = []

    def copy(epoch, model):
        del model
        if epoch == 2:
            path = tmp_path / "checkpoint-000001.safetensors"
            copied.append(shutil.copy(path, path.with_name("checkpoint-000001-kept.safetensors")))

    quiet(dataclasses.replace(SMALL, epochs=4), tmp_path, on_epoch=copy)
    assert Path(copied[0]).exists()
    names = sorted(path.name for path in RunFolder.open(tmp_path).checkpoints())
    assert names == ["checkpoint-000003.safetensors", "checkpoint-000004.safetensors"]


def test_a_checkpoint_that_was_to_be_removed_goes_when_the_run_is_resumed(complete, copied):
    """As if the process was killed after the last checkpoint, before the first of three goes."""
    folder = copied("just before the report")
    second = (folder / "checkpoint-000002.safetensors").read_bytes()
    (folder / "checkpoint-000001.safetensors").write_bytes(second)
    quiet(SMALL, folder, resume=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in complete[0].iterdir()
    )


def test_lines_without_a_checkpoint_are_not_thrown_away(copied):
    folder = copied("just before the report")
    for path in folder.glob("checkpoint-*"):
        path.unlink()
    with pytest.raises(ValueError, match="metrics.jsonl has 3 lines, but there is no checkpoint"):
        quiet(SMALL, folder, resume=True)
    assert len(lines(folder)) == 3


def test_a_complete_run_without_steps_and_checkpoints_is_whole(complete, copied):
    folder = copied()
    for path in (folder / "steps.jsonl", *folder.glob("checkpoint-*")):
        path.unlink()
    assert quiet(SMALL, folder, resume=True) == complete[1]


def test_a_run_of_a_version_without_check_sums_is_read(complete, copied):
    folder = copied()
    for name in ("config.json", "report.json"):
        document = json.loads((folder / name).read_text())
        old = {key: value for key, value in document.items() if key not in ("sha256", "sums")}
        (folder / name).write_text(json.dumps(old))
    model = folder / "model.safetensors"
    safetensors.numpy.save_file(safetensors.numpy.load_file(model), model, {"organics": "{}"})
    assert quiet(SMALL, folder, resume=True) == complete[1]
    assert evaluate(folder, with_stability=False).summary["loss"] == complete[1].test_loss
    os.truncate(folder / "metrics.jsonl", 0)
    with pytest.raises(ValueError, match="metrics.jsonl has 0 lines, but 3 epochs are complete"):
        evaluate(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="files have no largest size there")
@pytest.mark.parametrize("method", ["save_model", "append", "save_checkpoint", "save_report"])
def test_a_full_disk_is_named_and_the_run_goes_on(complete, copied, monkeypatch, method):
    folder = copied("in the last epoch")
    called = getattr(RunFolder, method)

    def with_a_full_disk(self, *arguments):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            return called(self, *arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, method, with_a_full_disk)
        with pytest.raises(OSError, match=f"cannot write {folder}/.*: File too large") as caught:
            quiet(SMALL, folder, resume=True)
    assert caught.value.errno == errno.EFBIG
    assert not list(folder.glob(".*"))
    quiet(SMALL, folder, resume=True)
    assert lines(folder) == lines(complete[0]) and same_bytes(folder, complete[0])


def test_more_than_memory_holds_is_refused_before_there_is_a_folder(tmp_path, monkeypatch):
    refused = {
        "layers": TrainConfig(dataset="digits", layers=(200_000,)),
        "encoder": TrainConfig(dataset="digits", encoder=(200_000, 200_000)),
        "units": SequenceConfig(task="sdigits", units=200_000, model="lstm"),
    }
    refused["layers"] = dataclasses.replace(refused["layers"], model="ssn", layers=(200_000, 1))
    for name, config in refused.items():
        with pytest.raises(ValueError, match=f"`{name}` asks for too much memory"):
            quiet(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    size = 4 * 10**6  # of the weights of a layer of 1,000 x 1,000
    monkeypatch.setattr("organics.machine.memory.available", lambda: 3 * size)
    large = TrainConfig(dataset="digits", model="mlp", layers=(1000,), encoder=(1000,), epochs=1)
    with pytest.raises(ValueError, match="`layers` asks for too much memory"):
        quiet(large, tmp_path / "run")
    monkeypatch.setattr("organics.training.loop.load_task", mock.Mock(side_effect=Loaded))
    with pytest.raises(Loaded):  # descent without momentum keeps nothing
        quiet(dataclasses.replace(large, optimizer="sgd"), tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr("organics.machine.memory.available", lambda: 10**7)
    wide = SequenceConfig(task="sdigits", units=60, batch_size=10**12)
    with pytest.raises(ValueError, match="`batch_size` asks for .* a batch of 1350 needs 0.1 GB"):
        quiet(wide, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


class Loaded(Exception):
    """The work begins."""


# --- folders, settings, files ---------------------------------------------------------------------


def test_a_folder_is_neither_overwritten_nor_mistaken(complete, tmp_path):
    folder, report = complete
    with pytest.raises(ValueError, match="`out`: the folder .* is not empty"):
        quiet(SMALL, folder)
    other = dataclasses.replace(SMALL, learning_rate=0.5, layers=(7,))
    words = r"`layers` is \(7,\) and was \(6,\).*`learning_rate` is 0.5 and was 0.01"
    with pytest.raises(ValueError, match=words):
        quiet(other, folder, resume=True)
    assert quiet(SMALL, folder, resume=True) == report  # complete: nothing is done again
    with pytest.raises(ValueError, match="is not the folder of a run"):
        evaluate(tmp_path)
    drafts = tmp_path / "drafts"
    drafts.mkdir()
    for name in (".lock", ".draft.tmp", "text"):
        (drafts / name).write_text("kept")
    for options, words in (({}, "is not empty"), ({"resume": True}, "is not the folder of a run")):
        with pytest.raises(ValueError, match=words):
            quiet(SMALL, drafts, **options)
        assert {path.read_text() for path in drafts.iterdir()} == {"kept"}
        assert len(list(drafts.iterdir())) == 3
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="`out` must be a folder"):
        quiet(SMALL, file)
    (tmp_path / "file").unlink()
    (tmp_path / "config.json").write_text(SMALL.to_json())
    with pytest.raises(ValueError, match="has no model yet"):
        evaluate(tmp_path)


def test_a_run_that_ends_before_its_first_epoch_leaves_the_folder_to_another(tmp_path, monkeypatch):
    def unavailable(_):
        raise data.DataUnavailable("not here")

    with monkeypatch.context() as patched, pytest.raises(data.DataUnavailable):
        patched.setattr("organics.training.loop.load_task", unavailable)
        quiet(SMALL, tmp_path)
    assert not list(tmp_path.iterdir())
    assert quiet(dataclasses.replace(SMALL, epochs=1), tmp_path).epochs == 1


def test_two_processes_do_not_train_in_one_folder(complete):
    folder, report = complete
    refused = pytest.raises(ValueError, match="another process is training in")
    with alone_in(folder), refused:
        quiet(SMALL, folder, resume=True)
    assert quiet(SMALL, folder, resume=True) == report
    assert not (folder / LOCK).exists()


STARTS = """
import fcntl, os, random, sys, time
from pathlib import Path
from unittest import mock
from organics.training.config import TrainConfig
from organics.training.run_folder import RunFolder

def start(folder, begin, inside):
    while time.time() < begin:
        pass
    try:
        with RunFolder.begin(folder, TrainConfig(dataset="digits"), resume=True):
            with inside.open("w") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if another is inside
                time.sleep(0.02)
        return 0
    except ValueError as error:
        return 1 if "another process is training" in str(error) else 3

rng = random.Random(0)
for i in range(15):
    folder, inside = Path(sys.argv[1], str(i)), Path(sys.argv[1], f"{i}-inside")
    begin, codes = time.time() + 0.01, []
    for _ in range(4):
        if (child := os.fork()) == 0:
            code = 2
            try:
                code = start(folder, begin + rng.uniform(0, 1e-3), inside)
            finally:
                os._exit(code)
        codes.append(child)
    if i % 3 == 0:  # one is killed, perhaps the one that has the folder
        time.sleep(0.02)
        os.kill(codes[0], 9)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in codes]
    assert set(codes) <= {0, 1, -9} and (0 in codes or -9 in codes), codes
    with RunFolder.begin(folder, TrainConfig(dataset="digits"), resume=True):
        pass  # what a killed one has left is in nobody's way
    assert not list(folder.iterdir()), list(folder.iterdir())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are started by forking")
def test_of_many_that_start_at_once_one_trains(tmp_path):
    subprocess.run([sys.executable, "-c", STARTS, str(tmp_path)], check=True, timeout=120)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dataset": "digits"}', "[" * 100_000])
def test_a_broken_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json is not that of a run"):
        RunFolder.open(tmp_path)


@given(
    layers=st.lists(st.integers(1, 500), min_size=1, max_size=3).map(tuple),
    seed=st.integers(0, 2**32 - 1),
    learning_rate=st.floats(1e-9, 10),
    schedule=st.sampled_from(["constant", "cosine"]),
)
@settings(max_examples=50)
def test_settings_survive_json(layers, seed, learning_rate, schedule):
    config = TrainConfig(layers=layers, seed=seed, learning_rate=learning_rate, schedule=schedule)
    assert TrainConfig.from_json(config.to_json()) == config
    assert config.differing(config) == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", -1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("weight_decay", -1e-5),
        ("weight_decay", float("inf")),
        ("weight_decay", 1e39),  # infinite in float32, as 1e-50 is 0 and the last is 1
        ("learning_rate", 1e-50),
        ("averaging", 1 - 1e-12),
        ("layers", (50, 0)),
        ("layers", ()),
        ("layers", (1,) * 101),
        ("encoder", ()),
        ("epochs", 1_000_000),  # of which the checkpoints would no longer be in order
        ("seed", -1),
        ("seed", True),
        ("averaging", 1.0),
    ],
)
def test_wrong_settings_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"`{field}` must"):
        TrainConfig(**{field: value})


def test_numbers_of_hundreds_of_digits_are_refused_by_name():
    for number in ("1" + "0" * 400, "1e400"):
        text = SMALL.to_json().replace("0.01", number)
        with pytest.raises(ValueError, match="`learning_rate` must be a number > 0"):
            TrainConfig.from_json(text)


@pytest.mark.parametrize("field", ["dataset", "model", "recurrent", "schedule", "epochs", "layers"])
def test_settings_of_another_kind_in_a_file_are_refused_by_name(field):
    values = json.loads(SMALL.to_json()) | {field: "something else"}
    with pytest.raises(ValueError, match=f"`{field}` must"):
        TrainConfig.from_json(json.dumps(values))


ARRAYS = {
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "transposed": np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
    "reversed": np.arange(6.0)[::-1],
    "every second": np.arange(12, dtype=np.int16)[::2],
    "repeated": np.broadcast_to(np.arange(3.0), (2, 3)),
    "other byte order": np.arange(6, dtype=">f4"),
    "other byte order, columns": np.asfortranarray(np.arange(6, dtype=">i8").reshape(2, 3)),
    "number": np.array(3.0),
    "none": np.zeros((0, 3)),
    "half": np.arange(4).astype(jnp.bfloat16),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_values_do_not_depend_on_the_order_in_memory(tmp_path, name):
    array = ARRAYS[name]
    tree = {"numpy": array}
    if name in ("columns", "transposed"):
        tree["jax"] = jnp.from_dlpack(array)  # it keeps the order
    save_tree(tmp_path / "tree.safetensors", tree)
    native = array.astype(array.dtype.newbyteorder("="))
    loaded, _ = load_tree(tmp_path / "tree.safetensors", dict.fromkeys(tree, native))
    for found in loaded.values():
        assert found.dtype == native.dtype and found.shape == array.shape
        assert found.tolist() == array.tolist()


def test_two_arrays_of_one_name_are_refused(tmp_path):
    tree = {"a.b": jnp.zeros(2), "a": {"b": jnp.ones(2)}}
    with pytest.raises(ValueError, match=r"two arrays have the name `a\.b`"):
        save_tree(tmp_path / "tree.safetensors", tree)
    assert not list(tmp_path.iterdir())


def test_a_type_that_a_file_cannot_hold_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="`w` is of type complex128"):
        save_tree(tmp_path / "tree.safetensors", {"w": jnp.ones(2, complex)})
    assert not list(tmp_path.iterdir())


TREE = {"w": jnp.arange(6.0).reshape(2, 3), "n": (jnp.int32(3), jnp.float32(0.5)), "text": "kept"}


def test_trees_survive_the_disk(tmp_path):
    path = tmp_path / "tree.safetensors"
    save_tree(path, TREE, {"epoch": 4, "nested": [1, None]})
    blank = jax.tree.map(lambda leaf: leaf if isinstance(leaf, str) else jnp.zeros_like(leaf), TREE)
    loaded, notes = load_tree(path, blank)
    assert notes == {"epoch": 4, "nested": [1, None]} and loaded["text"] == "kept"
    for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(TREE), strict=True):
        assert a is b or (a.dtype == b.dtype and np.array_equal(a, b))
    assert [path.name for path in tmp_path.iterdir()] == ["tree.safetensors"]


def header(text):
    return struct.pack("<Q", len(text)) + text


def declared(shape, end):
    return header(b'{"w": {"dtype": "F64", "shape": %a, "data_offsets": [0, %d]}}' % (shape, end))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 64,
        pickle.dumps({"w": 1}),
        declared([2**62, 9], 8),  # overflows
        declared([2**40], 2**43),  # 8 TiB
        header(b'{"__metadata__": {"organics": "{not json"}}'),
    ],
)
def test_hostile_files_are_refused(tmp_path, content):
    path = tmp_path / "tree.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadCheckpoint, match="tree.safetensors cannot be read"):
        load_tree(path, TREE)


def test_a_tree_of_another_kind_is_refused_by_name(tmp_path):
    path = tmp_path / "tree.safetensors"
    save_tree(path, TREE)
    with pytest.raises(BadCheckpoint, match="differs in 'more'"):
        load_tree(path, {**TREE, "more": jnp.zeros(1)})
    with pytest.raises(BadCheckpoint, match=r"holds 'w' as float64\[2, 3\]; float64\[3\] is"):
        load_tree(path, {**TREE, "w": jnp.zeros(3)})
    with pytest.raises(BadCheckpoint, match="holds 'w' as float64.*float32"):
        load_tree(path, {**TREE, "w": jnp.zeros((2, 3), np.float32)})


class Losing(eqx.Module):
    """Comes to rest for codes above 1/2 alone."""

    weight: jax.Array
    may_be_lost = True
    units = None

    def __call__(self, x):
        return self.settle(x).rates

    def settle(self, x):
        return Settled(self.weight * x, x[0] > 0.5)

    def circuit(self, _):
        return None

    def linearize(self, _):
        return None


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_what_is_lost_is_no_answer(tmp_path, kind):
    x = np.concatenate([np.eye(2)[[0] * 15], np.eye(2)[[1] * 5]])  # the last five are lost
    y = np.arange(20) % 2 + (kind == "numbers") * np.arange(20) / 64
    size, seeds = (2, 1)[kind == "numbers"], jr.split(jr.key(0))
    layer = Losing(jnp.ones(1, jnp.float32))
    model = StaticClassifier(
        2, [layer], (1,), target=Target(kind, size), decoder=False, key=seeds[0], dtype=np.float32
    )
    model = eqx.tree_at(lambda m: m.encoder[0].weight, model, jnp.array([[9.0, -9.0]], np.float32))
    settings = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3, "standardize": False}
    with jax.numpy_dtype_promotion("standard"):
        found = fit(model, x, y, x_test=x, y_test=y, progress=False, out=tmp_path, **settings)
        assert len(found.predict(x[:15])) == 15
        with pytest.raises(ValueError, match=r"`x`, row 13: .* are not finite \(5 of 18 rows\)"):
            found.predict(x[2:])
    report = load_run(tmp_path, model).report
    if kind == "numbers":
        assert np.isnan(report.test_error) and np.isfinite(report.test_loss)
    else:
        by_class = [report.classes[str(int(label))] for label in y]
        np.testing.assert_allclose(report.test_accuracy, np.mean(by_class), rtol=1e-6)


class Mean(eqx.Module):
    """Called with one input."""

    weight: jax.Array

    def __call__(self, x):
        return self.weight @ jnp.mean(x, axis=0)


class MeanOfSome(eqx.Module):
    """Called with the number of steps, too."""

    weight: jax.Array

    def __call__(self, x, length):
        goes = jnp.arange(len(x), dtype=jnp.int32)[:, None] < length
        return self.weight @ (jnp.sum(jnp.where(goes, x, 0), axis=0) / length.astype(x.dtype))


def of_steps(count, steps):
    y = np.arange(count) % 2
    return np.random.default_rng(0).normal(size=(count, steps, 2)) + y[:, None, None], y


@pytest.mark.parametrize(
    ("steps", "lengths", "lengths_test", "words"),
    [
        (3, None, None, "`x_test` must have as many steps as `x`, 5, not 3: .* one input"),
        (8, None, None, "`x_test` must have as many steps as `x`, 5, not 8: .* one input"),
        (5, None, [4] * 8, "`lengths` must be given, as `lengths_test` are"),
        (5, [4] * 24, None, "`lengths_test` must be given, as `lengths` are"),
        (5, [4] * 24, [4] * 8, "`lengths` must not be given: `model` is called with one input"),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
def test_a_module_is_called_as_it_can_be_or_not_at_all(steps, lengths, lengths_test, words, plain):
    def never(*_):
        raise AssertionError("it must be refused before it is trained")

    module = Mean(jnp.zeros((2, 2), jnp.float32))
    (x, y), (x_test, y_test) = of_steps(24, 5), of_steps(8, steps)
    with pytest.raises(ValueError, match=words):
        fit(
            Plain(module, Target(size=2)) if plain else module, x, y, lengths=lengths,
            x_test=x_test, y_test=y_test, lengths_test=lengths_test, epochs=1, progress=False,
            on_epoch=never,
        )  # fmt: skip


@pytest.mark.parametrize("steps", [3, 5, 8])
def test_sequences_without_lengths_have_full_length(steps):
    module = MeanOfSome(jnp.zeros((2, 2), jnp.float32))
    (x, y), (x_test, y_test) = of_steps(24, 5), of_steps(8, steps)
    settings = {"epochs": 1, "batch_size": 4, "learning_rate": 0.1, "progress": False}
    found = fit(module, x, y, x_test=x_test, y_test=y_test, **settings)
    whole = found.probabilities(x, np.full(24, 5))
    np.testing.assert_allclose(found.probabilities(x), whole, rtol=1e-5)
    other = fit(Mean(jnp.zeros((2, 2), jnp.float32)), x, y, **settings)
    with pytest.raises(ValueError, match="`lengths` must not be given: .* one input"):
        other.predict(x, np.full(24, 5))


def test_widths_of_an_encoder_are_sizes():
    for wrong in ((0,), (4, -1), (1_000_001,)):
        with pytest.raises(ValueError, match="`encoder` must be sizes from 1 to 1,000,000, not"):
            FileConfig(features=2, outputs=3, encoder=wrong)
    with pytest.raises(ValueError, match="`encoder` must be at most 100 sizes"):
        FileConfig(features=2, outputs=3, encoder=(1,) * 101)
