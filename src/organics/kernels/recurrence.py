"""A recurrence over a sequence, and the choice of how to compute it."""

import math
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, PyTree

from organics.arguments import require_among
from organics.kernels import native, refusals, scan
from organics.kernels.cells import Equations
from organics.kernels.padding import blank, going
from organics.machine.mesh import alike, by_shares
from organics.names import Backend, Memory


def choose(backend: Backend) -> Literal["native", "scan"]:
    """The kernel that `backend` means: "auto" is the quickest on JAX's default device.

    Raises `ValueError` for an unknown name, and if "native" is named and not available.
    """
    require_among("backend", backend, Backend)
    if backend == "native" and (reason := native.unavailable()) is not None:
        raise ValueError(f"`backend` must not be 'native' here: {reason}.")
    if backend == "auto":
        on_cpu = jax.default_backend() == "cpu"
        return "native" if on_cpu and native.unavailable() is None else "scan"
    return backend


def run(
    equations: Equations,
    weights: PyTree,
    x: Float[Array, "steps batch m"],
    state: Float[Array, "batch k"],
    lengths: Int32[Array, " batch"] | None = None,
    *,
    sequence: bool = True,
    backend: Backend = "auto",
    memory: Memory = "more",
) -> tuple[Float[Array, "batch k"], Float[Array, "steps batch H"] | None]:
    """Carry `state` through all steps of `x`: the final state, and with `sequence` every output.

    `lengths` is the number of steps of each sequence. The final state is then that after the last
    of them. Later outputs are 0; later entries of `x` must be finite, and change nothing.

    With `memory="less"`, the memory for the backward pass grows with the root of the number of
    steps, but the forward pass is computed twice (by "native" always).

    "scan" has all derivatives, and can be exported, even for unknown numbers of steps and samples.
    For unknown numbers "auto" is "scan"; for unknown steps `memory` is "more". "native" has
    gradients (`jax.grad`) only: other derivatives and exports raise `ValueError`, under `jax.jit`
    when JAX compiles them.

    Inside of `jax.shard_map`, and where `x` is shared on explicit axes of a mesh, each device
    computes its share of the batch. Where the compiler shares the batch (`jax.jit`, automatic
    axes), "native" computes the whole on every device.

    Under `jax.vmap`, "native" treats mapped inputs as further samples of the batch. If weights are
    mapped, too, it makes as many calls in one, which share the threads.

    Raises `ValueError` as `choose` does, for an unknown `memory`, or if an axis of `x` is empty.
    """
    if memory not in ("more", "less"):
        raise ValueError(f"`memory` must be 'more' or 'less', not {memory!r}.")
    if 0 in x.shape:
        raise ValueError(f"`x` must have no axis of size 0, not shape {x.shape}.")
    known = all(isinstance(size, int) for size in x.shape)
    kernel = choose(backend) if known or backend != "auto" else "scan"
    if kernel == "native" and not known:
        raise ValueError(refusals.NOT_EXPORTED)
    less = memory == "less" and isinstance(x.shape[0], int)
    segment = math.isqrt(x.shape[0] - 1) + 1 if less else None

    def compute(weights, x, state, lengths):
        weights, x, state, lengths = alike((weights, x, state, lengths))
        goes = going(lengths, x)
        if kernel == "native":
            kept = {"segment": segment, "keep_products": False} if less else {}
            given = equations.cell(weights), equations.parameters(weights), x, state, lengths
            found = native.run(*given, sequence=sequence, **kept)
        else:
            plain = partial(scan.run, equations, sequence=sequence)
            plain = plain if segment is None else partial(_in_segments, plain, segment)
            found = plain(weights, x, state, goes)
        final, outputs = found
        return final, blank(goes, outputs)

    return by_shares(compute, weights, x, state, lengths)


def _in_segments(
    plain, segment: int, weights: PyTree, x: Array, state: Array, goes: Bool[Array, "..."] | None
):
    """Keep only the first state of each segment for the backward pass."""
    again = jax.checkpoint(lambda state, given: plain(weights, given[0], state, given[1]))
    whole = x.shape[0] // segment * segment
    pieces = jax.tree.map(
        lambda steps: steps[:whole].reshape(whole // segment, segment, *steps.shape[1:]), (x, goes)
    )
    state, outputs = jax.lax.scan(again, state, pieces)
    if outputs is not None:
        outputs = outputs.reshape(whole, *outputs.shape[2:])
    if whole < x.shape[0]:
        state, rest = again(state, jax.tree.map(lambda steps: steps[whole:], (x, goes)))
        outputs = None if outputs is None else jnp.concatenate([outputs, rest])
    return state, outputs
