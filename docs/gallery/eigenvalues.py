"""
Eigenvalues as contrast rises
=============================

The spectrum of a ring of neurons with identity recurrence stays in the left half plane whatever
the contrast. It begins on the real axis, and its leading pair turns into a rhythm.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

import organics

jax.config.update("jax_enable_x64", True)
circuit, drives = organics.load_circuit("../../examples/orientation_ring.json")
contrasts = np.geomspace(0.02, 1.0, 40)
points = jax.vmap(organics.steady_state, (None, 0))(circuit, contrasts[:, None] * drives[0])
eigenvalues = jax.vmap(organics.stability)(points).eigenvalues
figure, axes = plt.subplots(figsize=(6, 3.6))
for values, contrast in zip(eigenvalues, contrasts, strict=True):
    colour = plt.get_cmap("viridis")(np.log(contrast / 0.02) / np.log(50))
    axes.plot(values.real, 1000 * values.imag / (2 * np.pi), ".", markersize=3, color=colour)
axes.axvline(0, color="0.6", linewidth=0.8)
axes.set(xlabel="real part (1/ms)", ylabel="frequency (Hz)")
