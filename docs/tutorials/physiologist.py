"""
Responses and rhythms of a ring of neurons
==========================================

For whom has recorded responses: a ring of orientation-tuned neurons that share one normalization
pool. Contrast scales the drive. The responses saturate, a mask suppresses them, and the ring
resonates the faster the higher the contrast.
"""

# %%
# The ring
# --------
# Drives are tuned to the orientation of the stimulus. All neurons share a pool, so the response of
# each is its drive over the root of the summed squared drives.
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import organics

jax.config.update("jax_enable_x64", True)
n = 24
preferred = np.arange(n) * 180 / n


def drive(orientation, contrast):
    """The drive of a grating, tuned with a width of about 25 degrees."""
    return contrast * np.exp((np.cos(np.deg2rad(2 * (preferred - orientation))) - 1) / 0.38)


ring = organics.Circuit(W=np.ones((n, n)) / 4, b=0.5, b0=0.5, sigma=0.1, tau_y=4.0, tau_a=4.0)
at_rest = jax.vmap(organics.steady_state, (None, 0))

# %%
# Contrast response, alone and with a mask
# ----------------------------------------
contrasts = np.geomspace(0.01, 1.0, 30)
alone = at_rest(ring, np.array([drive(90, c) for c in contrasts]))
masked = at_rest(ring, np.array([drive(90, c) + drive(0, 0.5) for c in contrasts]))
best = n // 2  # prefers 90 degrees
figure, axes = plt.subplots(figsize=(6, 3))
axes.semilogx(100 * contrasts, alone.state.y[:, best] ** 2, label="grating")
axes.semilogx(100 * contrasts, masked.state.y[:, best] ** 2, label="with an orthogonal mask")
axes.set(xlabel="contrast (%)", ylabel="firing rate")
axes.legend()

# %%
# Rhythms
# -------
# Noise excites the ring's damped oscillation, whose frequency rises with contrast.
frequencies = np.linspace(0.001, 0.15, 300)  # kHz
few = np.array([0.05, 0.1, 0.2, 0.5, 1.0])
points = at_rest(ring, np.array([drive(90, c) for c in few]))
noise = organics.Noise(additive_y=0.05, additive_a=0.01)
power = jax.vmap(organics.power_spectrum, (0, None, None))(points, frequencies, noise)
found = jax.vmap(organics.stability)(points)
for contrast, hertz in zip(few, found.leading_frequency, strict=True):
    print(f"contrast {contrast:.0%}: " + (f"rings at {hertz:.0f} Hz" if hertz else "does not ring"))
figure, axes = plt.subplots(figsize=(6, 3))
labels = [f"{contrast:.0%}" for contrast in few]
organics.plots.power_spectra(frequencies, power[:, :, best].T, labels=labels, axes=axes)

# %%
# Onset
# -----
# When the grating appears, excitation comes first and inhibition follows: the response overshoots.
path = organics.simulate(ring, drive(90, 1.0), jnp.linspace(0, 60, 301))
figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(path.t, path.state.y[:, best] ** 2)
axes.set(xlabel="time (ms)", ylabel="firing rate")
