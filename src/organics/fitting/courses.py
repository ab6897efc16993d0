"""Responses after the onset of a stimulus."""

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from organics.circuit.circuit import State
from organics.fitting.model import Model, circuit_of
from organics.rest.system import DrivenCircuit, as_state

_MAX_STEPS = 4096
_ACCURACY = 1e-7  # of a step, relative and absolute


def responses_in_time(
    model: Model, u: Float[Array, " p"], drives: Float[Array, "k n"], times: Float[Array, " t"]
) -> Float[Array, "k t c"]:
    """What the channels show at `times` after the onset of each drive, from rest without drive.

    NaN if the circuit is too fast for the times. By Diffrax, whose forward mode
    `organics.simulate` does not offer.
    """
    arrays = model.parameters.arrays(u)
    circuit = circuit_of(arrays, model.rectified)
    start = jnp.concatenate([jnp.zeros_like(circuit.c), circuit.c])

    def velocity(t, x, driven):
        del t
        return driven.imbalance(x) / driven.time_constants()

    def one(z):
        solution = dfx.diffeqsolve(
            dfx.ODETerm(velocity),
            dfx.Tsit5(),
            t0=0.0,
            t1=times[-1],
            dt0=None,
            y0=start,
            args=DrivenCircuit(circuit, z),
            saveat=dfx.SaveAt(ts=times),
            stepsize_controller=dfx.PIDController(rtol=_ACCURACY, atol=_ACCURACY),
            adjoint=dfx.ForwardMode(),
            max_steps=_MAX_STEPS,
            throw=False,
        )
        assert solution.ys is not None
        path = jnp.where(jnp.isfinite(solution.ys), solution.ys, np.nan)
        return jax.vmap(lambda x: model.readout(State(*as_state(x)), arrays["gain"])[0])(path)

    return jax.vmap(one)(drives)
