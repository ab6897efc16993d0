"""
Phase portraits of one pair of neurons
======================================

The nullclines of `y` and `a`, trajectories, and all fixed points, which for n = 1 a formula finds:
a weak and a strong recurrent weight.
"""

import jax
import matplotlib.pyplot as plt

import organics
from organics.planar import portrait

jax.config.update("jax_enable_x64", True)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6))
for ax, w_r in zip(axes, (0.5, 2.0), strict=True):
    circuit = organics.Circuit(W=[[1.0]], W_r=[[w_r]])
    organics.plots.phase_portrait(*portrait(circuit, 1.0), axes=ax)
    ax.set_title(f"$w_r = {w_r:g}$")
