"""Responses of a ring of orientations to contrast: saturation, and a rhythm that quickens."""

import jax
import jax.numpy as jnp

import organics

jax.config.update("jax_enable_x64", True)
circuit, drives = organics.load_circuit("examples/orientation_ring.json")
contrasts = jnp.array([0.05, 0.1, 0.25, 0.5, 1.0])
tuned = drives[0] / drives[0].max()
found = jax.vmap(organics.stability, (None, 0))(circuit, contrasts[:, None] * tuned)
responses = found.steady_state.state.y
for contrast, y, hertz in zip(contrasts, responses, found.leading_frequency, strict=True):
    print(f"contrast {contrast:.0%}: largest response {y.max():.3f}, rings at {hertz:.0f} Hz")
