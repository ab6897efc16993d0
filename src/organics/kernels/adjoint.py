"""The recurrence under `jax.lax.scan` with a backward pass derived by hand.

The loop back in time carries one array and takes the data gradients only; the gradients of the
weights are a few long products over all steps and samples after it.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from organics.circuit import root
from organics.kernels.equations import Options, Products, Weights, products, project, velocity


class _Kept(NamedTuple):
    """What the backward pass reads, for all steps."""

    weights: Weights
    x: Float[Array, "steps batch m"]
    states: Float[Array, "steps batch four_H"]  # before each step
    found: Products


def run(
    options: Options,
    weights: Weights,
    x: Float[Array, "steps batch m"],
    state: Float[Array, "batch four_H"],
    *,
    sequence: bool,
) -> tuple[Float[Array, "batch four_H"], Float[Array, "steps batch H"] | None]:
    """Final state, and with `sequence` every `y`."""
    return _run(options, sequence, weights, x, state)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _run(options: Options, sequence: bool, weights: Weights, x, state):
    rates = weights.rates.reshape(1, -1)
    H = weights.offset.shape[0]

    def body(state, projected):
        found = products(options, weights, projected, state)
        state = state + rates * velocity(weights, state, found)
        return state, state[:, :H] if sequence else None

    return jax.lax.scan(body, state, project(weights, x))


def _forward(options: Options, sequence: bool, weights: Weights, x, state):
    rates = weights.rates.reshape(1, -1)
    H = weights.offset.shape[0]

    def body(state, projected):
        found = products(options, weights, projected, state)
        return state + rates * velocity(weights, state, found), (state, found)

    final, (states, found) = jax.lax.scan(body, state, project(weights, x))
    outputs = None
    if sequence:
        outputs = jnp.concatenate([states[1:, :, :H], final[None, :, :H]])
    return (final, outputs), _Kept(weights, x, states, found)


def _backward(options: Options, sequence: bool, kept: _Kept, cotangents):
    d_final, d_outputs = cotangents
    weights, x, states, found = kept
    H = weights.offset.shape[0]
    rates = weights.rates.reshape(1, -1)
    W, offset = weights.normalization, weights.offset[None]

    def body(d, at):
        state, found, d_output = at
        if sequence:
            d = d.at[:, :H].add(d_output)
        y, a, b0, b = jnp.split(state, 4, axis=1)
        q = jax.nn.relu(y) if options.rectified else y
        s = root(a)
        d_velocity = rates * d
        v_y, v_a, _, _ = jnp.split(d_velocity, 4, axis=1)
        open_, g = found.gates, d_velocity[:, 2 * H :]
        g_gates = g * open_ * (1 - open_)
        g_yhat = v_y * (1 - s)
        if options.rectified and options.rectified_after and weights.recurrent is not None:
            g_yhat = jnp.where(found.yhat > 0, g_yhat, 0)
        g_z = v_y * b
        if options.rectified_drive:
            g_z = jnp.where(found.z > 0, g_z, 0)
        through_gates = g_gates @ weights.gates
        d_q = g_yhat if weights.recurrent is None else g_yhat @ weights.recurrent
        if options.rectified and not (options.rectified_after and weights.recurrent is not None):
            d_q = jnp.where(y > 0, d_q, 0)
        d_u = v_a @ W
        positive = a > 0
        d_s = jnp.where(positive, v_y * found.yhat * 0.5 / jnp.where(positive, s, 1), 0)
        back = jnp.concatenate(
            [
                through_gates[:, :H] + d_q + d_u * (2 * q * jax.nn.relu(a)),
                through_gates[:, H:] - d_s + jnp.where(positive, d_u * jnp.square(q), 0),
                v_a * offset * (2 * b0),
                v_y * found.z,
            ],
            axis=1,
        )
        return d - d_velocity + back, (d, g_yhat, jnp.concatenate([g_z, g_gates], axis=1))

    d_state, (d, g_yhat, g_input) = jax.lax.scan(
        body, d_final, (states, found, d_outputs), reverse=True
    )
    y, a, b0 = states[..., :H], states[..., H : 2 * H], states[..., 2 * H : 3 * H]
    q = jax.nn.relu(y) if options.rectified else y
    v_a = weights.rates[None, 1:2] * d[..., H : 2 * H]
    slopes = jax.vmap(velocity, (None, 0, 0))(weights, states, found)
    d_recurrent = None
    if weights.recurrent is not None:
        seen = y if options.rectified and options.rectified_after else q
        d_recurrent = _over_samples(g_yhat, seen)
    d_weights = Weights(
        recurrent=d_recurrent,
        normalization=_over_samples(v_a, jnp.square(q) * jax.nn.relu(a)),
        gates=_over_samples(g_input[..., H:], states[..., : 2 * H]),
        input=_over_samples(g_input, x),
        rates=jnp.sum(d * slopes, axis=(0, 1)).reshape(4, H),
        offset=jnp.sum(v_a * jnp.square(b0), axis=(0, 1)),
    )
    return d_weights, g_input @ weights.input, d_state


_run.defvjp(_forward, _backward)


def _over_samples(received: Array, sent: Array) -> Array:
    return jnp.einsum("tbi,tbj->ij", received, sent)
