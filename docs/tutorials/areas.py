"""
Two areas with feedback
=======================

For whom cortex is more than one circuit: how feedback changes responses and rhythms, whether it
can make them unstable, and how many dimensions two areas share.
"""

# %%
# Two rings of neurons, each with one pool. The rates of the first drive the second; the second
# feeds back to the first, both through a Gaussian kernel.
import jax
import numpy as np

import organics

jax.config.update("jax_enable_x64", True)
n = 12
angle = 2 * np.pi * np.arange(n) / n
kernel = np.exp(2 * np.cos(angle))
G = np.stack([np.roll(kernel / kernel.sum(), i) for i in range(n)])
area = organics.Circuit(W=np.ones((n, n)), sigma=0.1)


def with_feedback(gamma):
    return organics.Hierarchy([area, area], [G], [G], gamma=gamma)


tuning = np.abs(np.cos((angle - np.pi) / 2)) ** 8
z = 0.35 * tuning / np.linalg.norm(tuning)

# %%
# With `gamma = 1` feedback changes no steady state: each area normalizes its drive. The state is a
# tuple, one `State` for each area.
for gamma in (0.5, 1.0, 1.2):
    point = organics.steady_state(with_feedback(gamma), z)
    first, second = point.state
    print(f"gamma {gamma}: {first.y.max():.3f} and {second.y.max():.3f}, {point.method_name}")

# %%
# Is it stable, and why?
# ----------------------
# Without an effect of feedback: because each area is. With feedback: because no loop between the
# areas has a gain of 1 at any frequency.
print(organics.certify(organics.steady_state(with_feedback(1.0), z)))
print(organics.certify(point))

# %%
# Rhythms
# -------
# Power and coherence of the neurons in the middle of both rings.
hertz = np.geomspace(2, 100, 200)
noise = organics.Noise(additive_y=1.0, additive_a=1.0)
middle = [n // 2, 2 * n + n // 2]
for gamma in (0.5, 1.0, 1.2):
    point = organics.steady_state(with_feedback(gamma), z)
    together = organics.coherence(point, hertz / 1000, noise)[:, middle[0], middle[1]]
    print(f"gamma {gamma}: coherence is largest at {hertz[together.argmax()]:.1f} Hz")

# %%
# What do they tell each other?
# -----------------------------
# How much of the fluctuations of the second area do 1, 2, ... dimensions of the first predict?
P = organics.stationary_covariance(point, noise)
rates = organics.rate_covariance(point, P, measurement=0.01)
organics.communication_subspace(rates, np.arange(n), n + np.arange(n))
