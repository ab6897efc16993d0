"""Trials made on the fly, against NeuroGym.

    python -m benchmarks.tasks [--quick] [--seconds N] [--without-neurogym] [--out FILE]

Trials per second of `organics.data.tasks.batch` in a compiled loop over batches, as a training step
has it, and of NeuroGym's `new_trial`, which makes the inputs and the classes of one trial; of each
task that both have. NeuroGym is not among the dependencies (`pip install neurogym`).
"""

import importlib
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.random as jr
from jaxtyping import Array

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target, time_in_turn
from organics.data.tasks import Task, Trials, batch, build

TASKS = {
    "match-to-sample": ("DelayMatchSample", {}),
    "match-to-category": ("DelayMatchCategory", {}),
    "parametric": ("DelayComparison", {}),
    "paired-association": ("DelayPairedAssociation", {}),
    "dual-match": ("DualDelayMatchSample", {}),
    "perceptual-decision": ("PerceptualDecisionMaking", {}),
    "delayed-decision": ("PerceptualDecisionMakingDelayResponse", {}),
    "pulse-decision": ("PulseDecisionMaking", {}),
    "context-decision": ("ContextDecisionMaking", {"use_expl_context": True}),
    "multisensory": ("MultiSensoryIntegration", {}),
    "go-nogo": ("GoNogo", {}),
    "anti-reach": ("AntiReach", {}),
    "interval-discrimination": ("IntervalDiscrimination", {}),
    "ready-set-go": ("ReadySetGo", {}),
}
SIZE = 1_000
BATCHES = 50
THEIRS = 300
AT_LEAST = 100


def run(
    out: Path | None = None,
    quick: bool = False,
    seconds: float | None = None,
    without_neurogym: bool = False,
) -> dict[str, Any]:
    """Time the making of trials.

    Arguments
        out: file for the result.
        quick: two rounds instead of seven, of two tasks.
        seconds: limit; with less time fewer rounds, or no result.
        without_neurogym: write the file even if NeuroGym is not installed.
    """
    agenda = Agenda("tasks", 7, quick=quick, seconds=seconds)
    neurogym = _neurogym()
    if neurogym is None:
        if out is not None and not without_neurogym:
            raise ValueError(
                f"{out} is to have NeuroGym's times, but it is not installed: `pip install "
                "neurogym`, or `python -m benchmarks.tasks --without-neurogym`."
            )
        agenda.leave_out("neurogym", "NeuroGym is not installed")
    names = list(TASKS)[:2] if quick else list(TASKS)
    measurements = [
        Measurement(name, 1.5, 0.15, partial(_rates, agenda, neurogym, name)) for name in names
    ]
    found = agenda.take(measurements)
    document: dict[str, Any] = {"trials_per_second": found, "batch": SIZE, "batches": BATCHES}
    ratios = {name: one["ratio"] for name, one in found.items() if "ratio" in one}
    if ratios:
        least = min(ratios, key=lambda name: ratios[name])
        document["targets"] = [
            target(f"times NeuroGym's trials per second, {least}", ratios[least], "at least",
                   AT_LEAST)
        ]  # fmt: skip
        document["targets_met"] = sum(ratio >= AT_LEAST for ratio in ratios.values())
    return conclude(
        agenda,
        command("tasks", quick=quick, seconds=seconds, without_neurogym=without_neurogym),
        document,
        out,
    )


def _neurogym() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("neurogym")
    except ImportError:
        return None


@partial(jax.jit, static_argnums=0)
def _last_of_many(task: Task, key: Array) -> Trials:
    """The last of many batches, all of which are made."""

    def make(i, _):
        return batch(task, jr.fold_in(key, i), SIZE)

    return jax.lax.fori_loop(1, BATCHES, make, make(0, None))


def _rates(agenda: Agenda, neurogym: Any, name: str) -> dict[str, Any]:
    task, key = build(name), jr.key(0)
    functions = {"organics": lambda: jax.block_until_ready(_last_of_many(task, key))}
    if neurogym is not None:
        kind, options = TASKS[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            environment = neurogym.make(f"{kind}-v0", **options).unwrapped
            environment.reset(seed=0)
        functions["neurogym"] = lambda: [environment.new_trial() for _ in range(THEIRS)]
    time_in_turn(functions, range(2))  # compiles
    seconds = time_in_turn(functions, agenda.rounds())
    counts = {"organics": BATCHES * SIZE, "neurogym": THEIRS}
    rates = {
        who: spread([counts[who] / time for time in times], 0) for who, times in seconds.items()
    }
    found: dict[str, Any] = {"steps": task.steps, "inputs": task.input_size, **rates}
    if "neurogym" in rates:
        found["ratio"] = round(rates["organics"]["median"] / rates["neurogym"]["median"], 1)
    return found


if __name__ == "__main__":
    command_line(run)
