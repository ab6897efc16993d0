"""The recurrent layer on a GPU: how quick it is there, and how exact.

    python -m benchmarks.gpu [--cpu] [--quick] [--seconds N] [--out FILE]

*Speed*: a training step, a forward and backward pass over whole sequences of one number a step with
the gradient of every weight, by `backend="scan"`, also with `products="bfloat16"`; by an eager
PyTorch loop of the same equations; and by PyTorch's LSTM, which is cuDNN's. The peers need PyTorch
with CUDA.

*Products*: the error of a product in float32 by default and at JAX's highest precision; a default
error above 1e-5 says that it is of numbers in TF32. *Steady states*: how many random circuits
converge in float32 with either, and how far they then are from those in float64.

It takes less than ten minutes on a GPU. Without one, `--cpu --quick` tries it.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from benchmarks._agenda import Agenda, Measurement
from benchmarks._common import command, command_line, conclude, spread, time_in_turn
from benchmarks._peers import BATCH, size_in_words, torch, torch_eager, torch_lstm
from organics.nn import ORGaNICs
from organics.rest.search import steady_state
from organics.trials import trial

SIZES = ((64, 784), (128, 784), (256, 784))
ROUNDS = 5
SECONDS = 540
PRECISIONS = ("default", "highest")
TF32 = 1e-5
"""A relative error above which products are not of numbers in float32."""
MATRIX, CIRCUITS = 2048, (100, 64)  # rows; neurons and their number


def run(
    out: Path | None = None,
    cpu: bool = False,
    quick: bool = False,
    seconds: float = SECONDS,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Time training steps, and compare products and steady states with those in float64.

    Arguments
        out: file for the result.
        cpu: measure on a CPU, where there is no GPU.
        quick: small sizes and two rounds; the times mean nothing.
        seconds: limit; what does not fit into it is left out.
        rounds: rounds for each size, at least five.

    Raises `ValueError` if JAX finds no GPU, unless `cpu`.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory, too
    platform = jax.default_backend()
    if platform != "gpu" and not cpu:
        raise ValueError(
            f"JAX finds no GPU, only {platform}: run this where there is one, with a JAX for it, "
            "or try it with --cpu --quick."
        )
    agenda = Agenda("gpu", rounds, quick=quick, seconds=seconds)
    device = None if torch is None else "cuda" if torch.cuda.is_available() else "cpu"
    if device is None:
        agenda.leave_out("PyTorch's loop and LSTM", "PyTorch is not installed")
    elif platform == "gpu" and device == "cpu":
        agenda.leave_out("PyTorch's loop and LSTM", "this PyTorch finds no GPU")
        device = None
    sizes = [(16, 20)] if quick else list(SIZES)
    matrix, (n, count) = (64, (5, 4)) if quick else (MATRIX, CIRCUITS)
    speeds = [
        Measurement(size_in_words(*size), 40, 3, partial(_speed, agenda, *size, device))
        for size in sizes
    ]
    exact = [
        Measurement("products", 10, 0.1, partial(_products, agenda, matrix)),
        Measurement("steady states", 60, 0, partial(_steady_states, n, count)),
    ]
    # what is short first: it is not to be left out
    measured = agenda.take([*exact, *speeds])
    found = {
        "device": jax.devices()[0].device_kind,
        "batch": BATCH,
        "torch": None if torch is None else torch.__version__,
        "torch_allows_tf32": None
        if torch is None
        else {
            "products": torch.backends.cuda.matmul.allow_tf32,
            "cudnn": torch.backends.cudnn.allow_tf32,
        },
        "products": measured.get("products"),
        "steady_states": measured.get("steady states"),
        "rows": [measured[one.what] for one in speeds if one.what in measured],
    }
    options = {
        "cpu": cpu,
        "quick": quick,
        "seconds": None if seconds == SECONDS else seconds,
        "rounds": None if rounds == ROUNDS else rounds,
    }
    return conclude(agenda, command("gpu", **options), found, out)


# ---- speed ---------------------------------------------------------------------------------------


def _speed(agenda: Agenda, n: int, steps: int, device: str | None) -> dict[str, Any]:
    functions = {
        "scan": _layer(n, steps),
        "scan, highest precision": _at("highest", _layer(n, steps)),
        "scan, bfloat16": _layer(n, steps, products="bfloat16"),
    }
    if device is not None:
        functions["torch eager"] = _waiting(torch_eager(n, steps, device), device)
        functions["torch LSTM"] = _waiting(torch_lstm(n, steps, device), device)
    time_in_turn(functions, range(2))  # compiles, and chooses algorithms
    seconds = time_in_turn(functions, agenda.rounds())
    scan = median(seconds["scan"])
    return {
        "units": n,
        "steps": steps,
        "seconds": {name: spread(times, 5) for name, times in seconds.items()},
        "over_scan": {
            name: round(median(times) / scan, 3)
            for name, times in seconds.items()
            if name != "scan"
        },
    }


def _layer(n: int, steps: int, **options: Any) -> Callable[[], Any]:
    layer = ORGaNICs(1, n, key=jr.key(0), dtype=np.float32, backend="scan", **options)
    x = jr.uniform(jr.key(1), (BATCH, steps, 1), np.float32)
    compiled = eqx.filter_jit(
        eqx.filter_grad(lambda layer, x: jnp.sum(layer(x, sequence=False)[0]))
    )
    return lambda: jax.block_until_ready(compiled(layer, x))


def _at(precision: str, function: Callable[[], Any]) -> Callable[[], Any]:
    def call():
        with jax.default_matmul_precision(precision):
            return function()

    return call


def _waiting(function: Callable[[], None], device: str) -> Callable[[], None]:
    """The same, until the device has done it."""

    def call():
        function()
        if device != "cpu":
            assert torch is not None
            torch.cuda.synchronize()

    return call


# ---- exactness -----------------------------------------------------------------------------------


def _products(agenda: Agenda, rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, rows, rows))
    exact = a.astype(np.float32).astype(float) @ b.astype(np.float32).astype(float)
    given = jax.device_put((a.astype(np.float32), b.astype(np.float32)))
    of = {precision: jax.jit(partial(jnp.matmul, precision=precision)) for precision in PRECISIONS}
    errors = {p: _far(np.asarray(product(*given)), exact) for p, product in of.items()}
    calls = {p: partial(_done, product, *given) for p, product in of.items()}
    seconds = time_in_turn(calls, agenda.rounds())
    return {
        "rows": rows,
        "errors": errors,
        "seconds": {precision: spread(times, 6) for precision, times in seconds.items()},
        "default_is_rounded": errors["default"] > TF32,
    }


def _done(function: Callable[..., Any], *given: Any) -> Any:
    return jax.block_until_ready(function(*given))


def _steady_states(n: int, count: int) -> dict[str, Any]:
    """Of random circuits with recurrent weights of norm 1."""
    with jax.enable_x64(True):
        drawn = [trial(0, index, n, 1.0) for index in range(count)]
        circuits, drives = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
        exact = jax.jit(jax.vmap(steady_state))(circuits, drives)
        true, known = np.asarray(exact.state.y), np.asarray(exact.converged)
        single = jax.tree.map(_in_float32, (circuits, drives))
    found: dict[str, Any] = {"n": n, "circuits": count, "converged_float64": int(np.sum(known))}
    for precision in PRECISIONS:
        with jax.default_matmul_precision(precision):
            points = jax.jit(jax.vmap(steady_state))(*single)
        good = np.asarray(points.converged) & known
        pairs = zip(np.asarray(points.state.y)[good], true[good], strict=True)
        gaps = [_far(y, want) for y, want in pairs]
        found[precision] = {
            "converged": int(np.sum(points.converged)),
            "largest_residual": float(np.max(points.residual)),
            "largest_error": max(gaps, default=None),
        }
    return found


def _in_float32(leaf: Any) -> Any:
    return jnp.asarray(leaf, np.float32) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf


def _far(got: Any, want: Any) -> float:
    return float(f"{np.linalg.norm(got - want) / np.linalg.norm(want):.3g}")


if __name__ == "__main__":
    command_line(run)
