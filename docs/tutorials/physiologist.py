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
import matplotlib.pyplot as plt
import numpy as np

import organics
from organics import responses

jax.config.update("jax_enable_x64", True)
n = 24
preferred = np.arange(n) * 180 / n


def drive(orientation, contrast):
    """The drive of a grating, tuned with a width of about 25 degrees."""
    return contrast * np.exp((np.cos(np.deg2rad(2 * (preferred - orientation))) - 1) / 0.38)


ring = organics.Circuit(W=np.ones((n, n)) / 4, b=0.5, b0=0.5, sigma=0.1, tau_y=4.0, tau_a=4.0)
grating = drive(90, 1.0)
best = n // 2  # prefers 90 degrees

# %%
# Contrast response, alone and with a mask
# ----------------------------------------
# ``organics.responses`` has what physiologists measure. Lines are Naka-Rushton functions, which are
# exact without a mask. The mask raises the contrast of half the largest response, ``c50``.
contrasts = np.geomspace(0.01, 1.0, 30)
alone = responses.contrast_response(ring, grating, contrasts)
masked = responses.contrast_response(
    ring, grating, contrasts, other=drive(0, 1.0), other_contrasts=0.5
)
fits = [responses.fit_naka_rushton(one.contrast, one.rates) for one in (alone, masked)]
for name, fit in zip(("alone", "with a mask"), fits, strict=True):
    print(f"{name}: c50 {fit.c50[best]:.1%}, exponent {fit.exponent[best]:.2f}")
responses.draw_contrast([alone, masked], fits, neuron=best, labels=["grating", "with a mask"])

# %%
# Attention
# ---------
# A larger input gain of all neurons is a change of contrast gain: as if the contrast were higher.
# That of one neuron alone also changes how much it can respond.
before = responses.naka_rushton(ring, grating)
for who in (None, [best]):
    after = responses.naka_rushton(responses.with_gain(ring, 1.5, who), grating)
    change = responses.gain_change(before, after)
    response, contrast = change.response_gain[best], change.contrast_gain[best]
    print(f"response gain {response:.2f}, contrast gain {contrast:.2f}")

# %%
# Rhythms
# -------
# Noise excites the ring's damped oscillation, whose frequency rises with contrast.
noise = organics.Noise(additive_y=0.05, additive_a=0.01)
levels = np.array([0.05, 0.1, 0.2, 0.5, 1.0])
rhythm = responses.gamma_peak(ring, grating, levels, noise, neuron=best)
for contrast, hertz in zip(levels, rhythm.hertz, strict=True):
    peak = f"peak at {hertz:.0f} Hz" if np.isfinite(hertz) else "no peak"
    print(f"contrast {contrast:.0%}: {peak}")
responses.draw_rhythm(rhythm)

# %%
# The spectra themselves:
frequencies = np.linspace(0.001, 0.15, 300)  # kHz
points = jax.vmap(organics.steady_state, (None, 0))(ring, levels[:, None] * grating)
power = jax.vmap(organics.power_spectrum, (0, None, None))(points, frequencies, noise)
figure, axes = plt.subplots(figsize=(6, 3))
labels = [f"{contrast:.0%}" for contrast in levels]
organics.plots.power_spectra(frequencies, power[:, :, best].T, labels=labels, axes=axes)

# %%
# Onset
# -----
# When the grating appears, excitation comes first and inhibition follows: the response overshoots.
onset = responses.onset_response(ring, grating, 60.0)
print(f"half of the peak after {onset.latency[best]:.1f} ms, overshoot {onset.overshoot[best]:.2f}")
responses.draw_onset([onset], neuron=best)
