"""A circuit of your own: steady state, certificate, spectrum."""

import jax
import numpy as np

import organics

jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
circuit = organics.Circuit(W=rng.uniform(size=(20, 20)), sigma=0.1, tau_y=10.0, tau_a=2.0)
z = rng.normal(size=20)
point = organics.steady_state(circuit, z)  # where it rests; knows its circuit and its drive
linear = organics.stability(point)  # eigenvalues, frequencies, damping ratios
print(f"residual {point.residual:.1e}, largest real part {linear.spectral_abscissa:.3f} 1/ms")
certificate = organics.certify(point)  # constructed, as W_r is the identity
print(organics.verify(point, certificate.T))  # without trusting how T was found
f = np.linspace(0, 0.2, 201)  # kHz
power = organics.power_spectrum(point, f, organics.Noise(additive_y=0.1, additive_a=0.01))
print(f"noise in the first modulator neuron peaks at {1000 * f[power[:, 20].argmax()]:.0f} Hz")
