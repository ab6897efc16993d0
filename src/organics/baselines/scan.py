"""A recurrence with one matrix product per step, and its backward pass.

The loop back in time carries the gradient of the state only; that of the matrix is one long
product over all steps and samples after it.
"""

from functools import partial
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@runtime_checkable
class Rule(Protocol):
    """The equations of a step; hashable, and without parameters."""

    hidden_size: int
    """How many numbers of the state, the first, are the output."""

    def receive(
        self, drive: Float[Array, "*rows d"], product: Float[Array, "*rows r"]
    ) -> Float[Array, "*rows w"]:
        """All that the units receive, linear in the input's drive and the matrix product."""
        ...

    def update(
        self, state: Float[Array, "batch k"], received: Float[Array, "batch w"]
    ) -> Float[Array, "batch k"]:
        """The state after the step."""
        ...


def run(
    rule: Rule,
    matrix: Float[Array, "r s"],
    drive: Float[Array, "steps batch d"],
    state: Float[Array, "batch k"],
    *,
    sequence: bool,
) -> tuple[Float[Array, "batch k"], Float[Array, "steps batch n"] | None]:
    """Final state, and with `sequence` all outputs."""
    return _run(rule, sequence, matrix, drive, state)


def step(
    rule: Rule,
    matrix: Float[Array, "r s"],
    drive: Float[Array, "batch d"],
    state: Float[Array, "batch k"],
) -> Float[Array, "batch k"]:
    """One step of `run`."""
    return rule.update(state, _receive(rule, matrix, drive, state))


def _receive(rule: Rule, matrix: Array, drive: Array, state: Array) -> Array:
    return rule.receive(drive, state[:, : matrix.shape[1]] @ matrix.T)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(rule: Rule, sequence: bool, matrix: Array, drive: Array, state: Array):
    def body(state, drive):
        state = step(rule, matrix, drive, state)
        return state, state[:, : rule.hidden_size] if sequence else None

    return jax.lax.scan(body, state, drive)


def _forward(rule: Rule, sequence: bool, matrix: Array, drive: Array, state: Array):
    def body(state, drive):
        received = _receive(rule, matrix, drive, state)
        return rule.update(state, received), (state, received)

    final, (states, received) = jax.lax.scan(body, state, drive)
    outputs = None
    if sequence:
        n = rule.hidden_size
        outputs = jnp.concatenate([states[1:, :, :n], final[None, :, :n]])
    return (final, outputs), (matrix, states, received, drive[0])


def _backward(rule: Rule, sequence: bool, kept, cotangents):
    matrix, states, received, drive = kept
    d_final, d_outputs = cotangents
    r, s = matrix.shape
    product = jax.ShapeDtypeStruct((*drive.shape[:-1], r), drive.dtype)
    split = jax.linear_transpose(rule.receive, drive, product)

    def body(d, at):
        state, received, d_output = at
        if sequence:
            d = d.at[:, : rule.hidden_size].add(d_output)
        _, pull = jax.vjp(rule.update, state, received)
        d_state, d_received = pull(d)
        _, d_product = split(d_received)
        return d_state.at[:, :s].add(d_product @ matrix), d_received

    d_state, d_received = jax.lax.scan(body, d_final, (states, received, d_outputs), reverse=True)
    d_drive, d_product = jax.vmap(split)(d_received)
    return jnp.einsum("tbr,tbs->rs", d_product, states[..., :s]), d_drive, d_state


_run.defvjp(_forward, _backward)
