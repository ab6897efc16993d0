"""
A circuit, and what can be asked of it
======================================

For whom a circuit is a dynamical system: where it rests, whether it is stable and why, how it
rings, and what is different when the recurrence is not the identity.
"""

# %%
# A random circuit of twenty excitatory and twenty inhibitory neurons with identity recurrence. `W`
# has the weights of the normalization pools. Slow excitation and quick inhibition: times are in
# ms. The library never changes JAX's settings, so float64 is switched on here.
import jax
import numpy as np

import organics

jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
circuit = organics.Circuit(W=rng.uniform(size=(20, 20)), sigma=0.1, tau_y=10.0, tau_a=2.0)
z = rng.normal(size=20)

# %%
# Where does it rest?
# -------------------
# An operating point knows its circuit and its drive. For identity recurrence it is a formula,
# divisive normalization: the drive of each neuron, divided by the root of its pool's activity.
point = organics.steady_state(circuit, z)
pool = (circuit.b0 * circuit.sigma) ** 2 + circuit.W @ (circuit.b * z) ** 2
print(np.abs(point.state.y - circuit.b * z / np.sqrt(pool)).max())
point

# %%
# Is it stable, and why?
# ----------------------
# The eigenvalues say that it is.
linear = organics.stability(point)
linear

# %%
# A certificate says why: a diagonal matrix `T` for which a Lyapunov inequality holds. It is
# constructed by the theorem's proof. `verify` checks it without knowing how it was found.
certificate = organics.certify(point)
print(certificate)
print(organics.verify(point, certificate.T))

# %%
# Both are floating-point statements. `prove` is not: in ball arithmetic it encloses the state and
# proves the inequality, whatever rounding does.
proof = organics.prove(point)
print(f"{proof.verdict}: {proof.statement}")
print(f"by {proof.decided_by.name}, margin {proof.decided_by.margin}")

# %%
# How does it get there?
# ----------------------
# A simulation from rest, and the eigenvalues that rule its end.
import matplotlib.pyplot as plt

from organics import plots

path = organics.simulate(circuit, z, 60.0)
figure, (above, below) = plt.subplots(2, sharex=True, figsize=(6, 4))
plots.trajectory(path.t, path.state.y, path.state.a, axes=(above, below))
figure, axes = plt.subplots(figsize=(6, 3))
plots.spectrum_plane(linear.eigenvalues, axes=axes)

# %%
# Which rhythms does noise excite?
# --------------------------------
f = np.linspace(0.0005, 0.2, 400)  # kHz
noise = organics.Noise(additive_y=0.1, additive_a=0.01)
power = organics.power_spectrum(point, f, noise)
figure, axes = plt.subplots(figsize=(6, 3))
plots.power_spectra(f, power[:, 20:23], labels=["a1", "a2", "a3"], axes=axes)

# %%
# What if the recurrence is not the identity?
# -------------------------------------------
# Then there may be several steady states, or none. A circuit of one pair of neurons with a strong
# recurrent weight has three, which a formula finds.
strong = organics.Circuit(W=[[1.0]], W_r=[[2.0]])
for found in organics.fixed_points_2d(strong, 1.0):
    print(f"y = {found.y:+.4f}  {found.kind}")

# %%
# For more neurons `certify` has no argument to build on, and its kind is "spectral". The
# certificate says so.
general = organics.Circuit.random(jax.random.key(0), 10, 1.0)
drive = organics.random_drive(jax.random.key(1), 10)
print(organics.certify(organics.steady_state(general, drive)))
