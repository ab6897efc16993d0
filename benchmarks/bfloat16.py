"""Products of numbers in bfloat16: how quick they are, and what they cost in accuracy.

    python -m benchmarks.bfloat16 [--quick] [--seconds N] [--out FILE] [--trained FOLDER]

*Speed*: one training step is a forward and backward pass over whole sequences of one number a step,
with the gradient of every weight; *inference* is the forward pass. *Emulated* are the same products
by the instructions of processors without them, *pairs* by AVX512-BF16 on processors with AMX.

*Errors* are those of trained networks on images of the test set, relative to float64: the norm of
the difference over the norm, of the outputs after the last step and of the gradient of the loss for
all weights. *Test* has the accuracies on the whole test set, and how many answers differ. Nothing
is trained.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, target, time_in_turn
from organics.baselines import build
from organics.data import DataUnavailable
from organics.kernels import library, native
from organics.names import ProductType
from organics.nn import ORGaNICs
from organics.training.run_folder import RunFolder
from organics.training.task import task_of

MODELS = ("organics", "lstm")
UNITS = (64, 128, 256)
STEPS = {1: 784, 3: 20, 32: 196, 256: 50}
"""Steps of so many sequences."""
BATCHES = (1, 32, 256)
ROUNDS = 7
KINDS: tuple[ProductType, ...] = ("full", "bfloat16")
OLDER = {"emulated": "avx512", "pairs": "avx512bf16"}
"""Instructions that are also tried on processors with newer ones."""
TRAINED = Path("results/trained")
RUNS = (
    "smnist-organics-identity-64-seed0",
    "psmnist-organics-identity-64-seed0",
    "smnist-organics-identity-128-seed0",
    "psmnist-organics-identity-128-seed0",
    "smnist-antisymmetric-128-seed0",
    "short/psmnist14-organics-64-seed0",
    "short/psmnist14-lstm-clipped-64-seed0",
)
EXAMPLES = 64
"""Images of which errors are measured."""
AT_ONCE = 500


def run(
    out: Path | None = None,
    quick: bool = False,
    seconds: float | None = None,
    rounds: int = ROUNDS,
    trained: Path = TRAINED,
) -> dict[str, Any]:
    """Time training steps and inference, and evaluate trained networks.

    Arguments
        out: file for the result.
        quick: a small size, two rounds and one network; the times mean nothing.
        seconds: limit; what does not fit into it is left out.
        rounds: rounds for each size, at least five.
        trained: folder of trained networks.
    """
    agenda = Agenda("bfloat16", rounds, quick=quick, seconds=seconds)
    sizes = [("organics", 16, 3)] if quick else [
        (model, n, batch) for model in MODELS for n in UNITS for batch in BATCHES
    ]  # fmt: skip
    speeds = [
        Measurement(_words(*size), 6, _guess(*size[1:]), partial(_speed, agenda, *size))
        for size in sizes
    ]
    runs = [
        Measurement(f"errors of {name}", 8, 0, partial(_errors, agenda, trained / name))
        for name in (RUNS[-1:] if quick else RUNS)
    ]
    measured = agenda.take([*speeds, *runs])
    rows = [measured[one.what] for one in speeds if one.what in measured]
    found = {
        "instruction_set": native.instruction_set(),
        "targets": [
            target(
                f"{_words(row['model'], row['units'], row['batch'])}: training, full over bfloat16",
                row["training"]["full_over_bfloat16"], "at least", 1.0,
            )
            for row in rows
        ],
        "rows": rows,
        "errors": [measured[one.what] for one in runs if measured.get(one.what)],
    }  # fmt: skip
    options = {"quick": quick, "seconds": seconds, "rounds": None if rounds == ROUNDS else rounds}
    if trained != TRAINED:
        options["trained"] = trained
    return conclude(agenda, command("bfloat16", **options), found, out)


def _guess(n: int, batch: int) -> float:
    """Seconds of a round."""
    return 3e-8 * n**1.5 * max(batch, 4) * STEPS[batch]


def _words(model: str, n: int, batch: int) -> str:
    return f"{model}, {n} units, {batch} sequences"


# ---- speed ---------------------------------------------------------------------------------------


def _speed(agenda: Agenda, model: Any, n: int, batch: int) -> dict[str, Any]:
    functions = {}
    for what in ("training", "inference"):
        make = partial(_function, model, n, batch, training=what == "training")
        functions |= {f"{what} {kind}": make(kind) for kind in KINDS}
        for name, instructions in _older().items():
            functions[f"{what} {name}"] = _by(instructions, make("bfloat16"))
    time_in_turn(functions, range(1))  # compiles
    seconds = time_in_turn(functions, agenda.rounds())
    row: dict[str, Any] = {"model": model, "units": n, "batch": batch, "steps": STEPS[batch]}
    for what in ("training", "inference"):
        times = {k.split()[1]: v for k, v in seconds.items() if k.startswith(what)}
        full = median(times["full"])
        row[what] = {
            "seconds": {kind: spread(one, 5) for kind, one in times.items()},
            **{f"full_over_{k}": round(full / median(one), 3)
               for k, one in times.items() if k != "full"},
        }  # fmt: skip
    return row


def _function(model: Any, n: int, batch: int, kind: ProductType, training: bool) -> Callable:
    options = {"key": jr.key(0), "dtype": np.float32, "products": kind}
    make = ORGaNICs if model == "organics" else partial(build, model)
    layer = make(1, n, **options)
    x = jr.uniform(jr.key(2), (batch, STEPS[batch], 1), np.float32)

    def value(layer, x):
        return jnp.sum(jnp.square(layer(x, sequence=False)[0]))

    compiled = eqx.filter_jit(eqx.filter_grad(value) if training else value)
    return lambda: jax.block_until_ready(compiled(layer, x))


def _older() -> dict[str, str]:
    """Those of `OLDER` that are older than the instructions in use."""
    order = library.INSTRUCTION_SETS
    used = native.instruction_set()
    newest = order.index(used) if used else 0
    return {name: one for name, one in OLDER.items() if order.index(one) < newest}


def _by(instructions: str, function: Callable) -> Callable:
    """The same by older instructions."""
    handle, used = library.load().handle, native.instruction_set()
    assert handle is not None and used is not None

    def call():
        handle.organics_use(instructions.encode())
        try:
            with mock.patch.object(library, "tiled", lambda _: False):
                return function()
        finally:
            handle.organics_use(used.encode())

    return call


# ---- accuracy ------------------------------------------------------------------------------------


def _errors(agenda: Agenda, path: Path) -> dict[str, Any] | None:
    folder = RunFolder.open(path)
    of = {kind: task_of(dataclasses.replace(folder.config, products=kind)) for kind in KINDS}
    models = {
        kind: folder.load_model(eqx.filter_eval_shape(task.build)) for kind, task in of.items()
    }
    try:
        examples = of["full"].sets(of["full"].load()).test
    except DataUnavailable as error:
        agenda.leave_out(f"errors of {path.name}", str(error))
        return None
    some = examples.take(jnp.arange(EXAMPLES), jnp.float32)
    found = {kind: _outputs_and_gradients(model, *some) for kind, model in models.items()}
    with jax.enable_x64(True):
        double = lambda tree: jax.tree.map(  # noqa: E731
            lambda leaf: leaf.astype(np.float64) if eqx.is_inexact_array(leaf) else leaf, tree
        )
        exact = _outputs_and_gradients(*double((models["full"], *some)))
    answers = {kind: _answers(model, examples) for kind, model in models.items()}
    labels = np.asarray(examples.labels)
    config = folder.config
    return {
        "run": path.name,
        "model": config.model,
        "units": config.units,
        "steps": int(some[0].shape[1]),
        "errors": {
            kind: {"outputs": _far(one[0], exact[0]), "gradient": _far(one[1], exact[1])}
            for kind, one in found.items()
        },
        "test": {
            "examples": len(labels),
            **{f"accuracy_{k}": round(float(np.mean(a == labels)), 4) for k, a in answers.items()},
            "answers_that_differ": int(np.sum(answers["full"] != answers["bfloat16"])),
        },
    }


@eqx.filter_jit
def _outputs_and_gradients(model: Any, x, labels):
    gradient = eqx.filter_grad(lambda model: model.loss(x, labels)[0])(model)
    return model(x), gradient


def _answers(model: Any, examples: Any) -> np.ndarray:
    predict = eqx.filter_jit(lambda model, x: jnp.argmax(model(x), axis=-1))
    parts = np.arange(examples.size).reshape(-1, AT_ONCE)
    return np.concatenate(
        [predict(model, examples.take(jnp.asarray(part), jnp.float32)[0]) for part in parts]
    )


def _far(got: Any, want: Any) -> float:
    """The norm of the difference of all numbers over the norm."""
    flat = [
        np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])
        for tree in (got, want)
    ]
    return float(f"{np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1]):.3g}")


if __name__ == "__main__":
    command_line(run)
