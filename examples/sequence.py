"""A recurrent layer in place of an LSTM, and a certificate of its stability."""

import jax.random as jr

import organics

layer = organics.nn.ORGaNICs(8, 32, recurrent="identity", key=jr.key(0))
x = jr.normal(jr.key(1), (16, 100, 8))  # 16 sequences of 100 steps of 8 inputs
y, _ = layer(x)  # (16, 100, 32); jax.grad works through it, without clipping
_, state = layer(x[0])
circuit, z = organics.nn.circuit_at(layer, x[0, -1], state)  # what it is at the end of x[0]
print(f"{y.shape}, certified: {organics.certify(organics.steady_state(circuit, z)).holds}")
