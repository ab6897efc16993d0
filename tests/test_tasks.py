"""Tasks made on the fly: what their trials are, and that they are functions of seed and number."""

import dataclasses
import json
import math
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from benchmarks.tasks import TASKS as ENVIRONMENTS

from organics.cli import run
from organics.data import sequences
from organics.data.tasks import Marks, Stream, Task, batch, build, laboratory
from organics.data.tasks.catalog import TASKS
from organics.models import Target, build_sequence
from organics.training import SequenceConfig, TaskConfig, TaskReport, TrainConfig, evaluate, train
from organics.training.made import Made, Noisy, Padded
from organics.training.run_folder import RunFolder
from organics.training.step import Examples
from organics.training.task import task_of, varied

COUNT = 2000
SMALL = {"adding": {"steps": 11}, "copy": {"steps": 3}, "flip-flop": {"steps": 9}}


def small(name):
    return build(name, **SMALL.get(name, {}))


@partial(jax.jit, static_argnums=0)
def _made(task):
    return batch(task, Stream(3).key(), COUNT, np.float64)


def trials(name):
    return jax.tree.map(np.asarray, _made(small(name)))


@pytest.mark.parametrize("name", TASKS)
def test_shapes_and_values_are_those_that_the_task_says(name):
    task = small(name)
    assert isinstance(task, Task) and task.name == name
    found = trials(name)
    steps, target = task.steps, task.target
    assert found.inputs.shape == (COUNT, steps, task.input_size)
    assert np.all(np.isfinite(found.inputs))
    wanted = (COUNT, *([steps] if target.at == "every" else []))
    if target.kind == "classes":
        assert found.wanted.shape == wanted and found.wanted.dtype == np.int32
        assert found.wanted.min() >= 0 and found.wanted.max() == target.size - 1
    else:
        assert found.wanted.shape == (*wanted, target.size)
    for condition in task.conditions():
        assert condition.input.shape == (task.input_size,)


@pytest.mark.parametrize("name", TASKS)
def test_the_trivial_score_is_that_of_the_best_answer_without_looking(name):
    task, found = small(name), trials(name)
    measure, score = task.trivial
    wanted = found.wanted
    if measure == "squared_error":
        best = np.mean((wanted - wanted.mean(axis=0)) ** 2)
        spread = np.std((wanted - wanted.mean(axis=0)) ** 2) / math.sqrt(COUNT)
    else:
        assert found.marks is not None
        weights, scored = found.marks
        # the distribution of classes at each step, known; the best answer at each
        classes = np.eye(task.target.size)[wanted]
        if measure == "loss":
            share = classes.mean(axis=0)
            entropy = -np.sum(share * np.log(np.where(share > 0, share, 1)), axis=1)
            best, spread = np.mean(entropy), 0.01 * score
            assert np.all(weights == 1)
        else:
            # a constant class, over the steps that count in each trial
            right = np.sum(classes * scored[..., None], axis=1) / scored.sum(axis=1)[:, None]
            best = right.mean(axis=0).max()
            spread = right.std(axis=0).max() / math.sqrt(COUNT)
    assert abs(best - score) < 4 * spread + 1e-9, (best, score, spread)


def test_adding_marks_one_number_in_each_half_and_wants_their_sum():
    x, wanted, _ = trials("adding")
    values, marks = x[..., 0], x[..., 1]
    assert np.all(marks[:, :5].sum(axis=1) == 1) and np.all(marks[:, 5:].sum(axis=1) == 1)
    np.testing.assert_allclose(wanted[:, 0], np.sum(values * marks, axis=1), rtol=1e-12)
    assert np.all(marks.sum(axis=0) > 0), "every place is marked in some trial"
    assert values.min() >= 0 and values.max() < 1


def test_copying_wants_the_symbols_after_the_cue():
    x, wanted, marks = trials("copy")
    shown = x.argmax(axis=2)
    assert np.all(x.sum(axis=2) == 1)
    assert np.all(shown[:, :10] == wanted[:, -10:]) and shown[:, :10].max() == 7
    assert np.all(shown[:, 10:12] == 8) and np.all(shown[:, 12] == 9)  # a delay of 3: blank, cue
    assert np.all(shown[:, 13:] == 8) and np.all(wanted[:, :-10] == 8)
    assert marks is not None and np.all(marks.score.sum(axis=1) == 10)


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_the_flip_flop_holds_the_last_pulse(probability):
    task = build("flip-flop", steps=9, probability=probability)
    found = batch(task, Stream(1).key(), COUNT, np.float64)
    x, wanted = np.asarray(found.inputs), np.asarray(found.wanted)
    held = np.zeros((COUNT, 3))
    for t in range(9):
        held = np.where(x[:, t] != 0, x[:, t], held)
        np.testing.assert_array_equal(wanted[:, t], held)
    assert np.all(x[:, 0] != 0)
    later = (x[:, 1:] != 0).mean()
    assert later == pytest.approx(probability, abs=0.01)
    assert abs(x.mean()) < 0.02


def test_the_larger_input_says_which_category_it_is():
    found = trials("match-to-category")
    assert found.marks is not None
    larger = np.sign(found.inputs[..., 1] - found.inputs[..., 2])
    at_test = found.marks.score > 0
    at_sample = ~at_test & (np.abs(found.inputs[..., 1:].sum(axis=-1)) > 0.5)
    votes = [np.sum(larger * where, axis=1) for where in (at_sample, at_test)]
    answer = np.where(votes[0] * votes[1] > 0, 1, 2)
    assert np.mean(answer == found.wanted[:, -1]) > 0.9


def test_a_trial_is_a_function_of_seed_and_number_alone():
    task = small("match-to-sample")
    made = Made.of(task, Stream(5, 1), 12)
    numbers = jnp.arange(12, dtype=jnp.int32)
    whole, _, _, marks = made.take(numbers, np.float64)
    assert isinstance(marks, Marks)
    some = made.part(4, 9).take(numbers[:5], np.float64)[0]
    np.testing.assert_array_equal(np.asarray(whole)[4:9], np.asarray(some))
    order = made.order(99, 3)
    np.testing.assert_array_equal(order, np.arange(24, 36))
    others = [Made.of(task, stream, 12) for stream in (Stream(5, 2), Stream(6, 1))]
    for other in others:
        assert not np.array_equal(np.asarray(other.take(numbers, np.float64)[0]), np.asarray(whole))
    single = made.take(numbers, np.float32)[0]
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(single), np.asarray(whole), atol=1e-5)


def test_the_first_numbers_of_a_stream_stay_what_they_were():
    """Of all processors and versions: Threefry, whatever JAX's default is."""
    with jax.default_prng_impl("rbg"):
        made = Made.of(build("flip-flop", steps=4), Stream(0, 0), 1)
        x = np.asarray(made.take(jnp.zeros(1, jnp.int32), np.float64)[0])[0]
    again = Made.of(build("flip-flop", steps=4), Stream(0, 0), 1)
    np.testing.assert_array_equal(x, again.take(jnp.zeros(1, jnp.int32), np.float64)[0][0])
    np.testing.assert_array_equal(x, FIRST)


FIRST = np.array([[-1, 1, -1], [0, 1, -1], [-1, 0, -1], [-1, 0, 0]], float)


def test_marks_weigh_the_loss_and_choose_the_steps_that_are_scored():
    rng = np.random.default_rng(0)
    scores = jnp.asarray(rng.normal(size=(2, 3, 4)))
    wanted = jnp.asarray([[0, 1, 2], [3, 3, 0]], jnp.int32)
    weights = np.array([[1.0, 0.5, 0.0], [2.0, 1.0, 1.0]])
    scored = np.array([[False, True, True], [True, False, False]])
    target = Target("classes", 4, "every")
    loss, found = target.loss(
        scores, wanted, marks=Marks(jnp.asarray(weights), jnp.asarray(scored))
    )
    logs = np.asarray(jax.nn.log_softmax(scores))
    each = -np.take_along_axis(logs, np.asarray(wanted)[..., None], 2)[..., 0]
    expected = np.mean((each * weights).sum(axis=1) / weights.sum(axis=1))
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    right = (np.asarray(scores).argmax(2) == np.asarray(wanted)) * scored
    assert float(found["accuracy"]) == np.mean(right.sum(axis=1) / scored.sum(axis=1))


def test_a_step_without_weight_has_no_gradient():
    model = build_sequence(
        "rnn", 2, 3, target=Target("classes", 2, "every"), key=jr.key(0), dtype=np.float64
    )
    x = jr.normal(jr.key(1), (2, 4, 2))
    wanted = jnp.zeros((2, 4), jnp.int32)
    goes = jnp.arange(4)[None] < jnp.array([[2], [4]])
    marks = Marks(goes.astype(jnp.float64), goes)

    def loss(x):
        return model.loss(x, wanted, None, marks)[0]

    gradient = np.asarray(jax.grad(loss)(x))
    assert np.all(gradient[0, 2:] == 0) and np.all(gradient[0, :2] != 0)
    assert np.all(gradient[1] != 0)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("addition", {}, "name"),
        ("adding", {"steps": 1}, "steps"),
        ("copy", {"steps": 0}, "steps"),
        ("flip-flop", {"probability": 1.5}, "probability"),
        ("flip-flop", {"delay": 100.0}, "`delay` must not be given for the task flip-flop"),
        ("match-to-sample", {"steps": 10}, "`steps` must not be given"),
        ("anti-reach", {"delay": 10.0}, "`delay` must not be given"),
        ("copy", {"delay": 500.0}, "`delay` must not be given for the task copy"),
        ("go-nogo", {"delay": -5000.0}, "`delay` must be >= 0"),
        ("parametric", {"delay": np.nan}, "`delay` must be >= 0"),
        ("match-to-sample", {"delay": 50.0}, "`delay` must be 0 or at least a step, 100 ms"),
        ("adding", {"steps": 10.5}, "`steps` must be a whole number"),
        ("adding", {"constant_input": "no"}, "`constant_input`"),
    ],
)
@pytest.mark.usefixtures("without_type_checks")
def test_options_that_a_task_does_not_have_are_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        build(name, **options)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5])
@pytest.mark.usefixtures("without_type_checks")
def test_seeds_that_a_stream_cannot_have_are_refused(seed):
    with pytest.raises(ValueError, match="`seed` must be"):
        Stream(seed)


def test_a_longer_delay_only_adds_steps_to_it():
    short, long = build("parametric", delay=200.0), build("parametric", delay=3000.0)
    assert long.steps - short.steps == 28
    key = Stream(0).key()
    x, y = (np.asarray(batch(task, key, 3, np.float64).inputs) for task in (short, long))
    np.testing.assert_array_equal(y[:, 10:38], np.broadcast_to([1.0, 0.0], (3, 28, 2)))
    np.testing.assert_allclose(y[:, :10], x[:, :10], rtol=1e-12)


def test_a_constant_input_changes_nothing_else():
    task, more = small("copy"), build("copy", steps=3, constant_input=True)
    key = Stream(0).key()
    x, y = (batch(t, key, 4, np.float64) for t in (task, more))
    np.testing.assert_array_equal(x.inputs, y.inputs[..., :-1])
    assert np.all(np.asarray(y.inputs[..., -1]) == 1)
    np.testing.assert_array_equal(x.wanted, y.wanted)
    assert more.input_size == 11 and more.conditions()[0].input[-1] == 1


CONFIG = TaskConfig(
    task="match-to-sample", model="rnn", units=4, epochs=2, epoch_steps=3, batch_size=10, seed=7
)


@pytest.mark.usefixtures("standard_promotion")
def test_a_run_resumes_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    report = train(CONFIG, folder, progress=False)
    assert isinstance(report, TaskReport) and report.measure == "accuracy"
    assert report.trivial_score == 0.5 and report.epochs == 2
    save = RunFolder.save_checkpoint

    def stopping(self, epoch, state, notes):
        save(self, epoch, state, notes)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save_checkpoint", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, tmp_path / "other", progress=False)
    monkeypatch.undo()
    again = train(CONFIG, tmp_path / "other", resume=True, progress=False)
    assert dataclasses.replace(again, seconds_per_epoch=0.0) == dataclasses.replace(
        report, seconds_per_epoch=0.0
    )
    model = (folder / "model.safetensors").read_bytes()
    assert model == (tmp_path / "other" / "model.safetensors").read_bytes()
    found = evaluate(folder, with_stability=False).summary
    assert found["trials"] == 1000 and found["trivial_score"] == 0.5
    assert found["score"] == pytest.approx(report.test_score, abs=1e-3)


def test_settings_say_what_they_need():
    assert CONFIG.figure == "accuracy" and TaskConfig(task="adding").figure == "squared_error"
    with pytest.raises(ValueError, match="less than 2\\^31 trials"):
        TaskConfig(epochs=900_000, epoch_steps=1000)
    with pytest.raises(ValueError, match="clip_norm"):
        TaskConfig(clip_norm=1.0)


def test_the_command_lists_all_tasks(capsys):
    assert run(["data", "tasks", "--json"]) == 0
    listed = {row["name"]: row for row in json.loads(capsys.readouterr().out)["tasks"]}
    assert listed.keys() == TASKS.keys()
    assert (listed["copy"]["outputs"], listed["copy"]["kind"]) == (9, "classes")


# --- NeuroGym, if it is there ---------------------------------------------------------------------

_THEIRS = 1500


@pytest.fixture(scope="module")
def neurogym():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("neurogym")


def _padded(arrays, steps, fill):
    out = np.full((len(arrays), steps, *arrays[0].shape[1:]), fill, float)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return out


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_trials_are_those_of_neurogym_statistically(name, neurogym):
    """The same number of steps; the same mean and variance of every input at every step; the same
    classes wanted at every step; and the same mean input where a class is wanted."""
    kind, options = ENVIRONMENTS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        environment = neurogym.make(f"{kind}-v0", **options).unwrapped
        environment.reset(seed=1)
        theirs = []
        for _ in range(_THEIRS):
            environment.new_trial()
            theirs.append((environment.ob.copy(), environment.gt.copy()))
    ours = trials(name)
    steps = build(name).steps
    lengths = np.array([len(x) for x, _ in theirs])
    assert lengths.max() <= steps
    assert ours.marks is not None
    long = ours.marks.loss.sum(axis=1)
    _near(lengths[:, None].astype(float), long[:, None])
    x = _padded([x for x, _ in theirs], steps, 0.0)
    wanted = _padded([y for _, y in theirs], steps, 0.0)
    _near(x, ours.inputs)
    _near(x**2, ours.inputs**2)
    classes = np.arange(build(name).target.size)
    _near(wanted[..., None] == classes, ours.wanted[..., None] == classes)
    # joint with the inputs: the mean of every input over the trials where a class is wanted last
    for one in classes[1:3]:
        theirs_end = wanted.max(axis=1) == one
        ours_end = ours.wanted.max(axis=1) == one
        if theirs_end.sum() > 100:
            _near(x[theirs_end], ours.inputs[ours_end])


def _near(theirs, ours):
    """Equal means over the trials, within 5.5 standard errors (or 1e-6, without spread)."""
    theirs, ours = np.asarray(theirs, float), np.asarray(ours, float)
    variance = theirs.var(axis=0) / len(theirs) + ours.var(axis=0) / len(ours)
    distance = np.abs(theirs.mean(axis=0) - ours.mean(axis=0))
    # an event that is in few trials has no normal mean
    rare = 12 / min(len(theirs), len(ours)) * np.maximum(np.abs(theirs).max(), 1)
    bad = distance > np.maximum(5.5 * np.sqrt(variance), 1e-6) + rare * (variance > 0)
    assert not bad.any(), (np.argwhere(bad)[:5], distance[bad][:5], np.sqrt(variance)[bad][:5])


# --- images followed by noise ---------------------------------------------------------------------


def _images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 17, (6, 4, 3)).astype(np.uint8)
    return Examples(jnp.asarray(pixels), jnp.arange(6, dtype=jnp.int32), jnp.int32(16))


@pytest.mark.parametrize("fresh", [True, False])
def test_noise_follows_the_images(fresh):
    examples = _images()
    padded = Padded.of(examples, Stream(1), 104, fresh)
    assert padded.size == 6 and padded.input_shape == (104, 3)
    epochs = [padded.order(0, epoch) for epoch in (1, 2)]
    assert all(sorted(order % 6) == list(range(6)) for order in epochs)
    taken = [padded.take(jnp.asarray(order), np.float64) for order in epochs]
    for order, (x, labels) in zip(epochs, taken, strict=True):
        images, wanted = examples.take(jnp.asarray(order % 6), np.float64)
        np.testing.assert_array_equal(x[:, :4], images)
        np.testing.assert_array_equal(labels, wanted)
        assert abs(np.std(x[:, 4:]) - 1) < 0.05 and abs(np.mean(x[:, 4:])) < 0.1
    (one, _), (other, _) = taken
    first, second = (np.asarray(x[:, 4:]) for x in (one, other))
    assert np.array_equal(first[0], first[1]) != fresh
    assert np.array_equal(first, second) != fresh
    # as many of the whole, so that it is one program that draws both
    some = padded.part(2, 5).take(jnp.arange(3, dtype=jnp.int32), np.float64)[0]
    whole = padded.take(jnp.arange(2, 5, dtype=jnp.int32), np.float64)[0]
    np.testing.assert_array_equal(some, whole)


def test_noise_on_inputs_is_another_every_time_and_nothing_else():
    examples = _images()._replace(lengths=jnp.arange(6, dtype=jnp.int32))
    noisy = Noisy.of(examples, Stream(1), 0.25)
    assert noisy.size == 6 and noisy.input_shape == (4, 3)
    added = []
    for epoch in (1, 2):
        numbers = jnp.asarray(noisy.order(0, epoch))
        np.testing.assert_array_equal(numbers, examples.order(0, epoch))
        x, labels, lengths = noisy.take(numbers, np.float64)
        clean, wanted, ends = examples.take(numbers, np.float64)
        np.testing.assert_array_equal(labels, wanted)
        np.testing.assert_array_equal(lengths, ends)
        added.append(np.asarray(x - clean)[np.argsort(np.asarray(labels))])
    both = np.array(added)  # of each epoch and example
    assert 0.2 < both.std() < 0.3 and abs(both.mean()) < 0.1
    assert len(np.unique(both.round(9))) == both.size
    # as many of the whole, so that it is one program that draws both
    some = noisy.part(2, 5).take(jnp.arange(3, dtype=jnp.int32), np.float64)[0]
    whole = noisy.take(jnp.arange(2, 5, dtype=jnp.int32), np.float64)[0]
    np.testing.assert_array_equal(some, whole)


@pytest.mark.parametrize(
    "config",
    [SequenceConfig(task="sdigits", pad_to=70, input_noise=0.5), TaskConfig(input_noise=0.5)],
)
def test_noise_is_added_to_what_every_task_trains_on(config):
    task = task_of(config)
    clean = task.sets(task.load()).training
    noisy = varied(clean, config)
    numbers = jnp.asarray(noisy.order(0, 3)[:4])
    there, here = (source.take(numbers, np.float32)[0] for source in (noisy, clean))
    assert 0.4 < np.std(there - here) < 0.6
    assert varied(clean, dataclasses.replace(config, input_noise=0.0)) is clean


def _moved(image, dy, dx):
    """An image moved down and to the right, by NumPy."""
    height, width, *_ = image.shape
    padded = np.pad(image, [(height, height), (width, width), *[(0, 0)] * (image.ndim - 2)])
    return padded[height - dy : 2 * height - dy, width - dx : 2 * width - dx]


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(dataset="digits", shift=1),
        SequenceConfig(task="sdigits", shift=2),
        SequenceConfig(task="sdigits", resize=4, rows=True, shift=1),
        SequenceConfig(task="sdigits", pad_to=70, shift=1, input_noise=0.5),
        SequenceConfig(task="psmnist", shift=1),
    ],
)
def test_images_that_train_are_moved_another_way_every_time(config, monkeypatch):
    monkeypatch.setitem(sequences.TASKS, "psmnist", sequences.Task("digits", True))
    plain = dataclasses.replace(config, input_noise=0.0)
    task = task_of(plain)
    clean = task.sets(task.load()).training
    moved, side = varied(clean, plain), 4 if getattr(config, "resize", None) else 8
    images = config.kind == "images"
    order = range(64) if images else sequences.pixel_order(config.task, config.resize)
    assert (moved.size, moved.input_shape) == (clean.size, clean.input_shape)
    shifts, both = range(-config.shift, config.shift + 1), []
    for epoch in (1, 2):
        numbers = jnp.asarray(moved.order(0, epoch))[:300]
        given, seen = (np.asarray(source.take(numbers, np.float64)[0]) for source in (clean, moved))
        found = []
        for before, after in zip(given, seen, strict=True):
            image = np.zeros(side * side)
            image[list(order)] = before.ravel()[: side**2]
            wanted = [_moved(image.reshape(side, side), dy, dx).ravel()[list(order)]
                      for dy in shifts for dx in shifts]  # fmt: skip
            found.append([np.array_equal(after.ravel()[: side**2], one) for one in wanted])
            np.testing.assert_array_equal(after.ravel()[side**2 :], before.ravel()[side**2 :])
        assert np.all(np.any(found, axis=1)) and np.all(np.any(found, axis=0))
        both.append(found)
        # of a part of the whole, with noise on top
        noisy = varied(clean, dataclasses.replace(config, input_noise=1e-9))
        some = noisy.part(1, 301).take(numbers[:3] % 300, np.float64)[0]
        whole = moved.take(numbers[:3] % 300 + 1, np.float64)[0]
        np.testing.assert_allclose(some, whole, atol=1e-6)
    assert both[0] != both[1]


def test_a_shift_that_leaves_no_image_is_refused():
    for config in (TrainConfig(dataset="digits", shift=8), SequenceConfig(task="sdigits", shift=8)):
        with pytest.raises(ValueError, match="`shift` must be below 8, the side of images, not 8"):
            task_of(config).input_shape()
    with pytest.raises(ValueError, match="`shift` must be a whole number >= 0, not -1"):
        TrainConfig(shift=-1)


def test_padded_images_are_a_setting_of_the_sequence_tasks():
    config = SequenceConfig(task="sdigits", rows=True, pad_to=20, noise="once", units=2)
    task = task_of(config)
    assert task.input_shape() == (20, 8)
    sets = task.sets(task.load())
    assert isinstance(sets.training, Padded) and sets.training.size == 1350
    assert "pad20" in config.name
    with pytest.raises(ValueError, match="pad_to"):
        task_of(dataclasses.replace(config, pad_to=8)).input_shape()
    with pytest.raises(ValueError, match="`noise`"):
        SequenceConfig(noise="once")


@pytest.mark.parametrize("name", ["anti-reach", "pulse-decision", "match-to-sample"])
def test_runs_of_equal_steps_add_up_to_the_product_with_patterns(name, monkeypatch):
    task = build(name)
    found = []
    for least in (0, 10**9):  # always in runs, never
        monkeypatch.setattr(laboratory, "_MANY_ENTRIES", least)
        found.append(jax.jit(lambda key: task.trial(key, np.float64).inputs)(jr.key(1)))
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=1e-12)
    assert np.ptp(found[0]) > 0.5


@pytest.mark.usefixtures("without_type_checks")
def test_trials_are_of_floating_point_numbers():
    for dtype in (np.int32, np.float16, "abc"):
        with pytest.raises(ValueError, match="`dtype` must be float32 or float64, not"):
            batch(build("adding"), jr.key(0), 2, dtype)


@pytest.mark.usefixtures("without_type_checks")
def test_numbers_of_arrays_are_numbers():
    for name, given in (("match-to-sample", {"delay": 300.0}), ("flip-flop", {"probability": 0.5})):
        arrays = {key: jnp.asarray(value) for key, value in given.items()}
        assert build(name, **arrays) == build(name, **given)
