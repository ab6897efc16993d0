"""
How many ways to rest has my circuit?
=====================================

With `W_r = I` a circuit rests in one way. With any other recurrence it may have several steady
states, some of them unstable, or none. This is how to list them, to know that the list is complete,
and to see where they come from as contrast grows.
"""

# %%
# One neuron that excites itself strongly.
# Newton's method finds one state, and does not say whether there are others.
import jax
import numpy as np

import organics

jax.config.update("jax_enable_x64", True)
circuit = organics.Circuit(W=[[1.0]], W_r=[[2.0]], sigma=0.2, tau_y=2.0, tau_a=2.0)
z = np.array([1.0])
organics.steady_state(circuit, z)

# %%
# All of them
# -----------
# For one neuron, and for any number that share one pool, the states are the roots of a polynomial,
# so these are all.
found = organics.steady_states(circuit, z)
found

# %%
# Each is an operating point, as every function about a circuit at rest takes it.
for state in found.states:
    print(state.kind, organics.stability(state.point).spectral_abscissa)

# %%
# Two neurons, two stable states
# ------------------------------
# Without `prove` the states are searched for, and the sum of the signs of `det(-J)` tells whether
# some are missing. With it, boxes of intervals are examined until none remains in which another
# state could be. It takes milliseconds for up to four neurons, a second for six.
pair = organics.Circuit(
    W=[[0.67, 0.03], [0.0001, 0.0024]],
    W_r=[[0.18, 0.16], [0.16, 0.94]],
    b=1.0, b0=1.0, sigma=np.sqrt([0.15, 0.026]), tau_y=1.0, tau_a=1.0,
)  # fmt: skip
drive = np.array([-0.2, -0.84])
several = organics.steady_states(pair, drive, prove=True)
several

# %%
# Where do they come from?
# ------------------------
# Every state lies on a branch. Starting from all three, the branches over contrast are followed
# through their folds; several states may lie on one branch.
from organics import plots

starts = [state.point for state in several.states]
diagram = organics.continuation(pair, drive, "z", (0.0, 2.0), start=starts)
plots.bifurcation_diagram(diagram, neuron=1)
diagram

# %%
# Which one will it choose?
# -------------------------
# The one in whose neighbourhood it is. A simulation from each, nudged a little, returns to the
# stable ones and leaves the saddle.
for state in several.states:
    nudged = organics.State(1.001 * state.state.y, state.state.a)
    path = organics.simulate(pair, drive, np.linspace(0, 2000, 3), nudged, until_steady=True)
    print(state.kind, "->", np.asarray(path.state.y)[-1].round(4))
