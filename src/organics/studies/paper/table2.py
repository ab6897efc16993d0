"""Table 2: recurrent networks on sequential and permuted sequential MNIST."""

import dataclasses
from statistics import mean, stdev
from typing import Any, NamedTuple

import equinox as eqx
import jax
from matplotlib.figure import Figure

from organics.files.plain import rounded
from organics.models import count_parameters
from organics.plots import BLUE, COLUMN, GREY, ORANGE, style
from organics.studies.harness.target import Check, Job, Outcome, Table
from organics.studies.networks.protocols import (
    PAPER,
    SHORT,
    TASKS,
    Row,
    departures,
    differences,
    hours_of,
    not_run,
    protocol,
)
from organics.studies.networks.trained import Trained, command, in_words, is_whole, trained
from organics.training import SequenceConfig
from organics.training.evaluation import (
    as_examples,
    build_model,
    input_shape,
    load_dataset,
    load_model,
    mean_metrics,
)

NEAR = 0.01
"""An accuracy may be at most this much below the paper's."""

_FALLS_SHORT = "; falls short of its source"
_QUICK_IMAGES = 1000  # of the test set, for incomplete runs


_COLUMNS = (
    "network, units",
    "parameters, paper; here",
    "paper, sMNIST / psMNIST",
    "here, sMNIST",
    "here, psMNIST",
    "196 steps, 64 units, sMNIST",
    "196 steps, 64 units, psMNIST",
)


class _Cell(NamedTuple):
    """A row's network on a task: a run, or the cost of one."""

    words: str
    check: Check
    found: dict[str, Any] | None
    missing: dict[str, Any] | None


def compute(job: Job) -> Outcome:
    """Parameters of every row, and the accuracy of the existing runs."""
    # those of `shared_protocol` are of a few epochs, and not by the recipes of the models; and no
    # recipe has other images than those of the data set
    runs = [
        one for one in trained(job.runs)
        if one.folder.path.parent.name != "shared_protocol" and not one.config.shift
    ]  # fmt: skip
    rows, checks, numbers, not_there = [], [], [], {}
    hours: dict[tuple[str, int], float | None] = {}
    by_name: dict[str, dict[str, Any]] = {}  # the shorter task's runs, of the row with 64 units
    for i, row in enumerate(PAPER):
        job.progress(i / len(PAPER), f"{row.name}, {row.units} units")
        cells = {task: _cell(runs, row, task, job.quick, hours) for task in TASKS}
        checks += [_parameters(row), *(cell.check for cell in cells.values())]
        not_there |= {
            f"{row.name}, {row.units} units, {task}": cell.missing
            for task, cell in cells.items()
            if cell.missing is not None
        }
        short = {task: shorter(runs, row, task) for task in TASKS}
        if row.time_constants == "learned":
            by_name.setdefault(row.name, short)
        here = {task: cell.found for task, cell in cells.items() if cell.found is not None}
        parameters = learned_parameters(row)
        numbers.append(
            {**row._asdict(), "parameters": parameters, "here": here, "steps_196": short}
        )
        rows.append(_in_cells(row, parameters, cells, short))
    checks += [_against_lstm(by_name, task) for task in TASKS]
    here = [
        f"{row['name']}, {row['units']} units, {task}: {cell}"
        for row, cells in zip(numbers, rows, strict=True)
        for task, cell in zip(TASKS, cells[3:5], strict=True)
        if task in row["here"]
    ]
    return Outcome(
        here=", ".join(here) or "no run of 784 steps is there",
        checks=checks,
        numbers={
            "rows": numbers,
            "not_run": not_there,
            "hours_are_of": jax.devices()[0].device_kind,
        },
        table=Table(_COLUMNS, rows),
    )


def _cell(
    runs: list[Trained],
    row: Row,
    task: str,
    quick: bool,
    hours: dict[tuple[str, int], float | None],
) -> _Cell:
    """The cell for a row and task. `hours` caches run times by model and units, which determine
    them."""
    run = best(runs, row, task)
    if run is not None:
        return _cell_of(run, row, task, quick)
    key = (row.model, row.units)
    if key not in hours:
        hours[key] = None if quick else hours_of(protocol(row, task))
    words, how, departs = not_run(hours[key]), command(protocol(row, task)), departures(row, task)
    missing = {"command": how, "departs": departs, "hours": rounded(hours[key], 3)}
    return _Cell(words, _check(row, task, None, f"{words}, {how}{departs}"), None, missing)


def _cell_of(run: Trained, row: Row, task: str, quick: bool) -> _Cell:
    images = _QUICK_IMAGES if quick else None
    accuracy, done = accuracy_of(run, images), run.test_accuracy is not None
    of = "" if images is None else f", on {images} test images"
    short = done and row.model != "organics" and accuracy < getattr(row, task) - NEAR
    words = (
        f"{accuracy:.1%} ({in_words(run)}, {run.hours:.2g} h{of}{_FALLS_SHORT if short else ''})"
    )
    found = {
        "test_accuracy": accuracy,
        "its_report_says": run.test_accuracy,
        "validation_accuracy": run.validation_accuracy,
        "complete": done,
        "epochs": run.epochs,
        "hours": rounded(run.hours, 3),
        "falls_short": short,
        "recurrent": run.config.recurrent,
        "command": command(run.config),
        "differs": differences(row, run.config),
        "departs": departures(row, task),
    }
    unlike = ", ".join(found["differs"])
    here = words + (f"; unlike its source in {unlike}" if unlike else "")
    return _Cell(words, _check(row, task, accuracy, here, done), found, None)


def _in_cells(
    row: Row, parameters: int, cells: dict[str, _Cell], short: dict[str, dict[str, Any] | None]
) -> list[str]:
    return [
        f"{row.name}, {row.units}",
        f"{row.thousands}k; {parameters:,}",
        f"{row.smnist:.1%} / {row.psmnist:.1%}",
        *(cell.words for cell in cells.values()),
        *(_short_words(short[task]) for task in TASKS),
    ]


def learned_parameters(row: Row) -> int:
    """Number of trained parameters of the row's network."""
    config = protocol(row, "smnist")
    return eqx.filter_eval_shape(lambda: count_parameters(build_model(config)))


def best(runs: list[Trained], row: Row, task: str) -> Trained | None:
    """The run of the row's network on the whole task with the best validation accuracy."""
    for run in runs:
        c = run.config
        alike = (c.task, c.model, c.units, c.time_constants, c.layers) == (
            task, row.model, row.units, row.time_constants, 1,
        )  # fmt: skip
        if alike and is_whole(c):
            return run
    return None


def accuracy_of(run: Trained, images: int | None = None) -> float:
    """Accuracy of its best model so far on the test images, or the first `images` of them; computed
    anew, without trusting a report."""
    dataset = load_dataset(run.config)
    shape = input_shape(run.config)
    examples = as_examples(dataset.test_images, dataset.test_labels, dataset.max_value, shape)
    count = images or len(dataset.test_labels)
    return mean_metrics(load_model(run.folder), examples, count)["accuracy"]


def shorter(runs: list[Trained], row: Row, task: str) -> dict[str, Any] | None:
    """From complete runs with 64 units on images of 14 x 14 pixels: all seeds of the setting with
    the best validation accuracy. Settings with fewer seeds are left out."""
    groups: dict[SequenceConfig, list[Trained]] = {}
    for run in runs:
        c = run.config
        alike = (c.task, c.model, c.resize, c.rows, c.units, c.time_constants, c.layers) == (
            task, row.model, SHORT, False, 64, row.time_constants, 1,
        )  # fmt: skip
        if alike and run.test_accuracy is not None:
            groups.setdefault(dataclasses.replace(c, seed=0), []).append(run)
    if not groups or (row.units != 64 and row.model == "organics"):
        return None
    most = max(map(len, groups.values()))
    fair = [group for group in groups.values() if len(group) == most]
    chosen = max(fair, key=lambda group: mean(run.validation_accuracy for run in group))
    accuracies = [run.test_accuracy for run in chosen if run.test_accuracy is not None]
    return {
        "command": command(dataclasses.replace(chosen[0].config, seed=0)),
        "in_words": in_words(chosen[0]),
        "test_accuracy": accuracies,
        "mean": mean(accuracies),
        "sd": stdev(accuracies) if len(accuracies) > 1 else None,
    }


def _short_words(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not run here"
    spread = "" if found["sd"] is None else f" ± {100 * found['sd']:.1f}"
    seeds = len(found["test_accuracy"])
    many = "" if seeds == 1 else "s"
    return f"{100 * found['mean']:.1f}{spread} % ({seeds} seed{many}, {found['in_words']})"


def _parameters(row: Row) -> Check:
    learned = learned_parameters(row)
    tolerance = "equal, in thousands"
    if row.time_constants == "fixed":
        both = learned + 4 * row.units
        tolerance += f"; with the {4 * row.units} fixed dt/tau they are {both:,}"
    return Check(
        f"{row.name}, {row.units} units: parameters that are learned",
        f"{learned:,}",
        round(learned / 1000) == row.thousands,
        f"{row.thousands}k",
        tolerance,
        decides=False,
    )


def _check(
    row: Row, task: str, accuracy: float | None, words: str, complete: bool = False
) -> Check:
    paper = getattr(row, task)
    holds = None if accuracy is None else accuracy >= paper - NEAR
    return Check(
        f"{row.name}, {row.units} units, {task}: test accuracy",
        words,
        holds if holds or complete else None,  # an incomplete run may still reach it
        f"{paper:.1%}",
        "at most 1 point below",
        decides=row in PAPER[-2:],
    )


def _against_lstm(short: dict[str, dict[str, Any]], task: str) -> Check:
    """Compares the circuits with an LSTM of as many units, trained in the same way."""
    ours, theirs = (short[name].get(task) for name in ("ORGaNICs", "LSTM"))
    behind = None if ours is None or theirs is None else theirs["mean"] - ours["mean"]
    return Check(
        f"on 196 steps, 64 units, {task}: as accurate as the LSTM",
        f"{_short_words(ours)}, LSTM {_short_words(theirs)}",
        None if behind is None else behind <= NEAR,
        tolerance="at most 1 point below",
    )


@style()
def draw(outcome: Outcome) -> Figure:
    """Test accuracy of every row: the paper's, ours of all 784 steps where a run was found, and
    ours of images of 14 x 14 pixels.
    """
    figure = Figure(figsize=(2 * COLUMN, 3.1))
    rows = outcome.numbers["rows"]
    axes = figure.subplots(1, 2, sharey=True, sharex=True)
    titles = ("sequential MNIST", "permuted sequential MNIST")
    for ax, task, title in zip(axes, TASKS, titles, strict=True):
        for place, row in enumerate(rows):
            here, short = row["here"].get(task), row["steps_196"][task]
            face = "white" if here is None else GREY
            ax.plot(100 * row[task], place, "o", color=GREY, markerfacecolor=face)
            if here is not None:
                face = BLUE if here["complete"] else "white"
                accuracy = 100 * here["test_accuracy"]
                ax.plot(accuracy, place, "D", color=BLUE, markerfacecolor=face, markersize=5)
            if short is not None:
                ax.errorbar(
                    100 * short["mean"], place + 0.3, xerr=100 * (short["sd"] or 0),
                    fmt="s", color=ORANGE, markersize=3, linewidth=1,
                )  # fmt: skip
        ax.set(xlabel="test accuracy (%)", ylim=(len(rows) - 0.4, -0.6), title=title)
        ax.set_yticks(range(len(rows)), [f"{row['name']}, {row['units']}" for row in rows])
        ax.grid(axis="y", color="0.9", linewidth=0.5)
        ax.set_axisbelow(True)
    for marker, colour, face, label in (
        ("o", GREY, GREY, "paper"),
        ("o", GREY, "white", "paper, not run here"),
        ("D", BLUE, BLUE, "here, 784 steps"),
        ("D", BLUE, "white", "here, 784 steps, run not complete"),
        ("s", ORANGE, ORANGE, "here, 196 steps, 64 units, mean ± sd"),
    ):
        axes[0].plot([], [], marker, color=colour, markerfacecolor=face, label=label, markersize=4)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
