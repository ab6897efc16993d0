"""
Fluctuations: simulated, and in closed form
===========================================

The power spectrum of a circuit under noise follows from its Jacobian. Welch's estimate from a
simulation of the stochastic equations agrees.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

import organics
from organics.spectra import welch

jax.config.update("jax_enable_x64", True)
circuit = organics.Circuit(W=[[1.0]], sigma=0.1, tau_y=8.0, tau_a=4.0)
z = np.array([1.0])
noise = organics.Noise(additive_y=0.01, additive_a=0.002)
point = organics.steady_state(circuit, z)
path = organics.simulate_noisy(
    circuit, z, noise, dt=0.05, steps=400_000, initial=point.state, key=jax.random.key(0),
    save_every=5,
)  # fmt: skip
found = welch(path, nperseg=4096)
frequencies = np.linspace(0.001, 0.3, 300)
power = organics.power_spectrum(point, frequencies, noise)[:, :1]
band = (found.frequencies > 0) & (found.frequencies < 0.3)
measured = found.frequencies[band], found.power[band, :1]
figure, axes = plt.subplots(figsize=(6, 3.6))
organics.plots.power_spectra(frequencies, power, estimate=measured, labels=["y"], axes=axes)
