"""The comparison models by the native kernels: against PyTorch's LSTM, and against their scans.

    python -m benchmarks.cells [--quick] [--seconds N] [--out FILE]

One training step is forward and backward over a whole sequence, to the gradient of every parameter,
in single precision. LSTM is measured against `torch.nn.LSTM`, which needs PyTorch
(`pip install '.[bench]'`); the others against `jax.lax.scan` of the same equations. The *floor* are
the matrix products with the state alone: those of every step, those of its cotangents, and the
weights' gradients as products over all steps; by NumPy's BLAS. Denormal numbers are flushed where
that can be said.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import (
    command,
    command_line,
    conclude,
    prepare_torch,
    spread,
    target,
    time_in_turn,
)
from organics.baselines import build
from organics.kernels import native
from organics.names import Backend, BaselineName

try:
    import torch
except ImportError:
    torch = None

BATCH = 128
LSTM_SIZES = [(n, steps) for steps in (196, 784) for n in (64, 128, 256)]
OTHERS: tuple[BaselineName, ...] = ("cornn", "lipschitz", "antisymmetric", "lem")
UNITS, STEPS = 128, 784  # of the others
ROUNDS = 5
FASTER_THAN_TORCH, FASTER_THAN_SCAN = 2, 4
ENSEMBLE = 8  # layers of 32 sequences each, against one of all of these
ENSEMBLE_AT_MOST = 1.2  # times as long

Functions = dict[str, Callable[[], Any]]


def run(
    out: Path | None = None,
    quick: bool = False,
    seconds: float | None = None,
    rounds: int = ROUNDS,
    without_torch: bool = False,
) -> dict[str, Any]:
    """Time training steps and inference of the comparison models.

    Arguments
        out: file for the result.
        quick: small sizes, two rounds; the times mean nothing.
        seconds: limit; sizes for which there is no time are left out.
        rounds: how often each is timed, at least five times.
        without_torch: write the file even if PyTorch is not there.

    Raises `ValueError` if there is no native kernel, and if there is a file to write and no
    PyTorch, unless `without_torch` says so.
    """
    if (why := native.unavailable()) is not None:
        raise ValueError(f"there is no native kernel to measure: {why}.")
    agenda = Agenda("cells", rounds, quick=quick, seconds=seconds)
    prepare_torch(torch, "PyTorch's LSTM", agenda, out, without_torch)
    sizes = [("lstm", 16, 20), ("lem", 16, 20)] if quick else _sizes()
    measurements = [
        Measurement(_words(*size), *_expected(*size), partial(_row, agenda, *size))
        for size in sizes
    ]
    ensemble = Measurement("ensemble", 3, 0.2, partial(_ensemble, agenda))
    measured = agenda.take([*measurements, *([] if quick else [ensemble])])
    rows = [measured[_words(*size)] for size in sizes if _words(*size) in measured]
    found = {
        "batch": BATCH,
        "instruction_set": native.instruction_set(),
        "targets": _targets(rows, measured.get("ensemble")),
        "rows": rows,
        "ensemble": measured.get("ensemble"),
        "torch": None if torch is None else torch.__version__,
    }
    options = {
        "quick": quick,
        "seconds": seconds,
        "rounds": None if rounds == ROUNDS else rounds,
        "without_torch": without_torch,
    }
    return conclude(agenda, command("cells", **options), found, out)


def _sizes() -> list[tuple[BaselineName, int, int]]:
    return [
        *[("lstm", n, steps) for n, steps in LSTM_SIZES],
        *[(name, UNITS, STEPS) for name in OTHERS],
    ]


def _words(name: BaselineName, n: int, steps: int) -> str:
    return f"{name}, {n} units, {steps:,} steps"


def _expected(name: BaselineName, n: int, steps: int) -> tuple[float, float]:
    """Seconds until the first round, and of a round."""
    each = 1.2e-7 * n * (n + 60) * steps * (1 if name == "lstm" else 1.5)
    return 3 + each, each


def _row(agenda: Agenda, name: BaselineName, n: int, steps: int) -> dict[str, Any]:
    functions: Functions = {}
    for training in (True, False):
        made: Functions = {
            "native": _layer(name, n, steps, "native", training),
            "floor": _floor(name, n, steps, training),
        }
        if name != "lstm":
            made["scan"] = _layer(name, n, steps, "scan", training)
        elif torch is not None:
            made["torch"] = _torch_lstm(n, steps, training)
        kind = "training" if training else "inference"
        functions |= {f"{kind} {one}": function for one, function in made.items()}
    time_in_turn(functions, range(1))  # compiles
    seconds = {
        what: spread(times) for what, times in time_in_turn(functions, agenda.rounds()).items()
    }
    row: dict[str, Any] = {"model": name, "units": n, "steps": steps}
    for kind in ("training", "inference"):
        times = {
            what.removeprefix(f"{kind} "): found
            for what, found in seconds.items()
            if what.startswith(kind)
        }
        row[f"{kind}_seconds"] = times
        row[f"{kind}_times_faster_than"] = {
            what: round(found["median"] / times["native"]["median"], 3)
            for what, found in times.items()
            if what != "native"
        }
    return row


def _targets(rows: list[dict[str, Any]], ensemble: dict[str, Any] | None) -> list[dict[str, Any]]:
    goals = []
    for row in rows:
        where = _words(row["model"], row["units"], row["steps"])
        for peer, least in (("torch", FASTER_THAN_TORCH), ("scan", FASTER_THAN_SCAN)):
            faster = row["training_times_faster_than"].get(peer)
            if faster is not None:
                what = f"{where}: training, times faster than {peer}"
                goals.append(target(what, faster, "at least", least))
    if ensemble is not None:
        what = f"{ENSEMBLE} LSTMs of 32 sequences over one of {32 * ENSEMBLE}"
        goals.append(target(what, ensemble["over_one"], "at most", ENSEMBLE_AT_MOST))
    return goals


# ---- what is timed -------------------------------------------------------------------------------


def _made(name: BaselineName, n: int, backend: Backend) -> tuple[Any, Any]:
    """The arrays of a layer, and the rest of it."""
    layer = build(name, 1, n, key=jr.key(0), dtype=jnp.float32, backend=backend)
    return eqx.partition(layer, eqx.is_array)


def _last(static: Any, arrays: Any, x: jax.Array) -> jax.Array:
    return eqx.combine(arrays, static)(x, sequence=False)[0]


def _layer(
    name: BaselineName, n: int, steps: int, backend: Backend, training: bool
) -> Callable[[], Any]:
    arrays, static = _made(name, n, backend)
    x = jr.uniform(jr.key(1), (BATCH, steps, 1), jnp.float32)
    value = partial(_last, static)
    gradient = jax.grad(lambda arrays, x: jnp.sum(value(arrays, x)))
    compiled = jax.jit(gradient if training else value)
    return lambda: jax.block_until_ready(compiled(arrays, x))


def _floor(name: BaselineName, n: int, steps: int, training: bool) -> Callable[[], None]:
    """Products with the matrices that the layer's cell has."""
    arrays, static = _made(name, n, "native")
    layer = eqx.combine(arrays, static)
    matrices = [np.asarray(matrix) for matrix in layer.parameters(layer.matrix()).matrices]
    draw = lambda *shape: np.random.default_rng(0).normal(size=shape).astype(np.float32)  # noqa: E731
    rows = steps * BATCH if training else BATCH
    states = [draw(rows, matrix.shape[1]) for matrix in matrices]
    received = [draw(rows, matrix.shape[0]) for matrix in matrices]

    def products():
        for _ in range(steps):
            for matrix, state, to in zip(matrices, states, received, strict=True):
                np.matmul(state[:BATCH], matrix.T, out=to[:BATCH])
        if not training:
            return
        for _ in range(steps):
            for matrix, state, to in zip(matrices, states, received, strict=True):
                np.matmul(to[:BATCH], matrix, out=state[:BATCH])
        for state, to in zip(states, received, strict=True):
            to.T @ state

    return products


def _torch_lstm(n: int, steps: int, training: bool) -> Callable[[], Any]:
    assert torch is not None
    lstm = torch.nn.LSTM(1, n)
    x = torch.rand(steps, BATCH, 1)

    def train():
        lstm.zero_grad()
        lstm(x)[0][-1].sum().backward()

    def infer():
        with torch.no_grad():
            lstm(x)

    return train if training else infer


def _ensemble(agenda: Agenda) -> dict[str, Any]:
    """Seconds of a training step of several LSTMs under `jax.vmap`, and of one with a batch of as
    many sequences in all, of 64 units and 196 steps."""
    arrays, static = _made("lstm", 64, "native")
    several = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (ENSEMBLE, *leaf.shape)), arrays)
    x = jr.uniform(jr.key(1), (ENSEMBLE, 32, 196, 1), jnp.float32)
    gradient = jax.grad(lambda arrays, x: jnp.sum(_last(static, arrays, x)))
    mapped, alone = jax.jit(jax.vmap(gradient)), jax.jit(gradient)
    whole = x.reshape(-1, *x.shape[2:])
    cases = {
        "several": lambda: jax.block_until_ready(mapped(several, x)),
        "one": lambda: jax.block_until_ready(alone(arrays, whole)),
    }
    time_in_turn(cases, range(1))  # compiles
    found = {what: spread(times) for what, times in time_in_turn(cases, agenda.rounds()).items()}
    over_one = found["several"]["median"] / found["one"]["median"]
    return {**found, "over_one": round(over_one, 3)}


if __name__ == "__main__":
    command_line(run)
