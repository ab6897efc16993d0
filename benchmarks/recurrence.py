"""The recurrent layer compared with others, and with its bare matrix products.

    python -m benchmarks.recurrence [--quick] [--full] [--seconds N] [--out FILE]

One training step is a forward and backward pass over a whole sequence, with the gradient of every
weight. The *floor* is the time of its matrix products alone, in the largest products possible: for
each time step those of the gates together, W_r and W; the same for the data gradients; the weight
gradients as products over all steps; by PyTorch's or NumPy's BLAS, whichever is faster. Peers are
the same equations as an eager PyTorch loop, `torch.nn.LSTM`, and Equinox's LSTM under `lax.scan`,
all of the same width. They need PyTorch (`pip install '.[bench]'`); without it a file is written
only with `--without-torch`. Denormal numbers are flushed everywhere.
"""

import gc
import os
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from statistics import median
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
from benchmarks._peers import BATCH, circuits, size_in_words, torch, torch_eager, torch_lstm
from organics.kernels import native, recurrence
from organics.machine.side_by_side import apart

UNITS = (64, 128, 256)
STEPS = (196, 784, 3136)
USUAL = 128 * 784  # units times steps; larger sizes take minutes
ROUNDS = 5
MEMORY_SHARE = 0.3  # of the machine's memory; peers that keep more are left out
KEPT = {"torch_eager": 30, "torch_lstm": 12}  # arrays (batch, units) kept per step, about
SLOW_LIMIT = 1000  # steps beyond which JAX's own loops are left out
SCALING, MEMORY = "how time grows with steps and batch", "memory"
CLEAR_REFS = Path("/proc/self/clear_refs")

Functions = dict[str, Callable[[], Any]]


def run(
    out: Path | None = None,
    quick: bool = False,
    full: bool = False,
    seconds: float | None = None,
    units: tuple[int, ...] = (),
    steps: tuple[int, ...] = (),
    rounds: int = ROUNDS,
    without_torch: bool = False,
) -> dict[str, Any]:
    """Time training steps and inference for several numbers of units and steps.

    Arguments
        out: file for the result.
        quick: small sizes and two rounds; the times mean nothing.
        full: all sizes, including those that take minutes.
        seconds: limit; sizes that do not fit into it are left out.
        units, steps: sizes to time, every number of units with every number of steps.
        rounds: rounds for each size, at least five.
        without_torch: write the file even without PyTorch, and so without most peers.

    Raises `ValueError` for sizes that are not positive, and if `out` is given but PyTorch is
    missing, unless `without_torch`.
    """
    if any(size < 1 for size in (*units, *steps)):
        raise ValueError(f"`units` and `steps` must be positive, not {units} and {steps}.")
    agenda = Agenda("recurrence", rounds, quick=quick, seconds=seconds)
    prepare_torch(torch, "PyTorch's loop and LSTM", agenda, out, without_torch)
    sizes = dict.fromkeys((n, T) for T in steps or STEPS for n in units or UNITS)
    sizes = [(16, 20)] if quick else list(sizes)
    if not (full or units or steps):
        for size in [size for size in sizes if prod(size) > USUAL]:
            agenda.leave_out(size_in_words(*size), "only with --full")
            sizes.remove(size)
    measurements = [
        Measurement(size_in_words(*size), *_expected(*size), partial(_row, agenda, *size))
        for size in sizes
    ]
    measured = agenda.take(measurements + ([] if quick else _more(agenda)))
    rows = [measured[size_in_words(*size)] for size in sizes if size_in_words(*size) in measured]
    found = {
        "batch": BATCH,
        "instruction_set": native.instruction_set(),
        "targets": [goal for row in rows for goal in _targets(row)],
        "rows": rows,
        "scaling": measured.get(SCALING),
        "memory": measured.get(MEMORY),
        "torch": None if torch is None else torch.__version__,
    }
    options = {
        "quick": quick,
        "full": full,
        "seconds": seconds,
        "units": units or None,
        "steps": steps or None,
        "rounds": None if rounds == ROUNDS else rounds,
        "without_torch": without_torch,
    }
    return conclude(agenda, command("recurrence", **options), found, out)


def _expected(n: int, steps: int) -> tuple[float, float]:
    """Seconds before the first round, and per round: loops over time and their products."""
    each = (3.8e-5 + 2.2e-7 * n) * n * steps
    if steps > SLOW_LIMIT:
        each /= 2  # the slowest ones are left out
    return 8 + each, each


def _more(agenda: Agenda) -> list[Measurement]:
    """Further measurements besides the sizes."""
    scaling = Measurement(SCALING, 5, 1.1, partial(_scaling, agenda))
    if not CLEAR_REFS.exists():
        agenda.leave_out(MEMORY, f"there is no {CLEAR_REFS}")
        return [scaling]
    return [scaling, Measurement(MEMORY, 25, 0, _memory)]


def _row(agenda: Agenda, n: int, steps: int) -> dict[str, Any]:
    gc.collect()  # remains of the previous size
    training, inference = _functions(agenda, n, steps)
    functions = {f"training {name}": function for name, function in training.items()}
    functions |= {f"inference {name}": function for name, function in inference.items()}
    time_in_turn(functions, range(1))  # compiles
    seconds = time_in_turn(functions, agenda.rounds())
    trained = {name: seconds[f"training {name}"] for name in training}
    inferred = {name: seconds[f"inference {name}"] for name in inference}
    row = {
        "units": n,
        "steps": steps,
        "training_seconds": {name: spread(times) for name, times in trained.items()},
        "inference_seconds": {name: spread(times) for name, times in inferred.items()},
    }
    best = _kernels()[-1]
    ours = median(trained[best])
    floor = min(median(times) for name, times in trained.items() if name.startswith("floor"))
    row["training_over_floor"] = round(ours / floor, 3)
    row["inference_over_floor"] = round(
        median(inferred[best])
        / min(median(times) for name, times in inferred.items() if name.startswith("floor")),
        3,
    )
    row["times_faster_than"] = {
        name: round(median(trained[name]) / ours, 3)
        for name in ("torch_eager", "torch_lstm", "equinox_lstm", "scan")
        if name in trained
    }
    return row


def _functions(agenda: Agenda, n: int, steps: int) -> tuple[Functions, Functions]:
    """The functions timed at this size, for training and inference."""
    training: Functions = {"floor_numpy": _floor_numpy(n, steps, True)}
    inference: Functions = {"floor_numpy": _floor_numpy(n, steps, False)}
    if torch is not None:
        training["floor_torch"] = _floor_torch(n, steps, True)
        inference["floor_torch"] = _floor_torch(n, steps, False)
    for name, make in _trainers().items():
        if why_not := _why_not(name, n, steps):
            agenda.leave_out(f"{size_in_words(n, steps)}, {name}", why_not)
            continue
        training[name] = make(n, steps)
        if name in _kernels():
            inference[name] = circuits(n, steps, name, False)
    return training, inference


def _why_not(name: str, n: int, steps: int) -> str | None:
    """The reason why it is not timed at this size, or None."""
    if steps > SLOW_LIMIT and name in ("scan", "equinox_lstm") and name != _kernels()[-1]:
        return f"more than {SLOW_LIMIT:,} steps"
    if KEPT.get(name, 0) * steps * BATCH * n * 4 > MEMORY_SHARE * _memory_of_machine():
        return "wants too much memory"
    return None


def _trainers() -> dict[str, Callable[[int, int], Callable[[], Any]]]:
    """Our layer and its peers, each a factory of training steps for given units and steps."""
    trainers: dict[str, Callable[[int, int], Callable[[], Any]]] = {
        kernel: partial(circuits, kernel=kernel, training=True) for kernel in _kernels()
    }
    trainers["equinox_lstm"] = _equinox_lstm
    if torch is not None:
        trainers |= {"torch_lstm": torch_lstm, "torch_eager": torch_eager}
    return trainers


def _kernels() -> list[recurrence.Backend]:
    """The available backends of the layer; the last one is its default."""
    return ["scan", "native"] if native.unavailable() is None else ["scan"]


def _targets(row: dict[str, Any]) -> list[dict[str, Any]]:
    n, steps = row["units"], row["steps"]
    if steps != 784 or n not in (64, 128):
        return []
    where = f"{n} units, {steps} steps: "
    faster = row["times_faster_than"]
    goals = [
        target(where + "training over the floor", row["training_over_floor"], "at most", 1.5),
        target(where + "inference over the floor", row["inference_over_floor"], "at most", 1.3),
    ]
    if "torch_eager" in faster:
        bound = 5 if n == 64 else 3.5
        what = where + "times faster than the eager loop"
        goals.append(target(what, faster["torch_eager"], "at least", bound))
    if "torch_lstm" in faster:
        goals.append(
            target(where + "times faster than its LSTM", faster["torch_lstm"], "at least", 1)
        )
    return goals


# ---- the floor -----------------------------------------------------------------------------------


def _floor_numpy(n: int, steps: int, training: bool) -> Callable[[], None]:
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    gates, square = draw(2 * n, 2 * n), draw(n, n)
    wide, narrow = draw(BATCH, 2 * n), draw(BATCH, n)
    wide_out, narrow_out = np.empty_like(wide), np.empty_like(narrow)
    all_wide = draw(steps * BATCH, 2 * n) if training else wide
    all_narrow = draw(steps * BATCH, n) if training else narrow

    def products():
        for _ in range(2 * steps if training else steps):
            np.matmul(wide, gates, out=wide_out)
            np.matmul(narrow, square, out=narrow_out)
            np.matmul(narrow, square, out=narrow_out)
        if training:
            all_wide.T @ all_wide
            all_narrow.T @ all_narrow
            all_narrow.T @ all_narrow

    return products


def _floor_torch(n: int, steps: int, training: bool) -> Callable[[], None]:
    assert torch is not None
    gates, square = torch.randn(2 * n, 2 * n), torch.randn(n, n)
    wide, narrow = torch.randn(BATCH, 2 * n), torch.randn(BATCH, n)
    wide_out, narrow_out = torch.empty_like(wide), torch.empty_like(narrow)
    all_wide = torch.randn(steps * BATCH if training else 1, 2 * n)
    all_narrow = torch.randn(steps * BATCH if training else 1, n)

    def products():
        with torch.no_grad():
            for _ in range(2 * steps if training else steps):
                torch.mm(wide, gates, out=wide_out)
                torch.mm(narrow, square, out=narrow_out)
                torch.mm(narrow, square, out=narrow_out)
            if training:
                all_wide.T @ all_wide
                all_narrow.T @ all_narrow
                all_narrow.T @ all_narrow

    return products


# ---- peers ---------------------------------------------------------------------------------------


def _equinox_lstm(n: int, steps: int) -> Callable[[], Any]:
    cell = eqx.nn.LSTMCell(1, n, key=jr.key(0), dtype=jnp.float32)
    x = jr.uniform(jr.key(1), (steps, BATCH, 1), jnp.float32)

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(cell):
        start = (jnp.zeros((BATCH, n), jnp.float32),) * 2
        final, _ = jax.lax.scan(lambda s, x: (jax.vmap(cell)(x, s), None), start, x)
        return jnp.sum(final[0])

    return lambda: jax.block_until_ready(gradient(cell))


# ---- how it grows --------------------------------------------------------------------------------


def _scaling(agenda: Agenda) -> dict[str, Any]:
    """Seconds of a training step of 64 units for several numbers of steps and batch sizes."""
    kernel = _kernels()[-1]
    cases = {f"steps_{T}": circuits(64, T, kernel, True) for T in STEPS}
    cases |= {f"batch_{B}": circuits(64, 784, kernel, True, B) for B in (64, 256, 1024)}
    time_in_turn(cases, range(1))  # compiles
    return {name: spread(times) for name, times in time_in_turn(cases, agenda.rounds()).items()}


def _memory() -> dict[str, Any]:
    """Growth in bytes of a process in a training step of 64 units and 784 steps, beyond its size
    after one of 8 steps (libraries, compiled code); each in a process of its own."""
    found: dict[str, Any] = {
        name: apart(_growth, name) for name in _trainers() if name != "equinox_lstm"
    }
    if "torch_eager" in found:
        found["eager_over_ours"] = round(found["torch_eager"] / found[_kernels()[-1]], 2)
    return found


def _growth(name: str) -> int:
    """The measurement of `_memory`, in a process that does nothing else."""
    make = _trainers()[name]
    make(64, 8)()
    gc.collect()
    CLEAR_REFS.write_text("5")  # reset the peak
    before = _peak_memory()
    make(64, 784)()
    return _peak_memory() - before


def _memory_of_machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _peak_memory() -> int:
    """Peak resident memory of this process since the last reset, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    command_line(run)
