"""Any Equinox module as a model that the trainer takes."""

import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from organics.models.target import Target
from organics.nn.protocols import Linearization


class Plain(eqx.Module):
    """A module from one input to the outputs that its `target` says.

    Arguments
        module: called with one input, (m,) or (time, m), and where sequences have unequal lengths
            also with the number of steps; returns (outputs,), at every step (time, outputs). What
            it returns for later steps is not used, but it must be finite.
        target: what the outputs are.
    """

    module: Any
    target: Target = eqx.field(static=True)

    def predict(
        self, inputs: Float[Array, "batch ..."], lengths: Int[Array, " batch"] | None = None
    ) -> Float[Array, "batch ..."]:
        """The outputs for each input. Sequences without `lengths` have full length.

        Raises `ValueError` if there are `lengths`, but the module is called with one input.
        """
        if lengths is None and inputs.ndim == 3 and not takes(self.module, 1):
            lengths = jnp.full(len(inputs), inputs.shape[1], jnp.int32)
        if lengths is not None and not takes(self.module, 2):
            raise ValueError("`lengths` must not be given: the module is called with one input.")
        given = (inputs,) if lengths is None else (inputs, lengths)
        return jax.vmap(lambda *one: self.module(*one))(*given)

    def loss(
        self,
        inputs: Float[Array, "batch ..."],
        labels: Num[Array, "batch ..."],
        lengths: Int[Array, " batch"] | None = None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The loss of the target. Raises `ValueError` if the module returns something else."""
        outputs, target = self.predict(inputs, lengths), self.target
        steps = inputs.shape[1:2] if target.at == "every" else ()
        if outputs.shape[1:] != (*steps, target.size):
            what = "scores, one for each class" if target.kind == "classes" else "numbers"
            raise ValueError(
                f"`model` must return {target.size} {what}, of shape {(*steps, target.size)} for "
                f"an input of shape {inputs.shape[1:]}, not {outputs.shape[1:]}."
            )
        return target.loss(outputs, labels, lengths)

    def monitor(self) -> dict[str, Float[Array, ""]]:
        """Empty."""
        return {}

    def diagnose(
        self, inputs: Float[Array, "batch ..."], lengths: Int[Array, " batch"] | None = None
    ) -> dict[str, int | float]:
        """Empty."""
        del inputs, lengths
        return {}

    def circuit_sizes(self) -> list[int]:
        """Empty."""
        return []

    def linearize(self, x: Float[Array, "..."]) -> list[Linearization]:
        """Empty."""
        del x
        return []


def takes(module: Any, count: int) -> bool:
    """Whether a module can be called with so many values; true if there is no telling."""
    try:
        signature = inspect.signature(module)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True
