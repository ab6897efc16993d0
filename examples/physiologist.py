"""Contrast responses of a ring of orientation-tuned neurons: saturation, and a faster rhythm."""

import jax
import jax.numpy as jnp

import organics

jax.config.update("jax_enable_x64", True)
circuit, drives = organics.load_circuit("examples/orientation_ring.json")
contrasts = jnp.array([0.05, 0.1, 0.25, 0.5, 1.0])
drives = contrasts[:, None] * drives[0] / drives[0].max()
points = jax.vmap(organics.steady_state, (None, 0))(circuit, drives)
found = jax.vmap(organics.stability)(points)
for contrast, y, hertz in zip(contrasts, points.state.y, found.leading_frequency, strict=True):
    rhythm = f"rings at {hertz:.0f} Hz" if hertz else "does not ring"
    print(f"contrast {contrast:.0%}: largest response {y.max():.3f}, {rhythm}")
