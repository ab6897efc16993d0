"""A circuit as a layer of an Equinox model, trained with Optax."""

import equinox as eqx
import jax
import jax.random as jr
import optax

import organics

digits = organics.data.load("digits")
x, labels = digits.train_images.reshape(-1, 64) / 16, digits.train_labels
circuits = organics.nn.Normalization(64, 50, key=jr.key(0))
model = eqx.nn.Sequential([circuits, eqx.nn.Linear(50, 10, key=jr.key(1))])
optimizer = optax.adam(1e-2)
state = optimizer.init(eqx.filter(model, eqx.is_array))


@eqx.filter_value_and_grad
def loss_and_gradient(model):
    scores = jax.vmap(model)(x)
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


@eqx.filter_jit
def step(model, state):
    loss, gradient = loss_and_gradient(model)
    updates, state = optimizer.update(gradient, state)
    return loss, eqx.apply_updates(model, updates), state


for _ in range(100):
    loss, model, state = step(model, state)
point = organics.steady_state(*model[0].circuit(x[0]))  # of the layer's circuit and its drive
print(f"loss {loss:.4f}; stable for x[0]: {organics.certify(point).holds}")
