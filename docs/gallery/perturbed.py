"""
A stable state that Euler steps lose
====================================

Identity recurrence with a strong symmetric perturbation: the steady state is stable, but its
slowest mode rings. Explicit Euler steps of a twentieth of the time constants turn the slowly
decaying rhythm into a lasting one.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

import organics

jax.config.update("jax_enable_x64", True)
n, tau = 100, 2.0
G = np.random.default_rng(0).normal(size=(n, n)) / np.sqrt(n)
W_r = np.eye(n) + (G + G.T) / 2
circuit = organics.Circuit(np.ones((n, n)), W_r, b=1.0, b0=1.0, sigma=0.1, tau_y=tau, tau_a=tau)
z = np.full(n, 0.02 / np.sqrt(n))
point = organics.principal_state(circuit, z)
eigenvalues = organics.stability(point).eigenvalues
step = float(organics.largest_euler_step(eigenvalues))
print(f"largest real part {eigenvalues[0].real:.4f} 1/ms, largest stable step {step:.3f} ms")

adaptive = organics.simulate(circuit, z, np.linspace(0, 600, 3001))
euler = organics.simulate_noisy(
    circuit, z, organics.Noise(), 0.05 * tau, 6000, key=jax.random.key(0), throw=False
)  # warns: the steps are too long
figure, axes = plt.subplots(figsize=(6, 3.6))
axes.plot(euler.t, euler.state.a[:, 0], linewidth=0.6, label="Euler steps of 0.1 ms")
axes.plot(adaptive.t, adaptive.state.a[:, 0], linewidth=0.8, label="adaptive steps")
axes.axhline(point.state.a[0], color="0.4", linewidth=0.8, label="steady state")
axes.set(xlabel="time (ms)", ylabel="a")
axes.legend()
