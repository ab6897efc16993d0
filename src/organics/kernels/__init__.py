"""Recurrences over a sequence: one function, and two ways to compute it.

`recurrence.run` chooses between `scan` and `native`. `scan` runs the equations under
`jax.lax.scan`, and is the reference in tests. `native` is C++, with its own backward pass.
`equations` has those of the gated circuit, `organics.baselines` those of the comparison models. In
C++ each is a cell, a short file in `cpp/cells`.

A third way was measured on a CPU and removed: `scan` with a hand-derived backward pass that formed
the weight gradients after the loop. It took as long as JAX's own, and more memory.
"""
