"""Figure 7: the trajectories of the hidden state on sequential and permuted sequential MNIST."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from organics.files.plain import as_number, rounded
from organics.nn import ORGaNICs
from organics.plots import BLUE, COLUMN, GREEN, GREY, ORANGE, letter, style
from organics.studies.harness.target import Check, Job, Outcome
from organics.studies.networks.protocols import PAPER, TASKS, hours_of, not_run, protocol
from organics.studies.networks.trained import Trained, command, in_words, is_whole, trained
from organics.training.evaluation import as_examples, input_shape, load_dataset, load_model

RANGES = {"smnist": "about -4 to 2", "psmnist": "about -2 to 2"}
"""The ranges in the paper's panels, for 128 neurons."""

_AGAIN = 3  # number of times the sequence is read in a row
_GROWTH = 1.5  # largest growth that counts as bounded
_SHOWN = (BLUE, ORANGE, GREEN)  # inputs, a colour each
_LIMIT = 2.0  # times the range of the first reading: limit of the axis
_EVERY = 8  # steps between the stored numbers


def compute(job: Job) -> Outcome:
    """The range of y at every step over test inputs, each read three times in a row."""
    runs = trained(job.runs)
    checks, panels, data = [], {}, {}
    for i, task in enumerate(TASKS):
        job.progress(i / len(TASKS), task)
        run = best(runs, task)
        if run is None:
            settings = protocol(PAPER[-2], task)
            words = not_run(None if job.quick else hours_of(settings))
            checks.append(
                Check(f"{task}: y is bounded", f"{words}, {command(settings)}", None, RANGES[task])
            )
            panels[task] = {"run": None, "in_words": words, "command": command(settings)}
            continue
        outputs = read_again(run, 50 if job.quick else 500)
        checks += boundedness(task, outputs)
        steps = outputs.shape[1] // _AGAIN
        first = outputs[:, :steps]
        panels[task] = {
            "run": command(run.config),
            "in_words": f"{run.config.units} neurons, {in_words(run)}",
            "steps": steps,
            "inputs": len(outputs),
            "range": rounded([first.min(), first.max()]),
            "every": _EVERY,
            "least": rounded(outputs.min(axis=(0, 2))[::_EVERY], 4),
            "largest": rounded(outputs.max(axis=(0, 2))[::_EVERY], 4),
        }
        data[task] = first[: len(_SHOWN)]
    ranges = [
        f"{task}, {panels[task]['in_words']}: y from {panels[task]['range'][0]:.1f} to "
        f"{panels[task]['range'][1]:.1f}"
        for task in data
    ]
    return Outcome(
        here="; ".join(ranges) or "no trained run found",
        checks=checks,
        numbers=panels,
        data=data,
    )


def best(runs: list[Trained], task: str) -> Trained | None:
    """The run of ORGaNICs on the whole task with the best validation accuracy."""
    for run in runs:
        if (run.config.task, run.config.model) == (task, "organics") and is_whole(run.config):
            return run
    return None


def read_again(run: Trained, count: int) -> Float[np.ndarray, "inputs steps n"]:
    """y at every step for `count` test inputs, each read `_AGAIN` times without a pause."""
    dataset = load_dataset(run.config)
    shape = input_shape(run.config)
    examples = as_examples(
        dataset.test_images[:count], dataset.test_labels[:count], dataset.max_value, shape
    )
    inputs, _ = examples.take(jnp.arange(count), jnp.float32)
    return np.asarray(_outputs(load_model(run.folder).layer, jnp.tile(inputs, (1, _AGAIN, 1))))


@eqx.filter_jit
def _outputs(layer: ORGaNICs, inputs: Float[Array, "inputs steps m"]) -> Array:
    return layer(inputs)[0]


def boundedness(task: str, outputs: Float[np.ndarray, "inputs steps n"]) -> list[Check]:
    """Whether y stays bounded: within the sequence, and (ours) when reading on."""
    steps = outputs.shape[1] // _AGAIN
    third, last = (
        np.abs(outputs[:, start : start + steps // 4]).max()
        for start in (steps - 2 * (steps // 4), steps - steps // 4)
    )
    first, later = np.abs(outputs[:, :steps]).max(), np.abs(outputs[:, steps:]).max()
    low, high = outputs[:, :steps].min(), outputs[:, :steps].max()
    going = f"{later:.2f}" if np.isfinite(later) else "no bound"
    return [
        Check(
            f"{task}: y is bounded",
            f"from {low:.2f} to {high:.2f} on {len(outputs)} test inputs",
            bool(np.isfinite(first)),
            RANGES[task],
            "finite at every step",
        ),
        Check(
            f"{task}: it does not grow over the last half of the sequence",
            f"|y| <= {third:.2f} in the third quarter, {last:.2f} in the last",
            bool(last <= _GROWTH * third),
            None,
            f"at most {_GROWTH:g} times as large",
        ),
        Check(
            f"{task}: it keeps to that range when it reads on (ours)",
            f"|y| <= {first:.2f} in the first reading, {going} in the next {_AGAIN - 1}",
            bool(later <= _GROWTH * first),
            None,
            f"at most {_GROWTH:g} times as large",
            decides=False,
        ),
    ]


@style()
def draw(outcome: Outcome) -> Figure:
    """a, c: y of all neurons while an image is read, for a few images. b, d (ours): the range
    of y over neurons and inputs when images are read three times in a row.
    """
    figure = Figure(figsize=(2 * COLUMN, 4.0))
    axes = figure.subplots(2, 2, sharey="row", squeeze=False)
    for row, task, title, letters in zip(
        axes, TASKS, ("sequential MNIST", "permuted"), ("ab", "cd"), strict=True
    ):
        _panel(row, letters, title, outcome.numbers[task], (outcome.data or {}).get(task))
        row[0].set_ylabel("$y$")
    axes[1, 0].set_xlabel("step")
    axes[1, 1].set_xlabel("step")
    handles = [
        *(Line2D([], [], color=colour, label=f"input {i + 1}, a line for each neuron")
          for i, colour in enumerate(_SHOWN)),
        Patch(color=BLUE, alpha=0.4, label="from the least to the largest $y$"),
        Line2D([], [], color=GREY, linestyle="--", linewidth=0.8, label="the next reading begins"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _panel(
    row: Any, letters: str, title: str, numbers: dict[str, Any], shown: np.ndarray | None
) -> None:
    if numbers["run"] is None or shown is None:
        for ax in row:
            ax.text(0.5, 0.5, numbers["in_words"], ha="center", va="center", transform=ax.transAxes)
            ax.set(xticks=[], yticks=[])
        letter(row[0], letters[0], title)
        return
    for outputs, colour in zip(shown, _SHOWN, strict=False):
        row[0].plot(outputs, color=colour, linewidth=0.3, alpha=0.6)
    kind = numbers["in_words"].replace("W_r", "$W_r$")
    letter(row[0], letters[0], f"{title}, {len(shown)} inputs\n{kind}")
    at = np.arange(len(numbers["least"])) * numbers["every"]
    low, high = (_LIMIT * edge for edge in numbers["range"])
    least = np.asarray([-np.inf if v is None else v for v in numbers["least"]])
    largest = np.asarray([as_number(v) for v in numbers["largest"]])
    beyond = np.any((least < low) | (largest > high))
    row[1].fill_between(
        at, np.clip(least, low, high), np.clip(largest, low, high), color=BLUE, alpha=0.4,
        linewidth=0,
    )  # fmt: skip
    for edge in range(1, _AGAIN):
        row[1].axvline(edge * numbers["steps"], color=GREY, linewidth=0.8, linestyle="--")
    cut = f"\nwhat is beyond {low:.1f} and {high:.1f} is cut off" if beyond else ""
    read = f"range over neurons and {numbers['inputs']} inputs, read {_AGAIN} times{cut}"
    letter(row[1], letters[1], read)
