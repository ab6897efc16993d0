"""
A layer that normalizes, in Equinox
===================================

For whom a circuit is a layer: one at rest on images, then one in time on sequences. Both train
without clipping, and the circuit behind a trained layer can be taken out and certified.
"""

# %%
# At rest
# -------
# `Normalization` takes an input to the firing rates of a circuit at rest. On the digits that come
# with scikit-learn, behind nothing and before a linear readout:
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import optax

import organics

digits = organics.data.load("digits")
x, labels = digits.train_images.reshape(-1, 64) / 16, digits.train_labels
layer = organics.nn.Normalization(64, 50, key=jr.key(0))
model = eqx.nn.Sequential([layer, eqx.nn.Linear(50, 10, key=jr.key(1))])


def train(scores_of, model, rate, steps):
    """Adam on all images at once; the loss after each step."""
    optimizer = optax.adam(rate)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state):
        @eqx.filter_value_and_grad
        def loss_and_gradient(model):
            losses = optax.softmax_cross_entropy_with_integer_labels(scores_of(model), labels)
            return losses.mean()

        loss, gradient = loss_and_gradient(model)
        updates, state = optimizer.update(gradient, state)
        return loss, eqx.apply_updates(model, updates), state

    losses = []
    for _ in range(steps):
        loss, model, state = step(model, state)
        losses.append(float(loss))
    return model, losses


model, losses = train(lambda model: jax.vmap(model)(x), model, 1e-2, 60)

# %%
# The gradient goes through the steady state by the implicit function theorem; no simulation is
# unrolled.
test = digits.test_images.reshape(-1, 64) / 16
right = (jax.vmap(model)(test).argmax(axis=1) == digits.test_labels).mean()
print(f"loss {losses[-1]:.4f}, {right:.1%} of the test images are right")

# %%
# For each image the layer is a circuit under a drive. With the default, identity recurrence, the
# certificate holds by the theorem, whatever was learned:
point = organics.steady_state(*model[0].circuit(x[0]))
print(organics.certify(point).holds)

# %%
# In time
# -------
# `ORGaNICs` reads a sequence: here the same images, a row of pixels at each step. Step sizes are
# ratios to the time constants; for 8 steps they are larger than the paper's, which are for 784.
rows = jnp.asarray(digits.pixels(digits.train_images))  # (images, 8 steps, 8 pixels)
rates = {"dt_tau_max_y": 0.5, "dt_tau_max_a": 0.2, "dt_tau_max_gates": 1.0}
recurrent = organics.nn.ORGaNICs(8, 32, recurrent="identity", key=jr.key(0), **rates)
network = (recurrent, eqx.nn.Linear(32, 10, key=jr.key(1)))


def scores_at_the_end(network):
    """Scores from the last state of each sequence."""
    last, _ = network[0](rows, sequence=False)
    return jax.vmap(network[1])(last)


network, losses_in_time = train(scores_at_the_end, network, 2e-2, 60)
figure, axes = plt.subplots(figsize=(6, 3))
axes.semilogy(losses, label="at rest")
axes.semilogy(losses_in_time, label="in time")
axes.set(xlabel="step", ylabel="loss")
axes.legend()

# %%
# At any moment of a sequence the layer has a circuit, too:
_, state = network[0](rows[0])
circuit, z = organics.nn.circuit_at(network[0], rows[0, -1], state)
print(organics.certify(organics.steady_state(circuit, z)))
