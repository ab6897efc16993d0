"""
From a contrast response to a circuit
=====================================

For whom has recorded responses and asks which circuit would give them, and how much of it the
recording determines.
"""

# %%
# A recording
# -----------
# Spike rates of two neurons at six contrasts, alone and with a mask, eight trials each. (These
# are simulated; :doc:`/how-to/recordings` describes the format.)
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import organics
from organics import fitting, responses

jax.config.update("jax_enable_x64", True)
examples = next(
    p / "examples" for p in (Path.cwd(), *Path.cwd().parents) if (p / "examples").is_dir()
)
recording = fitting.read_recording(examples / "contrast_responses.csv", examples / "contrasts.csv")
for name, mean, error in zip(recording.stimuli, recording.mean, recording.error, strict=True):
    print(
        f"{name:>8}: {mean[0]:5.1f} ± {error[0]:.1f} and {mean[1]:5.1f} ± {error[1]:.1f} spikes/s"
    )

# %%
# The fit
# -------
# The mask drives a neuron of its own, which is not recorded. Steady responses determine `sigma` and
# the weights from the recorded neurons' stimulus and from the mask; they say nothing about time
# constants and noise, or about what normalizes the neuron of the mask. As both neurons always have
# the same drive, their two weights are known only as a sum. All of this is said, not guessed.
fit = fitting.fit(recording)
fit

# %%
# With what is known from elsewhere, here that the two weights of each neuron are equal, more is
# determined.
fit = fitting.fit(recording, ties=("W[A,A]+W[A,B]", "W[B,A]+W[B,B]"))
for name in ("W[A,A]", "W[A,mask]", "W[B,mask]", "sigma[A]", "sigma[B]"):
    one = fit[name]
    print(f"{name:>10}: {one.value:.4f}, from {one.low:.4f} to {one.high:.4f}")

# %%
# What it predicts
# ----------------
# The contrast response of the fitted circuit has a closed form, with an exponent of 2. Its rates
# are those of the recording, as the unknown gain is 1 by convention.
contrasts = np.geomspace(0.02, 1, 50)
alone, masked = np.array([1.0, 1.0, 0.0]), np.array([0.0, 0.0, 1.0])
known = responses.naka_rushton(fit.circuit, alone)
print(f"neuron A: at most {known.r_max[0]:.0f} spikes/s, half of it at {known.c50[0]:.1%} contrast")
figure, axes = plt.subplots(figsize=(6, 3))
for mask, marker, label in ((0.0, "o", "alone"), (0.25, "s", "with a mask of 25 %")):
    shown = recording.drives[:, 2] == mask
    (points, *_) = axes.errorbar(
        100 * recording.drives[shown, 0], recording.mean[shown, 0], recording.error[shown, 0],
        fmt=marker, label=label,
    )  # fmt: skip
    curve = responses.contrast_response(
        fit.circuit, alone, contrasts, other=masked, other_contrasts=mask
    )
    axes.plot(100 * contrasts, curve.rates[:, 0], color=points.get_color())
axes.set(xscale="log", xlabel="contrast (%)", ylabel="spikes/s")
axes.legend()

# %%
# The circuit is one like any other: it can be saved, analysed, certified. Its file holds no
# noise: that is `fit.noise`.
organics.certify(organics.steady_state(fit.circuit, recording.drives[5]))
