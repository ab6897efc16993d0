"""A recurrent layer under a constant input, as a map from one vector of numbers to the next."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from organics.nn import ORGaNICs
from organics.nn.dynamics import velocity_at


class StepMap(eqx.Module):
    """The steps of a layer on its state as one vector, of d numbers.

    Arguments
        layer: a layer with `initial_state`, `step` and a call, as all of `organics.nn` and
            `organics.baselines` that are for sequences; in float64, with `backend="scan"`, which
            has the derivatives.
    """

    layer: Any

    @property
    def start(self) -> Float[Array, " d"]:
        """The state before the first step."""
        return ravel_pytree(self.layer.initial_state())[0]

    def state(self, s: Float[Array, " d"]) -> Any:
        """The state as the layer has it."""
        return ravel_pytree(self.layer.initial_state())[1](s)

    @property
    def kinks(self) -> Bool[np.ndarray, " d"]:
        """Which numbers have a kink of the step at 0: each `y` that is rectified."""
        state = self.layer.initial_state()
        if not (isinstance(self.layer, ORGaNICs) and self.layer.options.rectified):
            return np.zeros(len(self.start), bool)
        none = jax.tree.map(jnp.zeros_like, state)
        marked = tuple(one._replace(y=jnp.ones_like(one.y)) for one in none)
        return np.asarray(ravel_pytree(marked)[0]) > 0

    def __call__(self, x: Float[Array, " m"], s: Float[Array, " d"]) -> Float[Array, " d"]:
        """The state one step after `s`."""
        return ravel_pytree(self.layer.step(x, self.state(s)))[0]

    def imbalance(self, x: Float[Array, " m"], s: Float[Array, " d"]) -> Float[Array, " d"]:
        """What is 0 where a step changes nothing: the change, in ORGaNICs over the step sizes.
        These may follow the state, and be so small that little moves even away from rest."""
        if isinstance(self.layer, ORGaNICs):
            return velocity_at(self.layer, x, self.state(s))
        return self(x, s) - s

    def output(self, s: Float[Array, " d"]) -> Float[Array, " n"]:
        """What the layer gives to the readout in this state."""
        state = self.state(s)
        # the `y` of the topmost circuit; other layers have their output first
        return state[-1].y if isinstance(state, tuple) else state[: self.layer.hidden_size]

    def course(self, x: Float[Array, "time m"]) -> Float[Array, "time d"]:
        """The state after each step of a sequence."""

        def body(s, now):
            s = self(now, s)
            return s, s

        return jax.lax.scan(body, self.start, x)[1]

    def settled(self, x: Float[Array, " m"], s: Float[Array, " d"], steps: int) -> Array:
        """The state after many steps with a constant input."""
        return jax.lax.fori_loop(0, steps, lambda _, s: self(x, s), s)

    def jacobian(self, x: Float[Array, " m"], s: Float[Array, " d"]) -> Float[Array, "d d"]:
        """The derivative of a step."""
        return jax.jacfwd(lambda s: self(x, s))(s)
