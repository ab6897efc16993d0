"""The recurrence of the gated circuit over a sequence: one function, and two ways to compute it.

`recurrence.run` chooses between `scan` (the equations, under `jax.lax.scan`, which the other is
tested against) and `native` (C++, with its backward pass).

A third, `scan` with a backward pass derived by hand whose weight gradients were taken after the
loop, was measured on a CPU and removed: it took as long as JAX's own, and more memory.
"""
