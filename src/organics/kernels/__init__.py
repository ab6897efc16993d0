"""Recurrences over a sequence: one function, and two ways to compute it.

`recurrence.run` chooses between `scan` (the equations, under `jax.lax.scan`, which the other is
tested against) and `native` (C++, with its backward pass). `equations` are those of the gated
circuit; `organics.baselines` has those of the comparison models. In C++ each is a cell, a short
file of `cpp/cells`.

A third, `scan` with a backward pass derived by hand whose weight gradients were taken after the
loop, was measured on a CPU and removed: it took as long as JAX's own, and more memory.
"""
