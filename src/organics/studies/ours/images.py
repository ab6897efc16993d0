"""Small networks on images with and without normalization, on noisy and faint test images.

One layer of local filters, averages over squares of 2 x 2 and a linear readout; between them
nothing but rectification (a plain convolutional network), divisive normalization by a local pool
(`W_r = I`), or a circuit that learns its recurrence, too. The plain network has as many more
filters as make up for the parameters of pools and gains. MNIST is halved to 14 x 14. All are
trained on clean images with the same data, steps and learning rate, and tested with Gaussian noise
and with lower contrast.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float

from organics.data.datasets import load
from organics.nn.convolution import NormalizationConv2d
from organics.studies.harness.as_table import draw as draw
from organics.studies.harness.pieces import kept
from organics.studies.harness.target import Check, Job, Outcome, Table

MODELS = ("plain", "identity", "bounded")
NOISES = (0.0, 0.1, 0.2, 0.3, 0.5)  # standard deviation, where white is 1
CONTRASTS = (1.0, 0.5, 0.25, 0.1)


@dataclass(frozen=True)
class Sample:
    """The trainings."""

    datasets: tuple[str, ...] = ("digits", "mnist")
    """Data sets."""
    channels: int = 4
    """Filters of the circuits."""
    images: int = 10_000
    """Training images, at most."""
    steps: int = 300
    """Steps of Adam, batches of 50."""
    tests: int = 2_000
    """Test images, at most."""
    seeds: int = 3
    """Runs of each network ..."""
    slow_datasets: tuple[str, ...] = ("digits",)
    """Where a network learns its recurrence, with one seed: its steps take many times as long."""
    seed: int = 0
    """The first of the seeds."""


class Network(eqx.Module):
    """Local filters, perhaps a circuit, averages, and a linear readout."""

    layer: eqx.nn.Conv2d | NormalizationConv2d
    readout: eqx.nn.Linear

    def __init__(self, model: str, channels: int, side: int, *, key: Array):
        k_layer, k_out = jr.split(key)
        if model == "plain":
            channels = plain_channels(channels, side)
            self.layer = eqx.nn.Conv2d(1, channels, 5, padding=2, use_bias=False, key=k_layer)
        else:
            self.layer = NormalizationConv2d(
                1, channels, 5, 5, key=k_layer, pool="within", rectified=True, sigma=0.3,
                recurrent="identity" if model == "identity" else "bounded",
            )  # fmt: skip
        self.readout = eqx.nn.Linear(channels * (side // 2) ** 2, 10, key=k_out)

    def __call__(self, image: Float[Array, "h w"]) -> Float[Array, " classes"]:
        """Scores of the ten digits."""
        rates = self.layer(image[None])
        if isinstance(self.layer, eqx.nn.Conv2d):
            rates = jnp.square(jax.nn.relu(rates))
        channels, side, _ = rates.shape
        squares = rates.reshape(channels, side // 2, 2, side // 2, 2)
        return self.readout(squares.mean(axis=(2, 4)).reshape(-1))


def plain_channels(channels: int, side: int) -> int:
    """The filters of a plain network of about as many parameters as a circuit of `channels`."""
    readout = 10 * (side // 2) ** 2
    return round(channels * (3 * 25 + 1 + readout) / (25 + readout))


def compute(job: Job) -> Outcome:
    """Train and test."""
    sample = Sample(seed=job.seed)
    if job.quick:
        sample = replace(
            sample, datasets=("digits",), channels=2, images=200, steps=10, tests=50, seeds=1
        )
    return conclude(measure(sample, job))


def measure(sample: Sample, job: Job) -> dict[str, Any]:
    """Accuracies of each network on each data set."""
    found: dict[str, Any] = {}
    todo = [
        (d, m, s)
        for d in sample.datasets
        for m in MODELS
        for s in range(sample.seeds if m != "bounded" else int(d in sample.slow_datasets))
    ]
    for i, (dataset, model, seed) in enumerate(todo):
        job.progress(i / len(todo), f"{dataset}, {model}, seed {seed}")
        settings = sample.channels, sample.images, sample.steps, sample.tests
        name = "-".join(map(str, (dataset, model, sample.seed + seed, *settings)))
        piece = kept(job.folder, name, partial(_train, sample, dataset, model, sample.seed + seed))
        rows = found.setdefault(dataset, {}).setdefault(model, {"noise": [], "contrast": []})
        rows["parameters"] = int(piece["parameters"])
        for change in ("noise", "contrast"):
            rows[change].append(piece[change])
    return {
        "noises": NOISES,
        "contrasts": CONTRASTS,
        "steps": sample.steps,
        "seeds": sample.seeds,
        "accuracy": found,
    }


def conclude(found: dict[str, Any]) -> Outcome:
    """Whether normalization helps, on each data set; `found` is the result of `measure`."""
    checks, words, rows = [], [], []
    for dataset, models in found["accuracy"].items():
        mean = {
            model: {c: np.mean(one[c], axis=0) for c in ("noise", "contrast")}
            for model, one in models.items()
        }
        spread = {m: float(np.max(np.ptp(one["noise"], axis=0))) for m, one in models.items()}
        for change, values in (("noise", found["noises"]), ("contrast", found["contrasts"])):
            plain, circuit = (mean[m][change] for m in ("plain", "identity"))
            gain = circuit[1:] - plain[1:]
            checks.append(
                Check(
                    f"{dataset}: with {change}, normalization is ahead of the plain network",
                    f"by {100 * gain.min():.1f} to {100 * gain.max():.1f} points",
                    bool(gain.min() > 0),
                    tolerance="at every level",
                )
            )
            ends = {m: f"{mean[m][change][-1]:.1%}" for m in MODELS if m in mean}
            named = ", ".join(f"{_NAMES[m]} {end}" for m, end in ends.items())
            words.append(f"{dataset}, {change} {values[-1]:g}: {named}")
        clean = mean["identity"]["noise"][0] - mean["plain"]["noise"][0]
        checks.append(
            Check(
                f"{dataset}: on clean images both are as good",
                f"{100 * clean:+.1f} points",
                bool(abs(clean) <= max(spread["plain"], spread["identity"])),
                tolerance="within the spread over seeds",
                decides=False,
            )
        )
        for model, one in models.items():
            cells = [
                f"{x:.1%}" for c in ("noise", "contrast") for x in mean[model][c][c != "noise" :]
            ]
            rows.append([f"{dataset}, {_NAMES[model]}", f"{one['parameters']:,}", *cells])
    columns = ["network", "parameters", "clean", *(f"noise {x:g}" for x in found["noises"][1:])]
    columns += [f"contrast {x:g}" for x in found["contrasts"][1:]]
    return Outcome("; ".join(words), checks, found, Table(columns, rows))


_NAMES = {"plain": "plain", "identity": "normalized, W_r = I", "bounded": "normalized, learned W_r"}


def _images(dataset: str, sample: Sample) -> tuple[np.ndarray, ...]:
    """Training images, their classes, test images, their classes."""
    data = load(dataset)
    if data.train_images.ndim != 3:
        raise ValueError(f"`datasets` must be of grey images, not {dataset!r}.")
    train = data.pixels(data.train_images[: sample.images])
    test = data.pixels(data.test_images[: sample.tests])
    if train.shape[1] == 28:
        train, test = (x.reshape(len(x), 14, 2, 14, 2).mean(axis=(2, 4)) for x in (train, test))
    labels = data.train_labels[: sample.images], data.test_labels[: sample.tests]
    return train, labels[0], test, labels[1]


def _train(sample: Sample, dataset: str, model: str, seed: int) -> dict[str, np.ndarray]:
    train, classes, test, answers = _images(dataset, sample)
    k_model, k_noise = jr.split(jr.key(seed))
    network = Network(model, sample.channels, train.shape[1], key=k_model)
    optimizer = optax.adam(3e-3)
    arrays, static = eqx.partition(network, eqx.is_inexact_array)
    state = optimizer.init(arrays)

    @jax.jit
    def step(arrays, state, images, classes):
        def loss(arrays):
            scores = jax.vmap(eqx.combine(arrays, static))(images)
            return optax.softmax_cross_entropy_with_integer_labels(scores, classes).mean()

        updates, state = optimizer.update(jax.grad(loss)(arrays), state)
        return optax.apply_updates(arrays, updates), state

    @jax.jit
    def right(arrays, images, answers):
        scores = jax.vmap(eqx.combine(arrays, static))(images)
        return jnp.sum(jnp.argmax(scores, axis=1) == answers)

    rng = np.random.default_rng(seed)
    for _ in range(sample.steps):
        batch = rng.integers(len(train), size=50)
        arrays, state = step(arrays, state, train[batch], classes[batch])

    def accuracy(images):
        parts = range(0, len(images) - len(images) % 50, 50)
        count = sum(int(right(arrays, images[i : i + 50], answers[i : i + 50])) for i in parts)
        return count / (50 * len(parts))

    noise = np.asarray(jr.normal(k_noise, test.shape, np.float32))
    return {
        "noise": np.array([accuracy(test + np.float32(sd) * noise) for sd in NOISES]),
        "contrast": np.array([accuracy(np.float32(contrast) * test) for contrast in CONTRASTS]),
        "parameters": np.array(sum(leaf.size for leaf in jax.tree.leaves(arrays))),
    }
