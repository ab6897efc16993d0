"""Circuits as a recurrent layer: train on digits read row by row, without clipping gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

import organics

digits = organics.data.load("digits")
x, labels = jnp.asarray(digits.pixels(digits.train_images)), digits.train_labels  # (1500, 8, 8)
rates = {"dt_tau_max_y": 0.5, "dt_tau_max_a": 0.2, "dt_tau_max_gates": 1.0}  # for 8 steps
circuits = organics.nn.ORGaNICs(8, 32, recurrent="identity", key=jr.key(0), **rates)
model = (circuits, eqx.nn.Linear(32, 10, key=jr.key(1)))
optimizer = optax.adam(2e-2)
state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))


@eqx.filter_value_and_grad
def loss_and_gradient(model):
    y, _ = model[0](x, sequence=False)
    scores = jax.vmap(model[1])(y)
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


@eqx.filter_jit
def step(model, state):
    loss, gradient = loss_and_gradient(model)
    updates, state = optimizer.update(gradient, state)
    return loss, eqx.apply_updates(model, updates), state


for _ in range(100):
    loss, model, state = step(model, state)
_, state = model[0](x[0])
circuit, z = organics.nn.circuit_at(model[0], x[0, -1], state)
point = organics.steady_state(circuit, z)
print(f"loss {loss:.4f}; stable at the end of x[0]: {organics.certify(point).holds}")
