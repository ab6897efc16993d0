"""The recurrent layer in PyTorch, compared with PyTorch's own and with the layer in JAX.

    python -m benchmarks.torch_layer [--quick] [--seconds N] [--out FILE]

One training step is a forward and backward pass over a whole sequence, with the gradient of every
weight, in single precision, on two processors. The layer is `organics.torch.ORGaNICs`, by the
native kernel: "layer" stores the last output only, as the loss of all needs; "layer_outputs" stores
and returns every output, as `torch.nn.LSTM` does. Peers are the same equations as an eager PyTorch
loop, `torch.nn.LSTM`, and the layer in JAX, all of the same width. Denormal numbers are flushed
everywhere. Needs PyTorch (`pip install '.[bench]'`).
"""

import gc
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

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
from benchmarks._peers import (
    BATCH,
    circuits,
    of_jax,
    problem,
    size_in_words,
    torch,
    torch_eager,
    torch_lstm,
)
from organics.kernels import library, native

SIZES = [(n, steps) for steps in (196, 784) for n in (64, 128)]
THREADS = 2
ROUNDS = 5
OVER_EAGER, OVER_LSTM, OVER_JAX = 4, 1, 1.1


def run(
    out: Path | None = None,
    quick: bool = False,
    seconds: float | None = None,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Time training steps for several numbers of units and steps.

    Arguments
        out: file for the result.
        quick: small sizes and two rounds; the times mean nothing.
        seconds: limit; sizes that do not fit into it are left out.
        rounds: rounds for each size, at least five.

    Raises `ValueError` if PyTorch or the native kernel is missing.
    """
    agenda = Agenda("torch_layer", rounds, quick=quick, seconds=seconds)
    if torch is None or (reason := native.unavailable()) is not None:
        lacking = "PyTorch: `pip install '.[bench]'`" if torch is None else f"the kernel: {reason}"
        raise ValueError(f"this benchmark needs {lacking}.")
    prepare_torch(torch, "", agenda, out, False)
    if hasattr(os, "sched_setaffinity"):  # before JAX counts the processors
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    torch.set_num_threads(THREADS)
    sizes = [(16, 20)] if quick else SIZES
    measured = agenda.take(
        [
            Measurement(size_in_words(*size), *_expected(*size), partial(_row, agenda, *size))
            for size in sizes
        ]
    )
    rows = list(measured.values())
    found = {
        "batch": BATCH,
        "threads": THREADS,
        "instruction_set": library.load().instructions,
        "targets": [] if quick else [goal for row in rows for goal in _targets(row)],
        "rows": rows,
        "torch": torch.__version__,
    }
    options = {
        "quick": quick,
        "seconds": seconds,
        "rounds": None if rounds == ROUNDS else rounds,
    }
    return conclude(agenda, command("torch_layer", **options), found, out)


def _expected(n: int, steps: int) -> tuple[float, float]:
    """Seconds before the first round, and per round."""
    each = (2.5e-5 + 1.5e-7 * n) * n * steps
    return 4 + each, each


def _row(agenda: Agenda, n: int, steps: int) -> dict[str, Any]:
    gc.collect()  # remains of the previous size
    functions: dict[str, Callable[[], Any]] = {
        "layer": _layer(n, steps, sequence=False),
        "layer_outputs": _layer(n, steps, sequence=True),
        "jax": circuits(n, steps, "native", True),
        "torch_lstm": torch_lstm(n, steps),
        "torch_eager": torch_eager(n, steps),
    }
    time_in_turn(functions, range(1))  # compiles
    seconds = time_in_turn(functions, agenda.rounds())
    took = {name: median(times) for name, times in seconds.items()}
    return {
        "units": n,
        "steps": steps,
        "training_seconds": {name: spread(times) for name, times in seconds.items()},
        "times_faster_than_eager": round(took["torch_eager"] / took["layer"], 3),
        "times_faster_than_lstm": round(took["torch_lstm"] / took["layer_outputs"], 3),
        "over_jax": round(took["layer"] / took["jax"], 3),
    }


def _layer(n: int, steps: int, sequence: bool) -> Callable[[], None]:
    """The layer in PyTorch with the weights of the layer in JAX; it must give the same numbers."""
    from organics.torch import ORGaNICs

    assert torch is not None
    made = ORGaNICs.from_jax(of_jax(n), backend="native")
    x = torch.tensor(np.asarray(problem(n, steps)[1]))
    with torch.no_grad():
        y, _ = made(x, sequence=False)
    want = np.asarray(circuits(n, steps, "native", False)())[:, :n]
    np.testing.assert_allclose(y.numpy(), want, rtol=1e-3, atol=1e-4)

    def train():
        made.zero_grad()
        y, _ = made(x, sequence=sequence)
        (y[-1] if sequence else y).sum().backward()

    return train


def _targets(row: dict[str, Any]) -> list[dict[str, Any]]:
    where = size_in_words(row["units"], row["steps"]) + ": "
    return [
        target(where + "times faster than the eager loop", row["times_faster_than_eager"],
               "at least", OVER_EAGER),
        target(where + "times faster than torch.nn.LSTM", row["times_faster_than_lstm"],
               "at least", OVER_LSTM),
        target(where + "over the layer in JAX", row["over_jax"], "at most", OVER_JAX),
    ]  # fmt: skip


if __name__ == "__main__":
    command_line(run)
