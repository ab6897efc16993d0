"""The recurrence of the gated circuit over a sequence: one function, and three ways to compute it.

`recurrence.run` chooses among `scan` (the equations, under `jax.lax.scan`, which the others are
tested against), `adjoint` (the same, with a backward pass derived by hand) and `native` (C++).
"""
