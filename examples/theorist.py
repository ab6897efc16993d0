"""A circuit of your own: steady state, certificate, spectrum."""

import jax
import numpy as np

import organics

jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(0)
circuit = organics.Circuit(W=rng.uniform(size=(20, 20)), sigma=0.1, tau_y=10.0, tau_a=2.0)
z = rng.normal(size=20)
linear = organics.stability(circuit, z)  # steady state, eigenvalues, frequencies, damping ratios
steady = linear.steady_state
print(f"residual {steady.residual:.1e}, largest real part {linear.spectral_abscissa:.3f} 1/ms")
certificate = organics.certify(circuit, z, steady)  # constructed, as W_r is the identity
print(organics.verify(circuit, z, steady, certificate.T))  # without trusting how T was found
f = np.linspace(0, 0.2, 201)  # kHz
power = organics.power_spectrum(circuit, z, f, organics.Noise(additive_y=0.1, additive_a=0.01))
print(f"noise in the first modulator neuron peaks at {1000 * f[power[:, 20].argmax()]:.0f} Hz")
