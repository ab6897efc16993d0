"""
Feedback decides whom an area talks to
======================================

V1 has two classes of neurons, one of which drives V4 and the other V5. Both feed back to the class
that drives them, with a weight above 1 in the balanced form. The area that feeds back more is the
one whose fluctuations V1 predicts.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg

import organics

jax.config.update("jax_enable_x64", True)
n = 6
angle = 2 * np.pi * np.arange(n) / n
kernel = scipy.linalg.circulant(np.exp(2 * np.cos(angle)) / np.exp(2 * np.cos(angle)).sum())
pool, both = np.ones((n, n)), scipy.linalg.block_diag
V1 = organics.Circuit(W=np.ones((2 * n, 2 * n)))
above = organics.Circuit(W=both(pool, pool))
z = np.tile(0.05 * (0.1 + np.cos((angle - np.pi) / 2) ** 2), 2)


def predicted(share):
    """How well V1 predicts V4 and V5 if V4 feeds back this share."""
    back = both(share * kernel, (1 - share) * kernel)
    areas = organics.Hierarchy([V1, above], [both(kernel, kernel)], [back], gamma=1.3)
    point = organics.steady_state(areas, z)
    P = organics.stationary_covariance(point, organics.Noise(additive_y=1.0, additive_a=1.0))
    C = organics.rate_covariance(point, P, measurement=0.01)
    return [
        organics.communication_subspace(C, np.arange(2 * n), start + np.arange(n)).performance[-1]
        for start in (2 * n, 3 * n)
    ]


shares = np.linspace(0, 1, 9)
found = np.array([predicted(share) for share in shares])
figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
axes.plot(shares, found, "o-", label=["V4", "V5"])
axes.set(xlabel="share of feedback that comes from V4", ylabel="$R^2$ of the prediction from V1")
axes.legend()
